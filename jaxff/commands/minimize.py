"""Command that minimises the energy of geometries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxff.commands import systems
from jaxff.commands.folders import writable_folder
from jaxff.commands.options import positive, surface_options
from jaxff.commands.shared import (
    extrapolation_of,
    load_surface_and_start,
    say_extrapolation,
    say_unknown,
    write_geometries,
)
from jaxff.commands.systems import (
    coordinate_suffix,
    load_system,
    potential_of,
    system_options,
)
from jaxff.errors import InputError

if TYPE_CHECKING:
    from jaxff.system import System

HELP = "Minimise the energy of a geometry or of a system, or find the minima of many conformers."
MORE = f"{systems.HELP}  The box and constrained distances do not change."
EXAMPLE = "jaxff minimize hybrid.npz start.xyz -o minimum"


def options(sub) -> None:
    surface_options(sub, "?")
    system_options(sub)
    sub.add_argument("--method", choices=("lbfgs", "fire"), default="lbfgs", help="minimiser")
    sub.add_argument(
        "--tolerance", type=positive(float),
        help="largest force on an atom at convergence, kcal/mol/Å (default 1e-4; 1e-3 for a "
        f"calculator; {systems.TOLERANCE:g} for a system)",
    )  # fmt: skip
    sub.add_argument(
        "--max-steps", type=positive(int), default=5000, help="largest number of steps"
    )
    sub.add_argument(
        "--conformers", type=positive(int), metavar="N",
        help="minimise N conformers from RDKit (see --seed), and report the distinct minima",
    )  # fmt: skip
    sub.add_argument("--modes", action="store_true", help="print the harmonic frequencies")
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")


def run(arguments, console) -> dict:
    from jaxff.reference.cached import resumable

    out = writable_folder(arguments.output)
    if (system := load_system(arguments, console)) is not None:
        return _system(arguments, console, system, out)
    method, surface, molecule = load_surface_and_start(arguments)
    say_unknown(console, arguments.model, surface, arguments.on_extrapolation)
    descent = _settings(arguments, method.is_potential)
    task, name = (_one, "minimum") if arguments.conformers is None else (_many, "minima")
    with resumable(method, surface, molecule, out / f"{name}.xyz") as surface:
        return task(arguments, console, surface, molecule, descent, out)


def _settings(arguments, is_potential: bool):
    from jaxff.md import Descent

    if arguments.method != "lbfgs" and not is_potential:
        raise InputError(
            f"--method {arguments.method} does not apply to calculators: omit --method"
        )
    if arguments.method != "lbfgs" and arguments.conformers is not None:
        raise InputError(
            f"--method {arguments.method} cannot be used with --conformers: omit --method"
        )
    tolerance = arguments.tolerance or (1e-4 if is_potential else 1e-3)
    return Descent(arguments.method, tolerance, arguments.max_steps)


def _one(arguments, console, surface, molecule, descent, out) -> dict:
    """Minimise the starting geometry, print the energies, and return the results."""
    import numpy as np

    from jaxff import md
    from jaxff.analysis import as_surface, normal_modes
    from jaxff.md.surface import evaluate
    from jaxff.potential import Potential

    console("minimise", 0.0)
    surface = as_surface(surface, molecule)
    before = float(evaluate(surface, molecule.positions[None])[0][0])
    end = md.minimize(surface, molecule, descent=descent)
    console.close()
    path = out / "minimum.xyz"
    write_geometries(path, molecule, [end.positions])
    results = _ended(arguments, console, before, end, path)
    energy = results["energy"]
    if isinstance(surface, Potential):
        _say_terms(console, surface.terms(end.positions))
    if arguments.modes:
        modes = normal_modes(surface, end.positions, molecule.masses)
        results["frequencies"] = modes.frequencies.tolist()
        _say_frequencies(console, modes.frequencies)
    console.say(f"wrote {path}")
    model, R = arguments.model, end.positions[None]
    outside = extrapolation_of(arguments, model, surface, R, np.array([energy]))
    results["extrapolation"] = say_extrapolation(console, model, outside, "geometries")
    return results


def _ended(arguments, console, before: float, end, path) -> dict:
    """Print and return the results of a minimisation.

    Raises:
        InputError: the minimisation has not converged.
    """
    energy, force, steps = float(end.energy), float(end.max_force), int(end.steps)
    if not end.converged:
        remedy = "raise --max-steps or --tolerance"
        if steps < arguments.max_steps:
            remedy = "rounding errors prevent further minimisation: raise --tolerance"
        raise InputError(
            f"the largest force on an atom is still {force:.3g} kcal/mol/Å after {steps} steps "
            f"(geometry in {path}); {remedy}"
        )
    console.say(
        f"{before:.6f} -> {energy:.6f} kcal/mol in {steps} steps, largest force "
        f"{force:.2g} kcal/mol/Å"
    )
    return {
        "energy_before": before, "energy": energy, "max_force": force, "steps": steps,
        "minimum": str(path),
    }  # fmt: skip


def _say_terms(console, terms) -> None:
    for name, part in terms.items():
        console.say(f"  {name:12s} {float(part):14.6f}")


def _system(arguments, console, system: System, out) -> dict:
    """Minimise a system at constant box, print the energies, and return the results."""
    from jaxff import md

    for given, flag in (
        (arguments.method != "lbfgs", f"--method {arguments.method}"),
        (arguments.conformers is not None, "--conformers"),
        (arguments.modes, "--modes"),
        (arguments.charge is not None, "--charge"),
    ):
        if given:
            raise InputError(f"{flag} does not apply to systems in a box: omit {flag}")
    potential, box = potential_of(system, arguments), system.box
    console.say(str(system))
    console("minimise", 0.0)
    before = sum(map(float, potential.terms(system.positions, box=box).values()))
    descent = md.Descent(
        tolerance=arguments.tolerance or systems.TOLERANCE, max_steps=arguments.max_steps
    )
    end = md.minimize(potential, system, descent=descent, progress=console)
    console.close()
    path = out / f"minimum{coordinate_suffix(arguments.model)}"
    system.replace(positions=end.positions).write(path)
    results = _ended(arguments, console, before, end, path)
    _say_terms(console, potential.terms(end.positions, box=box))
    console.say(f"wrote {path}")
    return {**results, "extrapolation": None}


def _many(arguments, console, surface, molecule, descent, out) -> dict:
    """Minimise many conformers, write the distinct minima, and return the results."""
    from jaxff.analysis import as_surface, conformers, minima

    console("minimise", 0.0)
    starts = conformers(molecule, arguments.conformers, arguments.seed)
    result = minima(surface, molecule, starts, descent=descent)
    console.close()
    path, failed = out / "minima.xyz", int(result.failed.sum())
    if not len(result):
        raise InputError(
            f"{len(starts)} conformers gave no minimum: {failed} have not converged, and "
            f"{len(starts) - failed} converged to saddle points. Raise --max-steps or "
            "--conformers, or lower --tolerance"
        )
    infos = [{"energy_kcal_mol": float(energy)} for energy in result.energies]
    write_geometries(path, molecule, result.positions, infos)
    rows = [
        [kind, energy - result.energies.min(), count, *map(float, frequencies[:1])]
        for kind, points in (("minimum", result), ("saddle", result.saddles))
        for energy, count, frequencies in zip(
            points.energies, points.counts, points.frequencies, strict=True
        )
    ]
    console.table(["stationary point", "energy", "starts", "lowest frequency"], rows)
    console.say("energies relative to the lowest minimum in kcal/mol, frequencies in cm⁻¹")
    if arguments.modes:
        for k, frequencies in enumerate(result.frequencies):
            console.say(f"minimum {k + 1}:")
            _say_frequencies(console, frequencies)
    if failed:
        console.say(f"{failed} of {len(starts)} conformers have not converged: raise --max-steps")
    console.say(f"wrote {path}")
    surface = as_surface(surface, molecule)
    model, R = arguments.model, result.positions
    outside = extrapolation_of(arguments, model, surface, R, result.energies)
    return {
        "extrapolation": say_extrapolation(console, model, outside, "minima"),
        "energies": result.energies.tolist(),
        "counts": result.counts.tolist(),
        "frequencies": [f.tolist() for f in result.frequencies],
        "saddle_energies": result.saddles.energies.tolist(),
        "saddle_frequencies": [f.tolist() for f in result.saddles.frequencies],
        "not_converged": failed,
        "minima": str(path),
    }


def _say_frequencies(console, frequencies) -> None:
    for k in range(0, len(frequencies), 8):
        console.say("  " + "".join(f"{f:9.1f}" for f in frequencies[k : k + 8]) + "  cm⁻¹")
