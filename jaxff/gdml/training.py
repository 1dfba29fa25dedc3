"""Training of sGDML models on the frames of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import numpy as np

from jaxff.dataset import Dataset
from jaxff.domain import Domain, Trained
from jaxff.errors import InputError
from jaxff.gdml.adapt import PRIORS, Adaptation
from jaxff.gdml.checkpoint import Checkpoint
from jaxff.gdml.dense import Dense
from jaxff.gdml.fragment_system import FragmentSystem, check_fragments
from jaxff.gdml.fragments import FragmentType, fragment_types
from jaxff.gdml.frames import (
    check_energies,
    checked_atoms,
    draw,
    group_on,
    restricted,
    some,
    warn_if_not_learnt,
)
from jaxff.gdml.metric import learn_metric
from jaxff.gdml.search import search_width, widths_below
from jaxff.gdml.settings import Kernel, Run, Trial, ascending
from jaxff.gdml.solvers import Solver
from jaxff.gdml.system import KernelSystem, require_float64, residual
from jaxff.npz import digest
from jaxff.potential import Potential
from jaxff.sanity import check_labels
from jaxff.settings import checked_type

SEARCH_SHARE, SEARCH_LEAST = 4, 200  # sigma is searched for on a quarter of the frames, or on 200
ADAPT_UNKNOWNS = 9000  # unknowns of the factor with which the baseline is adapted


def train(
    dataset: Dataset,
    valid: Dataset | int | None = None,
    *,
    n_train: int | None = None,
    sigma: float | Sequence[float] | None = None,
    baseline: Potential | None = None,
    kernel: Kernel | None = None,
    solver: Solver | None = None,
    run: Run | None = None,
) -> Potential:
    """Train an sGDML model on the forces of a data set.

    With a baseline, the kernel learns the difference between reference and baseline.

    Args:
        dataset: M frames.
        valid: validation frames, on which σ, λ and the prior are chosen; or the number of frames
            to draw from the frames that are not used for training (None: up to 500).
        n_train: number of training frames, drawn at random with the distribution of energies of
            the data set (None: all frames, in their order).
        sigma: length scale σ, 1/Å.  Several values are tried in ascending order until the
            validation error increases.  None: search on a quarter of the frames (at least 200),
            then try smaller values on all frames.
        baseline: a potential.  The bond graph matches the atoms to the data set.
        kernel: settings of the model: λ, symmetries, descriptor or learnt metric, energies, atoms,
            adaptation.
        solver: settings of the solver.
        run: seed, memory limit, checkpoint folder and progress.

    Returns:
        The kernel, or the sum of baseline and kernel, in the atom order of the data set.

    Raises:
        InputError: too few or identical frames, training frames among the validation frames,
            gradients in place of forces, or labels that contradict the baseline.  Also: float64
            not enabled, too little memory, a matrix that is not positive definite, or a solver
            that did not converge.

    Source: Chmiela et al., Sci. Adv. 3, e1603015 (2017); Nat. Commun. 9, 3887 (2018).
    """
    kernel, solver, run = kernel or Kernel(), solver or Solver(), run or Run()
    require_float64()
    checked_type("dataset", dataset, Dataset)
    if baseline is not None:
        checked_type("baseline", baseline, Potential)
    if kernel.adapt_baseline and baseline is None:
        raise InputError(
            f"adapt_baseline={kernel.adapt_baseline!r} needs a baseline: give baseline=, or use "
            "adapt_baseline=False"
        )
    if kernel.energies is None:
        dataset = replace(dataset, energies=None)
    sigmas = None if sigma is None else ascending(sigma, "sigma")
    lams = ascending(kernel.lam, "lam")
    choosing = sigmas is None or len(sigmas) > 1 or len(lams) > 1 or kernel.adapt_baseline is True
    frames, chosen_on = draw(dataset, n_train, valid, choosing, run.seed)
    if kernel.fragments is not None:
        check_fragments(frames, solver)
    if baseline is not None:
        baseline = baseline.matched(dataset.molecule)
        if run.check_labels and baseline.program.physical and dataset.lattice is None:
            check_labels(frames, *baseline.predict(frames.positions))
    atoms = None if kernel.atoms is None else checked_atoms(kernel.atoms, dataset)

    run.report("symmetries", 0.0)
    permutations = group_on(dataset, atoms, kernel.symmetries, run.seed)
    run.report("symmetries", 1.0)
    kinds = [] if kernel.fragments is None else fragment_types(dataset.molecule, kernel.fragments)
    if kernel.symmetries is None:
        kinds = [kind._replace(permutations=kind.permutations[:1]) for kind in kinds]

    provenance = {"train_md5": dataset.fingerprint(), "train_index": frames.index}
    if chosen_on is not None:
        given = isinstance(valid, Dataset)
        provenance["valid_md5"] = (valid if given else dataset).fingerprint()
        provenance["valid_index"] = np.arange(len(valid)) if given else chosen_on.index
    task = _Task(
        valid=chosen_on,
        baseline=baseline,
        kernel=replace(kernel, atoms=atoms),
        permutations=permutations,
        kinds=kinds,
        solver=solver,
        run=run,
        provenance=provenance,
    )
    if run.checkpoint is not None:
        task.checkpoint = Checkpoint(run.checkpoint, task.request(frames))
    if kernel.learn_metric:
        task.learn_metric(frames, lams[0])
    if sigmas is None:
        count = min(len(frames), max(SEARCH_LEAST, len(frames) // SEARCH_SHARE))
        few = some(frames, count, run.seed)
        run.report("searching sigma", 0.0)
        start = search_width(lambda value: task.best(few, value, lams, PRIORS[-1:])[1])
        sigmas = [start] if count == len(frames) else widths_below(start)
    best, best_error = task.best(frames, sigmas[0], lams)
    for value in sigmas[1:]:
        model, error = task.best(frames, value, lams)
        if error >= best_error:
            break
        best, best_error = model, error
    predicted, forces = best.predict(frames.positions)
    if atoms is None:
        if frames.energies is not None:
            check_energies(frames.label, frames.energies, predicted)
        below = 0.0 if baseline is None else baseline.predict(frames.positions)[1]
        warn_if_not_learnt(frames, forces, below)
    trained = [] if atoms is None else [part._replace(whole=False) for part in best.trained]
    molecule = restricted(dataset, atoms).molecule
    positions = restricted(frames, atoms).positions
    domain = Domain.of(molecule, positions, predicted, permutations, frames.lattice)
    trained.append(Trained(domain, atoms))
    return Potential(best.program, best.params, dataset.molecule, trained=trained)


def force_rmse(potential: Potential, data: Dataset) -> float:
    """Root mean square error of the force components of a potential, kcal/mol/Å."""
    return float(np.sqrt(np.mean((potential.predict(data.positions)[1] - data.forces) ** 2)))


@dataclass
class _Task:
    """Data that all models of a training share, and the models trained so far."""

    valid: Dataset | None
    baseline: Potential | None
    kernel: Kernel
    permutations: np.ndarray
    kinds: list[FragmentType]
    solver: Solver
    run: Run
    provenance: dict
    checkpoint: Checkpoint | None = None
    done: dict = field(default_factory=dict)

    @cached_property
    def adaptation(self) -> Adaptation:
        """The fits of the parameters of the baseline."""
        assert self.baseline is not None
        return Adaptation(self.baseline)

    def request(self, frames: Dataset) -> dict:
        """All inputs that determine the models, except the σ, λ and prior of a model."""
        kernel, baseline = self.kernel, self.baseline
        first = restricted(frames, kernel.atoms).positions[0]
        return {
            "name": frames.name,
            "theory": frames.theory,
            "lattice": frames.lattice,
            **self.provenance,
            "baseline": None
            if baseline is None
            else digest(baseline.params, *baseline.predict(frames.positions[:3])),
            "adapt_baseline": kernel.adapt_baseline,
            # The metric is learnt with the smallest λ, and all models use it.
            "learn_metric": kernel.learn_metric and ascending(kernel.lam, "lam")[0],
            "atoms": kernel.atoms,
            "energies": kernel.energies,
            "solver": self.solver.name,
            "seed": self.run.seed,
            # Functions are compared by their values, as different functions may share a name.
            "descriptor": np.asarray(kernel.descriptor(first, frames.lattice)),
            "symmetries": self.permutations,
            "fragments": self.kinds,
        }

    def learn_metric(self, frames: Dataset, lam: float) -> None:
        """Replace the descriptor by the result of `learn_metric` for the training labels."""
        descriptor = self.checkpoint.descriptor() if self.checkpoint else None
        if descriptor is None:
            labels = frames if self.baseline is None else residual(frames, self.baseline)
            descriptor = learn_metric(
                restricted(labels, self.kernel.atoms),
                self.permutations,
                lam=lam,
                seed=self.run.seed,
                seconds=self.run.metric_seconds or np.inf,
                progress=self.run.progress,
            )
            if self.checkpoint:
                self.checkpoint.keep_descriptor(descriptor)
        self.kernel = replace(self.kernel, descriptor=descriptor, learn_metric=False)

    def best(
        self,
        frames: Dataset,
        sigma: float,
        lams: Sequence[float],
        priors: Sequence[float | None] = PRIORS,
    ) -> tuple[Potential, float]:
        """The best model with this σ, and its validation error (∞ without validation frames)."""
        if not self.kernel.adapt_baseline:
            priors = (None,)
        elif self.kernel.adapt_baseline is not True:
            priors = (float(self.kernel.adapt_baseline),)
        elif self.valid is None:
            priors = PRIORS[:1]
        results: list[tuple[Potential, float]] = []
        for lam in lams:
            models, lowest = _Models(self, frames, sigma, lam), np.inf
            for prior in priors:
                model, error = models.trained(prior)
                results.append((model, error))
                if error >= lowest:
                    break
                lowest = error
        return min(results, key=itemgetter(1))


@dataclass
class _Models:
    """The models of one σ and λ, one for each prior; all use the same solver."""

    task: _Task
    frames: Dataset
    sigma: float
    lam: float

    def trained(self, prior: float | None) -> tuple[Potential, float]:
        """The model for a prior (None: fixed baseline), and its validation error."""
        task, count = self.task, len(self.frames)
        key = self._key + ("" if prior is None else f"-{prior:g}")
        # The state of the solver can be continued to any tolerance, a finished model cannot.
        name = f"{key}-{task.solver.tolerance:g}"
        known = task.done.get(key)
        if known is None:
            known = task.checkpoint.finished(name) if task.checkpoint else None
            if known is None:
                model = self._fitted(prior)
                error = np.inf if task.valid is None else force_rmse(model, task.valid)
                known = model, error, str(self.system.solver)
                if task.checkpoint:
                    task.checkpoint.keep(name, *known)
                    task.checkpoint.state(self._key).unlink(missing_ok=True)
            task.done[key] = known
            if task.valid is not None:
                _announce(Trial(self.sigma, self.lam, prior, count, known[2], known[1]), task.run)
        return known[:2]

    @property
    def _key(self) -> str:
        return f"{len(self.frames)}-{self.sigma:g}-{self.lam:g}"

    @cached_property
    def system(self) -> KernelSystem:
        """The kernel equations of all training frames."""
        checkpoint = self.task.checkpoint
        state = checkpoint.state(self._key) if checkpoint else None
        return self._made(self.frames, self.task.solver, state)

    @cached_property
    def _factorised(self) -> tuple[KernelSystem, Dataset]:
        """Equations with a Cholesky factor, and their frames, for adapting the baseline."""
        if isinstance(self.system.solver, Dense):
            return self.system, self.frames
        few = some(self.frames, min(len(self.frames), ADAPT_UNKNOWNS // self.system.op.width), 0)
        return self._made(few, replace(self.task.solver, name="dense"), None), few

    def _made(self, frames: Dataset, solver: Solver, state: Path | None) -> KernelSystem:
        task, kernel, run = self.task, self.task.kernel, replace(self.task.run, checkpoint=state)
        if kernel.fragments is not None:
            symmetries = task.permutations, task.kinds
            return FragmentSystem(frames, *symmetries, self.sigma, self.lam, solver=solver, run=run)
        return KernelSystem(
            restricted(frames, kernel.atoms),
            task.permutations,
            self.sigma,
            self.lam,
            constrain_energies=kernel.energies == "constrain",
            descriptor=kernel.descriptor,
            solver=solver,
            run=run,
        )

    def _fitted(self, prior: float | None) -> Potential:
        """The kernel, or its sum with the baseline, which is adapted if there is a prior."""
        task, system, labels = self.task, self.system, self.frames
        baseline, atoms = task.baseline, task.kernel.atoms
        if prior is not None and baseline is not None:
            factorised = self._factorised
            task.run.report("adapting the baseline", 0.0)
            baseline = task.adaptation.fitted(*factorised, prior)
        if baseline is not None:
            labels = residual(labels, baseline)
        kernel = system.fit(restricted(labels, atoms), **task.provenance)
        if atoms is not None:
            kernel = kernel.on(atoms)
        return kernel if baseline is None else baseline + kernel


def _announce(trial: Trial, run: Run) -> None:
    if run.on_trial is not None:
        run.on_trial(trial)
    prior = "" if trial.prior is None else f", prior {trial.prior:g}"
    run.report(
        f"sigma {trial.sigma:g}, lambda {trial.lam:g}{prior}, {trial.n_train} frames: "
        f"validation force RMSE {trial.valid_rmse:.4f} kcal/mol/Å",
        1.0,
    )
