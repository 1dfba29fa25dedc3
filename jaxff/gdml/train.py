"""Training of sGDML models: frames in, potential out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.gdml.adapt import PRIORS, adapted
from jaxff.gdml.checkpoint import Checkpoint
from jaxff.gdml.descriptor import Descriptor, inverse_distances
from jaxff.gdml.search import search_width, widths_below
from jaxff.gdml.solvers import Dense, Progress
from jaxff.gdml.symmetry import check_symmetries, find_symmetries, restricted_to
from jaxff.gdml.system import KernelSystem, require_float64, residual
from jaxff.npz import digest
from jaxff.potential import Potential

MAX_VALID = 500  # frames drawn to choose σ, unless told otherwise
SEARCH_SHARE, SEARCH_LEAST = 4, 200  # σ is searched for on a quarter of the frames, or on 200
ADAPT_UNKNOWNS = 9000  # a baseline is adapted on so many frames as make these, with a factor
ENERGIES = ("offset", "constrain", None)


@dataclass(frozen=True)
class Trial:
    """One model tried: its σ, λ and prior, on how many frames, and how well it did.

    Attributes:
        sigma, lam: 1/Å, and the regularisation.
        prior: strength of the baseline's prior, or None.
        n_train: training frames.
        solver: what solved it.
        valid_rmse: force RMSE on the validation frames, kcal/mol/Å.
    """

    sigma: float
    lam: float
    prior: float | None
    n_train: int
    solver: str
    valid_rmse: float


def train(
    dataset: Dataset,
    n_train: int | None = None,
    *,
    sigma: float | Sequence[float] | None = None,
    lam: float | Sequence[float] = 1e-10,
    valid: Dataset | int | None = None,
    symmetries: str | np.ndarray | None = "auto",
    baseline: Potential | None = None,
    adapt: bool = False,
    atoms: Sequence[int] | None = None,
    energies: str | None = "offset",
    descriptor: Descriptor = inverse_distances,
    solver: str = "auto",
    tolerance: float = 1e-4,
    max_memory: float | None = None,
    max_iterations: int = 5000,
    checkpoint=None,
    seed: int = 0,
    progress: Progress | None = None,
    trials: list[Trial] | None = None,
) -> Potential:
    """Train an sGDML model on the forces of a data set.

    With `baseline` the model learns what the baseline leaves over, and the potential returned is
    their sum; the baseline's atoms are matched to the data set's by the bond graph.

    Args:
        dataset: M frames; the result has its atom order.
        n_train: frames drawn at random from it, evenly over its energies (None: all, in order).
        sigma: length scale, 1/Å; or several, of which the best on `valid` is taken, going up and
            stopping at the first that is worse; None: searched for on a quarter of the frames
            (at least 200), then from there downwards on all of them.
        lam: regularisation λ relative to the variance of the forces; or several to choose among.
        valid: frames to choose on, or how many to draw from the rest (None: up to 500).
        symmetries: "auto" (recovered from the frames), a group of permutations (P, N), or None.
        baseline: a potential in kcal/mol and Å.
        adapt: re-estimate the baseline's trainable parameters together with the kernel, so that
            what is left over is easy to learn (see `jaxff.gdml.adapt`), on a random part of the
            frames where they are many; how far they may move is chosen on `valid`, going up and
            stopping at the first that is worse.
        atoms: (K,) the atoms that the kernel acts on (None: all); it then learns the forces on
            them, as far as they depend on these atoms alone: raise `lam` for that.
        energies: "offset" (they set the model's zero), "constrain" (they are fitted beside the
            forces) or None (not used).
        descriptor: what the kernel compares, see `jaxff.gdml.descriptor`.
        solver: "dense", "iterative" or "auto", see `KernelSystem`.
        tolerance: relative residual that the iterative solver reaches.
        max_memory: GB that the process may hold (None: 80 % of the machine's).
        max_iterations: of the iterative solver.
        checkpoint: folder that keeps what is finished: the same call goes on from there after an
            interruption.  It is left in place; remove it when the model is saved.
        seed: of every random choice.
        progress: called with a phase and the fraction of it that is done.
        trials: a list to which every model tried is appended.

    Returns:
        The trained potential, in the data set's atom order.

    Raises:
        InputError: too few or identical frames, training frames among the validation frames,
            gradients in place of forces, float64 not enabled, a system too large for the memory
            or not positive definite, a solver that did not converge.

    Source: Chmiela et al., Sci. Adv. 3, e1603015 (2017); Nat. Commun. 9, 3887 (2018).
    """
    require_float64()
    _check_options(dataset, baseline, adapt, tolerance, max_memory, max_iterations)
    if energies not in ENERGIES:
        raise InputError(f'energies={energies!r}: use "offset", "constrain" or None')
    if energies is None:
        dataset = replace(dataset, energies=None)
    report = progress or (lambda phase, fraction: None)
    sigmas, lams = several(sigma, "sigma"), several(lam, "lam")
    choosing = sigmas is None or len(sigmas) > 1 or len(lams) > 1 or adapt
    drawn = not isinstance(valid, Dataset)
    frames, valid = _draw(dataset, n_train, valid, choosing, seed)
    if baseline is not None:
        baseline = baseline.matched(dataset.molecule)
    if atoms is not None:
        atoms = checked_atoms(atoms, dataset)
        if adapt:
            raise InputError("adapt=True needs a kernel on all atoms: leave out atoms=")
    on_atoms = partial(_restricted, atoms=atoms)

    report("symmetries", 0.0)
    permutations = group_on(dataset, atoms, symmetries, seed)
    report("symmetries", 1.0)

    provenance = {"train_md5": dataset.fingerprint(), "train_index": frames.index}
    if valid is not None:
        own = dataset if drawn else valid
        index = valid.index if drawn else np.arange(len(valid))
        provenance |= {"valid_md5": own.fingerprint(), "valid_index": index}
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(
            checkpoint,
            {
                **{key: str(value) for key, value in provenance.items() if "md5" in key},
                "names": [dataset.name, dataset.theory],
                "frames": digest(frames.index, *([] if valid is None else [valid.index])),
                "lattice": None if dataset.lattice is None else np.array(dataset.lattice).tolist(),
                "baseline": None if baseline is None else _identity(baseline, frames),
                "options": [adapt, atoms, energies, solver, seed],
                # What functions compute tells them apart, whatever their names.
                "descriptor": digest(descriptor(on_atoms(frames).positions[0], dataset.lattice)),
                "symmetries": permutations.tolist(),
            },
        )
    run = _Run(
        valid=valid,
        baseline=baseline,
        adapt=adapt,
        on_atoms=on_atoms,
        atoms=atoms,
        provenance=provenance,
        make_system=lambda frames, sigma, lam, path=None, solver=solver: KernelSystem(
            frames,
            permutations,
            sigma,
            lam,
            constrain_energies=energies == "constrain",
            descriptor=descriptor,
            solver=solver,
            tolerance=tolerance,
            max_memory=max_memory,
            max_iterations=max_iterations,
            seed=seed,
            checkpoint=path,
            progress=report,
        ),
        tolerance=tolerance,
        kept=kept,
        report=report,
        trials=[] if trials is None else trials,
    )
    if sigmas is None:
        count = min(len(frames), max(SEARCH_LEAST, len(frames) // SEARCH_SHARE))
        few = frames[np.sort(np.random.default_rng(seed).permutation(len(frames))[:count])]
        report("searching sigma", 0.0)
        sigma = search_width(lambda sigma: run.best(few, sigma, lams, PRIORS[-1:])[1])
        sigmas = [sigma] if count == len(frames) else widths_below(sigma)
    best, best_error = None, np.inf
    for value in sigmas:
        model, error = run.best(frames, value, lams)
        if best is not None and error >= best_error:
            break
        best, best_error = model, error
    if atoms is None:
        predicted, forces = best.predict(frames.positions)
        if frames.energies is not None:
            _check_energies(frames, predicted)
        _check_learnt(frames, forces, baseline)
    return Potential(best.program, best.params, dataset.molecule)


@dataclass
class _Run:
    """What all trials of one training share."""

    valid: Dataset | None
    baseline: Potential | None
    adapt: bool
    on_atoms: object
    atoms: tuple[int, ...] | None
    provenance: dict
    make_system: object
    tolerance: float
    kept: Checkpoint | None
    report: Progress
    trials: list[Trial]
    done: dict = field(default_factory=dict)

    def best(self, frames: Dataset, sigma, lams, priors=PRIORS) -> tuple[Potential, float]:
        """The best model of this σ and its validation error (∞ without validation frames)."""
        if not self.adapt:
            priors = (None,)
        elif self.valid is None:
            priors = PRIORS[:1]
        best, best_error = None, np.inf
        for lam in lams:
            lowest, system, exact = np.inf, None, None
            for prior in priors:
                key = f"{len(frames)}-{sigma:g}-{lam:g}" + ("" if prior is None else f"-{prior:g}")
                finished = self.done.get(key)
                solved = f"{key}-{self.tolerance:g}"  # a state serves any tolerance, a model not
                if finished is None and self.kept:
                    finished = self.kept.finished(solved)
                if finished is None:
                    if system is None:
                        path = self.kept.state(key) if self.kept else None
                        system = self.make_system(self.on_atoms(frames), sigma, lam, path)
                    if prior is not None and exact is None:
                        exact = self._exact(system, frames)
                    model = self._fitted(system, frames, prior, exact)
                    error = np.inf if self.valid is None else force_rmse(model, self.valid)
                    solver = str(system.solver)
                    if self.kept:
                        self.kept.keep(solved, model, error, solver)
                        self.kept.state(key).unlink(missing_ok=True)
                else:
                    model, error, solver = finished
                if self.valid is not None and key not in self.done:
                    self._tell(Trial(sigma, lam, prior, len(frames), solver, error))
                self.done[key] = model, error, solver
                if best is None or error < best_error:
                    best, best_error = model, error
                if error >= lowest:
                    break
                lowest = error
        return best, best_error

    def _exact(self, system: KernelSystem, frames: Dataset) -> tuple[KernelSystem, Dataset]:
        """A factorised system to adapt the baseline with, and its frames: all, or some of them."""
        if isinstance(system.solver, Dense):
            return system, frames
        count = min(len(frames), ADAPT_UNKNOWNS // system.op.width)
        few = frames[np.sort(np.random.default_rng(0).permutation(len(frames))[:count])]
        return self.make_system(few, system.sigma, system.lam, solver="dense"), few

    def _fitted(self, system, frames: Dataset, prior: float | None, exact) -> Potential:
        """The kernel, or the sum of the baseline (adapted, given a prior) and its kernel."""
        baseline, labels = self.baseline, frames
        if prior is not None:
            self.report("adapting the baseline", 0.0)
            baseline = adapted(baseline, *exact, prior)
        if baseline is not None:
            labels = residual(frames, baseline)
        kernel = system.fit(self.on_atoms(labels), **self.provenance)
        if self.atoms is not None:
            kernel = kernel.on(self.atoms)
        return kernel if baseline is None else baseline + kernel

    def _tell(self, trial: Trial) -> None:
        self.trials.append(trial)
        how = "" if trial.prior is None else f", prior {trial.prior:g}"
        self.report(
            f"sigma {trial.sigma:g}, lambda {trial.lam:g}{how}, {trial.n_train} frames: "
            f"validation force RMSE {trial.valid_rmse:.4f} kcal/mol/Å",
            1.0,
        )


def _identity(baseline: Potential, frames: Dataset) -> str:
    return digest(baseline.params, *baseline.predict(frames.positions[:3]))


def force_rmse(potential: Potential, data: Dataset) -> float:
    """Root mean square error of the force components, kcal/mol/Å."""
    return float(np.sqrt(np.mean((potential.predict(data.positions)[1] - data.forces) ** 2)))


# -- frames ------------------------------------------------------------------------------------


def _draw(data, n_train, valid, needs_valid, seed) -> tuple[Dataset, Dataset | None]:
    """The training frames, and the frames to choose on where they are needed."""
    data = replace(data, index=None)  # frames are counted in the data set that was passed
    n_train = len(data) if n_train is None else n_train
    for key, value in (("n_train", n_train), ("valid", valid)):
        if not isinstance(value, (int, np.integer, Dataset, type(None))):
            raise InputError(f"{key}={value!r} must be a whole number of frames")
    if n_train < 2:
        raise InputError(f"{data.label}: n_train is {n_train}, training needs at least two frames")
    if n_train > len(data):
        raise InputError(f"{data.label}: n_train is {n_train}, there are {len(data)} frames")
    if n_train == len(data):
        frames, rest = data, data[:0]
    else:
        parts = data.split(n_train, 0, seed=seed, stratify=True)
        frames, rest = parts.train, parts.test
    if isinstance(valid, Dataset):
        if needs_valid and len(valid) == 0:
            raise InputError(f"{valid.label}: no validation frames to choose on")
        if not np.array_equal(valid.numbers, data.numbers):
            raise InputError(f"{valid.label}: the validation frames are of other atoms")
        if not needs_valid:
            return frames, None
        seen = {R.tobytes() for R in frames.positions}
        shared = sum(R.tobytes() in seen for R in valid.positions)
        if shared:
            raise InputError(
                f"{valid.label}: {shared} of the validation frames are training frames; "
                "draw both with Dataset.split, or name other frames"
            )
        return frames, valid
    if not needs_valid:
        return frames, None
    count = min(MAX_VALID, len(rest)) if valid is None else valid
    if not 0 < count <= len(rest):
        raise InputError(
            f"{data.label}: {len(rest)} frames are left to choose sigma on ({count} wanted); "
            "give one sigma, or validation frames as valid="
        )
    return frames, rest.split(count, 0, seed=seed, stratify=True).train


def _check_options(dataset, baseline, adapt, tolerance, max_memory, max_iterations) -> None:
    if not isinstance(dataset, Dataset):
        raise InputError(f"training needs a jaxff.Dataset, got {type(dataset).__name__}")
    if baseline is not None and not isinstance(baseline, Potential):
        raise InputError(f"baseline={baseline!r} is not a Potential")
    if adapt and baseline is None:
        raise InputError("adapt=True needs a baseline whose parameters it re-estimates")
    limits = {"tolerance": tolerance, "max_memory": max_memory, "max_iterations": max_iterations}
    for name, value in limits.items():
        if value is not None and not (np.isreal(value) and 0.0 < value < np.inf):
            raise InputError(f"{name}={value!r} must be a positive number")


def _restricted(data: Dataset, atoms: tuple[int, ...] | None) -> Dataset:
    return data if atoms is None else data.reorder(atoms)


def checked_atoms(atoms, data: Dataset, least: int = 2) -> tuple[int, ...]:
    """`atoms` as integers; InputError unless they are `least` or more distinct atoms of `data`."""
    index = np.asarray(atoms)
    if (
        index.ndim != 1
        or index.dtype.kind not in "iu"
        or len(index) < least
        or len(set(index.tolist())) != len(index)
        or not ((index >= 0) & (index < data.n_atoms)).all()
    ):
        raise InputError(
            f"{data.label}: atoms={atoms!r} must be {'two' if least == 2 else least} or more "
            f"distinct atoms from 0 to {data.n_atoms - 1}"
        )
    return tuple(index.tolist())


def group_on(data: Dataset, atoms: tuple[int, ...] | None, symmetries, seed: int) -> np.ndarray:
    """The permutations (P, K) of `atoms` (K,), or of all, that `symmetries` asks for.

    "auto" are those of the whole molecule that keep the atoms among themselves: alone they may
    look more alike than they are.
    """
    if symmetries is None:
        return np.arange(data.n_atoms if atoms is None else len(atoms))[None]
    if not isinstance(symmetries, str):
        return check_symmetries(symmetries, _restricted(data, atoms).molecule)
    if symmetries != "auto":
        raise InputError(f'symmetries={symmetries!r}: use "auto", None or permutations (P, N)')
    whole = find_symmetries(data.positions, data.molecule, lattice=data.lattice, seed=seed)
    return whole if atoms is None else restricted_to(whole, atoms)


def several(values, name: str) -> list[float] | None:
    """`values`, one or several, as an ascending list; InputError unless they are positive."""
    if values is None and name == "sigma":
        return None
    try:
        out = sorted(set(np.atleast_1d(values).astype(float).ravel().tolist()))
    except (TypeError, ValueError):
        out = []
    if not out or not np.isfinite(out).all() or out[0] <= 0.0:
        raise InputError(f"{name} must be positive, got {values!r}")
    return out


def _check_learnt(labels: Dataset, forces: np.ndarray, baseline: Potential | None) -> None:
    left = np.sqrt(np.mean((forces - labels.forces) ** 2))
    before = labels if baseline is None else residual(labels, baseline)
    if left > 0.9 * np.sqrt(np.mean(before.forces**2)) > 0.0:
        warnings.warn(
            f"{labels.label}: the model leaves {left:.3g} kcal/mol/Å of its own training forces "
            "unexplained, almost all; sigma is far from any use here, lam too large, or the "
            "forces are noise",
            stacklevel=3,
        )


def _check_energies(labels: Dataset, predicted: np.ndarray) -> None:
    """Whether forces integrate to the energies, where there are enough frames to tell."""
    if len(predicted) < 10 or np.ptp(labels.energies) == 0.0 or np.ptp(predicted) == 0.0:
        return
    correlation = np.corrcoef(labels.energies, predicted)[0, 1]
    slope = np.polyfit(predicted, labels.energies, 1)[0]
    if correlation < -0.5:
        raise InputError(
            f"{labels.label}: energies fall where the forces say that they rise (correlation "
            f"{correlation:.2f}): these are gradients, not forces; change their sign"
        )
    if correlation < 0.5 or not 0.5 < slope < 2.0:
        warnings.warn(
            f"{labels.label}: energies and forces of the training frames do not belong together "
            f"(correlation {correlation:.2f}, slope {slope:.2f}): the energies of this model are "
            "unreliable; check units and levels of theory, or use more frames",
            stacklevel=3,
        )
