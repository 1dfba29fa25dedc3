"""Predictions of the sgdml package in its environment; gdml.py starts this script.

    SGDML_PYTHON gdml_worker.py MODEL.npz FRAMES.npz

Each request is a line "BATCH CALLS"; each answer is a line of JSON. The first request of a batch
size tries the settings of the package on this machine and keeps the fastest.
"""

import json
import logging
import os
import sys
import time

import numpy as np
from sgdml.predict import GDMLPredict


def settings(model, batch):
    """Yield (name, predictor) of every setting of the package for this machine."""
    n_train = model["R_desc"].shape[1]
    for parts in (1, 2, 4, 8, 16, 32, 64):
        chunk = max(1, n_train // parts)
        yield f"one process, chunks of {chunk}", GDMLPredict(model, chunk, max_processes=1)
        if chunk == 1:
            break
    tuned = GDMLPredict(model)
    tuned.prepare_parallel(n_bulk=batch, n_reps=1 if batch > 1 else 50)
    yield "prepare_parallel, all processes", tuned
    yield "torch", GDMLPredict(model, use_torch=True)


def seconds(predict, R, calls):
    start = time.perf_counter()
    for _ in range(calls):
        predict(R)
    return (time.perf_counter() - start) / calls


def fastest(model, R):
    best = None
    for name, predictor in settings(model, len(R)):
        predictor.predict(R)
        taken = min(seconds(predictor.predict, R, 20 if len(R) == 1 else 1) for _ in range(3))
        if best is None or taken < best[0]:
            best = taken, name, predictor
    return best[1:]


def main(model_path, frames_path):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of the package out of the answers
    logging.disable(logging.WARNING)
    model = dict(np.load(model_path, allow_pickle=True))
    R = np.load(frames_path)["R"]
    R = R.reshape(len(R), -1)
    chosen = {}
    for line in sys.stdin:
        batch, calls = map(int, line.split())
        if batch not in chosen:
            chosen[batch] = fastest(model, R[:batch])
        name, predictor = chosen[batch]
        for _ in range(calls):
            energies, forces = predictor.predict(R[:batch])
        answer = {"setting": name, "energy": float(energies[0]), "forces": forces[0].tolist()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
