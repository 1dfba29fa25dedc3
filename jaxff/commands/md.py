"""Molecular dynamics."""

from __future__ import annotations

from jaxff.commands.shared import load_potential, writable_folder


def run(arguments, console) -> dict:
    import jax.numpy as jnp

    from jaxff import md, plot
    from jaxff.molecule import Molecule

    out = writable_folder(arguments.output)
    potential = load_potential(arguments.model).astype(jnp.dtype(arguments.precision))
    molecule = Molecule.read(arguments.start)
    result = md.simulate(
        potential,
        molecule,
        ensemble=arguments.ensemble,
        temperature=arguments.temperature,
        dt=arguments.dt,
        steps=arguments.steps,
        friction=arguments.friction,
        record_every=arguments.record_every,
        seed=arguments.seed,
        out=out / "trajectory.extxyz",
        progress=console,
    )
    console.close()
    thermostat = arguments.temperature if arguments.ensemble == "langevin" else None
    figure = plot.energy_and_temperature(
        result.times,
        result.potential_energies,
        result.kinetic_energies,
        result.temperatures,
        thermostat,
    )
    figure.savefig(out / "energy_temperature.png", dpi=130)
    mean = float(result.temperatures.mean())
    rate = arguments.steps / result.seconds
    console.say(f"mean temperature {mean:.1f} K; {rate:.0f} steps/s")
    console.say(f"wrote {out}/trajectory.extxyz and energy_temperature.png")
    return {
        "mean_temperature": mean,
        "frames": len(result.times),
        "steps_per_second": rate,
        "trajectory": str(out / "trajectory.extxyz"),
    }
