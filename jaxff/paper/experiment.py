"""Settings, data and models shared by the experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxff import gdml, md
from jaxff.dataset import Dataset, Split, packaged_dataset
from jaxff.errors import InputError
from jaxff.gaff import gaff
from jaxff.gaff.charges import find_charges
from jaxff.gaff.lewis import lewis_structure
from jaxff.learn import evaluate
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, write_npz
from jaxff.potential import Potential
from jaxff.reference import Labelling, Sampling, calculator, label_frames, select
from jaxff.saved import load, save

T = TypeVar("T")

# Ends of the names of data sets: labelled by Hartree-Fock, and given for the surfaces alone.
HARTREE_FOCK, SURFACE = "-hf", "-surface"
PACKAGED = "-pbe"  # ends the names of the packaged data sets of surfaces
TORSIONS = "-torsions"  # ends the names of data sets over both torsions of a molecule

MOLECULES = {
    "ethanol": "CCO",
    "keto-malondialdehyde": "O=CCC=O",
    "enol-malondialdehyde": r"O=C/C=C\O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
}
# Calculators of levels of theory, which check and label further geometries.
CALCULATORS = {
    "GFN2-xTB": "gfn2-xtb",
    "GFN1-xTB": "gfn1-xtb",
    "PBE-D3BJ/DEF2-SVP": "pbe-d3bj",
    "HF/6-31G*": "hf",
}
# Dynamics at 500 K reaches all torsions of ethanol.
WITH_TORSIONS = ("keto-malondialdehyde",)
FORCE_FIELDS = {"MMFF94": "mmff94-rdkit", "UFF": "uff-rdkit", "Ghemical": "ghemical"}


@dataclass(frozen=True)
class Setting:
    """Settings of the experiments.

    Attributes:
        folder: folder of all results, models and data.
        small: whether small sizes are used, for a test run.
        seed: random seed.
        given: data sets that replace the packaged data sets, by molecule. Names of data sets only
            for surfaces and normal modes end with `SURFACE`.
        progress: called with the name of a phase and the fraction done.
        warnings: warnings of this experiment about frames outside the training data.
        made: potentials, each compiled once for all experiments, and the latest model of standard
            errors.
    """

    folder: Path
    small: bool = False
    seed: int = 0
    given: Mapping[str, Dataset] = field(default_factory=dict)
    progress: Callable[[str, float], None] = lambda _, __: None
    warnings: list[str] = field(default_factory=list)
    made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def size(self, full: T, small: T, paper: T | None = None) -> T:
        """Return the size of an experiment.

        It is `small` in a short test run, `paper` (unless None) if the user has given data sets,
        and otherwise `full`.
        """
        if self.small:
            return small
        return paper if paper is not None and self.given else full

    def place(self, experiment: str) -> Path:
        """Return the folder of an experiment, created if necessary."""
        folder = self.folder / experiment
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def dataset(self, name: str) -> Dataset:
        """Return the data set `name`.

        `name` is a molecule, or a result of `surface_set` or `hartree_fock_set`.
        """
        if name in self.given:
            return self.given[name]
        if name.endswith(HARTREE_FOCK):
            return self._labelled_by_hf(name.removesuffix(HARTREE_FOCK))
        return packaged_dataset(name.replace("-", "_"))

    def surface_set(self, molecule: str) -> str:
        """Return the name of the data set for a surface: few frames at a higher level of theory."""
        if molecule + SURFACE in self.given:
            return molecule + SURFACE
        return molecule if molecule in self.given else molecule + PACKAGED

    def hartree_fock_set(self, molecule: str) -> str:
        """Return the name of the data set at HF/6-31G* (HF/STO-3G with small sizes)."""
        return molecule + HARTREE_FOCK

    def torsion_frames(self, name: str) -> Dataset | None:
        """Return training frames on a grid of both torsions for a surface, or None.

        These frames have high energies, which dynamics rarely reach.
        """
        molecule = name.removesuffix(HARTREE_FOCK).removesuffix(PACKAGED)
        if molecule not in WITH_TORSIONS or molecule in self.given or molecule == name:
            return None
        frames = packaged_dataset(f"{molecule}{PACKAGED}{TORSIONS}".replace("-", "_"))
        return self._label_by_hf(frames, molecule + TORSIONS) if HARTREE_FOCK in name else frames

    def _labelled_by_hf(self, molecule: str) -> Dataset:
        data = self.dataset(self.surface_set(molecule))
        frames = data[select(data, self.size(160, 40), "farthest", seed=self.seed)]
        return self._label_by_hf(frames, molecule)

    def _label_by_hf(self, frames: Dataset, name: str) -> Dataset:
        labelling = Labelling("hf", {"basis": self.size("6-31g*", "sto-3g")}, name=frames.label)
        return label_frames(
            frames, self.place("data") / f"{name}-hf.npz", labelling,
            progress=self.titled(f"Hartree-Fock for {name}"),
        ).dataset  # fmt: skip

    def split(self, data: Dataset, n_train: int, draw: int = 0) -> Split:
        """Split data into training, up to 100 validation and up to 1,000 test frames.

        Args:
            data: the frames.
            n_train: number of training frames, limited to three quarters of all frames.
            draw: number added to the random seed.

        Raises:
            InputError: fewer than 40 frames.
        """
        n = len(data.distinct())
        if n < 40:
            raise InputError(
                f"{data.label} has {n} frames, but at least 40 are needed: give a larger data set"
            )
        n_valid = min(100, n // 8)
        n_train = min(n_train, 3 * n // 4)
        n_test = min(1000, n - n_train - n_valid)
        return data.split(n_train, n_valid, n_test, seed=self.seed + draw)

    def titled(self, title: str) -> Callable[[str, float], None]:
        """Return the progress function, with a title before each phase."""
        return lambda phase, fraction: self.progress(f"{title}: {phase}", fraction)

    def kept(self, name: str, make: Callable[[], Potential]) -> Potential:
        """Read a potential from the folder `models`, or create and save this potential."""
        if name not in self.made:
            path = self.place("models") / f"{name}.npz"
            if not path.is_file():
                save(path, make())
            self.made[name] = load(path)
        return self.made[name]

    def kernel(self, name: str, half: bool = False) -> Potential:
        """Train sGDML on a data set, as a fast substitute for the reference method.

        Args:
            name: the data set.
            half: whether to use only half of the training frames, to estimate errors.
        """

        def make():
            part = self.kernel_frames(name)
            sigma = self.size(None, 20.0)
            run = gdml.Run(seed=self.seed, progress=self.titled(f"sGDML of {name}"))
            train = part.train[::2] if half else part.train
            return gdml.train(train, part.valid, sigma=sigma, run=run)

        return self.kept(f"{name}-sgdml{'-half' if half else ''}", make)

    def charges(self, molecule: str) -> Any:
        """Return RESP charges (N,) e at HF/6-31G*, as in the paper.

        With small sizes, the result is "auto", which selects the packaged charges. Otherwise the
        charges are computed at RDKit's geometry and kept in the folder `models`.
        """
        if self.small:
            return "auto"
        path = self.place("models") / f"{molecule}-resp.npz"
        if not path.is_file():
            self.progress(f"RESP charges of {molecule}", 0.0)
            ideal, wanted = Molecule.from_smiles(MOLECULES[molecule]), self.dataset(molecule)
            values = np.empty(ideal.n_atoms)
            lewis = lewis_structure(ideal)
            values[ideal.match(wanted.molecule)] = find_charges(lewis, "resp").values
            write_npz(path, {"charges": values})
        return NpzReader(path, "charges").need("charges")

    @property
    def charge_model(self) -> str:
        """A description of GAFF's charges."""
        return "GAFF 1.81 with " + self.size("RESP charges (HF/6-31G*)", "packaged charges")

    def gaff(self, molecule: str, form: str = "gaff") -> Potential:
        """Return GAFF or one of its extended forms, in the atom order of the data set."""
        key = molecule, form
        if key not in self.made:
            charges = self.charges(molecule)
            self.made[key] = gaff(self.dataset(molecule).molecule, charges=charges, form=form)
        return self.made[key]

    def reference(self, name: str) -> str | None:
        """Return the name of the calculator with the level of theory of a data set, or None."""
        theory = self.dataset(name).theory
        return next((c for start, c in CALCULATORS.items() if theory.startswith(start)), None)

    def uncertainty(self, name: str) -> gdml.Uncertainty:
        """Return the model of the standard errors of `kernel(name)`."""
        latest, found = self.made.get("uncertainty", ("", None))
        if latest != name:
            part, kernel = self.kernel_frames(name), self.kernel(name)
            self.made.pop("uncertainty", None)
            found = gdml.uncertainty(kernel, part.train, part.valid, seed=self.seed)
            self.made["uncertainty"] = name, found
        return found

    def kernel_error(self, name: str) -> dict[str, float]:
        """Return the test errors of `kernel(name)`; see `jaxff.evaluate`."""
        return evaluate(self.kernel(name), self.kernel_frames(name).test)

    def kernel_frames(self, name: str) -> Split:
        """Return the training, validation and test frames of `kernel(name)`."""
        n_train = self.size({"aspirin": 400}.get(name, 500), 60, 1000)
        part, more = self.split(self.dataset(name), n_train), self.torsion_frames(name)
        return part if more is None else part._replace(train=part.train.joined(more))

    def sampling(
        self, temperature: float, replicas: int, steps_per_frame: int, dt: float = 0.5
    ) -> Sampling:
        """Return settings of Langevin dynamics without equilibration; `dt` is in fs."""
        return Sampling(
            temperature, steps_per_frame * dt, equilibration=0.0, replicas=replicas, dt=dt,
            friction=5.0, seed=self.seed, stretch=None,
        )  # fmt: skip

    def sample(
        self,
        title: str,
        potential: Potential,
        molecule: Molecule,
        sampling: Sampling,
        ps: float,
        starts: np.ndarray | None = None,
    ) -> md.Run:
        """Run dynamics for `ps` picoseconds from `starts` (R, N, 3) Å or `molecule`."""
        n_frames = round(1000 * ps / sampling.spacing)
        progress = self.titled(title)
        run = sampling.run(potential, molecule, n_frames, starts=starts, progress=progress)
        return self.watched(title, run)

    def watched(self, title: str, run: md.Run) -> md.Run:
        """Return the run; record a warning if frames are outside the training data."""
        found = run.extrapolation
        if found is not None and (text := found.text(title)):
            self.warnings.append(text[0].upper() + text[1:] + ".")
        return run


def force_fields(
    setting: Setting, name: str, titles: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Return GAFF as a potential and other force fields as calculators.

    Args:
        setting: the settings.
        name: the molecule.
        titles: names in `FORCE_FIELDS`; None for all, or for UFF only with small sizes.
    """
    titles = setting.size(tuple(FORCE_FIELDS), ("UFF",)) if titles is None else titles
    molecule = setting.dataset(name).molecule
    others = {title: calculator(FORCE_FIELDS[title], molecule=molecule) for title in titles}
    return {"GAFF": setting.gaff(name), **others}


def identified(data: Dataset) -> str:
    """Return the name of the molecule of a data set.

    Raises:
        InputError: the paper does not study this molecule.
    """
    for name, smiles in MOLECULES.items():
        try:
            Molecule.from_smiles(smiles).match(data.molecule)
        except InputError:
            continue
        return name
    raise InputError(
        f"{data.label} is not a molecule of the paper ({', '.join(MOLECULES)}): use the commands "
        "scan, minimize, md, spectrum and fit for other molecules"
    )
