"""Stability of fitted force fields in dynamics at high temperature.

    python benchmarks/stability.py DATA.npz [--form class2,nn] [-n 110] [--replicas 100] [--ps 10]

Each form is fitted to a few frames. Replicas start from other frames and run Langevin dynamics at
500 K. The script reports the number of replicas with non-finite energies or with a bond longer than
1.5 or shorter than 0.6 times its length in the data, the lowest energy relative to the lowest frame
of the data, and the mean temperature.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax_md import simulate, space

import jaxff
from jaxff import units
from jaxff.learn import aligned
from jaxff.md.integrators import scaled_masses

DT, FRICTION, EVERY = 0.5, 10.0, 100  # fs, 1/ps, steps between records


def dynamics(potential, R, temperature: float, looks: int, seed: int):
    """Return bond-length limits, energies and temperatures of each record, (looks, M, ...)."""
    masses = scaled_masses(potential.molecule.masses, DT)
    kT, bonds = units.BOLTZMANN * temperature, potential.molecule.bonds
    energy = potential.energy_fn
    _, shift = space.free()
    init, step = simulate.nvt_langevin(
        lambda R: energy(potential.params, R), shift, dt=1.0, kT=kT, gamma=FRICTION * DT * 1e-3
    )

    def look(state):
        r = jnp.linalg.norm(state.position[bonds[:, 0]] - state.position[bonds[:, 1]], axis=1)
        kinetic = 0.5 * jnp.sum(state.momentum * state.velocity)
        seen = r, energy(potential.params, state.position), 2 * kinetic / (masses.size * 3) / kT
        return seen

    @jax.jit
    def run(keys, R):
        def one(key, R):
            state = init(key, R, mass=masses)

            def advance(state, _):
                state = jax.lax.fori_loop(0, EVERY, lambda _, s: step(s), state)
                return state, look(state)

            return jax.lax.scan(advance, state, None, length=looks)[1]

        return jax.vmap(one)(keys, R)

    return map(np.asarray, run(jax.random.split(jax.random.key(seed), len(R)), R))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--form", default="class2,nn")
    parser.add_argument("-n", type=int, default=110)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--temperature", type=float, default=500.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    data = jaxff.Dataset.load(arguments.data)
    split = data.split(arguments.n, 0, max(arguments.replicas, 1000), seed=arguments.seed)
    looks = round(arguments.ps * 1000 / DT / EVERY)
    for form in arguments.form.split(","):
        start = jaxff.gaff(split.train.molecule, form=form)
        found = jaxff.fit(start, split.train)
        test = aligned(split.test, found.potential)
        error = jaxff.evaluate(found.potential, test)["force_rmse"]
        bonds = found.potential.molecule.bonds
        usual = np.linalg.norm(
            test.positions[:, bonds[:, 0]] - test.positions[:, bonds[:, 1]], axis=2
        ).mean(axis=0)
        lowest = found.potential.predict(test.positions)[0].min()
        began = time.perf_counter()
        R = jnp.asarray(test.positions[: arguments.replicas])
        r, energy, temperature = dynamics(
            found.potential, R, arguments.temperature, looks, arguments.seed
        )
        ratio = r / usual
        whole = np.isfinite(energy).all(axis=1)
        whole &= (np.nan_to_num(ratio, nan=9.0) < 1.5).all(axis=(1, 2)) & (ratio > 0.6).all(
            axis=(1, 2)
        )
        print(
            f"{data.name} {form}, {arguments.n} frames (force RMSE {error:.2f}): "
            f"{len(R)} replicas of {arguments.ps:g} ps at {arguments.temperature:g} K: "
            f"{(~whole).sum()} broken, bond lengths {np.nanmin(ratio):.2f} to "
            f"{np.nanmax(ratio):.2f} of their mean, lowest energy "
            f"{np.nanmin(energy) - lowest:+.1f} kcal/mol relative to the lowest frame, temperature "
            f"{arguments.temperature * np.nanmean(temperature):.1f} K, "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
