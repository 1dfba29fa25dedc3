"""The sections of AMBER topologies (prmtop).

The format is described at https://ambermd.org/prmtop.pdf.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxff.cell import box_of
from jaxff.errors import InputError
from jaxff.gaff.bonded import Table
from jaxff.gaff.tables import Tables
from jaxff.gaff.topology import centre_third
from jaxff.molecule import elements_of_masses
from jaxff.npz import LARGEST, usable
from jaxff.units import AMBER_CHARGE

# Index of each number in section POINTERS.
_POINTERS = {
    "NATOM": 0,
    "NTYPES": 1,
    "NBONH": 2,
    "NTHETH": 4,
    "NPHIH": 6,
    "NBONA": 12,
    "NTHETA": 13,
    "NRES": 11,
    "NPHIA": 14,
    "NUMBND": 15,
    "NUMANG": 16,
    "NPTRA": 17,
    "NPHB": 19,
    "IFPERT": 20,
    "IFBOX": 27,
    "IFCAP": 29,
    "NUMEXTRA": 30,
}

# Contents of topologies that jaxff does not support and must not ignore.
_UNSUPPORTED_SECTIONS = {
    r"CTITLE|FORCE_FIELD_TYPE|CHARMM.*UREY.*|.*IMPROPER.*": "a CHAMBER (CHARMM) force field",
    r".*CMAP.*": "CMAP terms",
    r"AMOEBA.*": "an AMOEBA force field",
    r"POLARIZABILITY|DIPOLE_DAMP_FACTOR": "polarisabilities",
}
_UNSUPPORTED_POINTERS = {
    "IFBOX": "a periodic box here (read a system with jaxff.System.read, or remove the box with "
    "cpptraj: strip :WAT, box nobox)",
    "IFCAP": "a solvent cap",
    "IFPERT": "perturbation information",
    "NUMEXTRA": "extra points (virtual sites)",
}
_OF_BOXES = ("IFBOX", "NUMEXTRA")


class Prmtop:
    """The sections of a prmtop file.

    Args:
        path: the file.
        boxed: whether a periodic box and extra points are accepted.

    Raises:
        InputError: in every method, if the file is damaged or not supported.
    """

    def __init__(self, path, boxed: bool = False):
        self.path, self.boxed = path, boxed
        text = text_of(path, "an AMBER topology file")
        if "%FLAG" not in text:
            raise InputError(
                f"{path} is not an AMBER topology in the %FLAG format; "
                "convert files of AMBER 6 or earlier with ParmEd"
            )
        self.sections: dict[str, tuple[str, list[str]]] = {}
        for block in re.split(r"^%FLAG", text, flags=re.MULTILINE)[1:]:
            name, *lines = block.splitlines()
            form = next((line for line in lines if line.startswith("%FORMAT")), "")
            self.sections[name.strip()] = form, [line for line in lines if line[:1] != "%"]
        self._check_sections()
        pointers = [*self.integers("POINTERS", None).tolist(), 0]  # AMBER 6 has no NUMEXTRA
        if len(pointers) < 31:
            raise self.error(
                f"section POINTERS is truncated: {len(pointers) - 1} values, 30 expected; "
                "write the topology again"
            )
        self.pointers = {key: pointers[place] for key, place in _POINTERS.items()}
        self.n_atoms = self.pointers["NATOM"]
        self._check_pointers()

    def error(self, what: str) -> InputError:
        """An exception with the path of the file and the message `what`."""
        return InputError(f"{self.path}: {what}")

    def floats(self, name: str, count: int | None) -> np.ndarray:
        """The numbers (count,) of a section; all numbers if count is None."""
        values = np.array(self._values(name, count, lambda s: float(s.replace("D", "E"))), float)
        if not usable(values).all():
            raise self.error(
                f"section {name} has a value that is not below {LARGEST:g}; correct it"
            )
        return values

    def integers(self, name: str, count: int | None) -> np.ndarray:
        """The integers (count,) of a section; all integers if count is None."""
        return np.array(self._values(name, count, int), int)

    def strings(self, name: str, count: int) -> tuple[str, ...]:
        """The words (count,) of a section, without spaces."""
        return tuple(self._values(name, count, str.strip))

    def _values(self, name: str, count: int | None, convert: Callable) -> list:
        if name not in self.sections:
            raise self.error(f"section {name} is missing; write the topology again with tleap")
        form, lines = self.sections[name]
        match = re.match(r"%FORMAT\s*\(\s*(\d+)\s*[aAiIeEfF]\s*(\d+)", form)
        if match is None:
            raise self.error(f"section {name} has the unknown format {form!r}; correct it")
        per_line, width = int(match[1]), int(match[2])
        fields = []
        for line in lines:
            line = line.ljust(per_line * width) if convert is str.strip else line.rstrip()
            fields += [line[i : i + width] for i in range(0, len(line), width)]
        if convert is not str.strip:
            fields = [field for field in fields if field.strip()]
        if count is not None and len(fields) < count:
            raise self.error(
                f"section {name} is truncated: {len(fields)} values, {count} expected; "
                "write the topology again"
            )
        try:
            return [convert(field) for field in fields[:count]]
        except ValueError as error:
            raise self.error(f"section {name} cannot be read ({error}); correct it") from error

    def _unsupported(self, what: str, where: str) -> InputError:
        return self.error(f"{where}: jaxff does not support {what}; give a topology without it")

    def _check_sections(self):
        for pattern, what in _UNSUPPORTED_SECTIONS.items():
            sections = [name for name in self.sections if re.fullmatch(pattern, name)]
            if sections:
                raise self._unsupported(what, f"section {sections[0]}")
        for name, count, what in (
            ("LENNARD_JONES_CCOEF", None, "12-6-4 terms"),
            ("IPOL", 1, "polarisabilities"),
        ):
            if name in self.sections and self.floats(name, count).any():
                raise self._unsupported(what, f"section {name}")

    def _check_pointers(self):
        for name, what in _UNSUPPORTED_POINTERS.items():
            if self.pointers[name] > 0 and not (self.boxed and name in _OF_BOXES):
                raise self._unsupported(what, f"{name} = {self.pointers[name]}")
        if self.n_atoms < 1:
            raise self.error("there are no atoms; at least one is needed")
        count = self.pointers["NPHB"]
        for name in ("HBOND_ACOEF", "HBOND_BCOEF"):
            if count and self.floats(name, count).any():
                raise self._unsupported("10-12 hydrogen bond terms", f"section {name}")

    def tables(self) -> Tables:
        """The force field in the file."""
        types = self.strings("AMBER_ATOM_TYPE", self.n_atoms)
        charges = self.floats("CHARGE", self.n_atoms) / AMBER_CHARGE
        lj, lj_overrides = self._lennard_jones(types)
        bonds = self._harmonic("BOND", 2, ("NBONH", "NBONA", "NUMBND"), "length", types)
        torsions, impropers, pairs14 = self._dihedrals(types, bonds.atoms)
        angles = self._harmonic("ANGLE", 3, ("NTHETH", "NTHETA", "NUMANG"), "angle", types)
        return Tables(
            atom_types=types,
            charges=charges,
            bonds=bonds,
            angles=angles,
            torsions=torsions,
            impropers=impropers,
            lj=lj,
            lj_overrides=lj_overrides,
            pairs14=pairs14,
            exclusions=self._exclusions(),
        )

    def numbers(self) -> np.ndarray:
        """Atomic numbers (N,); 0 for extra points."""
        if "ATOMIC_NUMBER" in self.sections:
            numbers = self.integers("ATOMIC_NUMBER", self.n_atoms)
            if (numbers <= 0).any() and not self.boxed:
                atom = int(np.argmax(numbers <= 0))
                raise self._unsupported("extra points (virtual sites)", f"atom {atom}")
            return np.maximum(numbers, 0)
        masses = self.floats("MASS", self.n_atoms)
        numbers, atom = elements_of_masses(masses)
        if atom is not None:
            raise self.error(
                f"section ATOMIC_NUMBER is missing, and no element has the mass {masses[atom]} of "
                f"atom {atom}; write the topology again with tleap"
            )
        return numbers

    def box(self) -> np.ndarray | None:
        """The box (3, 3) Å in the file, or None."""
        if not self.pointers["IFBOX"]:
            return None
        beta, *lengths = self.floats("BOX_DIMENSIONS", 4).tolist()
        alpha = beta if self.pointers["IFBOX"] == 2 else 90.0
        return box_of([*lengths, alpha, beta, alpha], str(self.path))

    def _entries(self, name: str, n_atoms: int, counts: tuple[str, str], n_types: int):
        """Atoms (n, k), signed as in the file, and types (n,) of interactions."""
        parts = [
            self.integers(f"{name}S_{which}_HYDROGEN", (n_atoms + 1) * self.pointers[count])
            for which, count in zip(("INC", "WITHOUT"), counts, strict=True)
        ]
        entries = np.concatenate(parts).reshape(-1, n_atoms + 1)
        atoms, types = entries[:, :-1], entries[:, -1] - 1
        if (np.abs(atoms) // 3 >= self.n_atoms).any() or (types < 0).any():
            raise self.error(f"a {name.lower()} has an unknown atom or type; write the file again")
        if (types >= n_types).any():
            raise self.error(
                f"a {name.lower()} has the type {types.max() + 1}, but the file defines {n_types} "
                "types; write the file again"
            )
        return atoms, types

    def _harmonic(self, name, n_atoms, counts, reference, types) -> Table:
        n_types = self.pointers[counts[2]]
        k = self.floats(f"{name}_FORCE_CONSTANT", n_types)
        value = self.floats(f"{name}_EQUIL_VALUE", n_types)
        atoms, rows = self._entries(name, n_atoms, counts[:2], n_types)
        atoms = atoms // 3
        return Table.of(atoms, _labels(atoms, types), {"k": k[rows], reference: value[rows]})

    def _dihedrals(self, types, bonds) -> tuple[Table, Table, Table]:
        """Tables of torsions, impropers and 1-4 pairs."""
        n_types = self.pointers["NPTRA"]
        k, n, phase = (
            self.floats(f"DIHEDRAL_{what}", n_types)
            for what in ("FORCE_CONSTANT", "PERIODICITY", "PHASE")
        )
        if (n != np.round(n)).any() or (n < 0).any():
            raise self.error("the values of section DIHEDRAL_PERIODICITY must be whole numbers")
        signed, rows = self._entries("DIHEDRAL", 4, ("NPHIH", "NPHIA"), n_types)
        atoms = np.abs(signed) // 3
        improper, paired = signed[:, 3] < 0, (signed[:, 2:] >= 0).all(axis=1)
        atoms[improper] = centre_third(atoms[improper], bonds)

        def fourier(which, reversible):
            values = {
                "k": k[rows],
                "periodicity": np.abs(n[rows]).astype(int),
                "phase": phase[rows],
            }
            labels = _labels(atoms[which], types, reversible)
            return Table.of(atoms[which], labels, {c: v[which] for c, v in values.items()})

        # AMBER documents the defaults for missing sections.
        scee, scnb = (
            self.floats(name, n_types) if name in self.sections else np.full(n_types, default)
            for name, default in (("SCEE_SCALE_FACTOR", 1.2), ("SCNB_SCALE_FACTOR", 2.0))
        )
        scee, scnb = scee[rows[paired]], scnb[rows[paired]]
        if (scee <= 0.0).any() or (scnb <= 0.0).any():
            raise self.error("the SCEE and SCNB scale factors of 1-4 pairs must be positive")
        scales = {"lj14": 1.0 / scnb, "coulomb14": 1.0 / scee}
        pairs14 = Table.of(atoms[paired][:, [0, 3]], np.full(paired.sum(), "1-4"), scales)
        return fourier(~improper, True), fourier(improper, False), pairs14

    def _exclusions(self) -> np.ndarray:
        counts = self.integers("NUMBER_EXCLUDED_ATOMS", self.n_atoms)
        listed = self.integers("EXCLUDED_ATOMS_LIST", int(counts.sum()))
        if (listed < 0).any() or (listed > self.n_atoms).any():
            raise self.error(f"EXCLUDED_ATOMS_LIST must contain atoms from 0 to {self.n_atoms}")
        pairs = np.stack([np.repeat(np.arange(self.n_atoms), counts), listed - 1], axis=1)
        return pairs[listed > 0].astype(np.int32)  # zero means an empty list

    def _lennard_jones(self, types) -> tuple[Table, Table]:
        """Tables of σ and ε of types, and of pairs of types with separate c12 and c6."""
        n = self.pointers["NTYPES"]
        index = self.integers("ATOM_TYPE_INDEX", self.n_atoms) - 1
        matrix = self.integers("NONBONDED_PARM_INDEX", n * n).reshape(n, n) - 1
        count = n * (n + 1) // 2
        c12, c6 = (self.floats(f"LENNARD_JONES_{x}COEF", count) for x in "AB")
        if (index < 0).any() or (index >= n).any() or (matrix >= count).any():
            raise self.error(f"types in ATOM_TYPE_INDEX and NONBONDED_PARM_INDEX must be ≤ {n}")
        # Negative indices belong to 10-12 pairs, with coefficients of zero.
        c12, c6 = (np.where(matrix >= 0, c[np.maximum(matrix, 0)], 0.0) for c in (c12, c6))

        a, b = np.diag(c12), np.diag(c6)
        attractive = (a > 0.0) & (b > 0.0)
        a, b = np.where(attractive, a, 1.0), np.where(attractive, b, 1.0)
        sigma = np.where(attractive, (a / b) ** (1 / 6), 1.0)
        epsilon = np.where(attractive, b**2 / (4.0 * a), 0.0)
        lj = Table.of(
            np.arange(self.n_atoms)[:, None],
            np.array(types),
            {"sigma": sigma[index], "epsilon": epsilon[index], "type": index},
        )

        sigma6 = (0.5 * (sigma[:, None] + sigma)) ** 6
        combined6 = 4.0 * np.sqrt(epsilon[:, None] * epsilon) * sigma6
        follows = np.isclose(c12, combined6 * sigma6, rtol=1e-6, atol=1e-12)
        follows &= np.isclose(c6, combined6, rtol=1e-6, atol=1e-12)
        of_type = lj.values.pop("type")
        i, j = np.triu_indices(len(of_type))
        separate = ~follows[of_type[i], of_type[j]]
        rows = np.stack([i[separate], j[separate]], axis=1)
        values = {
            name: c[of_type[i[separate]], of_type[j[separate]]]
            for name, c in (("c12", c12), ("c6", c6))
        }
        labels = tuple(f"{lj.labels[x]}-{lj.labels[y]}" for x, y in rows)
        return lj, Table(rows.astype(np.int32), np.arange(len(rows)), labels, values)


def _labels(atoms, types, reversible=True) -> np.ndarray:
    """Names (n,), such as "c3-hc", of interactions of atoms (n, k).

    If `reversible`, the direction that is first in the alphabet is used.
    """
    names = [[types[i] for i in row] for row in atoms.tolist()]
    if reversible:
        names = [min(row, row[::-1]) for row in names]
    return np.array(["-".join(row) for row in names], dtype=str)


def text_of(path, what: str) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # without a byte-order mark
        text.encode("ascii")
        return text
    except UnicodeError as error:
        raise InputError(f"{path} is not a text file; give {what}") from error
