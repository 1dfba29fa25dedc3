"""Rate of molecular dynamics, compared with OpenMM and with the sgdml package in ASE.

    python benchmarks/md.py [--sgdml-python PATH] [--replicas 256]

Langevin dynamics of GAFF aspirin with `jaxff.md.simulate`, for one molecule and for many replicas,
is compared with the Reference platform of OpenMM in one process and in one process per core.
Velocity Verlet of sGDML ethanol (1,000 frames) is compared with ASE and the calculator of the
package, in a separate Python environment and with the fastest settings. All run alternately.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from importlib import resources
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", os.cpu_count())  # as `jaxff md` does for replicas

from worker import Worker  # noqa: E402

import jaxff  # noqa: E402
from jaxff import gdml, md  # noqa: E402

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
STEPS, KERNEL_STEPS, ROUNDS = 20_000, 4_000, 5
ENSEMBLE = md.Langevin(temperature=300.0, friction=1.0, dt=0.5)


def openmm_worker(prmtop, positions, pipe) -> None:
    """Answer numbers of steps with seconds of OpenMM's Reference platform, in this process."""
    import openmm
    from openmm import app

    system = app.AmberPrmtopFile(prmtop).createSystem(
        nonbondedMethod=app.NoCutoff, constraints=None, removeCMMotion=False
    )
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300.0)
    while steps := pipe.recv():
        begun = time.perf_counter()
        integrator.step(steps)
        pipe.send(time.perf_counter() - begun)


class OpenMM:
    """Processes of OpenMM, one for each core."""

    def __init__(self, prmtop, positions):
        spawn, self.pipes, self.processes = multiprocessing.get_context("spawn"), [], []
        for _ in range(os.cpu_count()):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=openmm_worker, args=(prmtop, positions, theirs))
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def rate(self, count: int) -> float:
        """Return the total steps per second of `count` simultaneous processes."""
        for pipe in self.pipes[:count]:
            pipe.send(STEPS)
        return sum(STEPS / pipe.recv() for pipe in self.pipes[:count])

    def close(self):
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(0)
            process.join()


def rate(potential, molecule, steps: int, replicas: int | None = None, ensemble=ENSEMBLE) -> float:
    """Return the total steps per second of `md.simulate`, without compilation."""
    run = md.simulate(
        potential, molecule, ensemble, steps=steps, start=md.Start(replicas=replicas, seed=1),
        output=md.Output(every=steps // 20, keep=False),
    )  # fmt: skip
    return steps * (replicas or 1) / run.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sgdml-python", help="Python with sgdml 1.0.3")
    parser.add_argument("--data", default=resources.files("jaxff") / "data" / "ethanol.npz")
    parser.add_argument("--replicas", type=int, default=256)
    arguments = parser.parse_args()

    aspirin = jaxff.Molecule.from_smiles(ASPIRIN)
    gaff = jaxff.gaff(aspirin)
    many, rows = arguments.replicas, {}
    with tempfile.TemporaryDirectory() as folder:
        prmtop = f"{folder}/aspirin.prmtop"
        jaxff.write_force_field(prmtop, gaff)
        openmm = OpenMM(prmtop, aspirin.positions / 10.0)
        rows["OpenMM Reference, one process"] = lambda: openmm.rate(1)
        rows[f"OpenMM Reference, {os.cpu_count()} processes"] = lambda: openmm.rate(os.cpu_count())
        for name in ("float64", "float32"):
            potential = gaff.astype(name)
            rows[f"GAFF aspirin, {name}"] = lambda p=potential: rate(p, aspirin, STEPS)
            rows[f"GAFF aspirin, {name}, {many} replicas"] = lambda p=potential: rate(
                p, aspirin, STEPS // 10, many
            )
        package = None
        if arguments.sgdml_python:
            data = jaxff.Dataset.load(arguments.data)
            kernel = gdml.train(data, n_train=1000, sigma=20.0)
            model, start = Path(folder, "model.npz"), Path(folder, "start.npz")
            gdml.save(model, kernel)
            np.savez(start, R=data.molecule.positions, z=data.molecule.numbers)
            package = Worker(arguments.sgdml_python, "md_worker.py", model, start)
            rows["sgdml package, ASE"] = lambda: package.ask(KERNEL_STEPS // 4)["rate"]
            rows["sGDML ethanol, float64"] = lambda: rate(
                kernel, data.molecule, KERNEL_STEPS, ensemble=md.NVE()
            )
        for run in rows.values():
            run()
        seen = {name: [] for name in rows}
        for _ in range(ROUNDS):
            for name, run in rows.items():
                seen[name].append(run())
        openmm.close()
        if package is not None:
            print(f"sgdml setting: {package.ask(1)['setting']}")
            package.close()
    medians = {name: float(np.median(values)) for name, values in seen.items()}
    print(f"{'':38s}{'steps/s':>12s}{'ratio':>8s}")
    for name, value in medians.items():
        peer = "sgdml package, ASE" if "ethanol" in name or "sgdml" in name else (
            "OpenMM Reference, one process"
        )  # fmt: skip
        print(f"{name:38s}{value:12,.0f}{value / medians[peer]:8.2f}")


if __name__ == "__main__":
    main()
