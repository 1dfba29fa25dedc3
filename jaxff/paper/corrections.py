"""Refitted force fields of aspirin, and kernels that correct force fields locally."""

from __future__ import annotations

from functools import partial

import numpy as np

from jaxff import gdml
from jaxff.analysis import scan
from jaxff.dataset import Dataset
from jaxff.learn import fit
from jaxff.md import Descent
from jaxff.paper.basins import MOLECULE, torsions
from jaxff.paper.dynamics import gaff_frames, sampled
from jaxff.paper.experiment import Setting
from jaxff.paper.minima import atoms_of
from jaxff.potential import Potential
from jaxff.reference import Labelling, label_frames

# Atoms in the order of the SMILES: the ester without its methyl group, the acid, and the two ring
# carbons between them.
INTERACTING = (1, 2, 3, 4, 9, 10, 11, 12)
CORRECTED = " + ML"  # ends the names of corrected potentials
SIGMA = 2.0  # 1/Å; kernels of 1 to 2/Å are equally accurate near the training frames


def refitted(setting: Setting, form: str) -> Potential:
    """Fit GAFF or an extended form to frames of the data; with small sizes, return GAFF."""
    if setting.small:
        return setting.gaff(MOLECULE)

    def make() -> Potential:
        part = setting.split(setting.dataset(MOLECULE), 400)
        progress = setting.titled(f"{form} of {MOLECULE}")
        return fit(setting.gaff(MOLECULE, form), part.train, progress=progress).potential

    return setting.kept(f"{MOLECULE}-{form}-fitted", make)


def labelled(setting: Setting, name: str, positions: np.ndarray) -> Dataset:
    """Label positions (F, N, 3) Å of aspirin with the reference, or read labels from `fig9`.

    If no calculator has the level of theory of the data, sGDML labels the frames.
    """
    molecule = setting.dataset(MOLECULE).molecule
    method = setting.reference(MOLECULE) or setting.kernel(MOLECULE)
    return label_frames(
        [molecule.with_positions(R) for R in positions], setting.place("fig9") / f"{name}.npz",
        Labelling(method, name=MOLECULE), molecule=molecule, progress=setting.titled(name),
    ).dataset  # fmt: skip


def profile(setting: Setting) -> Dataset:
    """Label geometries on a grid of the torsions of the ester and the acid, including barriers.

    The other degrees of freedom are relaxed with class-II refitted to the data.
    """
    data, step = setting.dataset(MOLECULE), setting.size(30.0, 120.0)
    values = np.radians(np.arange(-180.0, 180.0, step))
    lowest = int(np.argmin(data.energies))  # type: ignore[arg-type]
    grid = scan(
        refitted(setting, "class2"),
        data.molecule.with_positions(data.positions[lowest]),
        torsions(data.molecule)[:2].tolist(), [values, values],
        relax=not setting.small,
        descent=Descent(tolerance=0.1, max_steps=300),
        progress=setting.titled("torsions of aspirin"),
    )  # fmt: skip
    usable = grid.converged & (grid.relative < setting.size(25.0, np.inf))
    return labelled(setting, "profile", grid.positions[usable])


def corrected(setting: Setting, title: str, baseline: Potential) -> Potential:
    """Train a kernel that corrects a potential on the ester and acid groups of aspirin.

    The kernel is trained on the torsion profile and on frames of the data. Then the sum of the
    potential and the kernel is sampled, and the kernel is trained again with the new frames.

    Args:
        setting: the settings.
        title: name of the potential.
        baseline: the potential to correct.
    """
    data = setting.dataset(MOLECULE)
    atoms = atoms_of(data.molecule)[list(INTERACTING)].tolist()
    count = setting.size(150, 30)
    some = data.split(count, setting.size(100, 20), 0, seed=setting.seed, stratify=True)
    near = profile(setting).joined(some.train)

    def trained(name: str, frames: Dataset) -> Potential:
        def make() -> Potential:
            run = gdml.Run(seed=setting.seed, progress=setting.titled(f"correction of {title}"))
            lam = setting.size((1e-3, 1e-2, 1e-1), 1e-2)
            return gdml.train_correction(
                frames, baseline, atoms, some.valid, sigma=SIGMA,
                kernel=gdml.LocalKernel(lam=lam), run=run,
            )  # fmt: skip

        return baseline + setting.kept(f"{MOLECULE}-{name}", make).on(atoms)

    plain = title.lower().replace(" ", "-")
    if setting.small:
        run = gaff_frames(setting, MOLECULE)
    else:
        first = partial(trained, f"{plain}-correction-1", near)
        run = sampled(setting, MOLECULE, f"{title} first correction", first, 10.0)
    rng = np.random.default_rng(setting.seed)
    visited = run.reshape(-1, *run.shape[2:])
    chosen = visited[rng.choice(len(visited), min(count, len(visited)), replace=False)]
    own = labelled(setting, f"{plain}-own", chosen)
    return trained(f"{plain}-correction-2", near.joined(own))
