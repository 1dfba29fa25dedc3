"""A stack of 32 different molecules against a Python loop over compiled single potentials.

    python benchmarks/batch.py [--repeats 20] [--frames 16]

Both evaluate energies and forces of GAFF, in float64, in one process, alternating.  Rates are per
second of processor time, which other programs change less than wall-clock time.  The limit for one
frame of each molecule is the start of some 50 compiled loops, for many frames the arithmetic.
"""

import argparse
import statistics
import time

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

import jaxff  # noqa: E402

SMILES = (
    "CO N=C CC=O C=C C#C CF O=CO CCl CCO CC(=O)O CCN CC(C)=O OCCO c1ccccc1 CNC=O C1CC1 CCC=O CSC "
    "c1ccncc1 c1ccoc1 CC(=O)N Cc1ccccc1 CCOC(=O)C CCCCCO c1ccccc1O CC(C)(C)O CCCCCC C1CCCCC1 "
    "CCN(CC)CC CCCCCCN COc1ccccc1 CC(=O)OC(C)C"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--frames", type=int, default=16, help="of each molecule, in batches")
    arguments = parser.parse_args()
    molecules = [jaxff.Molecule.from_smiles(smiles) for smiles in SMILES.split()]
    potentials = [jaxff.gaff(molecule, charges="gasteiger") for molecule in molecules]
    stack = jaxff.stack(potentials)
    single = [molecule.positions for molecule in molecules]
    rng = np.random.default_rng(0)
    many = [R + 0.03 * rng.normal(size=(arguments.frames, *R.shape)) for R in single]

    def loop(frames):
        for potential, own in zip(potentials, frames, strict=True):
            for R in own:
                jax.block_until_ready(potential.energy_and_forces(R))

    def seconds(function, *inputs):
        begun = time.process_time()
        function(*inputs)
        return time.process_time() - begun

    first = [R[None] for R in single]
    runs = (loop, first), (stack.energy_and_forces, single), (stack.predict, many)
    for function, inputs in runs:
        function(inputs)  # compiles
    times = {"loop": [], "stack, 1 frame each": [], f"stack, {arguments.frames} frames each": []}
    for _ in range(arguments.repeats):
        found = (
            seconds(loop, first),
            seconds(stack.energy_and_forces, single),
            seconds(stack.predict, many) / arguments.frames,
        )
        for own, value in zip(times.values(), found, strict=True):
            own.append(value)
    rates = {name: len(single) / statistics.median(own) for name, own in times.items()}
    for name, rate in rates.items():
        print(f"{name:<24} {rate:12,.0f} evaluations/s  {rate / rates['loop']:6.1f} x the loop")


if __name__ == "__main__":
    main()
