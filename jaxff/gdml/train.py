"""Training of sGDML models: frames in, potential out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml import cholesky
from jaxff.gdml.adapt import PRIORS, adapted
from jaxff.gdml.descriptor import descriptor, jacobian, pair_permutations
from jaxff.gdml.kernel import block_frames, force_blocks
from jaxff.gdml.model import kernel_potential
from jaxff.gdml.symmetry import check_symmetries, find_symmetries
from jaxff.potential import Potential

Progress = Callable[[str, float], None]

SIGMAS = tuple(range(10, 100, 10))  # what is tried where the user names no σ
MAX_VALID = 500  # frames drawn to choose σ, unless told otherwise
_IDENTICAL = 1e-6  # 1/Å: descriptors closer than this belong to the same geometry


def train(
    dataset: Dataset,
    n_train: int | None = None,
    *,
    sigma: float | Sequence[float] | None = None,
    lam: float = 1e-10,
    valid: Dataset | int | None = None,
    symmetries: str | np.ndarray | None = "auto",
    baseline: Potential | None = None,
    adapt: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Potential:
    """Train an sGDML model, in closed form, on the forces of a data set.

    With `baseline` the model learns what the baseline leaves over, and the potential returned is
    their sum; the baseline's atoms are matched to the data set's by the bond graph.

    Args:
        dataset: M frames; the result has its atom order.
        n_train: frames drawn at random from it (None: all of them, in order).
        sigma: length scale, 1/Å; or several, of which the best on `valid` is taken, going up and
            stopping at the first that is worse (None: 10, 20, ... 90).
        lam: regularisation λ relative to the variance of the forces.
        valid: frames to choose sigma on, or how many to draw from the rest (None: up to 500).
        symmetries: "auto" (recovered from the frames), a group of permutations (P, N), or None.
        baseline: a potential in kcal/mol and Å.
        adapt: re-estimate the baseline's trainable parameters together with the kernel, so that
            what is left over is easy to learn (see `jaxff.gdml.adapt`); how far they may move is
            chosen on `valid`, going up and stopping at the first that is worse.
        seed: of every random choice.
        progress: called with a phase and the fraction of it that is done.

    Returns:
        The trained potential, in the data set's atom order.

    Raises:
        InputError: too few or identical frames, periodic data, gradients in place of forces,
            float64 not enabled, a system too large for the memory or not positive definite.

    Source: Chmiela et al., Sci. Adv. 3, e1603015 (2017); Nat. Commun. 9, 3887 (2018).
    """
    require_float64()
    report = progress or (lambda phase, fraction: None)
    sigmas = _sigmas(sigma)
    frames, valid = _draw(dataset, n_train, valid, len(sigmas) > 1 or adapt, seed)
    molecule = dataset.molecule
    if baseline is not None:
        baseline = in_order_of(baseline, dataset)

    report("symmetries", 0.0)
    if symmetries is None:
        permutations = np.arange(dataset.n_atoms)[None]
    elif isinstance(symmetries, str):
        if symmetries != "auto":
            raise InputError(f'symmetries={symmetries!r}: use "auto", None or permutations (P, N)')
        permutations = find_symmetries(dataset.positions, molecule, seed=seed)
    else:
        permutations = check_symmetries(symmetries, molecule)
    report("symmetries", 1.0)

    provenance = {"train_md5": dataset.fingerprint(), "train_index": frames.index}
    if valid is not None:
        provenance |= {"valid_md5": valid.fingerprint(), "valid_index": valid.index}

    priors = (None,) if baseline is None or not adapt else PRIORS if valid else PRIORS[:1]
    best, best_error = None, np.inf
    for value in sigmas:
        system = KernelSystem(frames, permutations, value, lam, report)
        lowest = np.inf  # at this sigma
        for prior in priors:
            trained = _fitted(system, frames, baseline, prior, provenance, report)
            if valid is None:
                best = trained
                break
            error = force_rmse(trained, valid)
            how = "" if prior is None else f", prior {prior:g}"
            report(f"sigma {value:g}{how}: validation force RMSE {error:.4f} kcal/mol/Å", 1.0)
            if error < best_error:
                best, best_error = trained, error
            if error >= lowest:
                break
            lowest = error
        del system  # frees the matrix before the next is made
        if lowest > best_error:
            break
    return Potential(best.program, best.params, molecule)


def _fitted(system, frames, baseline, prior, provenance, report) -> Potential:
    """The kernel, or the sum of the baseline (adapted, given a prior) and its kernel."""
    if baseline is None:
        return system.fit(frames, **provenance)
    if prior is not None:
        report("adapting the baseline", 0.0)
        baseline = adapted(baseline, system, frames, prior)
    return baseline + system.fit(residual(frames, baseline), **provenance)


class KernelSystem:
    """The factorised equations (−K + λ) a = y of one set of frames, for any labels y.

    Several sets of labels (two levels of theory; with and without a baseline) share one
    factorisation: ``system.fit(frames)``, ``system.fit(residual(frames, baseline))``.

    Args:
        frames: the training frames.
        permutations: (P, N), a group.
        sigma: length scale, 1/Å.
        lam: λ.
        progress: called with a phase and the fraction of it that is done.

    Raises:
        InputError: fewer than two or identical frames, too little memory, a system that is not
            positive definite, float64 not enabled.
    """

    def __init__(
        self,
        frames: Dataset,
        permutations: np.ndarray,
        sigma: float,
        lam: float = 1e-10,
        progress: Progress | None = None,
    ):
        require_float64()
        report = progress or (lambda phase, fraction: None)
        if len(frames) < 2 or frames.n_atoms < 2:
            raise InputError(
                f"{_who(frames)}: {len(frames)} frames of {frames.n_atoms} atoms; "
                "training needs at least two frames of two atoms"
            )
        self.permutations = np.asarray(permutations, int)
        self.sigma, self.lam = float(sigma), float(lam)
        R = jnp.asarray(frames.positions)
        self.descriptors, self.jacobians = map(np.asarray, _describe(R))
        _refuse_identical(self.descriptors, self.permutations, frames)
        matrix = self._assemble(report)
        matrix[np.diag_indices_from(matrix)] += self.lam
        report("factorising", 0.0)
        try:
            cholesky.factorise(matrix, progress=lambda done: report("factorising", done))
        except cholesky.NotPositiveDefinite as error:
            raise InputError(
                f"{_who(frames)}: the kernel matrix is not positive definite at λ = {lam:g}: "
                "remove nearly identical frames or raise lam"
            ) from error
        self._factor = matrix

    def _assemble(self, report) -> np.ndarray:
        """−K, lower triangle of blocks, (3NM, 3NM)."""
        n_frames, _, n_atoms, _ = self.jacobians.shape
        width = 3 * n_atoms
        size = width * n_frames
        _require_memory(8 * size**2)
        pairs = pair_permutations(self.permutations)
        step = min(n_frames, block_frames(n_atoms, len(pairs)))
        # One shape for all blocks, hence one compilation: the last is filled up and cut.
        fill = np.minimum(np.arange(-(-n_frames // step) * step), n_frames - 1)
        # The kernel sees differences x − x^p: what is subtracted must be unchanged by every p.
        centred = self.descriptors - self.descriptors.mean(axis=0)[pairs].mean(axis=0)
        flat = self.jacobians.reshape(n_frames, -1, width)
        starts = range(0, n_frames, step)
        parts = [
            (jnp.asarray(centred[index]), jnp.asarray(flat[index]))
            for index in (fill[start : start + step] for start in starts)
        ]
        matrix = np.empty((size, size))
        report("assembling", 0.0)
        done = 0
        for i, start in enumerate(starts):
            rows = slice(start * width, min(start + step, n_frames) * width)
            for j in range(i + 1):
                columns = slice(starts[j] * width, min(starts[j] + step, n_frames) * width)
                block = force_blocks(parts[i], parts[j], pairs, self.sigma)
                block = np.asarray(block).reshape(step * width, step * width)
                matrix[rows, columns] = block[
                    : rows.stop - rows.start, : columns.stop - columns.start
                ]
            done += i + 1
            report("assembling", 2.0 * done / (len(starts) * (len(starts) + 1)))
        return matrix

    def solve(self, y: np.ndarray) -> np.ndarray:
        """(−K + λ)⁻¹ y of one or several right-hand sides, (3NM,) or (3NM, k)."""
        return cholesky.solve(self._factor, y)

    def fit(self, labels: Dataset, **provenance) -> Potential:
        """The potential that reproduces the forces (and the mean energy) of `labels`.

        Args:
            labels: the training frames, in order, with any forces and energies.
            **provenance: what the model should remember of its data, see `KernelTerm`.

        Raises:
            InputError: the energies say that the forces are gradients.
        """
        forces = labels.forces.ravel()
        std = float(np.std(forces)) or 1.0
        alphas = -self.solve(forces / std).reshape(labels.forces.shape)
        coefficients = np.einsum("mdna,mna->md", self.jacobians, alphas)
        model = kernel_potential(
            self.descriptors,
            coefficients,
            permutations=self.permutations,
            sigma=self.sigma,
            std=std,
            offset=0.0,
            lam=self.lam,
            molecule=labels.molecule,
            alphas=alphas,
            dataset=labels.name,
            theory=labels.theory,
            knows_energies=labels.energies is not None,
            **provenance,
        )
        if labels.energies is None:
            return model
        predicted, _ = model.predict(labels.positions)
        _check_energies(labels, predicted)
        offset = jnp.asarray(np.mean(labels.energies - predicted))
        return model.replace({"gdml": {**model.params["gdml"], "offset": offset}})


# -- evaluation ----------------------------------------------------------------------------


@jax.jit
def _describe(R):
    """Descriptors (M, D) and their Jacobians (M, D, N, 3) of positions (M, N, 3)."""
    return jax.vmap(descriptor)(R), jax.vmap(jacobian)(R)


def force_rmse(potential: Potential, data: Dataset) -> float:
    """Root mean square error of the force components, kcal/mol/Å."""
    return float(np.sqrt(np.mean((potential.predict(data.positions)[1] - data.forces) ** 2)))


def residual(data: Dataset, baseline: Potential) -> Dataset:
    """`data` with the energies and forces of `baseline` (in its atom order) subtracted."""
    energies, forces = baseline.predict(data.positions)
    if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
        finite = np.isfinite(forces).all(axis=(1, 2)) & np.isfinite(energies)
        raise InputError(
            f"{_who(data)}: the baseline is not finite at frame {int(np.argmin(finite))}; "
            "mend its parameters or remove the frame"
        )
    return replace(
        data,
        energies=None if data.energies is None else data.energies - energies,
        forces=data.forces - forces,
    )


def in_order_of(baseline: Potential, data: Dataset) -> Potential:
    """`baseline` in the atom order of `data`, matched by the bond graph where it knows its own."""
    if baseline.molecule is not None:
        place = baseline.molecule.match(data.molecule)
        in_order = np.array_equal(place, np.arange(data.n_atoms))
        return baseline if in_order else baseline.on(place)
    needed = baseline.n_atoms or baseline.program.n_atoms_min
    if needed > data.n_atoms or baseline.n_atoms not in (None, data.n_atoms):
        raise InputError(
            f"{_who(data)}: the baseline is for {needed} atoms, the data have {data.n_atoms}; "
            "place it with .on(atoms)"
        )
    return baseline


# -- checks --------------------------------------------------------------------------------


def require_float64() -> None:
    """InputError unless JAX computes in float64."""
    if not jax.config.jax_enable_x64:
        raise InputError(
            'kernel training needs float64: call jax.config.update("jax_enable_x64", True) first, '
            "or set JAX_ENABLE_X64=1"
        )


def _who(data: Dataset) -> str:
    return data.name or "dataset"


def _sigmas(sigma) -> list[float]:
    values = sorted(set(np.atleast_1d(SIGMAS if sigma is None else sigma).astype(float).tolist()))
    if not values or not np.isfinite(values).all() or values[0] <= 0.0:
        raise InputError(f"sigma must be positive, got {sigma!r}")
    return values


def _draw(data, n_train, valid, needs_valid, seed) -> tuple[Dataset, Dataset | None]:
    """The training frames, and the frames to choose σ on where they are needed."""
    if data.lattice is not None:
        raise InputError(f"{_who(data)}: periodic data (a lattice) are not supported")
    data = replace(data, index=None)  # frames are counted in the data set that was passed
    n_train = len(data) if n_train is None else n_train
    if n_train < 2:
        raise InputError(f"{_who(data)}: n_train is {n_train}, training needs at least two frames")
    if n_train > len(data):
        raise InputError(f"{_who(data)}: n_train is {n_train}, there are {len(data)} frames")
    if n_train == len(data):
        frames, rest = data, data[:0]
    else:
        parts = data.split(n_train, 0, seed=seed)
        frames, rest = parts.train, parts.test
    if isinstance(valid, Dataset):
        if not np.array_equal(valid.numbers, data.numbers):
            raise InputError(f"{_who(valid)}: the validation frames are of other atoms")
        return frames, valid if needs_valid else None
    if not needs_valid:
        return frames, None
    count = min(MAX_VALID, len(rest)) if valid is None else valid
    if not 0 < count <= len(rest):
        raise InputError(
            f"{_who(data)}: {len(rest)} frames are left to choose sigma on ({count} wanted); "
            "give one sigma, or validation frames as valid="
        )
    return frames, rest[:count]


def _refuse_identical(descriptors, permutations, frames: Dataset) -> None:
    centred = descriptors - descriptors.mean(axis=0)
    square = np.sum(centred**2, axis=1)
    for p in pair_permutations(permutations):
        # |x_i − x_j^p|² by a matrix product, checked by differences where it is small
        permuted = descriptors[:, p] - descriptors.mean(axis=0)
        near = square[:, None] + np.sum(permuted**2, axis=1) - 2.0 * centred @ permuted.T < 1e-9
        for i, j in np.argwhere(np.tril(near, -1)):
            if np.linalg.norm(centred[i] - permuted[j]) < _IDENTICAL:
                raise InputError(
                    f"{_who(frames)}: frames {frames.index[j]} and {frames.index[i]} are the same "
                    "geometry; remove one of them"
                )


def _check_energies(labels: Dataset, predicted: np.ndarray) -> None:
    """Whether forces integrate to the energies, where there are enough frames to tell."""
    if len(predicted) < 10 or np.ptp(labels.energies) == 0.0 or np.ptp(predicted) == 0.0:
        return
    correlation = np.corrcoef(labels.energies, predicted)[0, 1]
    slope = np.polyfit(predicted, labels.energies, 1)[0]
    if correlation < -0.5:
        raise InputError(
            f"{_who(labels)}: energies fall where the forces say that they rise (correlation "
            f"{correlation:.2f}): these are gradients, not forces; change their sign"
        )
    if correlation < 0.5 or not 0.5 < slope < 2.0:
        warnings.warn(
            f"{_who(labels)}: energies and forces of the training frames do not belong together "
            f"(correlation {correlation:.2f}, slope {slope:.2f}): the energies of this model are "
            "unreliable; check units and levels of theory, or use more frames",
            stacklevel=4,
        )


def _require_memory(needed: int) -> None:
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return  # not a POSIX system: the allocation itself will tell
    if needed > 0.95 * there:
        raise InputError(
            f"the kernel matrix needs {needed / 1e9:.1f} GB, this machine has {there / 1e9:.1f}; "
            "use fewer training frames"
        )
