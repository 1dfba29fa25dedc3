"""A training with the sgdml package in its environment; gdml_training.py starts this script.

SGDML_PYTHON gdml_training_worker.py TRAIN.npz MODEL.npz SIGMA MEMORY_GB
"""

import json
import logging
import os
import resource
import sys
import time

import numpy as np
from sgdml.train import GDMLTrain
from sgdml.utils import perm


def main(train, model, sigma, memory):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of the package out of the answer
    logging.disable(logging.WARNING)
    data = dict(np.load(train))
    count = len(data["R"])
    trainer = GDMLTrain(max_memory=int(memory), use_torch=True)
    began = time.perf_counter()
    perms = perm.find_perms(data["R"], data["z"], max_processes=os.cpu_count())
    symmetries = time.perf_counter() - began
    task = trainer.create_task(
        data, count, data, 0, sig=int(float(sigma)), lam=1e-10, perms=perms, use_sym=True
    )
    assembly = [0.0]
    assemble = trainer._assemble_kernel_mat

    def timed(*arguments, **keywords):
        start = time.perf_counter()
        out = assemble(*arguments, **keywords)
        assembly[0] += time.perf_counter() - start
        return out

    trainer._assemble_kernel_mat = timed
    trained = trainer.train(task)
    total = time.perf_counter() - began
    np.savez_compressed(model, **trained)
    usage = (resource.getrusage(who).ru_maxrss for who in (0, resource.RUSAGE_CHILDREN))
    result = {
        "symmetries_s": symmetries,
        "assembly_s": assembly[0],
        "training_s": total,
        "peak_gb": max(usage) * 1024 / 1e9,
        "solver": str(trained["solver_name"]),
        "iterations": int(trained.get("solver_iters", 0)),
    }
    print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
