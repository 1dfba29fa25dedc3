"""Settings, data, models and the form of a result that the experiments share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxff import gdml, md
from jaxff.dataset import Dataset, Split, packaged_dataset
from jaxff.errors import InputError
from jaxff.gaff import gaff
from jaxff.learn import evaluate
from jaxff.molecule import Molecule
from jaxff.npz import atomic_path
from jaxff.potential import Potential
from jaxff.reference import Sampling, calculator
from jaxff.saved import load, save

T = TypeVar("T")

MOLECULES = {
    "ethanol": "CCO",
    "keto-malondialdehyde": "O=CCC=O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
}
# Levels of theory at which a calculator can label further frames.
CALCULATORS = {"GFN2-xTB": "gfn2-xtb", "GFN1-xTB": "gfn1-xtb"}
FORCE_FIELDS = {"MMFF94": "mmff94-rdkit", "UFF": "uff-rdkit", "Ghemical": "ghemical"}
VERDICTS = ("agrees", "partly agrees", "disagrees", "says nothing")


class Table(NamedTuple):
    """Rows under columns, with a caption."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence]


class Picture(NamedTuple):
    """A PNG file in the folder of the result, with a caption."""

    file: str
    caption: str


class Structures(NamedTuple):
    """Geometries in xyz files, by title, for the molecule viewer of the page."""

    files: Mapping[str, str]
    caption: str


@dataclass
class Result:
    """The result of an experiment, compared with the paper.

    Attributes:
        title: title of the figure or table.
        level: level of theory, and the data on which the models were trained.
        reported: what the paper reports.
        obtained: the corresponding results of jaxff, with numbers.
        verdict: one of `VERDICTS`.
        reason: reason for the verdict, and its limits.
        numbers: results for programs, as JSON values and arrays.
        tables: in the order in which they are shown.
        pictures: in the order in which they are shown.
        structures: in the order in which they are shown.
    """

    title: str
    level: str
    reported: str
    obtained: str
    verdict: str
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    structures: list[Structures] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write a JSON file."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, default=_plain) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a file that `write` has written."""
        fields = json.loads(path.read_text())
        for name, kind in (("tables", Table), ("pictures", Picture), ("structures", Structures)):
            fields[name] = [kind(*values) for values in fields[name]]
        return cls(**fields)


@dataclass(frozen=True)
class Setting:
    """The settings of the experiments.

    Attributes:
        folder: folder of all results, models and data, which experiments share.
        small: whether small sizes are used, which show only that everything runs.
        seed: seed of every random choice.
        given: data sets that replace the packaged ones, by molecule.
        progress: called with a phase and the fraction done.
    """

    folder: Path
    small: bool = False
    seed: int = 0
    given: Mapping[str, Dataset] = field(default_factory=dict)
    progress: Callable[[str, float], None] = lambda _, __: None

    def size(self, full: T, small: T) -> T:
        """`small` in a run with small sizes, otherwise `full`."""
        return small if self.small else full

    def place(self, experiment: str) -> Path:
        """The folder of an experiment, created if it does not exist."""
        folder = self.folder / experiment
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def dataset(self, name: str) -> Dataset:
        """The given or packaged data set of a molecule or a name from `surface_set`."""
        if name in self.given:
            return self.given[name]
        return packaged_dataset(name.replace("-", "_"))

    def surface_set(self, molecule: str) -> str:
        """Name of the data set for a molecule's surface: few frames at a higher level."""
        return molecule if molecule in self.given else f"{molecule}-pbe"

    def split(self, data: Dataset, n_train: int) -> Split:
        """Split data into training, up to 100 validation and up to 1,000 test frames.

        Args:
            data: the frames.
            n_train: number of training frames; at most three quarters of all frames are used.

        Raises:
            InputError: fewer than 40 frames.
        """
        n = len(data.distinct())
        if n < 40:
            raise InputError(f"{data.label}: {n} frames are too few; 40 are needed")
        n_valid = min(100, n // 8)
        n_train = min(n_train, 3 * n // 4)
        n_test = min(1000, n - n_train - n_valid)
        return data.split(n_train, n_valid, n_test, seed=self.seed)

    def titled(self, title: str) -> Callable[[str, float], None]:
        """The progress function with a title before each phase."""
        return lambda phase, fraction: self.progress(f"{title}: {phase}", fraction)

    def kept(self, name: str, make: Callable[[], Potential]) -> Potential:
        """The potential in the folder `models`, created if it does not exist."""
        path = self.place("models") / f"{name}.npz"
        if not path.is_file():
            save(path, make())
        return load(path)

    def kernel(self, name: str) -> Potential:
        """sGDML trained on a data set: a fast substitute for its reference."""

        def make():
            part = self._kernel_frames(name)
            sigma = self.size(None, 20.0)
            run = gdml.Run(seed=self.seed, progress=self.titled(f"sGDML of {name}"))
            return gdml.train(part.train, part.valid, sigma=sigma, run=run)

        return self.kept(f"{name}-sgdml", make)

    def kernel_error(self, name: str) -> dict[str, float]:
        """Test errors of `kernel(name)`; see `jaxff.evaluate`."""
        return evaluate(self.kernel(name), self._kernel_frames(name).test)

    def _kernel_frames(self, name: str) -> Split:
        n_train = self.size({"aspirin": 400}.get(name, 500), 60)
        return self.split(self.dataset(name), n_train)

    def sampling(
        self, temperature: float, replicas: int, steps_per_frame: int, dt: float = 0.5
    ) -> Sampling:
        """Langevin dynamics whose equilibration is left out later, by `settled`."""
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
        """Run dynamics for `ps` picoseconds from `starts` (R, N, 3) Å or the molecule."""
        n_frames = round(1000 * ps / sampling.spacing)
        progress = self.titled(title)
        return sampling.run(potential, molecule, n_frames, starts=starts, progress=progress)


def force_fields(setting: Setting, molecule: Molecule) -> dict[str, Any]:
    """GAFF as a potential and other force fields as calculators; UFF alone if small."""
    names = setting.size(tuple(FORCE_FIELDS), ("UFF",))
    others = {name: calculator(FORCE_FIELDS[name], molecule=molecule) for name in names}
    return {"GAFF": gaff(molecule), **others}


def settled(run: md.Run) -> np.ndarray:
    """Positions (R F', N, 3) Å of R replicas, each without its first fifth."""
    frames = run.positions[:, run.positions.shape[1] // 5 :]
    return frames.reshape(-1, *frames.shape[2:])


def picture(folder: Path, name: str, figure: Any, caption: str) -> Picture:
    """Save a matplotlib figure in the folder of the result."""
    figure.savefig(folder / name, dpi=120)
    return Picture(name, caption)


def identified(data: Dataset) -> str:
    """Name of the molecule of a data set.

    Raises:
        InputError: it is not one of the paper's molecules.
    """
    for name, smiles in MOLECULES.items():
        try:
            Molecule.from_smiles(smiles).match(data.molecule)
        except InputError:
            continue
        return name
    raise InputError(
        f"{data.label} is none of the paper's molecules ({', '.join(MOLECULES)}): use the commands "
        "scan, minimize, md, spectrum and fit for other molecules"
    )


def _plain(value: Any) -> Any:
    """A NumPy value as JSON values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written to a result")
