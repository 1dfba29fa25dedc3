"""States of simulations: the initial state, and the state to continue from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.md import lists
from jaxff.md import origin as origins
from jaxff.md.barostats import Cell
from jaxff.md.ensembles import Ensemble
from jaxff.md.integrators import Bath, Core, Scheme, scaled_masses
from jaxff.md.motion import (
    check_motion,
    degrees_of_freedom,
    forces,
    invariance_in_box,
    invariances,
    starting_velocities,
    vectors,
)
from jaxff.md.rigid import Rigid, dynamic_masses
from jaxff.md.settings import Start
from jaxff.molecule import Molecule
from jaxff.npz import digest
from jaxff.potential import Potential


@dataclass(frozen=True)
class State:
    """State of one molecule or R replicas from which `simulate` can continue.

    Attributes:
        scheme: ensemble and other choices that determine the compiled code.
        dt: time step, fs.
        step: number of steps since the start.
        degrees_of_freedom: () or (R,) number of degrees of freedom with kinetic energy.
        potential: fingerprint of the potential.
        invariant: whether translation of the molecule leaves the energy unchanged, and whether
            rotation does.
        dynamics: state of jax-md, with positions relative to `origin`.
        origin: (3,) or (R, 3) integers, see `jaxff.md.origin`; zero in float64 and in boxes.
        cell: the periodic box, or None.
        neighbor: neighbour list of the potential, or None.
        rebuilds: number of times that the neighbour list was built during the steps.
    """

    scheme: Scheme
    dt: float
    step: int
    degrees_of_freedom: np.ndarray
    potential: str
    invariant: tuple[bool, bool]
    dynamics: Any
    origin: Any
    cell: Cell | None = None
    neighbor: Any = None
    rebuilds: int = 0

    @property
    def replicas(self) -> int | None:
        """Number of replicas, or None without an axis of replicas."""
        position = self.dynamics.position
        return len(position) if position.ndim == 3 else None

    @property
    def positions(self) -> np.ndarray:
        """Absolute positions (N, 3) or (R, N, 3), Å, in float64."""
        return origins.absolute(self.dynamics.position, self.origin)

    @property
    def box(self) -> np.ndarray | None:
        """Box (3, 3) or (R, 3, 3) Å in float64, lattice vectors as rows; None in vacuum."""
        return None if self.cell is None else np.asarray(self.cell.box, float)

    @property
    def velocities(self) -> np.ndarray:
        """Velocities (N, 3) or (R, N, 3), Å/fs, in float64."""
        return np.asarray(self.dynamics.velocity, float) / self.dt


def first_state(
    potential: Potential, molecule: Any, ensemble: Ensemble, start: Start, bath: Bath
) -> State:
    """Return the state at step 0, in the precision of the potential.

    Args:
        potential: the potential, in the atom order of the molecule.
        molecule: a molecule, or a system in a box.
        ensemble: settings of the ensemble.
        start: positions, velocities, replicas and seed.
        bath: settings of the thermostat.

    Raises:
        InputError: an array has a wrong shape or is not finite, the thermostat would scale
            velocities that are zero, or the ensemble needs a box.
    """
    dtype, n_atoms, replicas = potential.dtype, molecule.n_atoms, start.replicas
    positions = molecule.positions if start.positions is None else start.positions
    positions = vectors("positions", positions, n_atoms, replicas)
    rigid, weights = Rigid.of(molecule), dynamic_masses(molecule)
    if rigid is not None:
        positions = rigid.starts(positions, weights)
    cell, neighbor = surroundings(potential, molecule, ensemble, positions, replicas)
    if cell is None:
        invariant = invariances(potential, positions)
    else:
        one = jax.tree.map(lambda x: x if replicas is None else x[0], (cell, neighbor))
        invariant = invariance_in_box(
            lambda R: forces(potential, jnp.asarray(R, dtype), *one),
            positions.reshape(-1, n_atoms, 3)[0],
        )
    velocities = starting_velocities(molecule, ensemble, positions, start, invariant, rigid)
    freedom = degrees_of_freedom(
        molecule.masses, ensemble, positions, velocities, invariant,
        0 if rigid is None else rigid.count,
    )  # fmt: skip
    if ensemble.scales_velocities:
        check_motion(molecule, ensemble, velocities, invariant, freedom)
    single = jnp.finfo(dtype).bits < 64
    scheme = Scheme(
        type(ensemble), move_origin=invariant[0] and single and cell is None,
        periodic=cell is not None, coupling=ensemble.coupling,
    )  # fmt: skip
    if ensemble.scales_velocities:
        scheme = scheme._replace(
            degrees_of_freedom=int(freedom.min()),
            remove_motion=invariant[cell is None] and n_atoms > 1,
        )
    origin = np.zeros(positions[..., 0, :].shape, np.int32)
    if scheme.move_origin:
        origin = origins.nearest(positions)
    R = jnp.asarray(origins.relative(positions, origin), dtype)
    displacements = jnp.asarray(velocities * ensemble.dt, dtype)
    masses = jnp.asarray(scaled_masses(weights, ensemble.dt), dtype)[:, None]
    masses = jnp.broadcast_to(masses, (*R.shape[:-2], *masses.shape))
    core = Core(R, masses * displacements, forces(potential, R, cell, neighbor), masses)
    build = partial(type(ensemble).initial_state, scheme=scheme)
    if replicas is None:
        keys = jax.random.key(start.seed)
    else:
        seeds = np.array([start.seed + r for r in range(replicas)])
        keys = jax.vmap(jax.random.key)(seeds)
        build = jax.vmap(build)
    dynamics = build(core, keys, bath)
    return State(
        scheme, float(ensemble.dt), 0, freedom, fingerprint(potential), invariant, dynamics,
        jnp.asarray(origin), cell, neighbor,
    )  # fmt: skip


def surroundings(
    potential: Potential, molecule: Any, ensemble: Ensemble, positions, replicas: int | None
) -> tuple[Cell | None, Any]:
    """Return the box and the neighbour list at the start, or None and None in vacuum.

    Args:
        potential: the potential.
        molecule: a molecule, or a system in a box.
        ensemble: settings of the ensemble.
        positions: (N, 3) or (R, N, 3) Å.
        replicas: number R of replicas, or None for one system.

    Raises:
        InputError: the ensemble or the potential needs a box.
    """
    box = getattr(molecule, "box", None)
    if box is None:
        if ensemble.coupling is not None:
            raise InputError(
                f"{ensemble.name} changes a box, but {molecule.name or 'the molecule'} has "
                "none: give a system in a box, or choose another ensemble"
            )
        return None, None
    cell = Cell.of(box, replicas, potential.dtype)
    return cell, lists.built(potential, jnp.asarray(positions, potential.dtype), cell.box)


def continued_state(
    state: State, potential: Potential, molecule: Molecule, ensemble: Ensemble
) -> State:
    """Return the state to continue from, with the forces of a potential.

    Args:
        state: the last state of a simulation.
        potential: the potential, in the atom order of the molecule; it may be a new one.
        molecule: elements and masses.
        ensemble: settings of the ensemble.

    Raises:
        InputError: ensemble, time step, atoms, precision or invariance are not those of `state`.
    """
    n_atoms = state.dynamics.position.shape[-2]
    for name, old, new in (
        ("ensemble", state.scheme.ensemble.name, ensemble.name),
        ("dt", state.dt, ensemble.dt),
        ("number of atoms", n_atoms, molecule.n_atoms),
        ("precision", state.dynamics.position.dtype, potential.dtype),
        ("barostat", state.scheme.coupling, ensemble.coupling),
    ):
        if old != new:
            raise InputError(
                f"the state to continue from has {name} {old}, not {new}; to change the {name}, "
                "start a new simulation from the positions and velocities of the state"
            )
    masses = np.asarray(state.dynamics.mass, float).reshape(-1, n_atoms)
    wanted = scaled_masses(dynamic_masses(molecule), ensemble.dt)
    if not np.allclose(masses, wanted, rtol=1e-5, atol=0.0):
        raise InputError(
            "the state to continue from has other atoms or another atom order; give the molecule "
            "of the state"
        )
    checksum = fingerprint(potential)
    if checksum == state.potential:
        return state  # its forces are those of the last step to the last bit
    neighbor = None
    if state.cell is None:
        if invariances(potential, state.positions) != state.invariant:
            raise InputError(
                "the potential of the state and the new one differ in their invariance to "
                "translation or rotation; start a new simulation from the positions and velocities "
                "of the state"
            )
    else:
        neighbor = lists.built(potential, state.dynamics.position, state.cell.box)
    force = forces(potential, state.dynamics.position, state.cell, neighbor)
    dynamics = state.dynamics.set(force=force)
    return replace(state, potential=checksum, dynamics=dynamics, neighbor=neighbor)


def arrays_of(state: State) -> Any:
    """The arrays of a state from which `restored` makes the same state again.

    A neighbour list is described by the positions and the box at which it was built.
    """
    arrays = (state.dynamics, state.origin)
    if state.cell is None:
        return arrays
    neighbor = state.neighbor
    reference = None if neighbor is None else (neighbor.positions, neighbor.box)
    return *arrays, state.cell, reference


def restored(state: State, contents: Mapping[str, Any]) -> State:
    """The state in a restart file.

    Args:
        state: the state at the start of the simulation.
        contents: "arrays" of `arrays_of`, "step", "capacity" and "rebuilds".
    """
    dynamics, origin, *rest = contents["arrays"]
    state = replace(state, dynamics=dynamics, origin=origin, step=contents["step"])
    if not rest:
        return state
    cell, reference = rest
    neighbor = state.neighbor
    if reference is not None:
        # The same pairs in the same order give the same forces to the last bit.
        neighbor = lists.renewed(neighbor, *reference, capacity=contents["capacity"])
    return replace(state, cell=cell, neighbor=neighbor, rebuilds=contents["rebuilds"])


def fingerprint(potential: Potential) -> str:
    """Checksum of the terms and parameters, which is the same in every process."""
    terms = []
    for placed in potential.program.placed:
        term: Any = placed.term
        values = [_field(getattr(term, item.name)) for item in fields(term)]
        terms.append((placed.name, term.kind, _field(placed.atoms), values))
    return f"terms and parameters md5 {digest(terms, potential.params)}"


def _field(value):
    """Describe a field of a term by arrays and text, and functions by their names."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, partial):
        return [_field(value.func), repr(value.args), repr(value.keywords)]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)
