"""Functions of several commands that read their inputs and check their outputs."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxff.commands.options import calculator_options, frcmod_of
from jaxff.errors import InputError
from jaxff.formats.registry import AMBER, COORDINATES, companions_of, is_potential, suffix_of

if TYPE_CHECKING:
    from jaxff.console import Console
    from jaxff.dataset import Dataset, Split
    from jaxff.domain import Outside
    from jaxff.molecule import Molecule
    from jaxff.potential import Potential
    from jaxff.reference.calculators import Method

METRICS = ("energy_mae", "energy_rmse", "force_mae", "force_rmse")
USUAL = (500, 1000)  # default numbers of validation and test frames


def load_dataset(arguments: Namespace, path: str | None = None) -> Dataset:
    """Read the data set of a command, or that at `path`, in the units of the command."""
    from jaxff.dataset import Dataset

    return Dataset.load(
        path or arguments.data,
        length_unit=arguments.length_unit,
        energy_unit=arguments.energy_unit,
        energy_key=getattr(arguments, "energy_key", None),
        forces_key=getattr(arguments, "forces_key", None),
        check=arguments.check_labels,
    )


def load_molecule(text: str, charge: int | None, seed: int) -> Molecule:
    """Read a molecule from a file, or make it from a SMILES string."""
    from jaxff.molecule import Molecule

    path = Path(text)
    if path.suffix.lower() in Molecule.FORMATS or path.is_file():
        molecule = Molecule.read(path)
        return molecule if charge is None else replace(molecule, charge=charge)
    molecule = Molecule.from_smiles(text, seed=seed or 7)
    if charge not in (None, molecule.charge):
        raise InputError(
            f"{text} has the charge {molecule.charge:+d}, but {charge:+d} was given; correct one"
        )
    return molecule


def load_start(
    text: str, potential: Potential | None = None, seed: int = 0, trust: Sequence[str] = ()
) -> Molecule:
    """Read a starting geometry from a file, or make it from a SMILES string.

    Args:
        text: the file or the SMILES string.
        potential: potential of the command; it gives the elements to files of coordinates.
        seed: random seed of the geometry of a SMILES string.
        trust: modules that may build the networks of a model file, see `jaxff.load`.
    """
    from jaxff.molecule import Molecule

    if is_potential(text) and suffix_of(text) not in Molecule.FORMATS:
        return _molecule_of_model(text, trust)
    if suffix_of(text) not in COORDINATES:
        return load_molecule(text, None, seed)
    if potential is None:
        raise InputError(f"{text} has no elements; give a molecule file or a SMILES string")
    from jaxff.formats import read_gro, read_inpcrd

    is_amber = suffix_of(text) in AMBER.companions
    positions = read_inpcrd(text) if is_amber else read_gro(text).positions
    path, molecule = text, potential.molecule
    if molecule is None:
        raise InputError(
            f"{path} has no elements, and the model has no molecule; give a file with elements"
        )
    if len(positions) != molecule.n_atoms:
        raise InputError(
            f"{path} has {len(positions)} atoms, but the model has {molecule.n_atoms}: give the "
            "coordinates of the same topology"
        )
    return molecule.with_positions(positions)


def _molecule_of_model(path: str, trust: Sequence[str]) -> Molecule:
    """Read the molecule, with its geometry, of a model file or a force-field file."""
    from jaxff.formats import read_potential

    molecule = read_potential(path, trust).molecule
    if molecule is None:
        raise InputError(f"{path} contains no molecule: give a molecule file or a SMILES string")
    if molecule.n_atoms > 1 and not molecule.positions.any():
        raise InputError(f"{path} contains no geometry: give coordinates or a molecule file")
    return molecule


def load_form(arguments: Namespace, data: Dataset, charge: int | None = None) -> Potential:
    """Make the initial potential of a fit, in the functional form of the command."""
    from jaxff.formats import read_topology
    from jaxff.gaff import gaff

    form, where = arguments.form, arguments.topology
    if data.charge and charge not in (None, data.charge):
        raise InputError(
            f"{data.label} has the charge {data.charge:+d}, but {charge:+d} was given; correct one"
        )
    if where is None:
        molecule = data.molecule if charge is None else replace(data.molecule, charge=charge)
        return gaff(molecule, charges=arguments.charges, form=form)
    if suffix_of(where) in AMBER.suffixes:
        return read_topology(where).potential(form=form).matched(data.molecule)
    molecule = load_molecule(where, charge, 0)
    return gaff(molecule, charges=arguments.charges, form=form)


def load_potential(path: str, arguments: Namespace) -> Potential:
    """Read a model or force-field file, and print the names of files read with it.

    Args:
        path: the file.
        arguments: those of a command with --trust and --frcmod.
    """
    from jaxff.formats import read_potential

    companions = frcmod_of(path, arguments)
    potential = read_potential(path, arguments.trust, companions)
    _print_companions(path, companions)
    return potential


def _print_companions(path: str, companions: Sequence[str]) -> None:
    if files := companions_of(path, companions):
        print(f"{path}: with the parameters of {', '.join(map(str, files))}")


def load_surface(method: Method, molecule: Molecule) -> Any:
    """Return the `Potential` of a `Method`, or its ASE calculator for the molecule."""
    return method.potential() if method.is_potential else method.make(molecule=molecule)


def load_surface_and_start(arguments: Namespace) -> tuple[Method, Any, Molecule]:
    """Return the method of a command, its potential or calculator, and the start."""
    from jaxff.reference.calculators import Method

    options = calculator_options(arguments.options)
    companions = frcmod_of(arguments.model, arguments)
    method = Method(arguments.model, options, tuple(arguments.trust), companions)
    potential = method.potential() if method.is_potential else None
    _print_companions(arguments.model, companions)
    molecule = load_start(arguments.start, potential, arguments.seed, arguments.trust)
    if arguments.charge is not None:
        molecule = replace(molecule, charge=arguments.charge)
    return method, potential or load_surface(method, molecule), molecule


def training_frames(n_frames: int, arguments: Namespace) -> int:
    """Number of training frames.

    It is the value of the option -n, or else the usual number of the command.  A small data set is
    divided into three parts of training frames, one of validation frames and one of test frames;
    the options --valid and --test replace the size of their part.
    """
    if arguments.n_train is not None:
        return arguments.n_train
    asked = [count for count in (arguments.valid, arguments.test) if count is not None]
    share = max(n_frames - sum(asked), 0) * 3 // (5 - len(asked))
    return max(min(arguments.usual_n_train, share), 1)


def shares(
    n_frames: int, arguments: Namespace, usual: tuple[int, int] = USUAL
) -> tuple[int, int, int]:
    """Numbers of training, validation and test frames.

    Without the options --valid and --test the numbers are the `usual` ones, or smaller if there are
    fewer frames.
    """
    n_train = training_frames(n_frames, arguments)
    left = n_frames - n_train
    valid = arguments.valid if arguments.valid is not None else max(min(usual[0], left // 2), 0)
    test = arguments.test if arguments.test is not None else max(min(usual[1], left - valid), 0)
    return n_train, valid, test


def split_frames(
    data: Dataset, arguments: Namespace, console: Console, usual: tuple[int, int] = USUAL
) -> Split:
    """Split the data of a command, and print the numbers of frames."""
    parts = shares(len(data.distinct()), arguments, usual)
    split = data.split(*parts, seed=arguments.seed, stratify=True)
    charge = f", charge {data.charge:+d} e" if data.charge else ""
    console.say(
        f"{data.name}: {len(split.train)} training, {len(split.valid)} validation, "
        f"{len(split.test)} test frames ({data.theory}{charge})"
    )
    return split


def say_coverage(console, coverage: dict[str, float]) -> None:
    """Print the shares of the test errors within one and two standard errors."""
    within = ", ".join(f"{key} {value:.3f}" for key, value in coverage.items())
    console.say(f"test errors within 1 and 2 standard errors: {within} (expected: 0.683, 0.954)")


def say_extrapolation(console, model: str, found: Outside | None, what: str) -> dict | None:
    """Print how many geometries are outside the training data of a model.

    Args:
        console: prints the lines.
        model: name of the model.
        found: the comparison of the geometries; None if the training data are unknown.
        what: the geometries in words, such as "frames".

    Returns:
        The numbers for the JSON output; None if the training data are unknown.
    """
    from jaxff.md.extrapolation import outside_text

    if found is None:
        return None
    numbers = found.summary()
    if text := outside_text(model, numbers, what):
        console.say(text)
    return numbers


def say_unknown(console, model: str, surface: Any, on_extrapolation: str = "warn") -> str:
    """Print that the training data of a model are unknown, if they are, and return the text.

    Args:
        console: prints the line.
        model: name of the model.
        surface: the `Potential`, or a calculator, which has no training data.
        on_extrapolation: what the command does at geometries outside the training data.

    Raises:
        InputError: the training data are unknown, and the command shall stop outside them.
    """
    from jaxff.md.extrapolation import check_can_stop

    if on_extrapolation == "ignore" or not getattr(surface, "training_is_unknown", False):
        return ""
    check_can_stop(surface, on_extrapolation)
    text = (
        f"the training data of {model} are unknown, as the file contains no description of its "
        "training frames: geometries cannot be compared with them (train the model again)"
    )
    console.say(text)
    return text


def extrapolation_of(
    arguments: Namespace, model: str, surface: Any, positions, energies
) -> Outside | None:
    """Compare geometries (M, N, 3) Å with the training data of a potential.

    Returns:
        The comparison; None if the training data are unknown, or with --on-extrapolation ignore.

    Raises:
        InputError: a geometry is outside, and the command has --on-extrapolation stop.
    """
    from jaxff.domain import outside

    if arguments.on_extrapolation == "ignore":
        return None
    found = outside(getattr(surface, "trained", ()), positions, energies)
    if found is not None and found.frames.any() and arguments.on_extrapolation == "stop":
        raise InputError(
            f"geometry {int(found.frames.argmax())} of {len(found.frames)} is outside the training "
            f"data of {model}: {found.reason}; label such geometries and train again, or "
            "use --on-extrapolation warn"
        )
    return found


def writable_folder(path: str | Path) -> Path:
    """Create a folder if necessary, and check that files can be written in it.

    Raises:
        InputError: the folder cannot be created or written.
    """
    folder = Path(path)
    if folder.is_file():
        raise InputError(f"{folder} is a file, not a folder: give another output folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into the output folder {folder}: {error.strerror or error}"
        ) from error
    return folder


def write_geometries(path, molecule, positions, infos: Sequence[dict] = ()) -> None:
    """Write geometries (M, N, 3) Å as extended xyz, completely or not at all.

    Args:
        path: the file.
        molecule: the atoms.
        positions: (M, N, 3) Å.
        infos: M entries for the comment lines.  Energies must not be named "energy", which ASE
            takes to be in eV.
    """
    import ase.io

    from jaxff.npz import atomic_path

    frames = [molecule.with_positions(R).to_ase() for R in positions]
    for atoms, info in zip(frames, infos, strict=False):
        atoms.info |= info
    with atomic_path(path) as temporary:
        ase.io.write(temporary, frames, "extxyz")
