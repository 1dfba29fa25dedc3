"""The objective of a fit, as a function of moves.

A move is the change of a free parameter divided by the scale of this parameter.  There are P free
parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxff.dataset import Dataset
from jaxff.learn.ensemble import Ensemble, Ensembles, EnsembleTarget
from jaxff.learn.joint import Group, Joint, groups
from jaxff.learn.targets import Target
from jaxff.padding import ghost_positions, with_ghosts
from jaxff.parameters import FreeParameters
from jaxff.potential import Program

MEMORY = 3e8  # bytes of Jacobians at once
FRAMES = (32, 256)  # frames at once without Jacobians, of small and of large data sets
EXPENSIVE = 1e10  # flops of the normal equations above which a fit starts with fewer frames
COMPONENTS = 8.0  # least number of force components per parameter in these frames


class Frames(NamedTuple):
    """Frames of one molecule, padded with ghosts to the n atoms of its group.

    Attributes:
        R: (M, n, 3) positions, Å.
        E: (M,) energies, kcal/mol.
        F: (M, n, 3) forces, kcal/mol/Å.
        weight: (M,) 1, or 0 for frames that only fill the last chunk.
    """

    R: jax.Array
    E: jax.Array
    F: jax.Array
    weight: jax.Array


class Problem:
    """Molecules, their frames and targets, and the free parameters of a fit.

    Args:
        joint: the potentials of the molecules, with common tables.
        data: frames of each molecule in the atom order of its potential, or None.
        trainable: patterns of parameter names, see `FreeParameters.of`.
        targets: further targets of each molecule.

    Raises:
        InputError: no parameter is free.
    """

    def __init__(
        self,
        joint: Joint,
        data: Sequence[Dataset | None],
        trainable: Sequence[str] | None = None,
        targets: Sequence[Sequence[Target]] = (),
    ):
        self.joint = joint
        self.data = tuple(
            _no_frames(program) if frames is None else frames
            for frames, program in zip(data, joint.programs, strict=True)
        )
        self.free = FreeParameters.of(joint.first, trainable, other_programs=joint.programs[1:])
        self.start, self.unravel = ravel_pytree(self.free.no_moves())
        self.groups = tuple(groups(joint.programs))
        self.targets = [
            jax.jit(partial(self._target_residuals, target, program))
            for of_molecule, program in zip(targets, joint.programs, strict=False)
            for target in of_molecule
            if not isinstance(target, EnsembleTarget)
        ]
        self.ensembles = Ensembles(self._ensembles(targets))
        self.n_frames = max(sum(map(len, self.data)), 1)
        self.n_forces = max(sum(frames.forces.size for frames in self.data), 1)

    # -- pieces ---------------------------------------------------------------------------

    def _target_residuals(self, target: Target, program, vector):
        return target.residuals(program, self.free.params(self.unravel(vector)))

    def _ensembles(self, targets: Sequence[Sequence[Target]]) -> Iterator[Ensemble]:
        """Yield all ensembles; targets that share the same `Sampling` object form one ensemble."""
        for k, of_molecule in enumerate(targets):
            kinds = [target for target in of_molecule if isinstance(target, EnsembleTarget)]
            for sampling in dict.fromkeys(target.sampling for target in kinds):
                alike = tuple(target for target in kinds if target.sampling is sampling)

                def made(params, k=k):
                    return self.joint.potentials(params)[k]

                program = self.joint.programs[k]
                yield Ensemble(sampling, alike, program, self.free, self.unravel, made)

    def energy(self, group: Group, vector, program: Program | None, R):
        """Return the energy, () kcal/mol, of a molecule after moves.

        Args:
            group: the group of the molecule.
            vector: (P,) moves.
            program: the padded program of the molecule, or None for the program of the group.
            R: (n, 3) Å, with ghosts.
        """
        params = group.params(self.free.params(self.unravel(vector)))
        return (program or group.program).energy(params, R)

    def energy_and_forces(self, group: Group, vector, program: Program | None, R):
        """Return energy, () kcal/mol, and forces, (n, 3) kcal/mol/Å; arguments as in `energy`."""
        energy, slope = jax.value_and_grad(self.energy, argnums=3)(group, vector, program, R)
        return energy, -slope

    @cached_property
    def _predict(self):
        def predict(group, vector, program, R):
            one = partial(self.energy_and_forces, group, vector, program)
            return jax.lax.map(one, R, batch_size=32)

        return [jax.jit(partial(predict, group)) for group in self.groups]

    @cached_property
    def _normal(self):
        """Compiled functions for the normal equations, one for each group.

        J contains the derivatives of the residuals r by the A parameters that a molecule uses.  A
        function returns JᵀJ (A, A) and the contribution of each frame to Jᵀr, (M, A). It also
        returns two sums over the frames: the derivatives (A,) of the energies, and the residuals
        () of the energies.
        """

        def normal(group, vector, program, active, frames: Frames, scales):
            scale_e, scale_f = scales

            def of_parameters(R):
                return jax.value_and_grad(self.energy, argnums=1)(group, vector, program, R)

            def one(R, E, F, weight):
                # Forward mode runs over coordinates, as there are fewer of them than parameters.
                (energy, of_energy), along = jax.linearize(of_parameters, R)
                slope, mixed = jax.vmap(along)(jnp.eye(R.size).reshape(-1, *R.shape))
                J = jnp.append(-mixed.T * scale_f, scale_e * of_energy[:, None], axis=1)
                r = jnp.append((-slope - F.ravel()) * scale_f, (energy - E) * scale_e)
                return weight * J[active], weight * r

            J, r = jax.vmap(one)(*frames)
            rows = jnp.moveaxis(J, 1, 0).reshape(len(active), -1)
            gradients = jnp.einsum("mpr,mr->mp", J, r)
            return rows @ rows.T, gradients, J[:, :, -1].sum(axis=0), r[:, -1].sum()

        return [jax.jit(partial(normal, group)) for group in self.groups]

    def chunks(self, group: Group, data: Dataset, size: int) -> Iterator[Frames]:
        """Yield the frames of a molecule in chunks of `size`; the last chunk is padded."""
        if not len(data):
            return
        ghosts = ghost_positions(group.n_atoms - data.n_atoms)
        E = np.zeros(len(data)) if data.energies is None else data.energies
        E = E - E.mean()
        for begin in range(0, len(data), size):
            index = np.arange(begin, begin + size)
            weight = (index < len(data)).astype(float)
            index = np.minimum(index, len(data) - 1)
            R, F = (
                with_ghosts(x[index], group.n_atoms, g)
                for x, g in ((data.positions, ghosts), (data.forces, 0))
            )
            yield Frames(*map(jnp.asarray, (R, E[index], F, weight)))

    def molecules(self) -> Iterator[tuple[int, int, Group, Program | None]]:
        """Yield for each molecule: index of the group and of the molecule, group, padded program.

        The padded program is None if the group has one molecule.
        """
        for g, group in enumerate(self.groups):
            for k, program in zip(group.members, group.padded, strict=True):
                yield g, k, group, program

    def thinned(self) -> Problem | None:
        """Return a reduced problem with fewer, evenly spaced frames, or None.

        The result is None if a step is cheap, if there are ensembles, or if more than half of the
        frames are needed.  The reduced problem has at least eight force components per parameter.
        """
        count = len(self.start)
        if 2.0 * self.n_forces * count**2 < EXPENSIVE or self.ensembles:
            return None
        share = max(COMPONENTS * count / self.n_forces, FRAMES[1] / self.n_frames)
        if share > 0.5:
            return None
        few = copy.copy(self)
        few._normal, few._predict = self._normal, self._predict  # compiled once for both
        few.data = tuple(frames[:: int(1.0 / share)] for frames in self.data)
        few.n_frames = sum(map(len, few.data))
        few.n_forces = sum(frames.forces.size for frames in few.data)
        return few

    # -- what is minimised ------------------------------------------------------------------

    def residuals(self, vector, data: Sequence[Dataset]) -> Iterator[tuple]:
        """Yield data and errors of each molecule that has frames.

        Args:
            vector: (P,) moves.
            data: frames of each molecule.

        Yields:
            The frames, the errors of the energies without their mean, (M,) kcal/mol, and the errors
            of the forces, (M, N, 3) kcal/mol/Å.
        """
        for k, frames in enumerate(data):
            if not len(frames):
                continue
            energies, forces = self.predict(vector, k, frames)
            wrong = energies - (0.0 if frames.energies is None else frames.energies)
            yield frames, wrong - wrong.mean(), forces - frames.forces

    def predict(self, vector, k: int, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å of molecule k.

        Args:
            vector: (P,) moves.
            k: index of the molecule.
            data: M frames of the molecule.
        """
        g, group, program = next((g, group, p) for g, m, group, p in self.molecules() if m == k)
        energies, forces = [], []
        for frames in self.chunks(group, data, FRAMES[len(data) > FRAMES[0]]):
            energy, force = self._predict[g](vector, program, frames.R)
            energies.append(np.asarray(energy))
            forces.append(np.asarray(force)[:, : data.n_atoms])
        return np.concatenate(energies)[: len(data)], np.concatenate(forces)[: len(data)]

    def force_rmse(self, vector, data: Sequence[Dataset]) -> float:
        """Return the root mean square error of all force components after moves, kcal/mol/Å."""
        squares = sum((forces**2).sum() for *_, forces in self.residuals(vector, data))
        return float(np.sqrt(squares / sum(frames.forces.size for frames in data)))

    def objective(self, vector, energy_weight: float) -> float:
        """Return the objective mean ΔF² + energy_weight · mean ΔE² + Σ r², (kcal/mol/Å)².

        ΔF and ΔE are the errors of force components and energies, and r the residuals of the
        targets.  The objective is infinite if an effective share of an ensemble is too small.

        Args:
            vector: (P,) moves.
            energy_weight: 1/Å².
        """
        total = 0.0
        for frames, energies, forces in self.residuals(vector, self.data):
            total += (forces**2).sum() / self.n_forces
            if frames.energies is not None:
                total += energy_weight * (energies**2).sum() / self.n_frames
        total += sum(float((r(vector) ** 2).sum()) for r in self.targets)
        return float(total + self.ensembles.objective(vector))

    def normal_equations(self, vector, energy_weight: float) -> tuple[np.ndarray, np.ndarray]:
        """Return JᵀJ (P, P) and Jᵀr (P,) of the objective, see `statistics`."""
        return self.statistics(vector, energy_weight)[:2]

    def statistics(self, vector, energy_weight: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return JᵀJ (P, P), Jᵀr (P,) and the sum Σ gᵀg (P, P) over all frames.

        J contains the derivatives of the residuals r of the objective by the moves.  The row g is
        the contribution of one frame to Jᵀr.

        Args:
            vector: (P,) moves.
            energy_weight: 1/Å².
        """
        A, b = np.zeros((len(vector),) * 2), np.zeros(len(vector))
        C = np.zeros_like(A)
        for g, k, group, program in self.molecules():
            data, active = self.data[k], self._active[k]
            if not len(data):
                continue
            weighted = 0.0 if data.energies is None else energy_weight
            real = np.arange(group.n_atoms) < data.n_atoms
            scales = (
                np.sqrt(weighted / self.n_frames),
                jnp.asarray(np.repeat(real, 3) / np.sqrt(self.n_forces)),
            )
            rows, total, mean = np.zeros(len(active)), 0.0, 0.0
            if weighted:
                # Only differences of energies matter.  With their mean `total` is near zero.
                mean = float(self.predict(vector, k, data)[0].mean())
            CC = np.zeros((len(active),) * 2)
            AA, bb = np.zeros((len(active),) * 2), np.zeros(len(active))
            per_frame = 8 * (3 * group.n_atoms + 1) * max(len(vector), 1) * 3
            size = int(np.clip(MEMORY // per_frame, 1, FRAMES[1]))
            size = min(size, max(len(self.data[m]) for m in group.members))
            for frames in self.chunks(group, data, size):
                frames = frames._replace(E=frames.E + mean)
                sums = self._normal[g](vector, program, active, frames, scales)
                a_, g_, rows_, total_ = map(np.asarray, sums)
                AA, bb, CC = AA + a_, bb + g_.sum(axis=0), CC + g_.T @ g_
                rows, total = rows + rows_, total + total_
            # The mean of the energies of a molecule is free, so its part is subtracted.
            AA -= np.outer(rows, rows) / len(data)
            bb -= rows * total / len(data)
            # A padded list of active parameters repeats the first one, which counts once.
            n = self._count[k]
            A[np.ix_(active[:n], active[:n])] += AA[:n, :n]
            C[np.ix_(active[:n], active[:n])] += CC[:n, :n]
            b[active[:n]] += bb[:n]
        for residuals, jacobian in zip(self.targets, self._target_jacobians, strict=True):
            J, r = np.asarray(jacobian(vector)), np.asarray(residuals(vector))
            A, b, C = A + J.T @ J, b + J.T @ r, C + J.T @ J * (r @ r / len(r))
        for curvature, slope, chance in self.ensembles.equations(vector):
            A, b, C = A + curvature, b + slope, C + chance
        return A, b, C

    @cached_property
    def _target_jacobians(self):
        out = []
        for residuals in self.targets:
            count = jax.eval_shape(residuals, self.start).size
            out.append(jax.jit((jax.jacrev if count < len(self.start) else jax.jacfwd)(residuals)))
        return out

    @cached_property
    def _parameters_of(self) -> list[np.ndarray]:
        """Indices of the free parameters that each molecule uses."""
        moves = self.free.no_moves()
        out = []
        for rows in self.joint.rows:
            marks = {}
            for name, move in moves.items():
                term, column = name[:2]
                marks[name] = np.ones(move.shape, bool)
                if (term, column) in rows:
                    marks[name][:] = False
                    marks[name][rows[term, column]] = True
            out.append(np.flatnonzero(ravel_pytree(marks)[0]))
        return out

    @cached_property
    def _count(self) -> list[int]:
        return [len(names) for names in self._parameters_of]

    @cached_property
    def _active(self) -> list[np.ndarray]:
        """Indices in `_parameters_of`, padded to the same length in each group."""
        out = list(self._parameters_of)
        for group in self.groups:
            most = max(self._count[k] for k in group.members)
            for k in group.members:
                out[k] = np.append(out[k], np.zeros(most - len(out[k]), int)).astype(np.int32)
        return out


def _no_frames(program: Program) -> Dataset:
    n = program.n_atoms or program.n_atoms_min
    return Dataset(np.ones(n, int), np.zeros((0, n, 3)), np.zeros((0, n, 3)))
