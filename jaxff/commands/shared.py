"""Functions shared by several commands that read inputs, check outputs and print results."""

from __future__ import annotations

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
    """Read a data set with the units and names that the options of a command give.

    Args:
        arguments: parsed options of a command with `unit_options`.
        path: the file; None for the argument DATA of the command.

    Raises:
        InputError: the file cannot be read, or units or labels look wrong.
    """
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
    """Read a molecule from a file, or create it from a SMILES string.

    Args:
        text: the file or the SMILES string.
        charge: net charge, e; None for the charge in the file or the SMILES string.
        seed: random seed of the geometry of a SMILES string.

    Raises:
        InputError: the molecule cannot be read, or the charge of the SMILES string differs from
            `charge`.
    """
    from jaxff.molecule import Molecule

    path = Path(text)
    if path.suffix.lower() in Molecule.FORMATS or path.is_file():
        molecule = Molecule.read(path)
        return molecule if charge is None else replace(molecule, charge=charge)
    molecule = Molecule.from_smiles(text, seed=seed or 7)
    check_smiles_charge(text, molecule, charge)
    return molecule


def check_smiles_charge(smiles: str, molecule: Molecule, charge: int | None) -> None:
    """Raise `InputError` if --charge differs from the charge of a SMILES string."""
    if charge not in (None, molecule.charge):
        raise InputError(
            f"the SMILES string {smiles} has the charge {molecule.charge:+d}, but --charge is "
            f"{charge:+d}: correct one of them"
        )


def load_start(
    text: str,
    potential: Potential | None = None,
    seed: int = 0,
    trust: Sequence[str] = (),
    charge: int | None = None,
) -> Molecule:
    """Read a starting geometry from a file, or create it from a SMILES string.

    Args:
        text: a molecule file, a model file, a file of coordinates or a SMILES string.
        potential: potential whose molecule gives the elements of a file of coordinates.
        seed: random seed of the geometry of a SMILES string.
        trust: modules that may build the networks of a model file, see `jaxff.load`.
        charge: net charge, e; None for the charge in the file or the SMILES string.

    Raises:
        InputError: the file cannot be read, or contains no elements or no geometry.
    """
    from jaxff.molecule import Molecule

    if is_potential(text) and suffix_of(text) not in Molecule.FORMATS:
        molecule = _molecule_of_model(text, trust)
        return molecule if charge is None else replace(molecule, charge=charge)
    if suffix_of(text) not in COORDINATES:
        return load_molecule(text, charge, seed)
    if potential is None:
        raise InputError(f"{text} contains no elements: give a molecule file or a SMILES string")
    from jaxff.formats import read_gro, read_inpcrd

    is_amber = suffix_of(text) in AMBER.companions
    positions = read_inpcrd(text) if is_amber else read_gro(text).positions
    path, molecule = text, potential.molecule
    if molecule is None:
        raise InputError(
            f"neither {path} nor the model contains the elements: give a molecule file such as xyz"
        )
    if len(positions) != molecule.n_atoms:
        raise InputError(
            f"{path} has {len(positions)} atoms, but the model has {molecule.n_atoms}: give the "
            "coordinates of the same topology"
        )
    return molecule.with_positions(positions)


def _molecule_of_model(path: str, trust: Sequence[str]) -> Molecule:
    """Return the molecule and geometry that a model file or force-field file contains."""
    from jaxff.formats import read_potential

    molecule = read_potential(path, trust).molecule
    if molecule is None:
        raise InputError(f"{path} contains no molecule: give a molecule file or a SMILES string")
    if molecule.n_atoms > 1 and not molecule.positions.any():
        raise InputError(f"{path} contains no geometry: give coordinates or a molecule file")
    return molecule


def load_form(arguments: Namespace, data: Dataset, charge: int | None = None) -> Potential:
    """Return the initial potential of a fit, in the functional form of the command.

    Args:
        arguments: parsed options of `jaxff fit`.
        data: the data set to which the potential is fitted.
        charge: net charge of the molecule, e; None for the charge in the data set.

    Raises:
        InputError: the charge differs from that in the data set, or the topology cannot be used.
    """
    from jaxff.formats import read_topology
    from jaxff.gaff import gaff

    form, where = arguments.form, arguments.topology
    if data.charge and charge not in (None, data.charge):
        raise InputError(
            f"{data.label} has the charge {data.charge:+d}, but --charge is {charge:+d}: correct "
            "one of them"
        )
    if where is None:
        molecule = data.molecule if charge is None else replace(data.molecule, charge=charge)
        return gaff(molecule, charges=arguments.charges, form=form)
    if suffix_of(where) in AMBER.suffixes:
        return read_topology(where).potential(form=form).matched(data.molecule)
    molecule = load_molecule(where, charge, 0)
    return gaff(molecule, charges=arguments.charges, form=form)


def load_potential(path: str, arguments: Namespace) -> Potential:
    """Read a model or force-field file, and print the names of the frcmod files used.

    Args:
        path: the file.
        arguments: parsed options of a command with --trust and --frcmod.

    Raises:
        InputError: the file cannot be read.
    """
    from jaxff.formats import read_potential

    if path == "gaff":
        raise InputError(
            f"{path} is not a file: write a GAFF model with `jaxff parametrize MOLECULE -o DIR`, "
            "and give DIR/molecule.npz"
        )
    companions = frcmod_of(path, arguments)
    potential = read_potential(path, arguments.trust, companions)
    _print_companions(path, companions)
    return potential


def _print_companions(path: str, companions: Sequence[str]) -> None:
    if files := companions_of(path, companions):
        print(f"{path}: parameters read from {', '.join(map(str, files))}")


def load_surface(method: Method, molecule: Molecule) -> Any:
    """Return the `Potential` of a method, or the ASE calculator of a method for a molecule."""
    return method.potential() if method.is_potential else method.make(molecule=molecule)


def load_surface_and_start(arguments: Namespace) -> tuple[Method, Any, Molecule]:
    """Return the method, the potential or ASE calculator, and the starting geometry."""
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
    """Return the number of training frames: the value of -n, or a default without -n.

    A small data set is divided into training, validation and test frames in the ratio 3:1:1.  The
    options --valid and --test set the sizes of the validation and the test part.
    """
    if arguments.n_train is not None:
        return arguments.n_train
    asked = [count for count in (arguments.valid, arguments.test) if count is not None]
    share = max(n_frames - sum(asked), 0) * 3 // (5 - len(asked))
    return max(min(arguments.usual_n_train, share), 1)


def shares(
    n_frames: int, arguments: Namespace, usual: tuple[int, int] = USUAL
) -> tuple[int, int, int]:
    """Return the numbers of training, validation and test frames.

    `usual` contains the largest default numbers of validation and test frames.
    """
    n_train = training_frames(n_frames, arguments)
    left = n_frames - n_train
    valid = arguments.valid if arguments.valid is not None else max(min(usual[0], left // 2), 0)
    test = arguments.test if arguments.test is not None else max(min(usual[1], left - valid), 0)
    return n_train, valid, test


def split_frames(
    data: Dataset, arguments: Namespace, console: Console, usual: tuple[int, int] = USUAL
) -> Split:
    """Split a data set by the options of a command, and print the numbers of frames.

    `usual` contains the largest default numbers of validation and test frames.
    """
    parts = shares(len(data.distinct()), arguments, usual)
    split = data.split(*parts, seed=arguments.seed, stratify=True)
    charge = f", charge {data.charge:+d} e" if data.charge else ""
    console.say(
        f"{data.name}: {len(split.train)} training, {len(split.valid)} validation, "
        f"{len(split.test)} test frames ({data.theory}{charge})"
    )
    return split


def say_coverage(console, coverage: dict[str, float]) -> None:
    """Print the fractions of test errors within one and two standard errors."""
    within = ", ".join(f"{key} {value:.3f}" for key, value in coverage.items())
    console.say(f"test errors within 1 and 2 standard errors: {within} (expected: 0.683, 0.954)")


def say_extrapolation(console, model: str, found: Outside | None, what: str) -> dict | None:
    """Print how many geometries are outside the training data of a model.

    Args:
        console: prints the line.
        model: name of the model.
        found: comparison of geometries with training data; None if the training data are unknown.
        what: word for the geometries, such as "frames".

    Returns:
        the numbers for the JSON output; None if the training data are unknown.
    """
    from jaxff.md.extrapolation import outside_text

    if found is None:
        return None
    numbers = found.summary()
    if text := outside_text(model, numbers, what):
        console.say(text)
    return numbers


def say_unknown(console, model: str, surface: Any, on_extrapolation: str = "warn") -> str:
    """Print a notice if the training data of a model are unknown.

    Args:
        console: prints the line.
        model: name of the model.
        surface: the `Potential`, or a calculator, which has no training data.
        on_extrapolation: value of --on-extrapolation.

    Returns:
        the notice; "" if the training data are known.

    Raises:
        InputError: the training data are unknown, and `on_extrapolation` is "stop".
    """
    from jaxff.md.extrapolation import check_can_stop

    if on_extrapolation == "ignore" or not getattr(surface, "training_is_unknown", False):
        return ""
    check_can_stop(surface, on_extrapolation)
    text = (
        f"the training data of {model} are unknown, so geometries cannot be compared with "
        "training frames: train the model again to store a description of the frames"
    )
    console.say(text)
    return text


def extrapolation_of(
    arguments: Namespace, model: str, surface: Any, positions, energies
) -> Outside | None:
    """Compare geometries with the training data of a potential.

    Args:
        arguments: parsed options of a command with `extrapolation_option`.
        model: name of the model.
        surface: the `Potential` or calculator.
        positions: (M, N, 3) Å.
        energies: (M,) kcal/mol.

    Returns:
        the comparison; None if the training data are unknown, or with --on-extrapolation ignore.

    Raises:
        InputError: a geometry is outside the training data, with --on-extrapolation stop.
    """
    from jaxff.domain import outside

    if arguments.on_extrapolation == "ignore":
        return None
    found = outside(getattr(surface, "trained", ()), positions, energies)
    if found is not None and found.frames.any() and arguments.on_extrapolation == "stop":
        raise InputError(
            f"geometry {int(found.frames.argmax())} of {len(found.frames)} is outside the training "
            f"data of {model}: {found.reason}. Label such geometries and train again, or give "
            "--on-extrapolation warn"
        )
    return found


def write_geometries(path, molecule, positions, infos: Sequence[dict] = ()) -> None:
    """Write geometries atomically to an extended xyz file.

    Args:
        path: the file.
        molecule: the molecule with N atoms.
        positions: (M, N, 3) Å.
        infos: M dicts for the comment lines.  The key "energy" is not allowed, because ASE expects
            energies in eV.
    """
    import ase.io

    from jaxff.npz import atomic_path

    frames = [molecule.with_positions(R).to_ase() for R in positions]
    for atoms, info in zip(frames, infos, strict=False):
        atoms.info |= info
    with atomic_path(path) as temporary:
        ase.io.write(temporary, frames, "extxyz")
