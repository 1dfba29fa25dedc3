"""Settings and steps of the ensembles of molecular dynamics.

A new ensemble needs a class with the integration step (see `jaxff.md.integrators`) and an entry in
`ENSEMBLES`, which defines the options of the command line.  This module does not import JAX, so
that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.md.ensemble import Ensemble, Thermostat
from jaxff.settings import choice, count, flag, is_traced, number

if TYPE_CHECKING:
    from jaxff.md.barostats import Coupling
    from jaxff.md.ensemble import Number
    from jaxff.md.integrators import Bath, Core, Scheme
    from jaxff.md.rigid import Rigid

# A Nosé-Hoover chain with fewer steps in its relaxation time is unstable.
CHAIN_STEPS = 2.0
# Barostats, and the numbers of axes that they change together.
BAROSTATS = ("rescaling", "monte-carlo")
AXES = {"isotropic": (3,), "semi-isotropic": (2, 1)}


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
    def step(
        force_fn: Callable, state, bath: Bath, t, scheme: Scheme, rigid: Rigid | None = None
    ) -> Any:
        from jaxff.md import integrators

        return integrators.velocity_verlet(force_fn, state, rigid)


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
    def step(
        force_fn: Callable, state, bath: Bath, t, scheme: Scheme, rigid: Rigid | None = None
    ) -> Any:
        from jaxff.md import integrators

        return integrators.langevin(force_fn, state, bath, t, rigid)

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
    def step(
        force_fn: Callable, state, bath: Bath, t, scheme: Scheme, rigid: Rigid | None = None
    ) -> Any:
        from jaxff.md import integrators

        return integrators.nose_hoover(force_fn, state, bath, t, rigid)


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
    def step(
        force_fn: Callable, state, bath: Bath, t, scheme: Scheme, rigid: Rigid | None = None
    ) -> Any:
        from jaxff.md import integrators

        return integrators.csvr(force_fn, state, bath, t, scheme.degrees_of_freedom, rigid)


@dataclass(frozen=True, kw_only=True)
class NPT(Langevin):
    """Constant temperature and pressure: Langevin dynamics with a barostat, in a periodic box.

    The barostat scales the box and the centres of mass of molecules; see `jaxff.md.barostats`.
    Source: Bernetti and Bussi, J. Chem. Phys. 153, 114107 (2020), for the barostat "rescaling".

    Attributes:
        temperature: K; one number, or one for each replica.
        pressure: bar.
        barostat: "rescaling" (stochastic cell rescaling) or "monte-carlo" (attempted changes of the
            volume).
        scaling: "isotropic" or "semi-isotropic" (x and y together, z independently).
        pressure_relaxation: relaxation time of the volume with "rescaling", fs.
        compressibility: estimate of the isothermal compressibility, 1/bar.  Only the relaxation of
            the volume depends on it (default: water).
        barostat_every: number of steps between changes of the box.
        friction: 1/ps.
        dt: time step, fs.
        final_temperature: see `Thermostat`.

    Raises:
        InputError: a number out of its range, or an unknown barostat or scaling.
    """

    name: ClassVar[str] = "npt"
    reversible: ClassVar[bool] = False

    pressure: Number = number(1.0, "bar", least=0.0, text="pressure")
    barostat: str = choice("rescaling", BAROSTATS, text="barostat")
    scaling: str = choice("isotropic", tuple(AXES), text="axes that change together")
    pressure_relaxation: Number = number(
        1000.0, "fs", above=0.0, text="relaxation time of the volume"
    )
    compressibility: Number = number(4.5e-5, "1/bar", above=0.0, text="estimated compressibility")
    barostat_every: int = count(10, text="steps between changes of the box")

    @property
    def coupling(self) -> Coupling | None:
        from jaxff.md.barostats import Coupling

        return Coupling(self.barostat, AXES[self.scaling], self.barostat_every)

    def bath(self, steps: int, dtype, replicas: int | None = None, first: int = 0) -> Bath:
        import jax.numpy as jnp

        from jaxff.md.barostats import Pressure

        bath = super().bath(steps, dtype, replicas, first)
        fraction = self.barostat_every * self.dt / self.pressure_relaxation
        values = self.pressure * units.BAR, self.compressibility / units.BAR * fraction
        values = (jnp.broadcast_to(jnp.asarray(x, dtype), bath.kT.shape) for x in values)
        return bath._replace(barostat=Pressure(*values))


ENSEMBLES: dict[str, type[Ensemble]] = {
    ensemble.name: ensemble for ensemble in (NVE, Langevin, NoseHoover, CSVR, NPT)
}
