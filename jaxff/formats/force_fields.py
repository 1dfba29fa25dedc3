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
    """Read the potential of a force-field file, in the gas phase and without cutoff.

    Args:
        path: an AMBER topology (prmtop, parm7), a mol2 file with GAFF types and charges, a GROMACS
            topology (top; needs ParmEd), or an OpenMM System (xml).
        *companions: files that accompany this file.  For an AMBER topology: coordinates (inpcrd,
            rst7, crd).  For a mol2 file: frcmod files (default: the file with the same name, if it
            exists).  For a GROMACS topology: a gro file.  For an OpenMM System: a molecule file.
        coulomb_constant: () kcal/mol Å/e² (None: the value of AMBER, 18.2223²).

    Raises:
        InputError: the format of a file is unknown, a file is damaged or incomplete, or it contains
            interactions that jaxff does not compute.
    """
    form, files = format_of(path), companions_of(path, companions)
    for file in (path, *files):
        if not Path(file).is_file():
            raise InputError(f"{file}: no such file; check the path")
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
    """Write the force field of a potential for another program.

    Args:
        path: ``x.prmtop`` (written with x.inpcrd), ``x.mol2`` (with x.frcmod), ``x.top`` (GROMACS,
            with x.gro; needs ParmEd) or ``x.xml`` (OpenMM System; needs OpenMM).
        potential: a potential with the functional form of AMBER.  In an OpenMM System, Morse bonds
            are also possible.

    Returns:
        The written files.

    Raises:
        InputError: the format is unknown or cannot express the potential, or a file cannot be
            written.
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
            f"{path}: the potential has the Coulomb constant {constant:.6g}, but files of this "
            f"format imply {AMBER_COULOMB:.6g}; make the potential with the default constant"
        )
    if (topology.lj.values["epsilon"] < 0.0).any():
        raise InputError(
            f"{path}: the smallest ε is {topology.lj.values['epsilon'].min():.3g} kcal/mol, but "
            "the file cannot express negative ε; make it zero or positive"
        )
    return form.load().write(path, topology, potential)


def optional_module(name: str, package: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        name: name of the module.
        package: name of the package, for messages.
        extra: the extra of jaxff that installs the package.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"this format needs {package}: pip install 'jaxff[{extra}]'") from error
