"""Kernel corrections that act on some atoms, near their training frames, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.descriptor import entry_permutations, inverse_distances
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.solvers import Progress
from jaxff.gdml.system import require_float64, residual
from jaxff.gdml.train import Trial, checked_atoms, force_rmse, group_on, several, train
from jaxff.molecule import Molecule
from jaxff.potential import Array, Column, Params, Potential

# Widths of one to two predict alike; the wider the kernel, the worse it extrapolates to the rim.
SIGMA, LAMS = 1.0, (1e-4, 1e-3, 1e-2)
REACH = 2.0
_MOST = 0.95  # share of the training frames that tells how far apart they are
_AT_ONCE = 256  # frames compared with all others at once


@dataclass(frozen=True, eq=False)
class LocalKernelTerm(KernelTerm):
    """An sGDML energy times a switch that is one among the training frames and zero far away.

    E = s(q) E_kernel(x).  The switch looks at a smooth minimum of the squared distances
    from the descriptor x to all training descriptors and their permuted images,
    q = −τ log Σ_jp exp(−|x − x_j^p|²/τ), which is at most the least of them: s = 1 up to
    q = inner, 0 from q = outer on, and 1 − t³(10 − 15 t + 6 t²) between, with
    t = (q − inner)/(outer − inner), so that energies are twice continuously differentiable.  A
    frame farther from all data than sqrt(outer + τ log MP) has no energy and no force.

    Parameters beside those of `KernelTerm`:
        inner, outer: () 1/Å²; q where the switch leaves one and reaches zero.
        softness: () τ, 1/Å².
    """

    kind: ClassVar[str] = "gdml-local"
    columns: ClassVar[dict[str, Column]] = {
        **KernelTerm.columns,
        "inner": Column("1/Å²", trainable=False),
        "outer": Column("1/Å²", trainable=False),
        "softness": Column("1/Å²", lower=0.0, trainable=False),
    }

    def energies(self, params: Params, R: Array, **context) -> dict[str, Array]:
        kernel = super().energies(params, R, **context)["gdml"]
        # The one query is permuted, as in the kernel.
        inverse = np.argsort(self.entries, axis=1)
        x = self.descriptor(R, params.get("lattice"))[inverse] - params["centre"]  # (P, D)
        squares = _squares(x, params["descriptors"])
        q = soft_minimum(squares, params["softness"])
        return {"correction": switch(q, params["inner"], params["outer"]) * kernel}


def soft_minimum(values, softness) -> Array:
    """Smooth minimum −τ log Σ exp(−v/τ) of values v of any shape, at most the least of them."""
    return -softness * jax.scipy.special.logsumexp(-jnp.asarray(values) / softness)


def switch(q, inner, outer) -> Array:
    """One up to `inner`, zero from `outer` on, twice continuously differentiable in q, ()."""
    t = jnp.clip((q - inner) / (outer - inner), 0.0, 1.0)
    return 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2)


class Reach(NamedTuple):
    """Where a correction's switch leaves one and reaches zero, and its softness, 1/Å² each."""

    inner: float
    outer: float
    softness: float

    @classmethod
    def of(cls, descriptors: np.ndarray, entries: np.ndarray, factor: float) -> Reach:
        """The reach that training frames give.

        The softness is the median of the squared distances d² from each frame to its nearest
        neighbour.  With the d² and the smooth minimum to all others that 95 % of the frames do not
        exceed, `inner` is their sum, so that new frames like them, and those a spacing aside, are
        corrected in full; `outer` lies as much above it as (factor d)² above d².

        Args:
            descriptors: (M, D) 1/Å.
            entries: (P, D) permutations of their entries.
            factor: above one.
        """
        rows = range(0, len(descriptors), _AT_ONCE)
        apart = [_others(descriptors, entries, slice(start, start + _AT_ONCE)) for start in rows]
        nearest = np.concatenate([d.min(axis=(1, 2)) for d in apart])
        softness = float(np.median(nearest))
        soft = np.concatenate([np.asarray(_soft_rows(d, softness)) for d in apart])
        # A maximum would let one stray frame decide how far the correction goes.
        own, spacing = (float(np.quantile(values, _MOST)) for values in (soft, nearest))
        return cls(own + spacing, own + factor**2 * spacing, softness)


_soft_rows = jax.jit(jax.vmap(soft_minimum, in_axes=(0, None)))


def _squares(x: Array, y: Array) -> Array:
    """(A, B) squared distances of x (A, D) and y (B, D)."""
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1) - 2.0 * product


def _others(x: np.ndarray, entries: np.ndarray, rows: slice) -> np.ndarray:
    """(I, M, P) squared distances from some frames to all images of the others, ∞ to their own."""
    images = x[:, entries]
    squares = np.asarray(
        _squares(jnp.asarray(x[rows]), jnp.asarray(images.reshape(-1, x.shape[1])))
    )
    squares = np.maximum(squares.reshape(-1, len(x), len(entries)), 0.0)
    own = np.arange(len(x))[rows]
    squares[np.arange(len(own)), own] = np.inf
    return squares


def nearest_frames(
    dataset: Dataset,
    structures,
    count: int,
    *,
    atoms: Sequence[int] | None = None,
    symmetries: str | np.ndarray | None = "auto",
    seed: int = 0,
) -> np.ndarray:
    """Places of the frames that are most like given structures, the most alike first.

    Frames are compared by the inverse distances among `atoms`, whichever of their equivalent
    atoms play which part.

    Args:
        dataset: M frames.
        structures: (S, N, 3) Å, or one (N, 3), in the data set's atom order.
        count: frames wanted.
        atoms: (K,) the atoms compared (None: all).
        symmetries: as in `train_correction`.
        seed: of the search for symmetries.

    Returns:
        (count,) indices.

    Raises:
        InputError: structures of another shape, or fewer frames than wanted.
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
        raise InputError(f"{dataset.label}: the structures hold numbers that are not finite")
    if not 0 < count <= len(dataset):
        raise InputError(f"{dataset.label}: {count} frames wanted, {len(dataset)} are there")
    atoms = checked_atoms(range(dataset.n_atoms) if atoms is None else atoms, dataset)
    entries = entry_permutations(inverse_distances, group_on(dataset, atoms, symmetries, seed))
    x, y = (_described(R[:, atoms], dataset.lattice) for R in (dataset.positions, structures))
    images = jnp.asarray(y[:, entries].reshape(-1, y.shape[1]))
    distance = np.concatenate(
        [
            np.asarray(_squares(jnp.asarray(x[start : start + _AT_ONCE]), images)).min(axis=1)
            for start in range(0, len(x), _AT_ONCE)
        ]
    )
    return np.argsort(distance, kind="stable")[:count]


def _described(positions: np.ndarray, lattice) -> np.ndarray:
    return np.asarray(jax.vmap(lambda R: inverse_distances(R, lattice))(jnp.asarray(positions)))


def train_correction(
    dataset: Dataset,
    baseline: Potential,
    atoms: Sequence[int],
    *,
    valid: Dataset | None = None,
    background: Dataset | None = None,
    sigma: float | Sequence[float] = SIGMA,
    lam: float | Sequence[float] = LAMS,
    symmetries: str | np.ndarray | None = "auto",
    reach: float = REACH,
    max_memory: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    trials: list[Trial] | None = None,
) -> Potential:
    """Train a kernel that mends a potential on some atoms, near the frames of a data set.

    The sum ``baseline + correction.on(atoms)`` has the corrected energy; the correction is
    invariant under translation, rotation and the symmetries of the molecule that keep the atoms
    among themselves.

    *What it learns.*  Reference minus baseline: the forces on the atoms, less their net force and
    torque, which no function of the distances among the atoms can have, and the energies.
    Whatever else depends on the rest of the molecule is noise to it: λ (and σ) are chosen by the
    errors that the sum has on validation and background frames, relative to the baseline's, so
    that harm around the region counts.

    *Where it ends.*  A kernel alone does not vanish: at the widths that predict well it has hardly
    decayed anywhere that the molecule goes, and its energy drifts by tens of kcal/mol.  It is
    therefore multiplied by a switch (`LocalKernelTerm`) that is one among the training frames
    and exactly zero away from them; forces are the gradient of the product.  Inside, inverse
    distances are bounded, and so are the correction's energy and forces.

    *Its zero.*  Energies of two methods differ by an arbitrary constant.  It is taken as the mean
    difference over `background`, frames where the correction is to vanish; without any, as that
    over the training frames, whose level the correction then leaves alone on average.  Energies
    are fitted beside the forces, so that the depth is theirs.

    Args:
        dataset: M frames near the structures to mend, such as those `nearest_frames` finds.
        baseline: the potential to mend; its atoms are matched to the data set's by the bond graph.
        atoms: (K,) the atoms that the correction acts on, at least three.
        valid: frames like those of `dataset` to choose σ and λ on (None: a fifth of `dataset`,
            where there is a choice).
        background: frames, of the same reference, elsewhere.
        sigma, lam: the widths, 1/Å, and regularisations to choose among, see `train`.
        symmetries: "auto" (recovered from the frames of the whole molecule), a group of
            permutations of the chosen atoms (P, K), or None.
        reach: how far the switch extends, in distances between neighbouring frames, see `Reach`.
        max_memory: GB that the process may hold (None: 80 % of the machine's).
        seed: of every random choice.
        progress: called with a phase and the fraction of it that is done.
        trials: a list to which every model tried is appended.

    Returns:
        The correction, a potential of K atoms in the order of `atoms`.

    Raises:
        InputError: as `train`; data without energies; frames of another molecule.
    """
    require_float64()
    if not (np.isreal(reach) and 1.0 < reach < np.inf):
        raise InputError(f"reach={reach!r} must be a number above one")
    if not isinstance(baseline, Potential):
        raise InputError(f"baseline={baseline!r} is not a Potential")
    atoms = checked_atoms(atoms, dataset, least=3)
    given = [data for data in (dataset, valid, background) if data is not None]
    for data in given:
        if not np.array_equal(data.numbers, dataset.numbers):
            raise InputError(f"{data.label}: the frames are not of {dataset.label}'s atoms")
        if data.energies is None:
            raise InputError(f"{data.label}: a local correction needs energies, there are none")
        if len(data) == 0:
            raise InputError(f"{data.label}: one of the data sets has no frames")
    group = group_on(dataset, atoms, symmetries, seed)
    baseline = baseline.matched(dataset.molecule)
    choices = [(s, l) for s in several(sigma, "the width sigma") for l in several(lam, "lam")]
    frames = dataset
    if valid is None and len(choices) > 1:
        count = max(1, len(dataset) // 5)
        valid, frames, _ = dataset.split(count, len(dataset) - count, 0, seed=seed, stratify=True)
    scored = [valid] if background is None else [valid, background]
    zero = frames if background is None else background
    level = float(residual(zero, baseline).energies.mean())

    best, least = None, np.inf
    for sigma, lam in choices:
        whole = train(
            frames,
            baseline=baseline,
            atoms=atoms,
            sigma=sigma,
            lam=lam,
            symmetries=group,
            energies="constrain",
            solver="dense",
            max_memory=max_memory,
            seed=seed,
            progress=progress,
        )
        correction = _ended(whole, level, reach, frames.reorder(atoms).molecule)
        if len(choices) == 1:
            return correction
        whole = baseline + correction.on(atoms)
        score = _left(whole, baseline, scored, level)
        if trials is not None:
            trials.append(Trial(sigma, lam, None, len(frames), "dense", force_rmse(whole, valid)))
        if score < least:
            best, least = correction, score
    return best


def _ended(whole: Potential, level: float, reach: float, molecule) -> Potential:
    """The kernel on some atoms, last in a sum, with its zero at `level` and a switch."""
    placed = whole.program.placed[-1]
    own = {key: v for key, v in whole.params[placed.name].items() if key != "alphas"}
    own["offset"] = own["offset"] - level
    within = Reach.of(np.asarray(own["descriptors"] + own["centre"]), placed.term.entries, reach)
    own |= {key: jnp.asarray(value) for key, value in within._asdict().items()}
    term = LocalKernelTerm(**{f.name: getattr(placed.term, f.name) for f in fields(placed.term)})
    return Potential.of(LocalKernelTerm.kind, term, own, molecule)


def _left(whole: Potential, baseline: Potential, parts: list[Dataset], level: float) -> float:
    """Shares of the baseline's mean square errors of forces and energies that are left, added."""

    def errors(potential):
        out = np.full(2, np.finfo(float).tiny)  # a baseline may be exact
        for data in parts:
            energies, forces = potential.predict(data.positions)
            wrong = energies + level - data.energies
            out += np.mean((forces - data.forces) ** 2), np.mean(wrong**2)
        return out

    return float(np.sum(errors(whole) / errors(baseline)))
