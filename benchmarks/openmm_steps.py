"""Time of a step in OpenMM with a model of jaxff, compared with jaxff's own call.

    python benchmarks/openmm_steps.py [--rounds 7]

All candidates run alternately in one process, on the CPU platform of OpenMM.  The model is the sum
of class-II and an sGDML kernel of 200 frames of ethanol.  In water (TIP3P, padding 10 Å) OpenMM
computes the solvent and jaxff the solute; pure molecular mechanics is the peer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
import openmm  # noqa: E402

import jaxff  # noqa: E402
from jaxff.dataset import packaged_dataset  # noqa: E402
from jaxff.openmm import create_system  # noqa: E402
from jaxff.python_force import Forces  # noqa: E402


def stepper(system, positions: np.ndarray, count: int) -> Callable[[], object]:
    """A function that takes `count` steps of 0.5 fs."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(0.1 * positions)
    context.computeVirtualSites()
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    context.setVelocitiesToTemperature(300.0, 1)
    return lambda: context.getIntegrator().step(count)  # the integrator does not keep the context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    data = packaged_dataset("ethanol")
    split = data.split(train=200, valid=100, test=100, seed=0)
    force_field = jaxff.fit(jaxff.gaff(data.molecule, form="class2"), split.train).potential
    hybrid = jaxff.gdml.train(split.train, sigma=20.0, baseline=force_field)
    solute = jaxff.parametrize(data.molecule, charges="gasteiger")
    system = jaxff.solvate(solute, water="tip3p", padding=10.0)
    atoms = np.flatnonzero(system.molecules == 0)
    mm = system.potential(cutoff=9.0)
    mixed = mm.without(atoms) + hybrid.on(atoms)
    R = np.asarray(data.positions[0])
    alone, _ = create_system(hybrid, data.molecule)
    function = Forces(hybrid)
    boxed = [create_system(potential, system)[0] for potential in (mixed, mm)]

    class State:
        """The part of an OpenMM State that `Forces` reads."""

        def getPositions(self, asNumpy):
            return openmm.unit.Quantity(0.1 * R, openmm.unit.nanometer)

    def own_call():
        return jax.device_get(hybrid.energy_and_forces(R))

    def repeated(call: Callable[[], object], count: int) -> Callable[[], object]:
        return lambda: [call() for _ in range(count)]

    candidates = {
        "vacuum: jaxff's own call": (repeated(own_call, 500), 500),
        "vacuum: function of the PythonForce": (repeated(lambda: function(State()), 500), 500),
        "vacuum: OpenMM step": (stepper(alone, R, 500), 500),
        "water: OpenMM step, hybrid": (stepper(boxed[0], system.positions, 50), 50),
        "water: OpenMM step, molecular mechanics": (stepper(boxed[1], system.positions, 50), 50),
    }
    spent: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, (run, count) in candidates.items():
            start = time.perf_counter()
            run()
            if turn:  # the first round compiles
                spent[name].append((time.perf_counter() - start) / count)
    print(f"{len(system)} particles in the box, OpenMM {openmm.__version__}, JAX {jax.__version__}")
    for name, values in spent.items():
        median = statistics.median(values)
        print(f"{name}: {1e3 * median:.3f} ms, {0.0432 / median:.2f} ns/day at 0.5 fs")
    own, _, step = (statistics.median(spent[name]) for name in list(spent)[:3])
    print(f"OpenMM step less jaxff's own call: {1e3 * (step - own):.3f} ms")


if __name__ == "__main__":
    main()
