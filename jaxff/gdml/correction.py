"""Training of local corrections: kernels on some atoms, near the training frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.domain import Trained
from jaxff.errors import InputError
from jaxff.gdml.descriptor import entry_permutations, inverse_distances, squared_distances
from jaxff.gdml.frames import checked_atoms, group_on
from jaxff.gdml.local import LocalKernelTerm, soft_minimum
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.settings import Kernel, LocalKernel, Run, Trial, ascending
from jaxff.gdml.solvers import Solver
from jaxff.gdml.system import require_float64, residual
from jaxff.gdml.training import force_rmse, train
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# Widths from 1 to 2/Å predict equally well; wider kernels extrapolate worse to the rim.
SIGMA = 1.0
_QUANTILE = 0.95  # share of the training frames that lie within the inner radius of the switch
_AT_ONCE = 256  # frames compared with all others at once


def train_correction(
    dataset: Dataset,
    baseline: Potential,
    atoms: Sequence[int],
    valid: Dataset | None = None,
    *,
    background: Dataset | None = None,
    sigma: float | Sequence[float] = SIGMA,
    kernel: LocalKernel | None = None,
    run: Run | None = None,
) -> Potential:
    """Train a kernel that corrects a potential on some atoms, near given frames.

    The sum ``baseline + correction.on(atoms)`` has the corrected energy.  The kernel is fitted to
    reference minus baseline: the energies, and the forces on the atoms without their net force and
    torque.  It is multiplied by a switch (`LocalKernelTerm`) that is exactly zero far from the
    training frames, as a kernel does not vanish by itself.  σ and λ are chosen by the errors of the
    sum, relative to those of the baseline, on validation and background frames together.

    Args:
        dataset: M frames near the structures to correct, such as those of `nearest_frames`.
        baseline: the potential to correct; its atoms are matched to those of the data set by the
            bond graph.
        atoms: (K,) the atoms that the correction acts on, at least three.
        valid: frames like those of `dataset` on which σ and λ are chosen (None: a fifth of
            `dataset`, if several values are given).
        background: frames far from these structures, with labels of the same method, where the
            correction should vanish.  The zero of the correction is the mean difference between
            their energies and those of the baseline (None: the mean over the training frames).
        sigma: length scale, 1/Å, or several values to choose among.
        kernel: λ, symmetries and reach of the correction.
        run: seed, memory limit, checkpoint folder and progress.

    Returns:
        The correction, a potential of K atoms in the order of `atoms`.

    Raises:
        InputError: as `train`; also data without energies, or frames of another molecule.
    """
    kernel = kernel or LocalKernel()
    # The baseline is wrong near these frames, so that labels are not compared with it.
    run = replace(run or Run(), check_labels=False)
    require_float64()
    if not isinstance(baseline, Potential):
        raise InputError(f"baseline={baseline!r} is not a Potential")
    atoms = checked_atoms(atoms, dataset, least=3)
    scored = [data for data in (valid, background) if data is not None]
    for data in (dataset, *scored):
        if not np.array_equal(data.numbers, dataset.numbers):
            raise InputError(f"{data.label}: the frames have other atoms than {dataset.label}")
        if data.energies is None:
            raise InputError(
                f"{data.label}: a local correction needs energies, but the frames have none"
            )
        if len(data) == 0:
            raise InputError(f"{data.label}: the data set has no frames")
    group = group_on(dataset, atoms, kernel.symmetries, run.seed)
    baseline = baseline.matched(dataset.molecule)
    choices = list(product(ascending(sigma, "sigma"), ascending(kernel.lam, "lam")))
    frames = dataset
    if valid is None and len(choices) > 1:
        count = max(1, len(dataset) // 5)
        valid, frames, _ = dataset.split(
            count, len(dataset) - count, 0, seed=run.seed, stratify=True
        )
        scored.insert(0, valid)
    zero = residual(frames if background is None else background, baseline)
    level = float(np.asarray(zero.energies).mean())

    corrections, scores = [], []
    for sigma, lam in choices:
        hybrid = train(
            frames,
            sigma=sigma,
            baseline=baseline,
            kernel=Kernel(lam, group, energies="constrain", atoms=atoms),
            solver=Solver("dense"),
            run=run,
        )
        correction = _switched(hybrid, level, kernel.reach, frames.reorder(atoms).molecule)
        if len(choices) == 1:
            return correction
        hybrid = baseline + correction.on(atoms)
        corrections.append(correction)
        scores.append(_relative_error(hybrid, baseline, scored, level))
        if run.on_trial is not None:
            error = force_rmse(hybrid, scored[0])
            run.on_trial(Trial(sigma, lam, None, len(frames), "dense", error))
    return corrections[int(np.nanargmin(scores))]


def nearest_frames(
    dataset: Dataset,
    structures: np.ndarray | Molecule,
    count: int,
    *,
    atoms: Sequence[int] | None = None,
    symmetries: str | np.ndarray | None = "auto",
    seed: int = 0,
) -> np.ndarray:
    """Indices of the frames most similar to given structures, the most similar first.

    Frames are compared by their inverse distances, with all permutations of equivalent atoms.

    Args:
        dataset: M frames.
        structures: (S, N, 3) Å, or one (N, 3), in the atom order of the data set.
        count: number of frames.
        atoms: (K,) the atoms that are compared (None: all).
        symmetries: as in `LocalKernel`.
        seed: seed of the search for symmetries.

    Returns:
        (count,) indices.

    Raises:
        InputError: structures of another shape, or fewer frames than `count`.
    """
    if isinstance(structures, Molecule):
        structures = structures.positions
    structures = np.asarray(structures, float)
    structures = structures[None] if structures.ndim == 2 else structures
    if structures.ndim != 3 or structures.shape[1:] != (dataset.n_atoms, 3) or not len(structures):
        raise InputError(
            f"{dataset.label}: structures have shape {structures.shape}, expected "
            f"(S, {dataset.n_atoms}, 3) in Å"
        )
    if not np.isfinite(structures).all():
        raise InputError(
            f"{dataset.label}: the structures contain numbers that are not finite; "
            "remove such structures"
        )
    if not 0 < count <= len(dataset):
        raise InputError(
            f"{dataset.label}: {count} frames are requested, but it has {len(dataset)}"
        )
    atoms = checked_atoms(range(dataset.n_atoms) if atoms is None else atoms, dataset)
    entries = entry_permutations(inverse_distances, group_on(dataset, atoms, symmetries, seed))
    x, y = (
        np.asarray(jax.vmap(lambda R: inverse_distances(R, dataset.lattice))(jnp.asarray(R)))
        for R in (dataset.positions[:, atoms], structures[:, atoms])
    )
    images = jnp.asarray(y[:, entries].reshape(-1, y.shape[1]))
    distance = np.concatenate(
        [
            np.asarray(squared_distances(jnp.asarray(x[i : i + _AT_ONCE]), images)).min(axis=1)
            for i in range(0, len(x), _AT_ONCE)
        ]
    )
    return np.argsort(distance, kind="stable")[:count]


class Reach(NamedTuple):
    """Parameters of the switch of a local correction, 1/Å².

    Attributes:
        inner: value of the smooth minimum q up to which the switch is one.
        outer: value of q from which the switch is zero.
        softness: τ of the smooth minimum.
    """

    inner: float
    outer: float
    softness: float

    @classmethod
    def of(cls, descriptors: np.ndarray, entries: np.ndarray, factor: float) -> Reach:
        """The parameters for given training frames.

        The softness is the median of the squared distances d² from each frame to its nearest
        neighbour.  `inner` is the sum of two 95 % quantiles over the frames: that of d² and that
        of the smooth minimum to all other frames.  New frames that are as close to the data as
        these, or one spacing farther, are therefore corrected fully.  `outer` exceeds `inner` by
        as much as (factor d)² exceeds d².

        Args:
            descriptors: (M, D) 1/Å.
            entries: (P, D) permutations of the entries of the descriptors.
            factor: a number above one.
        """
        rows = range(0, len(descriptors), _AT_ONCE)
        apart = [_others(descriptors, entries, slice(start, start + _AT_ONCE)) for start in rows]
        nearest = np.concatenate([d.min(axis=(1, 2)) for d in apart])
        softness = float(np.median(nearest))
        minima = np.concatenate([np.asarray(_soft_rows(d, softness)) for d in apart])
        # With maxima instead of quantiles one outlier would decide how far the correction extends.
        within, spacing = (float(np.quantile(values, _QUANTILE)) for values in (minima, nearest))
        return cls(within + spacing, within + factor**2 * spacing, softness)


_soft_rows = jax.jit(jax.vmap(soft_minimum, in_axes=(0, None)))


def _others(x: np.ndarray, entries: np.ndarray, rows: slice) -> np.ndarray:
    """Squared distances (I, M, P) of frames from images; ∞ within the same frame."""
    images = jnp.asarray(x[:, entries].reshape(-1, x.shape[1]))
    squares = np.asarray(squared_distances(jnp.asarray(x[rows]), images))
    squares = np.maximum(squares.reshape(-1, len(x), len(entries)), 0.0)
    index = np.arange(len(x))[rows]
    squares[np.arange(len(index)), index] = np.inf
    return squares


def _switched(hybrid: Potential, level: float, reach: float, molecule: Molecule) -> Potential:
    """The kernel of a hybrid, its last term, minus `level`, with a switch.

    Frames far from its training frames are not outside, as it is zero there.
    """
    placed = hybrid.program.placed[-1]
    kernel = placed.term
    assert isinstance(kernel, KernelTerm)
    params = {key: v for key, v in hybrid.params[placed.name].items() if key != "alphas"}
    params["offset"] = params["offset"] - level
    descriptors = np.asarray(params["descriptors"] + params["centre"])
    within = Reach.of(descriptors, np.asarray(kernel.entries), reach)
    params |= {key: jnp.asarray(value) for key, value in within._asdict().items()}
    term = LocalKernelTerm(**{field.name: getattr(kernel, field.name) for field in fields(kernel)})
    domain = hybrid.trained[-1].domain.without_limits()
    correction = Potential.of(LocalKernelTerm.kind, term, params, molecule)
    return correction.with_training([Trained(domain, whole=False)])


def _relative_error(
    hybrid: Potential, baseline: Potential, parts: list[Dataset], level: float
) -> float:
    """Sum of the mean square errors of forces and energies, relative to the baseline."""

    def errors(potential):
        out = np.full(2, np.finfo(float).tiny)  # the errors of a baseline may be zero
        for data in parts:
            energies, forces = potential.predict(data.positions)
            error = energies + level - data.energies
            out += np.mean((forces - data.forces) ** 2), np.mean(error**2)
        return out

    return float(np.sum(errors(hybrid) / errors(baseline)))
