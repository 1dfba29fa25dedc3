"""Time of energy and forces of aspirin in a box of water, compared with jax-md and OpenMM.

    python benchmarks/box.py                        # 874 waters, all programs
    python benchmarks/box.py --scaling              # 1,000 to 100,000 atoms, jaxff alone

The box has PME, a cutoff of 9 Å and OpenMM's default tolerance. All programs run alternately in one
process. OpenMM's times are those of steps of a Verlet integrator, without constraints. Processor
time is that of all threads; it depends less on other programs than the elapsed time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import openmm  # noqa: E402

import jaxff  # noqa: E402

PADDING = 10.7  # Å, which gives 874 waters
STEPS = 10  # evaluations in a round


def times(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple]:
    """Median elapsed and smallest processor time, ms, of one evaluation of each candidate."""
    out: dict[str, list] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            spent = time.perf_counter() - start[0], time.process_time() - start[1]
            if turn:  # the first round compiles
                out[name].append(spent)
    scale = 1e3 / STEPS
    return {
        name: (scale * statistics.median(t for t, _ in spent), scale * min(t for _, t in spent))
        for name, spent in out.items()
    }


def jaxff_candidate(potential, system, dtype) -> Callable[[], object]:
    """Compiled code that evaluates energy and forces STEPS times, at slightly changed positions."""
    potential = potential.astype(dtype)
    R, box = jnp.asarray(system.positions, dtype), jnp.asarray(system.box, dtype)
    neighbor = potential.neighbors(R, box, skin=1.0)

    @jax.jit
    def loop(params, R, box, neighbor):
        def step(_, R):
            _, forces = potential.program.energy_and_forces(params, R, box, neighbor)
            return R + 1e-9 * forces

        return jax.lax.fori_loop(0, STEPS, step, R)

    return lambda: loop(potential._ready, R, box, neighbor)


def jaxmd_candidate(system, term, dtype) -> Callable[[], object]:
    """The AMBER energy of jax-md and its forces, evaluated in the same way."""
    from jax_md.mm_forcefields.amber.energy import energy
    from jax_md.mm_forcefields.io import openmm as io
    from jax_md.mm_forcefields.nonbonded.electrostatics import PMECoulomb

    with tempfile.TemporaryDirectory() as folder:
        system.write(Path(folder) / "box.prmtop")
        files = (f"{folder}/box.prmtop", f"{folder}/box.rst7")
        cutoff = 0.1 * term.cutoff
        made = io.load_amber_system(*files, nonbondedCutoff=cutoff, rigidWater=False)
    found = io.convert_openmm_system(*made, r_cut=term.cutoff, dr_threshold=1.0)
    to = lambda tree: jax.tree.map(  # noqa: E731
        lambda x: x.astype(dtype) if getattr(x, "dtype", None) == jnp.float64 else x, tree
    )
    pme = PMECoulomb(np.array(term.grid), term.alpha, term.cutoff)
    box = to(found.box_vectors)
    total, make_list, *_ = energy(to(found.params), found.topology, box, pme, found.nb_options)
    R = to(found.positions)
    neighbor = make_list.allocate(R)

    @jax.jit
    def loop(R, neighbor):
        def step(_, R):
            gradient = jax.grad(lambda R: total(R, neighbor)["etotal"])(R)
            return R - 1e-9 * gradient

        return jax.lax.fori_loop(0, STEPS, step, R)

    return lambda: loop(R, neighbor)


def openmm_candidate(system, term, platform: str) -> Callable[[], object]:
    """Steps of OpenMM on a platform, with the settings of PME of the term."""
    with tempfile.TemporaryDirectory() as folder:
        system.write(Path(folder) / "box.xml")
        made = openmm.XmlSerializer.deserialize((Path(folder) / "box.xml").read_text())
    while made.getNumConstraints():
        made.removeConstraint(0)
    for force in made.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(openmm.NonbondedForce.PME)
            force.setCutoffDistance(0.1 * term.cutoff)
            force.setPMEParameters(10.0 * term.alpha, *term.grid)
    integrator = openmm.VerletIntegrator(1e-7)
    context = openmm.Context(made, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPeriodicBoxVectors(*(0.1 * np.asarray(system.box)))
    context.setPositions(0.1 * np.asarray(system.positions))
    return lambda: context.getIntegrator().step(STEPS)


def compare(rounds: int) -> None:
    """Print the times of jaxff and OpenMM."""
    molecule = jaxff.Molecule.from_smiles("CC(=O)Oc1ccccc1C(=O)O")
    system = jaxff.solvate(molecule, padding=PADDING)
    potential = system.potential(cutoff=9.0)
    term = next(p.term for p in potential.program.placed if p.term.needs_list)
    print(f"{system.n_atoms} atoms, alpha {term.alpha:.4f} 1/Å, grid {term.grid}")
    candidates = {
        "jaxff float32": jaxff_candidate(potential, system, jnp.float32),
        "jaxff float64": jaxff_candidate(potential, system, jnp.float64),
        "jax-md float32": jaxmd_candidate(system, term, jnp.float32),
        "jax-md float64": jaxmd_candidate(system, term, jnp.float64),
        "OpenMM CPU (single precision)": openmm_candidate(system, term, "CPU"),
        "OpenMM Reference (float64)": openmm_candidate(system, term, "Reference"),
    }
    found = times(candidates, rounds)
    fast, slow = (found[name] for name in list(found)[-2:])
    print(f"{'':32s} {'elapsed/ms':>11s} {'processor/ms':>13s} {'× CPU':>7s} {'× Reference':>12s}")
    for name, (elapsed, processor) in found.items():
        ratios = f"{fast[0] / elapsed:7.2f} {slow[0] / elapsed:12.2f}"
        print(f"{name:32s} {elapsed:11.2f} {processor:13.2f} {ratios}")
    neighbor = potential.neighbors(system.positions, system.box)
    build = lambda: [neighbor.rebuilt(system.positions, system.box) for _ in range(STEPS)]  # noqa
    elapsed, processor = times({"build": build}, 3)["build"]
    print(f"{'a neighbour list (skin 1 Å)':32s} {elapsed:11.2f} {processor:13.2f}")


def scaling(rounds: int) -> None:
    """Print the times of jaxff for boxes of water of several sizes."""
    print(f"{'atoms':>8s} {'dtype':>8s} {'elapsed/ms':>11s} {'µs/atom':>9s} {'compile/s':>10s}")
    water = jaxff.Molecule.from_smiles("O")
    for padding in (9.5, 15.0, 27.0, 49.0):
        system = jaxff.solvate(water, padding=padding)
        potential = system.potential(cutoff=9.0)
        for dtype in (jnp.float32, jnp.float64):
            candidate = jaxff_candidate(potential, system, dtype)
            start = time.perf_counter()
            jax.block_until_ready(candidate())
            compilation = time.perf_counter() - start
            elapsed = times({"": candidate}, rounds)[""][0]
            per_atom = 1e3 * elapsed / system.n_atoms
            print(
                f"{system.n_atoms:8d} {jnp.dtype(dtype).name:>8s} {elapsed:11.2f} {per_atom:9.2f} "
                f"{compilation:10.1f}"
            )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"largest memory of the process: {memory:.1f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scaling", action="store_true", help="sizes from 1,000 to 100,000 atoms")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each candidate")
    options = parser.parse_args()
    scaling(options.rounds) if options.scaling else compare(options.rounds)
