"""Energy minimisation."""

from __future__ import annotations

from dataclasses import replace

from jaxff.commands.shared import load_potential, writable_folder
from jaxff.errors import InputError


def run(arguments, console) -> dict:
    import ase.io

    from jaxff import md
    from jaxff.molecule import Molecule
    from jaxff.npz import atomic_path

    out = writable_folder(arguments.output)
    potential = load_potential(arguments.model)
    molecule = Molecule.read(arguments.start)
    console("minimise", 0.0)
    before = float(potential.matched(molecule)(molecule.positions))
    found = md.minimize(
        potential,
        molecule,
        method=arguments.method,
        tolerance=arguments.tolerance,
        max_steps=arguments.max_steps,
    )
    console.close()
    path = out / "minimum.xyz"
    with atomic_path(path) as temporary:
        ase.io.write(temporary, replace(molecule, positions=found.positions).to_ase(), "extxyz")
    if not found.converged:
        raise InputError(
            f"not converged: the largest force is {float(found.max_force):.3g} kcal/mol/Å after "
            f"{int(found.steps)} steps (the geometry is in {path}); "
            "raise --max-steps or --tolerance"
        )
    energy, force = float(found.energy), float(found.max_force)
    console.say(
        f"{before:.6f} -> {energy:.6f} kcal/mol in {int(found.steps)} steps, largest force "
        f"{force:.2g} kcal/mol/Å"
    )
    for name, part in potential.matched(molecule).terms(found.positions).items():
        console.say(f"  {name:12s} {float(part):14.6f}")
    console.say(f"wrote {path}")
    return {
        "energy_before": before,
        "energy": energy,
        "max_force": force,
        "steps": int(found.steps),
        "minimum": str(path),
    }
