"""Command that writes a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import model_option
from jaxff.commands.shared import load_potential
from jaxff.errors import InputError
from jaxff.formats.registry import FORCE_FIELDS

if TYPE_CHECKING:
    from jaxff.potential import Potential
    from jaxff.system import System

HELP = "Write a model for other programs."
MORE = (
    "Force-field files: the command stops if a format cannot express a term of the model, and "
    "names the term.  OpenMM and StableHLO take every model; in OpenMM, jaxff computes the terms "
    "that OpenMM does not have."
)
EXAMPLE = "jaxff export hybrid.npz --to openmm --system solvated/ethanol.prmtop -o openmm"

FORMATS = {form.module: form for form in FORCE_FIELDS if form.module != "openmm"}
OPENMM, STABLEHLO = "openmm", "stablehlo"
RUN = '''"""Dynamics of {name} in OpenMM; change the settings below."""

import os
from pathlib import Path

{first}import openmm
from openmm import app, unit

TEMPERATURE, PRESSURE = 300 * unit.kelvin, 1 * unit.bar
TIME_STEP, STEPS = 0.5 * unit.femtosecond, 10_000  # bonds with hydrogen may be flexible

{then}os.chdir(Path(__file__).parent)
pdb = app.PDBFile("topology.pdb")
system = openmm.XmlSerializer.deserialize(Path("system.xml").read_text())
if system.usesPeriodicBoundaryConditions():
    system.addForce(openmm.MonteCarloBarostat(PRESSURE, TEMPERATURE))
integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1 / unit.picosecond, TIME_STEP)
simulation = app.Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.context.computeVirtualSites()
simulation.minimizeEnergy(maxIterations=100)
simulation.context.setVelocitiesToTemperature(TEMPERATURE)
simulation.reporters = [
    app.DCDReporter("trajectory.dcd", 100),
    app.StateDataReporter("log.csv", 100, time=True, potentialEnergy=True, temperature=True),
]
simulation.step(STEPS)
'''


# Additional lines if jaxff computes some of the terms.
IMPORTS = "import jax\nimport jaxff.openmm  # noqa: F401 (computes some of the terms)\n"
PRECISION = 'jax.config.update("jax_enable_x64", True)  # before the model is read\n'


def options(sub) -> None:
    model_option(sub)
    names = "; ".join(
        f"{name}: {form.name}, {', '.join(dict.fromkeys(form.suffixes[:1] + form.companions[:1]))}"
        for name, form in FORMATS.items()
    )
    sub.add_argument(
        "--to", nargs="+", required=True, choices=(*FORMATS, OPENMM, STABLEHLO),
        help=f"{names}; openmm: system.xml, topology.pdb and run.py; stablehlo: compiled energy "
        "and forces that need only JAX, and a program that reads them",
    )  # fmt: skip
    sub.add_argument(
        "--system", metavar="FILE",
        help="openmm: topology of a system (prmtop, top or xml, with its coordinates beside it); "
        "the model replaces the force field within the molecule that it fits to",
    )  # fmt: skip
    sub.add_argument("--name", help="file name without suffix (default: the name of MODEL.npz)")
    sub.add_argument("-o", "--output", metavar="DIR", required=True, help="output folder")


def run(arguments, console) -> dict:
    from jaxff.formats import write_force_field
    from jaxff.system import System

    stem = arguments.name or Path(arguments.model).stem
    if Path(stem).name != stem:
        raise InputError(f"--name {stem} contains a folder: give the folder with -o")
    if arguments.system is not None and OPENMM not in arguments.to:
        raise InputError("--system needs --to openmm")
    potential = load_potential(arguments.model, arguments)
    system = None if arguments.system is None else System.read(arguments.system)
    out = writable_folder(arguments.output)
    files = []
    for name in dict.fromkeys(arguments.to):
        if name == OPENMM:
            files += _write_openmm(out, stem, potential, system)
        elif name == STABLEHLO:
            files += _write_stablehlo(out, stem, potential)
        else:
            files += write_force_field(out / f"{stem}{FORMATS[name].suffixes[0]}", potential)
    console.say(f"wrote {', '.join(map(str, files))}")
    return {"files": [str(file) for file in files]}


def _write_openmm(out: Path, stem: str, potential: Potential, system: System | None) -> list[Path]:
    """Write the files of a run of OpenMM, and return their paths."""
    from jaxff.formats.force_fields import optional_module
    from jaxff.openmm import create_system

    particles = potential.molecule if system is None else system
    if particles is None:
        raise InputError(
            "the model has no molecule, so that its elements are unknown: give --system"
        )
    whole = potential if system is None else _placed(potential, system)
    model = out / f"{stem}-terms.npz"
    made, topology = create_system(whole, particles, model)
    app, openmm = (optional_module(n, "OpenMM", "openmm") for n in ("openmm.app", "openmm"))
    files = [out / "system.xml", out / "topology.pdb", out / "run.py"]
    files[0].write_text(openmm.XmlSerializer.serialize(made))
    with files[1].open("w") as file:
        app.PDBFile.writeFile(topology, particles.positions, file)  # plain numbers are in Å
    needed = any(force.getName() == "jaxff" for force in made.getForces())
    first, then = (IMPORTS, PRECISION) if needed else ("", "")
    files[2].write_text(RUN.format(name=stem, first=first, then=then))
    return files + [model] * needed


def _placed(potential: Potential, system: System) -> Potential:
    """The force field of a system in which a model replaces that of the fitting molecule.

    Raises:
        InputError: no molecule or several molecules of the system fit to the model.
    """
    import numpy as np

    molecule = potential.molecule
    whole = system.potential(cutoff=_cutoff(system))
    if molecule is None:
        raise InputError("the model has no molecule, so that it cannot be placed in the system")
    kinds, examples = system.kinds
    fitting = [
        k for k, atoms in enumerate(examples)
        if np.array_equal(np.sort(system.numbers[atoms]), np.sort(molecule.numbers))
    ]  # fmt: skip
    found = np.flatnonzero(np.isin(kinds, fitting))
    if len(found) != 1:
        raise InputError(
            f"{len(found)} molecules of the system have the formula {molecule.formula} of the "
            "model, but one is needed"
        )
    atoms = np.flatnonzero(system.molecules == found[0])
    order = molecule.match(system.molecule(int(found[0])))
    return whole.without(atoms) + potential.on(atoms[order])


def _cutoff(system: System) -> float:
    """A cutoff of 9 Å, or less in a small box; without a box it has no effect."""
    from jaxff.cell import widths

    return 9.0 if system.box is None else min(9.0, 0.49 * float(widths(system.box).min()))


def _write_stablehlo(out: Path, stem: str, potential: Potential) -> list[Path]:
    """Write a compiled program and its loader, and return their paths."""
    from jaxff import stablehlo

    loader = out / "load_stablehlo.py"
    files = [stablehlo.export(out / f"{stem}.stablehlo", potential), loader]
    loader.write_text(stablehlo.LOADER)
    return files
