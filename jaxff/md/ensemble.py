"""The base classes of the ensembles of molecular dynamics.

This module does not import JAX, so that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxff import units
from jaxff.errors import InputError
from jaxff.settings import Settings, is_traced, number

if TYPE_CHECKING:
    import jax

    from jaxff.md.barostats import Coupling
    from jaxff.md.integrators import Bath, Core, Scheme
    from jaxff.md.rigid import Rigid

    Number = float | np.ndarray | jax.Array
    Temperature = Number | Sequence[float]


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

    @property
    def coupling(self) -> Coupling | None:
        """Choices of the barostat; None at constant volume."""
        return None

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
        kT, heating, rate = (jnp.broadcast_to(jnp.asarray(x, dtype), begin.shape) for x in values)
        return Bath(kT, heating, rate)

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
    def step(
        force_fn: Callable, state, bath: Bath, t, scheme: Scheme, rigid: Rigid | None = None
    ) -> Any:
        """Return the state of jax-md after one step.

        Args:
            force_fn: function from positions (N, 3) Å to forces (N, 3) kcal/mol/Å.
            state: the present state of jax-md.
            bath: settings of the thermostat.
            t: () integer, number of earlier steps.
            scheme: choices that determine the compiled code.
            rigid: constraints and virtual sites, or None.
        """
        raise NotImplementedError

    @staticmethod
    def inverse_scale(bath: Bath) -> Any:
        """Inverse () of the factor by which a reversible step scales momenta."""
        return 1.0


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
