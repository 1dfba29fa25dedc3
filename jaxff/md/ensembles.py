"""Ensembles of molecular dynamics: their settings and their steps.

A new ensemble is one class here with its integration step (see `jaxff.md.integrators`) and one
entry in `ENSEMBLES`, from which the command line takes its choices and options.  This module
imports no JAX, so that the command line can read it quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.md.settings import checked_number, is_traced

if TYPE_CHECKING:
    import jax

    from jaxff.md.integrators import Bath, Core, Scheme

    Number = float | np.ndarray | jax.Array
    Temperature = Number | Sequence[float]

# A Nosé-Hoover chain with fewer steps in its relaxation time is unstable.
CHAIN_STEPS = 2.0


def _about(unit: str, text: str, *, positive: bool = False) -> dict[str, Any]:
    """Unit, help text and range of a setting."""
    return {"unit": unit, "help": text, "positive": positive}


@dataclass(frozen=True)
class Ensemble:
    """Settings that all ensembles have.

    Numbers may be traced by JAX; their range is then not checked.

    Attributes:
        temperature: K; one number, or one for each replica.
        dt: time step, fs.
        name: name on the command line and in files.
        conserves_energy: whether exact dynamics conserve the total energy.
        conserves_momentum: whether a step conserves the direction of the total momentum.
        scales_velocities: whether the thermostat scales all velocities by one factor.
        reversible: whether `rollout` can differentiate the dynamics.
    """

    name: ClassVar[str]
    conserves_energy: ClassVar[bool] = False
    conserves_momentum: ClassVar[bool] = True
    scales_velocities: ClassVar[bool] = False
    reversible: ClassVar[bool] = False

    temperature: Temperature = field(
        default=300.0, metadata=_about("K", "temperature; one, or one for each replica")
    )
    _: KW_ONLY
    dt: Number = field(default=0.5, metadata=_about("fs", "time step", positive=True))

    def __post_init__(self):
        for item in fields(self):
            value = getattr(self, item.name)
            if "unit" in item.metadata and value is not None:
                several = item.name.endswith("temperature")
                unit, positive = item.metadata["unit"], item.metadata["positive"]
                value = checked_number(item.name, value, unit, positive=positive, several=several)
                object.__setattr__(self, item.name, value)

    @property
    def last_temperature(self) -> Any:
        """Temperature K at the last step; one number, or one for each replica."""
        return self.temperature

    @property
    def removes_rotation(self) -> bool:
        """Whether a free molecule must not rotate as a whole."""
        return self.scales_velocities

    @property
    def rate(self) -> Any:
        """Rate () 1/fs of the thermostat; 0 without one."""
        return 0.0

    def settings(self) -> dict[str, Any]:
        """The name and all settings, as values that JSON can hold."""
        return {"ensemble": self.name, **asdict(self)}

    def temperatures(self, replicas: int | None) -> tuple[Any, Any]:
        """Temperatures K at the first and at the last step.

        Args:
            replicas: number R of replicas, or None for one molecule.

        Returns:
            two arrays, () or (R,); NumPy's unless a temperature is traced.

        Raises:
            InputError: another number of temperatures than replicas.
        """
        both = self.temperature, self.last_temperature
        shape = () if replicas is None else (replicas,)
        for value in both:
            if np.size(value) > 1 and np.shape(value) != shape:
                need = (
                    "one molecule: give one, or set replicas" if replicas is None
                    else f"{replicas} replicas: give one, or one for each replica"
                )  # fmt: skip
                raise InputError(f"there are {np.size(value)} temperatures for {need}")
        if any(map(is_traced, both)):
            import jax.numpy as jnp

            first, last = (jnp.broadcast_to(jnp.asarray(x, float), shape) for x in both)
        else:
            first, last = (np.broadcast_to(np.asarray(x, float), shape) for x in both)
        return first, last

    def bath(self, steps: int, dtype, replicas: int | None = None, first: int = 0) -> Bath:
        """The thermostat as arrays for compiled code.

        Args:
            steps: number of steps from the first to the last temperature.
            dtype: type of the numbers.
            replicas: number of replicas, or None for one molecule without that axis.
            first: number of the step that has the first temperature.
        """
        import jax.numpy as jnp

        from jaxff.md.integrators import Bath

        begin, end = self.temperatures(replicas)
        heating = (end - begin) / steps
        values = (
            units.BOLTZMANN * (begin - heating * first),
            units.BOLTZMANN * heating,
            self.rate * self.dt,
        )
        return Bath(*(jnp.broadcast_to(jnp.asarray(x, dtype), begin.shape) for x in values))

    @staticmethod
    def initial_state(core: Core, key, bath: Bath, scheme: Scheme) -> Any:
        """jax-md's state of positions, momenta, forces and masses.

        Args:
            core: positions (N, 3) Å, momenta (N, 3), forces (N, 3) and masses (N, 1), scaled.
            key: JAX random key.
            bath: settings of the thermostat.
            scheme: static choices.
        """
        from jaxff.md import integrators

        return integrators.state_with_key(core, key)

    @staticmethod
    def step(force_fn: Callable, state, bath: Bath, t, scheme: Scheme) -> Any:
        """jax-md's state after one step.

        Args:
            force_fn: positions (N, 3) Å to forces (N, 3) kcal/mol/Å.
            state: jax-md's state.
            bath: settings of the thermostat.
            t: () integer, steps since the start of the simulation.
            scheme: static choices.
        """
        raise NotImplementedError

    @staticmethod
    def inverse_scale(bath: Bath) -> Any:
        """Factor () that undoes the scaling of momenta in a step of reversible dynamics."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class NVE(Ensemble):
    """Constant energy: velocity Verlet.

    Velocities that are drawn lose the motion of the centre of mass, and with `remove_rotation`
    the rotation; velocities that are given are used unchanged.  A free molecule has 3N - 3 degrees
    of freedom, without rotation 3N - 6.

    Attributes:
        temperature: K, of the velocities that are drawn.
        dt: time step, fs.
        remove_rotation: remove the rotation from velocities that are drawn.
    """

    name: ClassVar[str] = "nve"
    conserves_energy: ClassVar[bool] = True
    reversible: ClassVar[bool] = True

    remove_rotation: bool = field(default=False, metadata={"help": "start without rotation"})

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "remove_rotation", bool(self.remove_rotation))

    @property
    def removes_rotation(self) -> bool:
        return self.remove_rotation

    @staticmethod
    def initial_state(core: Core, key, bath: Bath, scheme: Scheme) -> Any:
        from jaxff.md import integrators

        return integrators.plain_state(core)

    @staticmethod
    def step(force_fn: Callable, state, bath: Bath, t, scheme: Scheme) -> Any:
        from jaxff.md import integrators

        return integrators.velocity_verlet(force_fn, state)


@dataclass(frozen=True, kw_only=True)
class Thermostat(Ensemble):
    """Settings that all thermostats have.

    Attributes:
        final_temperature: K, reached at a constant rate at the last step; one number, or one for
            each replica.  None: the temperature is constant.
    """

    final_temperature: Temperature | None = field(
        default=None,
        metadata=_about("K", "temperature of the last step, reached at a constant rate"),
    )

    @property
    def last_temperature(self) -> Any:
        return self.temperature if self.final_temperature is None else self.final_temperature


@dataclass(frozen=True, kw_only=True)
class Langevin(Thermostat):
    """Constant temperature: Langevin dynamics, BAOAB splitting.

    All 3N degrees of freedom have the temperature.  Leimkuhler and Matthews, Appl. Math. Res.
    Express 2013, 34.

    Attributes:
        temperature: K; one number, or one for each replica.
        friction: 1/ps; 1 disturbs the motion little, 10 equilibrates faster.
        dt: time step, fs.
        final_temperature: see `Thermostat`.
    """

    name: ClassVar[str] = "langevin"
    conserves_momentum: ClassVar[bool] = False
    reversible: ClassVar[bool] = True

    friction: Number = field(default=1.0, metadata=_about("1/ps", "friction"))

    @property
    def rate(self) -> Any:
        return self.friction / 1000.0

    @staticmethod
    def step(force_fn: Callable, state, bath: Bath, t, scheme: Scheme) -> Any:
        from jaxff.md import integrators

        return integrators.langevin(force_fn, state, bath, t)

    @staticmethod
    def inverse_scale(bath: Bath) -> Any:
        import jax.numpy as jnp

        return jnp.exp(bath.rate)


@dataclass(frozen=True, kw_only=True)
class _Scaling(Thermostat):
    """A thermostat that scales all velocities by one factor, on velocity Verlet.

    The factor never changes the direction of the total momentum or angular momentum.  A free
    molecule therefore starts without either and has 3N - 6 degrees of freedom (1 for two atoms).
    If the energy depends on the orientation only, the molecule starts without total momentum and
    has 3N - 3; if it depends on the place of the molecule, nothing is removed and it has 3N.
    """

    scales_velocities: ClassVar[bool] = True

    relaxation: Number = field(
        default=100.0, metadata=_about("fs", "relaxation time", positive=True)
    )

    @property
    def rate(self) -> Any:
        return 1.0 / self.relaxation


@dataclass(frozen=True, kw_only=True)
class NoseHoover(_Scaling):
    """Constant temperature: a chain of three Nosé-Hoover thermostats.

    Martyna, Klein and Tuckerman, J. Chem. Phys. 97, 2635 (1992).  A free molecule has 3N - 6
    degrees of freedom.

    Attributes:
        temperature: K, above 0; one number, or one for each replica.
        relaxation: relaxation time of the chain, fs; at least two time steps.
        dt: time step, fs.
        final_temperature: see `Thermostat`; above 0 K.
    """

    name: ClassVar[str] = "nose-hoover"

    def __post_init__(self):
        super().__post_init__()
        values = [self.temperature, self.last_temperature, self.relaxation, self.dt]
        if any(map(is_traced, values)):
            return
        if not all(np.all(value) for value in values[:2]):
            raise InputError("nose-hoover needs temperatures above 0 K at the start and at the end")
        if self.relaxation < CHAIN_STEPS * self.dt:
            raise InputError(
                f"relaxation is {self.relaxation} fs: a Nosé-Hoover chain needs at least "
                f"{CHAIN_STEPS:g} time steps ({CHAIN_STEPS * self.dt:g} fs); about 100 fs "
                "disturb the motion little"
            )

    @staticmethod
    def initial_state(core: Core, key, bath: Bath, scheme: Scheme) -> Any:
        from jaxff.md import integrators

        return integrators.state_with_chain(core, bath, scheme.degrees_of_freedom)

    @staticmethod
    def step(force_fn: Callable, state, bath: Bath, t, scheme: Scheme) -> Any:
        from jaxff.md import integrators

        return integrators.nose_hoover(force_fn, state, bath, t)


@dataclass(frozen=True, kw_only=True)
class CSVR(_Scaling):
    """Constant temperature: stochastic velocity rescaling.

    Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007).  A free molecule has 3N - 6
    degrees of freedom.

    Attributes:
        temperature: K; one number, or one for each replica.
        relaxation: relaxation time of the kinetic energy, fs.
        dt: time step, fs.
        final_temperature: see `Thermostat`.
    """

    name: ClassVar[str] = "csvr"

    @staticmethod
    def step(force_fn: Callable, state, bath: Bath, t, scheme: Scheme) -> Any:
        from jaxff.md import integrators

        return integrators.csvr(force_fn, state, bath, t, scheme.degrees_of_freedom)


ENSEMBLES: dict[str, type[Ensemble]] = {
    ensemble.name: ensemble for ensemble in (NVE, Langevin, NoseHoover, CSVR)
}
