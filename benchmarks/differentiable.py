"""Time and memory of gradients through trajectories of GAFF ethanol.

    python benchmarks/differentiable.py [--steps 100,1000,10000] [--frames 1000,10000]

Every candidate computes, in float64, the gradient of a function of the last geometry with respect
to all parameters ("forward": one parameter). Candidates run alternately in one process. Memory is
what XLA allocates for the compiled function, without its arguments and results.
"""

from __future__ import annotations

import argparse
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from timing import alternate  # noqa: E402

import jaxff  # noqa: E402
from jaxff.md import Start, kinetics  # noqa: E402
from jaxff.md.differentiable import Frames, Plan, average, rollout  # noqa: E402

MOST = 4e9  # bytes; candidates that need more are omitted


def candidates(potential, steps: int, replicas: int) -> dict:
    """Return functions of a potential by name."""
    molecule, rng = potential.molecule, np.random.default_rng(0)
    R = jnp.tile(molecule.positions, (replicas, 1, 1))
    v = [kinetics.maxwell_boltzmann(molecule.masses, 300.0, rng) for _ in range(replicas)]
    v = jnp.asarray(v)

    def loss(potential, method):
        frames = rollout(potential, Start(R, v), plan=Plan(steps, steps, method))
        return jnp.mean((frames.positions[:, -1] - R) ** 2)

    one = jax.tree.map(jnp.zeros_like, potential)
    one.params["bond"]["k"] = one.params["bond"]["k"].at[0].set(1.0)
    return {
        "trajectory alone": lambda p: loss(p, "forward"),
        "plain loop, reverse": jax.grad(lambda p: loss(p, "forward")),
        "(a) checkpoint": jax.grad(lambda p: loss(p, "checkpoint")),
        "(b) reversible": jax.grad(lambda p: loss(p, "reversible")),
        "forward, 1 parameter": lambda p: jax.jvp(lambda p: loss(p, "forward"), (p,), (one,)),
    }


def weighed(potential, count: int) -> None:
    """Print the cost of an average over `count` frames, and of its gradient."""
    rng = np.random.default_rng(0)
    R = potential.molecule.positions + 0.05 * rng.normal(size=(count, potential.n_atoms, 3))
    frames = Frames.of(potential, R, 300.0)
    compiled, memory = {}, {}
    for name, function in {
        "(c) average": average,
        "(c) its gradient": jax.grad(average),
    }.items():
        made = jax.jit(function).lower(potential, frames, R[:, 0, 0]).compile()
        memory[name] = made.memory_analysis().temp_size_in_bytes
        compiled[name] = lambda made=made: made(potential, frames, R[:, 0, 0])
    seconds = alternate(compiled, rounds=5)
    for name, size in memory.items():
        row = f"{count:7d} {name:22s} {size / 1e6:9.3f} MB {1e3 * seconds[name]:7.1f} ms"
        print(f"{row} {seconds[name] / seconds['(c) average']:8.1f}×", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", default="100,1000,10000")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--frames", default="1000,10000")
    arguments = parser.parse_args()
    potential = jaxff.gaff(jaxff.Molecule.from_smiles("CCO"))
    heads = f"{'memory':>12s} {'time':>10s} {'of alone':>9s} {'compiling':>10s}"
    print(f"{'steps':>7s} {'':22s} {heads}")
    for steps in map(int, arguments.steps.split(",")):
        compiled, memory, compiling = {}, {}, {}
        for name, function in candidates(potential, steps, arguments.replicas).items():
            begun = time.perf_counter()
            made = jax.jit(function).lower(potential).compile()
            memory[name] = made.memory_analysis().temp_size_in_bytes
            compiling[name] = time.perf_counter() - begun
            if memory[name] < MOST:
                compiled[name] = lambda made=made: made(potential)
        seconds = alternate(compiled, rounds=5)
        alone = seconds["trajectory alone"]
        for name, size in memory.items():
            row = f"{steps:7d} {name:22s} {size / 1e6:9.3f} MB"
            if name in seconds:
                row += f" {1e3 * seconds[name]:7.1f} ms {seconds[name] / alone:8.1f}×"
            else:
                row += f" {'left out':>20s}"
            print(f"{row} {compiling[name]:8.1f} s", flush=True)
    print(f"{'frames':>7s}")
    for count in map(int, arguments.frames.split(",")):
        weighed(potential, count)


if __name__ == "__main__":
    main()
