"""Systems in a periodic box on the command line: options, reading and checks."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxff.commands.options import positive
from jaxff.errors import InputError
from jaxff.formats.registry import GROMACS, format_of, is_force_field, suffix_of, system_formats

if TYPE_CHECKING:
    from jaxff.potential import Potential
    from jaxff.system import System

SUFFIXES = tuple(suffix for form in system_formats() for suffix in form.suffixes)
HELP = (
    "MODEL can also be the topology of a system in a box of an AMBER, GROMACS or OpenMM file "
    f"({', '.join(SUFFIXES)}).  START is then a file of its coordinates and box, by default the "
    "one with the same name."
)
# Options of systems, None if they are not given, with the names of the arguments.
FLAGS = {
    "cutoff": "--cutoff",
    "constraints": "--constraints",
    "flexible_water": "--flexible-water",
    "hydrogen_mass": "--hydrogen-mass",
    "minimize": "--minimize",
    "wrap": "--wrap",
}
TOLERANCE = 1.0  # kcal/mol/Å, largest force on an atom of a minimised system
STEPS_PER_PERIOD = 8.0  # of the fastest bond; with fewer steps velocity Verlet is inaccurate


def system_options(sub) -> None:
    """Add the options that determine the potential and the constraints of a system."""
    sub.add_argument(
        "--cutoff", type=positive(float), metavar="Å",
        help="systems: cutoff of Lennard-Jones interactions and of the direct space of PME, Å "
        "(default 9)",
    )  # fmt: skip
    sub.add_argument(
        "--constraints", choices=("none", "h-bonds"),
        help="systems: bonds of constant length; h-bonds: all bonds with hydrogen, which allows "
        "--dt 2 (default none)",
    )  # fmt: skip
    sub.add_argument(
        "--flexible-water", action="store_const", const=True,
        help="systems: water molecules are not rigid (default: they are rigid)",
    )  # fmt: skip


def load_system(arguments: Namespace, console) -> System | None:
    """Read the system that MODEL and START describe; None if they describe a molecule.

    A topology belongs to a system if it or its coordinates contain a box.  Because GROMACS files
    always contain a box, a single molecule in GROMACS files is not a system.

    Args:
        arguments: parsed options of a command with `system_options`.
        console: prints a notice about molecules without a box.

    Raises:
        InputError: a file is damaged, the files do not belong together, START is missing, or an
            option of systems is given for a molecule.
    """
    model, start = arguments.model, arguments.start
    system = None
    form = format_of(model) if is_force_field(model) else None
    if form is not None and (start is None or suffix_of(start) in form.coordinates):
        system = _read(arguments, form)
    if form is not None and system is not None:
        several = system.molecules.max() > 0
        if system.box is not None and (several or form is not GROMACS):
            return system
        if several:
            console.say(f"{model} has no box: all pairs of atoms interact, in vacuum")
        if start is None:
            named = [Path(model).with_suffix(suffix) for suffix in form.coordinates]
            arguments.start = str(next(file for file in named if file.is_file()))
    if arguments.start is None:
        raise InputError(f"{model} is not the topology of a system: give START after it")
    for name, flag in FLAGS.items():
        if getattr(arguments, name, None) is not None:
            raise InputError(
                f"{flag} needs a system in a box ({', '.join(SUFFIXES)}), but {model} with "
                f"{arguments.start} has none: omit {flag}, or give files with a box"
            )
    return None


def _read(arguments: Namespace, form) -> System | None:
    """The system of a topology; None if only the reader of molecules accepts the topology."""
    if not form.systems:
        return None
    from jaxff.formats import read_potential

    try:
        return read_system(arguments, arguments.start)
    except InputError:
        if form is GROMACS or arguments.start is None:
            raise
        try:
            read_potential(arguments.model)
        except InputError:  # a box: the message of the system applies
            pass
        else:
            return None
        raise


def read_system(arguments: Namespace, coordinates: str | Path | None) -> System:
    """Read MODEL with a coordinate file, and the constraints and masses of the options."""
    from jaxff.md import repartition
    from jaxff.system import System

    system = System.read(
        arguments.model,
        coordinates,
        constraints=arguments.constraints or "none",
        rigid_water=not arguments.flexible_water,
    )
    mass = getattr(arguments, "hydrogen_mass", None)
    return system if mass is None else repartition(system, mass)


def potential_of(system: System, arguments: Namespace) -> Potential:
    """The potential of a system with the cutoff of the options, in float64."""
    return system.potential(**({} if arguments.cutoff is None else {"cutoff": arguments.cutoff}))


def coordinate_suffix(model: str) -> str:
    """The usual suffix of coordinate files of a topology."""
    return format_of(model).coordinates[0]


def long_step(system: System, dt: float) -> str:
    """A warning if the time step is long for the fastest bond that can vibrate, or "".

    Args:
        system: the system, with constraints and masses as in the simulation.
        dt: time step, fs.
    """
    import numpy as np

    from jaxff import units

    bonds = system.tables.bonds
    atoms = np.sort(bonds.atoms, axis=1)
    fixed = {tuple(sorted(pair)) for pair in system.constraints.pairs()[0].tolist()}
    free = np.array([tuple(pair) not in fixed for pair in atoms.tolist()], bool)
    stiffness = 2.0 * bonds.values["k"][bonds.rows][free]
    if not len(stiffness) or stiffness.max() <= 0.0:
        return ""
    masses = system.masses[atoms[free]]
    with np.errstate(divide="ignore"):
        rates = stiffness / units.TIME**2 * (1.0 / masses).sum(axis=1)
    fastest = int(np.argmax(rates))
    period = 2.0 * np.pi / np.sqrt(rates[fastest])
    if dt <= period / STEPS_PER_PERIOD:
        return ""
    names = [f"{i} ({system.atom_names[i]})" for i in atoms[free][fastest].tolist()]
    return (
        f"warning: --dt {dt:g} is long for the bond of the atoms {' and '.join(names)}, which "
        f"vibrates with a period of {period:.1f} fs: give --constraints h-bonds, or --dt "
        f"{np.floor(10.0 * period / STEPS_PER_PERIOD) / 10.0:g}"
    )
