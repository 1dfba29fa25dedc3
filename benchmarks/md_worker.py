"""ASE dynamics with the calculator of the sgdml package in its environment; md.py starts it.

    SGDML_PYTHON md_worker.py MODEL.npz START.npz

Each request is a line with a number of steps; each answer is a line of JSON.
"""

import json
import logging
import os
import sys
import time

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from gdml_worker import fastest
from sgdml.intf.ase_calc import SGDMLCalculator


def main(model_path, start_path):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of the package out of the answers
    logging.disable(logging.WARNING)
    model, start = dict(np.load(model_path, allow_pickle=True)), np.load(start_path)
    setting, predictor = fastest(model, start["R"].reshape(1, -1))
    calculator = SGDMLCalculator(model_path, E_to_eV=units.kcal / units.mol)
    calculator.gdml_predict = predictor
    atoms = Atoms(start["z"], start["R"], calculator=calculator)
    rng = np.random.default_rng(0)
    atoms.set_momenta(
        rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * 0.0258)[:, None]
    )
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    for line in sys.stdin:
        steps = int(line)
        begun = time.perf_counter()
        dynamics.run(steps)
        rate = steps / (time.perf_counter() - begun)
        print(json.dumps({"setting": setting, "rate": rate}), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
