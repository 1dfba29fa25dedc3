"""Training of local corrections: kernels that act on some atoms, near given frames."""

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

# Kernels with σ from 1 to 2/Å are equally accurate; with larger σ they extrapolate worse.
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

    The corrected potential is ``baseline + correction.on(atoms)``.  The kernel is fitted to the
    difference between reference and baseline: to the energies, and to the forces on `atoms` without
    their net force and torque.  A switch (see `LocalKernelTerm`) makes the correction zero far from
    the training frames.  σ and λ minimise the errors of the corrected potential, relative to those
    of the baseline, on the validation and background frames.

    Args:
        dataset: M frames near the structures to correct, for example from `nearest_frames`.
        baseline: the potential to correct.  The bond graph matches the atoms to the data set.
        atoms: (K,) indices of the atoms that the correction acts on, at least three.
        valid: validation frames, similar to those of `dataset` (None: a fifth of `dataset`, if
            `sigma` or λ has several values).
        background: frames far from the structures to correct, with labels of the same method, at
            which the correction should be zero.  The mean error of the baseline's energies at these
            frames is subtracted (None: the mean error at the training frames).
        sigma: length scale, 1/Å, or several values to choose from.
        kernel: λ, symmetries and reach of the correction.
        run: seed, memory limit, checkpoint folder and progress.

    Returns:
        The correction, a potential of K atoms in the order of `atoms`.

    Raises:
        InputError: `baseline` is not a `Potential`, `atoms` are invalid, or a data set has no
            frames, no energies or a different molecule than `dataset`.  See also `gdml.train`.
    """
    kernel = kernel or LocalKernel()
    # The baseline is wrong near these frames, so that labels are not compared with it.
    run = replace(run or Run(), check_labels=False)
    require_float64()
    if not isinstance(baseline, Potential):
        raise InputError(f"baseline={baseline!r} must be a jaxff.Potential")
    atoms = checked_atoms(atoms, dataset, least=3)
    scored = [data for data in (valid, background) if data is not None]
    for data in (dataset, *scored):
        if not np.array_equal(data.numbers, dataset.numbers):
            raise InputError(
                f"{data.label}: the atoms differ from those of {dataset.label}; give frames of the "
                "same molecule in the same atom order"
            )
        if data.energies is None:
            raise InputError(
                f"{data.label}: the frames have no energies, but a local correction needs them; "
                "give frames with energies"
            )
        if len(data) == 0:
            raise InputError(f"{data.label}: the data set must have at least one frame")
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
    """Indices (count,) of the frames most similar to given structures, most similar first.

    Frames are compared by their inverse distances, with all permutations of equivalent atoms.

    Args:
        dataset: M frames.
        structures: (S, N, 3) or (N, 3) Å, in the atom order of the data set, or a molecule.
        count: number of frames, from 1 to M.
        atoms: (K,) indices of the atoms that are compared (None: all).
        symmetries: "auto" (find the permutations in the frames), a group of permutations (P, K) of
            the compared atoms, or None.
        seed: seed of the search for symmetries.

    Raises:
        InputError: a structure has a wrong shape or is not finite, or `count`, `atoms` or
            `symmetries` are invalid.
    """
    if isinstance(structures, Molecule):
        structures = structures.positions
    structures = np.asarray(structures, float)
    structures = structures[None] if structures.ndim == 2 else structures
    if structures.ndim != 3 or structures.shape[1:] != (dataset.n_atoms, 3) or not len(structures):
        raise InputError(
            f"{dataset.label}: structures must have shape (S, {dataset.n_atoms}, 3) in Å, "
            f"got {structures.shape}"
        )
    if not np.isfinite(structures).all():
        raise InputError(
            f"{dataset.label}: a structure contains numbers that are not finite; remove it"
        )
    if not 0 < count <= len(dataset):
        raise InputError(
            f"{dataset.label}: count={count} must be from 1 to {len(dataset)}, the number of frames"
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
    """Parameters of the switch of a `LocalKernelTerm`, all in 1/Å².

    Attributes:
        inner: value of the smooth minimum q below which the switch is one.
        outer: value of q above which the switch is zero.
        softness: τ of the smooth minimum.
    """

    inner: float
    outer: float
    softness: float

    @classmethod
    def of(cls, descriptors: np.ndarray, entries: np.ndarray, factor: float) -> Reach:
        """The parameters for given training frames.

        For each frame, d² is the smallest and q the smooth minimum of the squared distances to all
        other frames.  With Q the 95 % quantile over the frames, inner = Q(q) + Q(d²) and
        outer = Q(q) + factor² Q(d²).  The softness is the median of d².  The switch is therefore
        one at the distances that are typical between training frames.

        Args:
            descriptors: (M, D) 1/Å.
            entries: (P, D) permutations of the entries of the descriptors.
            factor: width of the switch, larger than one.
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
    """Squared distances (I, M, P), 1/Å², from I frames to the P images of all M frames.

    Distances from a frame to images of the same frame are infinite.

    Args:
        x: (M, D) descriptors, 1/Å.
        entries: (P, D) permutations of the entries of the descriptors.
        rows: slice that selects the I of the M frames.
    """
    images = jnp.asarray(x[:, entries].reshape(-1, x.shape[1]))
    squares = np.asarray(squared_distances(jnp.asarray(x[rows]), images))
    squares = np.maximum(squares.reshape(-1, len(x), len(entries)), 0.0)
    index = np.arange(len(x))[rows]
    squares[np.arange(len(index)), index] = np.inf
    return squares


def _switched(hybrid: Potential, level: float, reach: float, molecule: Molecule) -> Potential:
    """Return the kernel, the last term of a hybrid, as a local correction.

    The correction has a domain without limits, because it is zero far from the training frames.

    Args:
        hybrid: the sum of the baseline and the kernel.
        level: energy to subtract from the kernel, kcal/mol.
        reach: `factor` of `Reach.of`.
        molecule: the K atoms of the kernel.
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
