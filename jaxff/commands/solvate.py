"""Command that puts a molecule into a box of water."""

from __future__ import annotations

from pathlib import Path

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import not_negative, positive
from jaxff.commands.shared import load_molecule
from jaxff.errors import InputError
from jaxff.formats.registry import system_formats
from jaxff.molecule_files import READERS
from jaxff.solvent import WATER_MODELS

HELP = "Put a molecule into a box of water with ions."
MORE = "The molecule gets GAFF parameters.  AMBER, GROMACS and OpenMM read the written files."
EXAMPLE = "jaxff solvate CCO --water tip3p --padding 12 --salt 0.15 --charges gasteiger -o box"

SUFFIXES = tuple(form.suffixes[0][1:] for form in system_formats())


def options(sub) -> None:
    sub.add_argument(
        "molecule",
        metavar="SMILES|FILE",
        help=f"SMILES string or file ({', '.join(READERS)}), or the topology of a system "
        f"({', '.join(SUFFIXES)}) with coordinates of the same name",
    )
    sub.add_argument(
        "--water", choices=list(WATER_MODELS), default="tip3p", help="water model (default tip3p)"
    )
    sub.add_argument(
        "--padding",
        type=positive(float),
        default=12.0,
        metavar="Å",
        help="smallest distance between the molecule and the faces of the box (default 12)",
    )
    sub.add_argument(
        "--shape", choices=["cube", "octahedron"], default="cube", help="box (default cube)"
    )
    sub.add_argument(
        "--salt",
        type=not_negative,
        default=0.0,
        metavar="M",
        help="concentration of pairs of ions, mol/L, in addition to neutralising ions (default 0)",
    )
    sub.add_argument(
        "--ions", default="Na,Cl", metavar="CATION,ANION", help="elements of ions (default Na,Cl)"
    )
    sub.add_argument(
        "--charges",
        default="auto",
        metavar="METHOD|FILE.mol2",
        help="charges of the molecule; see `jaxff parametrize --charges`",
    )
    sub.add_argument(
        "--charge", type=int, metavar="Q", help="net charge, e (default: the charge of the input)"
    )
    sub.add_argument(
        "--formats",
        default="prmtop",
        metavar="F,F,...",
        help="files to write: prmtop (with rst7), top (with gro) or xml (OpenMM System with pdb) "
        "(default prmtop)",
    )
    sub.add_argument("-o", "--output", metavar="DIR", required=True, help="output folder")


def run(arguments, console) -> dict:
    from jaxff.cell import amber_box
    from jaxff.gaff import parametrize
    from jaxff.solvent import solvate
    from jaxff.system import System

    formats, ions = arguments.formats.split(","), tuple(arguments.ions.split(","))
    unknown = sorted(set(formats) - set(SUFFIXES))
    if unknown:
        raise InputError(f"--formats {','.join(unknown)}: use {', '.join(SUFFIXES)}")
    if len(ions) != 2:
        raise InputError(f"--ions {arguments.ions}: give a cation and an anion, such as Na,Cl")
    out = writable_folder(arguments.output)
    console("solvate", 0.0)
    if Path(arguments.molecule).suffix.lower()[1:] in SUFFIXES:
        solute = System.read(arguments.molecule)
    else:
        molecule = load_molecule(arguments.molecule, arguments.charge, arguments.seed)
        solute = parametrize(molecule, arguments.charges)
    system = solvate(
        solute,
        arguments.water,
        arguments.padding,
        arguments.shape,
        arguments.salt,
        ions=ions,
        seed=arguments.seed,
    )
    console.close()
    written = [file for form in formats for file in system.write(out / f"system.{form}")]
    console.say(str(system))
    console.say(f"wrote {', '.join(path.name for path in written)} into {out}")
    assert system.box is not None
    lengths, angles = amber_box(system.box)
    return {
        "particles": len(system),
        "molecules": system.contents(),
        "net_charge": round(system.charge),
        "box": [*lengths, *angles],
        "density": system.density,
        "files": written,
    }
