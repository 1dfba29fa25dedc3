"""Rate of GAFF energies and forces of aspirin, compared with OpenMM's Reference platform.

    python benchmarks/mm.py

Both programs run alternately in one process. "call" is one evaluation per call from Python; "loop"
means evaluations within compiled code, each at positions that depend on the last forces. OpenMM's
loops are those of its integrators, which also integrate (and draw Langevin's random numbers).
"""

from __future__ import annotations

import tempfile

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import openmm  # noqa: E402
from openmm import app  # noqa: E402
from timing import alternate  # noqa: E402

import jaxff  # noqa: E402
from jaxff.molecule import Molecule  # noqa: E402

CALLS, STEPS, BATCH = 300, 20_000, 256


def jaxff_candidates(molecule: Molecule, dtype) -> tuple[dict, dict, float]:
    """Return candidates, their numbers of evaluations, and the operations of one (by XLA)."""
    potential = jaxff.gaff(molecule).astype(dtype)
    R = jnp.array(molecule.positions, dtype)
    batch = jnp.tile(R, (BATCH, 1, 1))
    name = jnp.dtype(dtype).name

    def one(params, R):
        return potential.program.energy_and_forces(params, R)

    def loop(evaluate, steps):
        def step(_, carry):
            R, total = carry
            energy, forces = evaluate(potential.params, R)
            return R + 1e-7 * forces, total + energy.sum()

        zero = jnp.zeros((), dtype)
        return jax.jit(lambda R: jax.lax.fori_loop(0, steps, step, (R, zero)))

    many = jax.vmap(one, in_axes=(None, 0))
    batched_steps = max(1, STEPS // BATCH)
    calls = jax.jit(many)
    single_loop, batch_loop = loop(one, STEPS), loop(many, batched_steps)

    def python_calls():
        for _ in range(CALLS):
            out = jax.block_until_ready(potential.energy_and_forces(R))
        return out

    candidates = {
        f"jaxff {name} call": python_calls,
        f"jaxff {name} loop": lambda: single_loop(R),
        f"jaxff {name} call, batch {BATCH}": lambda: calls(potential.params, batch),
        f"jaxff {name} loop, batch {BATCH}": lambda: batch_loop(batch),
    }
    counts = (CALLS, STEPS, BATCH, BATCH * batched_steps)
    cost = calls.lower(potential.params, batch).compile().cost_analysis()
    return candidates, dict(zip(candidates, counts, strict=True)), cost["flops"] / BATCH


def openmm_candidates(molecule: Molecule) -> tuple[dict, dict]:
    """Return calls and integrator loops of OpenMM's Reference platform."""
    positions = molecule.positions / 10.0
    with tempfile.TemporaryDirectory() as folder:
        prmtop = f"{folder}/aspirin.prmtop"
        jaxff.write_force_field(prmtop, jaxff.gaff(molecule))
        system = app.AmberPrmtopFile(prmtop).createSystem(
            nonbondedMethod=app.NoCutoff, constraints=None, removeCMMotion=False
        )
    integrators = {
        "Verlet": openmm.VerletIntegrator(0.0005),
        "Langevin": openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005),
    }
    contexts = {}
    for name, integrator in integrators.items():
        platform = openmm.Platform.getPlatformByName("Reference")
        contexts[name] = openmm.Context(system, integrator, platform)
        contexts[name].setPositions(positions)

    def python_calls():
        context = contexts["Verlet"]
        for _ in range(CALLS):
            context.setPositions(positions)
            context.getState(getEnergy=True, getForces=True).getForces(asNumpy=True)

    candidates = {"OpenMM call": python_calls}
    for name, integrator in integrators.items():
        candidates[f"OpenMM {name} loop"] = lambda integrator=integrator: integrator.step(STEPS)
    return candidates, dict(zip(candidates, (CALLS, STEPS, STEPS), strict=True))


def flop_rate(dtype) -> float:
    """Return the operations per second of a matrix product, the practical limit."""
    n = 1500
    a = jnp.ones((n, n), dtype)
    product = jax.jit(lambda a: a @ a)
    return 2.0 * n**3 / alternate({"product": lambda: product(a)})["product"]


def main() -> None:
    molecule = Molecule.from_smiles("CC(=O)Oc1ccccc1C(=O)O")
    candidates, counts = openmm_candidates(molecule)
    flops = {}
    for dtype in (jnp.float64, jnp.float32):
        ours, evaluations, flops[jnp.dtype(dtype).name] = jaxff_candidates(molecule, dtype)
        candidates |= ours
        counts |= evaluations
    seconds = alternate(candidates)
    rate = {name: counts[name] / seconds[name] for name in candidates}

    print(f"{'evaluations/s, aspirin (21 atoms)':38s} {'rate':>10s} {'ratio to OpenMM':>16s}")
    for name, value in rate.items():
        peer = "OpenMM Langevin loop" if "loop" in name else "OpenMM call"
        print(f"{name:38s} {value:10,.0f} {value / rate[peer]:10.2f} × {peer[7:]}")
    for name, count in flops.items():
        best = max(v for k, v in rate.items() if name in k)
        limit = flop_rate(np.dtype(name))
        print(
            f"{name}: {count:,.0f} operations per evaluation, {best * count / 1e9:.1f} GFLOP/s, "
            f"{best * count / limit:.1%} of the {limit / 1e9:.0f} GFLOP/s of a matrix product"
        )


if __name__ == "__main__":
    main()
