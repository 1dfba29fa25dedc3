"""Reading and writing the force-field files of other programs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from jaxff.errors import InputError
from jaxff.formats.registry import Format, companions_of, format_of, suffix_of
from jaxff.gaff.topology import Topology
from jaxff.molecule import Molecule
from jaxff.potential import Potential
from jaxff.units import AMBER_COULOMB


def read_force_field(
    path: str | Path, *companions: str | Path, coulomb_constant: float | None = None
) -> Potential:
    """Read the potential in a force-field file, in the gas phase and without cutoff.

    Args:
        path: ``x.prmtop`` (or parm7), ``x.mol2`` with GAFF types and charges, a GROMACS ``x.top``
            (needs ParmEd), or an OpenMM System ``x.xml``.
        *companions: files that accompany it: ``x.inpcrd`` (or rst7) for a prmtop, ``x.frcmod``
            files for a mol2 file (default: the one with the same name, if it exists), ``x.gro``
            for a GROMACS topology, and a pdb or another molecule file for an OpenMM System.
        coulomb_constant: kcal/mol Å/e²; by default AMBER's value, 18.2223².

    Raises:
        InputError: a file is of an unknown format, damaged or incomplete, or contains interactions
            that jaxff does not compute.
    """
    form, files = format_of(path), companions_of(path, companions)
    for file in (path, *files):
        if not Path(file).is_file():
            raise InputError(f"{file}: no such file")
    _check_companions(form, path, companions)
    return form.load().read(Path(path), files, coulomb_constant)


def _check_companions(form: Format, path, companions) -> None:
    allowed = form.companions or tuple(Molecule.FORMATS)
    wrong = [file for file in companions if suffix_of(file) not in allowed]
    if wrong or (form.most is not None and len(companions) > form.most):
        number = "files" if form.most is None else "one file"
        raise InputError(
            f"{path}: {', '.join(map(str, companions))} cannot be read together with this file; "
            f"give {number} with the suffix {' or '.join(allowed)}"
        )


def write_force_field(path: str | Path, potential: Potential) -> list[Path]:
    """Write a potential, with its present parameters, for another program.

    Args:
        path: ``x.prmtop`` (with x.inpcrd), ``x.mol2`` (with x.frcmod), ``x.top`` (GROMACS, with
            x.gro; needs ParmEd) or ``x.xml`` (OpenMM System; needs OpenMM).
        potential: consists of AMBER's terms; for OpenMM it may also have Morse bonds.

    Returns:
        The files written.

    Raises:
        InputError: the format is unknown, or it cannot express a term, which is named.
    """
    path, form = Path(path), format_of(path, writing=True)
    topology = Topology.of(potential, str(path), form.terms)
    constant = next(
        float(group["coulomb_constant"])
        for group in potential.params.values()
        if "coulomb_constant" in group
    )
    if not np.isclose(constant, AMBER_COULOMB, rtol=1e-6):
        raise InputError(
            f"{path}: the potential has the Coulomb constant {constant:.6g}, which the file cannot "
            f"express; make the potential with the default ({AMBER_COULOMB:.6g})"
        )
    if (topology.lj.values["epsilon"] < 0.0).any():
        raise InputError(
            f"{path}: an ε is negative, which the file cannot express; make it zero or positive"
        )
    return form.load().write(path, topology, potential)


def optional_module(name: str, package: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Raises:
        InputError: the package is not installed; the message names the command that installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"this format needs {package}: pip install 'jaxff[{extra}]'") from error
