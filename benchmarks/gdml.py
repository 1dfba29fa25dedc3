"""Rate of sGDML energies and forces, compared with the `sgdml` package for the same model.

    python benchmarks/gdml.py --sgdml-python PATH [-n 200] [--data FRAMES.npz]

jaxff trains the model and writes it in the format of the package. The package runs in a separate
Python environment with the fastest of its settings for each batch size, alternately with jaxff.
"call" is one evaluation per call from Python; "loop" means evaluations within compiled code, each
at positions that depend on the last forces.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib import resources
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
# The faster setting for single geometries from Python on a CPU: no other thread has to wake up.
jax.config.update("jax_cpu_enable_async_dispatch", False)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from timing import alternate  # noqa: E402
from worker import Worker  # noqa: E402

from jaxff import gdml  # noqa: E402
from jaxff.dataset import Dataset  # noqa: E402

BATCH, CALLS, STEPS, MATMUL = 1000, 500, 2000, 3000


def compiled_loop(potential):
    def step(_, carry):
        R, total = carry
        energy, forces = potential.program.energy_and_forces(potential.params, R)
        return R + 1e-9 * forces, total + energy

    return jax.jit(lambda R: jax.lax.fori_loop(0, STEPS, step, (R, jnp.zeros(()))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sgdml-python", required=True, help="Python with sgdml 1.0.3")
    parser.add_argument("-n", type=int, default=200, help="training frames")
    parser.add_argument("--data", default=resources.files("jaxff") / "data" / "ethanol.npz")
    parser.add_argument("--sigma", type=float, default=20.0)
    arguments = parser.parse_args()

    data = Dataset.load(arguments.data)
    potential = gdml.train(data, n_train=arguments.n, sigma=arguments.sigma)
    term, own = potential.program.placed[0].term, potential.params["gdml"]
    n_train, n_pairs = own["descriptors"].shape
    flops = 8 * len(term.permutations) * n_train * n_pairs  # four products of (P, D) and (D, M)
    print(f"{potential}: {n_train} frames, {len(term.permutations)} permutations")

    rng = np.random.default_rng(0)
    frames = data[rng.integers(0, len(data), BATCH)].positions
    first = jnp.asarray(frames[0])
    loop = compiled_loop(potential)
    square = jnp.asarray(rng.normal(size=(MATMUL, MATMUL)))
    product = jax.jit(jnp.matmul)

    def calls():
        for _ in range(CALLS):
            out = jax.block_until_ready(potential.energy_and_forces(first))
        return out

    with tempfile.TemporaryDirectory() as folder:
        model, positions = Path(folder, "model.npz"), Path(folder, "frames.npz")
        gdml.save(model, potential)
        np.savez(positions, R=frames)
        package = Worker(arguments.sgdml_python, "gdml_worker.py", model, positions)
        answer = package.ask(1, 1)
        difference = np.abs(np.ravel(potential.forces(first)) - answer["forces"]).max()
        chosen = {batch: package.ask(batch, 1)["setting"] for batch in (1, BATCH)}
        counts = {
            "jaxff, loop": STEPS,
            "jaxff, call": CALLS,
            "sgdml, call": CALLS,
            f"jaxff, batch {BATCH}": BATCH,
            f"sgdml, batch {BATCH}": BATCH,
            "matmul": 1,
        }
        runs = (
            lambda: loop(first),
            calls,
            lambda: package.ask(1, CALLS),
            lambda: potential.predict(frames),
            lambda: package.ask(BATCH, 1),
            lambda: product(square, square),
        )
        medians = alternate(dict(zip(counts, runs, strict=True)))
        package.close()

    matmul = 2 * MATMUL**3 / medians.pop("matmul")
    print(f"largest force difference {difference:.1e} kcal/mol/Å")
    print(f"sgdml settings: {chosen[1]} (1); {chosen[BATCH]} ({BATCH})")
    print(f"float64 matmul {matmul / 1e9:.0f} GFLOP/s; {flops / 1e6:.2f} MFLOP a geometry")
    print(f"{'':18s}{'geometries/s':>14s}{'of matmul':>11s}{'ratio':>8s}")
    rates = {name: counts[name] / seconds for name, seconds in medians.items()}
    for name, rate in rates.items():
        other = rates["sgdml, call" if "batch" not in name else f"sgdml, batch {BATCH}"]
        print(f"{name:18s}{rate:14,.0f}{flops * rate / matmul:11.1%}{rate / other:8.1f}")


if __name__ == "__main__":
    main()
