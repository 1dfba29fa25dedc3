"""Input, results and files of labelling."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import jaxff
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.npz import NpzReader, writable_file
from jaxff.reference.frames import changed_bonds, common_molecule, read_frames
from jaxff.reference.settings import SETTING_UP, Labelling, Progress
from jaxff.store import claim, described, differences, has_pieces, locked

if TYPE_CHECKING:
    from jaxff.reference.frames import Frames

FORMAT = "jaxff labels 2"

# Largest net force on an isolated molecule from calculators on grids, kcal/mol/Å.
NET_FORCE_LIMIT = 1.0
# Names of the files in the folder of an unfinished run.
PIECES = r"rows\.bin|replica-\d+\.npz|calculations\.jsonl"


@dataclass(frozen=True)
class Labelled:
    """The result of labelling.

    Attributes:
        dataset: the labelled frames, as written to the file.
        failed: numbers of the frames that were omitted because their calculation failed.
        rebonded: indices in `dataset` of frames whose bonds differ from those of the given
            molecule, or of the first frame if no molecule was given.
        net_force: largest net force of a frame, kcal/mol/Å.
        net_torque: largest net torque of a frame about its centroid, kcal/mol.
    """

    dataset: Dataset
    failed: tuple[int, ...]
    rebonded: tuple[int, ...]
    net_force: float
    net_torque: float

    @classmethod
    def of(cls, dataset: Dataset, failed: tuple[int, ...], molecule: Molecule) -> Labelled:
        """Compute net forces, net torques and changed bonds of a data set.

        Args:
            dataset: the labelled frames.
            failed: numbers of the omitted frames.
            molecule: molecule with the expected bonds.
        """
        forces, positions = dataset.forces, dataset.positions
        centred = positions - positions.mean(axis=1, keepdims=True)
        torques = np.cross(centred, forces).sum(axis=1)
        return cls(
            dataset,
            failed=failed,
            rebonded=tuple(i for i, R in enumerate(positions) if changed_bonds(molecule, R)),
            net_force=float(np.linalg.norm(forces.sum(axis=1), axis=1).max()),
            net_torque=float(np.linalg.norm(torques, axis=1).max()),
        )


@dataclass(frozen=True)
class Job:
    """Geometries of one molecule with the calculator that labels them.

    Attributes:
        molecule: elements, bonds and charge of all geometries.
        positions: (M, N, 3) Å.
        labelling: settings of the labelling.
        calculator: the ASE calculator.
        notes: entries about the topology of a force field for the data set.
    """

    molecule: Molecule
    positions: np.ndarray
    labelling: Labelling
    calculator: Any
    notes: Mapping[str, Any]

    @classmethod
    def of(
        cls, frames: Frames, labelling: Labelling, molecule: Molecule | None, charge: int | None,
        progress: Progress | None = None,
    ) -> Job:  # fmt: skip
        """Read frames and create the calculator; see `label_frames`."""
        if progress is not None:
            progress(SETTING_UP, 0.0)
        first, positions = read_frames(frames)
        source = "the frames'" if molecule is None else "as given"
        molecule = common_molecule(first, molecule, charge)
        calculator = labelling.method.make(molecule.charge, molecule)
        topology = getattr(calculator, "topology", None)
        notes = {} if topology is None else {"topology": f"{topology} ({source})"}
        return cls(molecule, positions, labelling, calculator, notes)

    def request(self, **settings: Any) -> dict[str, Any]:
        """Return all settings on which the result depends, including `settings`."""
        method = self.labelling.method.settings(self.molecule)
        return {"format": FORMAT, **method, "geometries": self.positions, **settings}

    def finish(
        self,
        out: str | Path,
        request: Mapping[str, Any],
        labels: tuple[np.ndarray, np.ndarray, np.ndarray],
        notes: Mapping[str, Any],
        failed: tuple[int, ...] = (),
    ) -> Labelled:
        """Write the labels and their provenance to a file, and check the net forces.

        Args:
            out: the npz file to write.
            request: all settings on which the result depends.
            labels: positions (F, N, 3) Å, energies (F,) kcal/mol, forces (F, 3 N) kcal/mol/Å.
            notes: further entries of the file.
            failed: numbers of the omitted frames.

        Warns:
            UserWarning: a frame has a net force.
        """
        method, (positions, energies, forces) = self.labelling.method, labels
        provenance = {
            "calculator": method.name,
            "options": json.dumps(method.all_options, sort_keys=True),
            "command": self.labelling.command,
            "versions": f"jaxff {jaxff.__version__}, {method.version}",
            "settings": json.dumps(described(request)),
        }
        dataset = Dataset(
            self.molecule.numbers,
            positions,
            forces.reshape(positions.shape),
            energies,
            charge=self.molecule.charge,
            name=self.labelling.name or Path(out).stem,
            theory=method.theory,
            notes={**provenance, **self.notes, **notes},
        )
        result = Labelled.of(dataset, failed, self.molecule)
        if result.net_force > NET_FORCE_LIMIT:
            warnings.warn(
                f"{out}: a frame has a net force of {result.net_force:.3g} kcal/mol/Å, but the net "
                "force on a molecule must be zero: check the calculator and its convergence",
                stacklevel=3,
            )
        dataset.save(out)
        return result


@contextmanager
def part_folder(
    out: str | Path, request: Mapping[str, Any], keep: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """Create or continue the folder `OUT.part` of an unfinished run.

    The folder is locked during the block. It is removed at the end of the block, except after an
    error with results in the folder.

    Args:
        out: the file that the run writes at its end.
        request: all settings on which the result depends.
        keep: function called at the end; if it returns True, the folder is kept.

    Yields:
        the path of the folder.

    Raises:
        InputError: `out` cannot be written, or the folder belongs to a run with other settings or
            is in use.
    """
    out = Path(out)
    writable_file(out)
    folder = out.with_name(f"{out.name}.part")
    folder.mkdir(exist_ok=True)
    with locked(folder):
        claim(folder, request, "unfinished run", files=PIECES)
        try:
            yield folder
        except BaseException:
            if not has_pieces(folder):  # there is nothing to continue
                shutil.rmtree(folder)
            raise
    if not keep():
        shutil.rmtree(folder)


def finished(
    out: str | Path, request: Mapping[str, Any], overwrite: bool, molecule: Molecule
) -> Labelled | None:
    """Read the result that an earlier run of the same request has written to `out`.

    Args:
        out: the file.
        request: all settings on which the result depends.
        overwrite: whether a file of a run with other settings may be replaced.
        molecule: the molecule of the run.

    Returns:
        the result, or None if `out` is missing or may be overwritten.

    Raises:
        InputError: `out` belongs to a run with other settings, and `overwrite` is false.
    """
    if not Path(out).is_file():
        return None
    try:
        file = NpzReader(out, "data set")
        same = not differences(json.loads(file.text("settings", "null")), described(request))
    except (InputError, ValueError):
        same = False
    if same:
        # The units are known, because jaxff wrote the file.
        dataset = Dataset.load(out, check=False)
        failed = file.get("failed_frames")
        failures = () if failed is None else tuple(failed.tolist())
        return Labelled.of(dataset, failures, molecule)
    if not overwrite:
        raise InputError(
            f"{out} exists already and is from another run: give another output, or replace this "
            "file with --overwrite (overwrite=True)"
        )
    return None
