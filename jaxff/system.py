"""Systems: molecules in a box of solvent, with their force field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxff import cell
from jaxff.errors import InputError
from jaxff.formats.registry import coordinate_format, format_of, suffix_of, system_formats
from jaxff.gaff.bonded import harmonic
from jaxff.gaff.tables import Tables
from jaxff.particles import Constraints, Particles
from jaxff.potential import Placed, Potential, Program, Term
from jaxff.terms.pairs import Nonbonded
from jaxff.terms.periodic import periodic

LONGEST = 2.0  # a bond that exceeds its equilibrium length by this factor is an error

Kind = Literal["none", "h-bonds"]
Electrostatics = Literal["auto", "pme", "cutoff", "none"]


@dataclass(frozen=True, eq=False, kw_only=True)
class System(Particles):
    """Molecules in a box, or in vacuum, with their AMBER force field.

    The positions are those of whole molecules, which may extend beyond the box.  See `Particles`
    for the other attributes.

    Attributes:
        tables: the force field.

    Raises:
        InputError: an attribute has the wrong shape or a wrong value.
    """

    tables: Tables = field()

    def __post_init__(self):
        super().__post_init__()
        if len(self.tables.charges) != len(self):
            raise InputError(
                f"{self.name or 'system'}: there are {len(self)} particles, but the force field "
                f"has {len(self.tables.charges)}"
            )
        if self.box is not None:
            whole = cell.whole_molecules(self.positions, self.box, self.links, self.molecules)
            self._set("positions", whole)

    # -- files ----------------------------------------------------------------------------------

    @classmethod
    def read(
        cls,
        topology: str | Path,
        coordinates: str | Path | None = None,
        *,
        constraints: Kind = "none",
        rigid_water: bool = True,
    ) -> System:
        """Read a system from files of AMBER, GROMACS or OpenMM.

        Args:
            topology: an AMBER topology (prmtop, parm7), a GROMACS topology (top; needs OpenMM), or
                an OpenMM System (xml).
            coordinates: for AMBER an inpcrd, rst7 or NetCDF restart file; for GROMACS a gro file;
                for OpenMM a PDB file.  None: the file with the same name, if it exists.
            constraints: "none", or "h-bonds" for all bonds with hydrogen; see `constrained`.
            rigid_water: whether water molecules are rigid.

        Raises:
            InputError: a file is missing or damaged, the files have different atoms, or jaxff does
                not compute an interaction.
        """
        form = format_of(topology)
        if not form.systems:
            known = ", ".join(s for f in system_formats() for s in f.suffixes)
            raise InputError(f"{topology}: not the topology of a system; use {known}")
        if coordinates is None:
            named = [Path(topology).with_suffix(suffix) for suffix in form.coordinates]
            coordinates = next((file for file in named if file.is_file()), None)
            if coordinates is None:
                raise InputError(
                    f"{topology}: a system needs coordinates; give a file with the suffix "
                    f"{' or '.join(form.coordinates)}"
                )
        if suffix_of(coordinates) not in form.coordinates:
            raise InputError(
                f"{coordinates}: the coordinates of a {form.name} need the suffix "
                f"{' or '.join(form.coordinates)}"
            )
        particles, tables = form.load_systems().read_system(Path(topology), Path(coordinates))
        values = {f.name: getattr(particles, f.name) for f in fields(Particles)}
        system = cls(**values, tables=tables)
        system._check_bonds(coordinates)
        system._check_waters(topology)
        return system.constrained(constraints, rigid_water=rigid_water)

    def write(self, path: str | Path) -> list[Path]:
        """Write the system for another program, and return the written files.

        Args:
            path: ``x.prmtop`` (AMBER, with x.rst7), ``x.top`` (GROMACS, with x.gro) or ``x.xml``
                (OpenMM, with x.pdb; needs OpenMM).  For ``x.rst7``, ``x.gro`` or ``x.pdb``, only
                the coordinates are written.

        Raises:
            InputError: the format is unknown or cannot express the system, or a file cannot be
                written.
        """
        form = coordinate_format(path)
        if form is not None and suffix_of(path) == form.coordinates[0]:
            form.load_systems().write_coordinates(Path(path), self)
            return [Path(path)]
        form = format_of(path)
        if not form.systems:
            known = ", ".join(f.suffixes[0] for f in system_formats())
            raise InputError(f"{path}: systems cannot be written to this format; use {known}")
        return form.load_systems().write_system(Path(path), self, self.tables)

    def _check_bonds(self, coordinates) -> None:
        """Check that bonds are not much longer than at equilibrium.

        Raises:
            InputError: a bond is too long, as after a change of the order of atoms.
        """
        bonds, R = self.tables.bonds, self.positions
        length = np.linalg.norm(R[bonds.atoms[:, 1]] - R[bonds.atoms[:, 0]], axis=1)
        rest = bonds.values["length"][bonds.rows]
        if (length > LONGEST * rest).any():
            worst = int(np.argmax(length / rest))
            i, j = bonds.atoms[worst].tolist()
            raise InputError(
                f"{coordinates}: the bond of atoms {i} ({self.atom_names[i]}) and {j} "
                f"({self.atom_names[j]}) is {length[worst]:.1f} Å long; give the coordinates with "
                "the same order of atoms and with their box"
            )

    def _check_waters(self, topology) -> None:
        """Check that water molecules are neutral.

        Raises:
            InputError: a water molecule is charged, because its virtual site is missing.
        """
        waters = self.waters[:, 0]
        charges = np.bincount(self.molecules, self.tables.charges)[self.molecules[waters]]
        if (np.abs(charges) > 0.05).any():
            k = int(np.argmax(np.abs(charges)))
            raise InputError(
                f"{topology}: the water molecule of atom {waters[k]} has the charge "
                f"{charges[k]:+.3f} e, so a virtual site of the water model is missing or has no "
                "charge; make the topology again with all sites of the model"
            )

    # -- changes --------------------------------------------------------------------------------

    def replace(self, **changes: Any) -> System:
        """The system with new attributes, such as ``positions`` and ``box``.

        Virtual sites are placed at the positions that their atoms define.
        """
        if "positions" in changes:
            changes["positions"] = self.sites.placed(np.asarray(changes["positions"], float))
        return replace(self, **changes)

    def select(self, atoms: Sequence[int] | np.ndarray) -> System:
        """The system of some particles, in ascending order, with their interactions.

        Args:
            atoms: (n,) indices; see also `atoms_in`.

        Raises:
            InputError: an index is out of range, or a bond to another atom or a virtual site is
                cut.
        """
        index = np.unique(np.asarray(atoms, int))
        if not len(index) or index[0] < 0 or index[-1] >= len(self):
            raise InputError(f"select(atoms) needs indices from 0 to {len(self) - 1}")
        place = np.full(len(self), -1)
        place[index] = np.arange(len(index))
        links = np.concatenate(
            [self.links, *(np.stack([self.sites.atoms, p], axis=1) for p in self.sites.parents.T)]
        )
        cut = (place[links] >= 0).sum(axis=1) == 1
        if cut.any():
            i, j = links[np.argmax(cut)]
            raise InputError(
                f"select(atoms) contains only one of the bonded particles {i} and {j}; select "
                "whole molecules"
            )
        names, residues = np.unique(self.residues[index], return_inverse=True)
        fixed, inside = self.constraints, place[self.sites.atoms] >= 0
        waters = (place[fixed.waters] >= 0).all(axis=1)
        bonds = (place[fixed.bonds] >= 0).all(axis=1)
        sites = self.sites.on(place)
        return replace(
            self,
            numbers=self.numbers[index],
            positions=self.positions[index],
            masses=self.masses[index],
            atom_names=tuple(self.atom_names[i] for i in index),
            residues=residues,
            residue_names=tuple(self.residue_names[r] for r in names),
            bonds=place[self.bonds[(place[self.bonds] >= 0).all(axis=1)]],
            sites=replace(
                sites,
                **{f.name: getattr(sites, f.name)[inside] for f in fields(sites)},
            ),
            constraints=Constraints(
                place[fixed.waters[waters]].astype(np.int32),
                fixed.water_lengths[waters],
                place[fixed.bonds[bonds]].astype(np.int32),
                fixed.lengths[bonds],
            ),
            tables=self.tables.selected(index),
        )

    def constrained(self, constraints: Kind = "h-bonds", *, rigid_water: bool = True) -> System:
        """The system with additional constraints; existing constraints remain.

        Constrained lengths are the equilibrium lengths of the force field.  The potential still
        contains the bonded terms of constrained bonds, which are zero at these lengths.

        Args:
            constraints: "none", or "h-bonds" for all bonds with hydrogen.
            rigid_water: whether water molecules are rigid.

        Raises:
            InputError: `constraints` is unknown, or the force field has no geometry of water.
        """
        if constraints not in ("none", "h-bonds"):
            raise InputError(f"constraints must be 'none' or 'h-bonds' (got {constraints!r})")
        fixed, bonds = self.constraints, self.tables.bonds
        waters, lengths = fixed.waters, fixed.water_lengths
        if rigid_water:
            new = self.waters[~np.isin(self.waters[:, 0], waters[:, 0])]
            waters = np.concatenate([waters, new]).astype(np.int32)
            lengths = np.concatenate([lengths, self.tables.water_lengths(new)])
        if np.isnan(lengths).any():
            oxygen = waters[np.isnan(lengths).any(axis=1)][0, 0]
            raise InputError(
                f"{self.name or 'system'}: the water molecule of atom {oxygen} has no bond lengths "
                "O–H or no H–H distance; give rigid_water=False"
            )
        atoms, rest = fixed.bonds, fixed.lengths
        if constraints == "h-bonds":
            with_h = (self.numbers[bonds.atoms] == 1).sum(axis=1) == 1
            known = {tuple(sorted(pair)) for pair in atoms.tolist()}
            rigid = np.isin(bonds.atoms, waters).all(axis=1)
            fresh = [tuple(sorted(pair)) not in known for pair in bonds.atoms.tolist()]
            wanted = with_h & ~rigid & np.array(fresh, bool)
            atoms = np.concatenate([atoms, bonds.atoms[wanted]])
            rest = np.concatenate([rest, bonds.values["length"][bonds.rows[wanted]]])
        return replace(self, constraints=Constraints(waters, lengths, atoms, rest))

    # -- potential ------------------------------------------------------------------------------

    @property
    def charge(self) -> float:
        """Net charge, e."""
        return float(self.tables.charges.sum())

    def nonbonded(
        self, coulomb_constant: float | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Fields and parameters of nonbonded terms; see `Tables.nonbonded`."""
        return self.tables.nonbonded(self.classes, coulomb_constant)

    def potential(
        self,
        cutoff: float = 9.0,
        switch: float | None = None,
        electrostatics: Electrostatics = "auto",
        ewald_tolerance: float = 5e-4,
        dispersion_correction: bool = True,
    ) -> Potential:
        """The potential of the force field, with all its numbers in `params`.

        Without a box, all pairs interact, and the arguments have no effect.

        Args:
            cutoff: Å, of Lennard-Jones interactions and of the direct space of Ewald sums.
            switch: Å, distance at which Lennard-Jones interactions begin to be switched off (None:
                they are not switched).
            electrostatics: "pme", "cutoff" (reaction field), "none", or "auto": "pme" if there are
                charges.
            ewald_tolerance: relative error of the Ewald sum, which determines its width and grid.
            dispersion_correction: whether the energy includes that of the dispersion beyond the
                cutoff.

        Raises:
            InputError: the box is too small for the cutoff, an argument has no valid value, or
                electrostatics that need a box are requested without one.
        """
        shape, values = self.nonbonded()
        terms: dict[str, tuple[Term, dict]] = harmonic(self.tables.bonded())
        if self.box is None:
            if electrostatics not in ("auto", "none"):
                raise InputError(
                    f"{self.name or 'system'}: electrostatics={electrostatics!r} needs a box, but "
                    "there is none; read the coordinates with their box, or use 'auto'"
                )
            terms["nonbonded"] = Nonbonded(**shape), values
        else:
            boxed = periodic(
                shape,
                values,
                self.box,
                cutoff,
                switch,
                electrostatics,
                ewald_tolerance,
                dispersion_correction,
            )
            terms["nonbonded"] = boxed, values
        placed = [Placed(name, term) for name, (term, _) in terms.items()]
        params = {name: columns for name, (_, columns) in terms.items()}
        return Potential(Program(placed, self.sites if len(self.sites) else None), params)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in self.contents().items())
        box = "no box"
        if self.box is not None:
            lengths, angles = cell.amber_box(self.box)
            box = " × ".join(f"{x:.2f}" for x in lengths) + " Å"
            if np.abs(angles - 90.0).max() > 1e-3:
                box += " (" + ", ".join(f"{x:.2f}°" for x in angles) + ")"
        name = f"{self.name!r}: " if self.name else ""
        return f"System({name}{len(self)} particles, {box}, {counts})"
