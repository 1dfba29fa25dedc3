"""Energy minimisation."""

from __future__ import annotations

from dataclasses import replace

from jaxff.commands.options import positive, surface_options
from jaxff.commands.shared import load_surface_and_start, writable_folder
from jaxff.errors import InputError

HELP = "The energy minimum downhill of a geometry."
EXAMPLE = "jaxff minimize hybrid.npz start.xyz -o minimum"


def options(sub) -> None:
    surface_options(sub)
    sub.add_argument("--method", choices=("lbfgs", "fire"), default="lbfgs")
    sub.add_argument(
        "--tolerance", type=positive(float),
        help="largest force left, kcal/mol/Å (1e-4; 1e-3 for a calculator)",
    )  # fmt: skip
    sub.add_argument("--max-steps", type=positive(int), default=5000)
    sub.add_argument(
        "--conformers", type=positive(int), metavar="N",
        help="from so many geometries of RDKit's ETKDG, all minima they lead to (--seed)",
    )  # fmt: skip
    sub.add_argument("--modes", action="store_true", help="harmonic frequencies")
    sub.add_argument("-o", "--output", required=True, metavar="DIR")


def run(arguments, console) -> dict:
    from jaxff.reference.cached import resumable

    out = writable_folder(arguments.output)
    method, surface, molecule = load_surface_and_start(arguments)
    descent = _settings(arguments, method.is_potential)
    task, name = (_one, "minimum") if arguments.conformers is None else (_many, "minima")
    with resumable(method, surface, molecule, out / f"{name}.xyz") as surface:
        return task(arguments, console, surface, molecule, descent, out)


def _settings(arguments, is_potential: bool):
    from jaxff.md import Descent

    if arguments.method != "lbfgs" and not is_potential:
        raise InputError("a calculator is minimised by L-BFGS only: leave --method out")
    if arguments.method != "lbfgs" and arguments.conformers is not None:
        raise InputError("--conformers are minimised by L-BFGS only: leave --method out")
    tolerance = arguments.tolerance or (1e-4 if is_potential else 1e-3)
    return Descent(arguments.method, tolerance, arguments.max_steps)


def _one(arguments, console, surface, molecule, descent, out) -> dict:
    """Minimise from the start."""
    from jaxff import md
    from jaxff.analysis import as_surface, normal_modes
    from jaxff.md.surface import evaluate
    from jaxff.potential import Potential

    console("minimise", 0.0)
    surface = as_surface(surface, molecule)
    before = float(evaluate(surface, molecule.positions[None])[0][0])
    found = md.minimize(surface, molecule, descent=descent)
    console.close()
    path = out / "minimum.xyz"
    _write(path, molecule, [found.positions])
    if not found.converged:
        stuck = int(found.steps) < arguments.max_steps
        raise InputError(
            f"not converged: the largest force is {float(found.max_force):.3g} kcal/mol/Å after "
            f"{int(found.steps)} steps (the geometry is in {path}); "
            + (
                "no step leads further down, energies and forces are not more exact: raise "
                "--tolerance"
                if stuck
                else "raise --max-steps or --tolerance"
            )
        )
    energy, force = float(found.energy), float(found.max_force)
    console.say(
        f"{before:.6f} -> {energy:.6f} kcal/mol in {int(found.steps)} steps, largest force "
        f"{force:.2g} kcal/mol/Å"
    )
    if isinstance(surface, Potential):
        for name, part in surface.terms(found.positions).items():
            console.say(f"  {name:12s} {float(part):14.6f}")
    results = {
        "energy_before": before,
        "energy": energy,
        "max_force": force,
        "steps": int(found.steps),
        "minimum": str(path),
    }
    if arguments.modes:
        modes = normal_modes(surface, found.positions, molecule.masses)
        results["frequencies"] = modes.frequencies.tolist()
        _say_frequencies(console, modes.frequencies)
    console.say(f"wrote {path}")
    return results


def _many(arguments, console, surface, molecule, descent, out) -> dict:
    """The minima that RDKit's conformers lead to."""
    from jaxff.analysis import conformers, minima

    console("minimise", 0.0)
    starts = conformers(molecule, arguments.conformers, arguments.seed)
    found = minima(surface, molecule, starts, descent=descent)
    console.close()
    path = out / "minima.xyz"
    if not len(found):
        raise InputError(
            f"of {len(starts)} conformers none led to a minimum: {int(found.failed.sum())} have "
            f"not converged, others ended at {len(found.saddles.energies)} saddle points; raise "
            "--max-steps or --conformers, or lower --tolerance"
        )
    _write(path, molecule, found.positions, found.energies)
    rows = [
        [kind, energy - found.energies.min(), count, *map(float, frequencies[:1])]
        for kind, points in (("minimum", found), ("saddle", found.saddles))
        for energy, count, frequencies in zip(
            points.energies, points.counts, points.frequencies, strict=True
        )
    ]
    console.table(["stationary point", "energy", "starts", "lowest frequency"], rows)
    console.say("energies in kcal/mol from the lowest minimum, frequencies in cm⁻¹")
    if arguments.modes:
        for k, frequencies in enumerate(found.frequencies):
            console.say(f"minimum {k + 1}:")
            _say_frequencies(console, frequencies)
    lost = int(found.failed.sum())
    if lost:
        console.say(f"{lost} of {len(starts)} starts have not converged")
    console.say(f"wrote {path}")
    return {
        "energies": found.energies.tolist(),
        "counts": found.counts.tolist(),
        "frequencies": [f.tolist() for f in found.frequencies],
        "saddle_energies": found.saddles.energies.tolist(),
        "saddle_frequencies": [f.tolist() for f in found.saddles.frequencies],
        "not_converged": lost,
        "minima": str(path),
    }


def _write(path, molecule, positions, energies=None) -> None:
    """Geometries as extended xyz; energies, if any, in the comment lines in kcal/mol."""
    import ase.io

    from jaxff.npz import atomic_path

    frames = [replace(molecule, positions=R).to_ase() for R in positions]
    for atoms, energy in zip(frames, [] if energies is None else energies, strict=False):
        atoms.info["energy_kcal_mol"] = float(energy)
    with atomic_path(path) as temporary:
        ase.io.write(temporary, frames, "extxyz")


def _say_frequencies(console, frequencies) -> None:
    for k in range(0, len(frequencies), 8):
        console.say("  " + "".join(f"{f:9.1f}" for f in frequencies[k : k + 8]) + "  cm⁻¹")
