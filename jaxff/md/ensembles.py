"""Settings and steps of the ensembles of molecular dynamics.

A new ensemble needs a class with the integration step (see `jaxff.md.integrators`) and an entry in
`ENSEMBLES`, which defines the options of the command line.  This module does not import JAX, so
that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.settings import Settings, flag, is_traced, number

if TYPE_CHECKING:
    import jax

    from jaxff.md.integrators import Bath, Core, Scheme

    Number = float | np.ndarray | jax.Array
    Temperature = Number | Sequence[float]

# A Nosé-Hoover chain with fewer steps in its relaxation time is unstable.
CHAIN_STEPS = 2.0


@dataclass(frozen=True)
class Ensemble(Settings):
    """Settings of all ensembles.

    Numbers may be JAX tracers; their range is then not checked.

    Attributes:
        temperature: K; one number, or one for each replica.
        dt: time step, fs.
        name: name on the command line and in files.
        conserves_energy: whether exact dynamics conserve the total energy.
        conserves_momentum: whether a step conserves the direction of the total momentum.
        scales_velocities: whether the thermostat scales all velocities by one factor.
        reversible: whether `rollout` can differentiate the dynamics.

    Raises:
        InputError: a number out of its range.
    """

    name: ClassVar[str]
    conserves_energy: ClassVar[bool] = False
    conserves_momentum: ClassVar[bool] = True
    scales_velocities: ClassVar[bool] = False
    reversible: ClassVar[bool] = False

    temperature: Temperature = number(
        300.0, "K", least=0.0, several=True, text="temperature; one, or one for each replica"
    )
    _: KW_ONLY
    dt: Number = number(0.5, "fs", above=0.0, text="time step")

    @property
    def last_temperature(self) -> Any:
        """Temperature at the last step, K; one number, or one for each replica."""
        return self.temperature

    @property
    def removes_rotation(self) -> bool:
        """Whether rotation of a free molecule as a whole is removed."""
        return self.scales_velocities

    @property
    def rate(self) -> Any:
        """Rate of the thermostat, () 1/fs; 0 without a thermostat."""
        return 0.0

    def settings(self) -> dict[str, Any]:
        """The name and all settings as JSON values."""
        return {"ensemble": self.name, **asdict(self)}

    def temperatures(self, replicas: int | None) -> tuple[Any, Any]:
        """Temperatures at the first and at the last step, each () or (R,) K.

        Args:
            replicas: number R of replicas, or None for one molecule.

        Raises:
            InputError: the numbers of temperatures and replicas differ.
        """
        both = self.temperature, self.last_temperature
        shape = () if replicas is None else (replicas,)
        for value in both:
            if np.size(value) > 1 and np.shape(value) != shape:
                need = (
                    "one molecule: give one temperature, or set replicas" if replicas is None
                    else f"{replicas} replicas: give one temperature, or one for each replica"
                )  # fmt: skip
                raise InputError(f"there are {np.size(value)} temperatures for {need}")
        if any(map(is_traced, both)):
            import jax.numpy as jnp

            first, last = (jnp.broadcast_to(jnp.asarray(x, float), shape) for x in both)
        else:
            first, last = (np.broadcast_to(np.asarray(x, float), shape) for x in both)
        return first, last

    def bath(self, steps: int, dtype, replicas: int | None = None, first: int = 0) -> Bath:
        """Return the settings of the thermostat as arrays.

        Args:
            steps: number of steps from the first to the last temperature.
            dtype: type of the arrays.
            replicas: number of replicas, or None for one molecule.
            first: number of the step with the first temperature.

        Raises:
            InputError: the numbers of temperatures and replicas differ.
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
        """Return the initial state of jax-md.

        Args:
            core: positions, momenta, forces and masses.
            key: JAX random key.
            bath: settings of the thermostat.
            scheme: choices that determine the compiled code.
        """
        from jaxff.md import integrators

        return integrators.state_with_key(core, key)

    @staticmethod
    def step(force_fn: Callable, state, bath: Bath, t, scheme: Scheme) -> Any:
        """Return the state of jax-md after one step.

        Args:
            force_fn: function from positions (N, 3) Å to forces (N, 3) kcal/mol/Å.
            state: the present state of jax-md.
            bath: settings of the thermostat.
            t: () integer, number of earlier steps.
            scheme: choices that determine the compiled code.
        """
        raise NotImplementedError

    @staticmethod
    def inverse_scale(bath: Bath) -> Any:
        """Inverse () of the factor by which a reversible step scales momenta."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class NVE(Ensemble):
    """Constant energy by velocity Verlet.

    The motion of the centre of mass is removed from random initial velocities, but not from those
    of `Start.velocities`.  A free molecule of N atoms has 3N − 3 degrees of freedom, or 3N − 6 if
    the rotation is removed.

    Attributes:
        temperature: temperature of random initial velocities, K.
        dt: time step, fs.
        remove_rotation: whether to remove the rotation from random initial velocities.
    """

    name: ClassVar[str] = "nve"
    conserves_energy: ClassVar[bool] = True
    reversible: ClassVar[bool] = True

    remove_rotation: bool = flag(False, "remove the rotation of random initial velocities")

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
    """Settings of all thermostats.

    Attributes:
        final_temperature: temperature of the last step, K; it changes at a constant rate.  One
            number, or one for each replica (None: constant temperature).
    """

    final_temperature: Temperature | None = number(
        None, "K", least=0.0, several=True,
        text="temperature of the last step, reached at a constant rate",
    )  # fmt: skip

    @property
    def last_temperature(self) -> Any:
        return self.temperature if self.final_temperature is None else self.final_temperature


@dataclass(frozen=True, kw_only=True)
class Langevin(Thermostat):
    """Constant temperature by Langevin dynamics with the BAOAB splitting.

    A molecule of N atoms has 3N degrees of freedom.
    Source: Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34.

    Attributes:
        temperature: K; one number, or one for each replica.
        friction: 1/ps; 1 perturbs the motion little, 10 equilibrates faster.
        dt: time step, fs.
        final_temperature: see `Thermostat`.
    """

    name: ClassVar[str] = "langevin"
    conserves_momentum: ClassVar[bool] = False
    reversible: ClassVar[bool] = True

    friction: Number = number(1.0, "1/ps", least=0.0, text="friction")

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
    """A thermostat that scales all velocities by one factor, with velocity Verlet.

    Scaling does not change the directions of total momentum and angular momentum.  For a free
    molecule both are therefore removed, which leaves 3N − 6 degrees of freedom (1 for two atoms).
    In a field that depends on the orientation, only the momentum is removed, which leaves 3N − 3.
    In a field that depends on the position, nothing is removed and 3N remain.
    """

    scales_velocities: ClassVar[bool] = True

    relaxation: Number = number(100.0, "fs", above=0.0, text="relaxation time")

    @property
    def rate(self) -> Any:
        return 1.0 / self.relaxation


@dataclass(frozen=True, kw_only=True)
class NoseHoover(_Scaling):
    """Constant temperature by a chain of three Nosé-Hoover thermostats.

    A free molecule of N atoms has 3N − 6 degrees of freedom.
    Source: Martyna, Klein and Tuckerman, J. Chem. Phys. 97, 2635 (1992).

    Attributes:
        temperature: K, above 0; one number, or one for each replica.
        relaxation: relaxation time of the chain, fs; at least two time steps.
        dt: time step, fs.
        final_temperature: see `Thermostat`; above 0 K.

    Raises:
        InputError: a number out of its range.
    """

    name: ClassVar[str] = "nose-hoover"

    def __post_init__(self):
        super().__post_init__()
        values = [self.temperature, self.last_temperature, self.relaxation, self.dt]
        if any(map(is_traced, values)):
            return
        if not all(np.all(value) for value in values[:2]):
            raise InputError(
                "nose-hoover needs temperatures above 0 K at the start and at the end, got "
                f"{values[0]} and {values[1]} K"
            )
        if self.relaxation < CHAIN_STEPS * self.dt:
            raise InputError(
                f"relaxation is {self.relaxation} fs, but a Nosé-Hoover chain needs at least "
                f"{CHAIN_STEPS:g} time steps ({CHAIN_STEPS * self.dt:g} fs); use about 100 fs"
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
    """Constant temperature by stochastic velocity rescaling.

    A free molecule of N atoms has 3N − 6 degrees of freedom.
    Source: Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007).

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
