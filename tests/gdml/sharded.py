"""Run by test_solvers.py: compare kernel models trained on several devices and on one.

python sharded.py PROCESSES RANK PORT
"""

import json
import os
import sys
from pathlib import Path

processes, rank, port = map(int, sys.argv[1:])
if processes == 1:
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8"

import jax  # noqa: E402

if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", processes, rank)
jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

from jaxff import gdml  # noqa: E402
from jaxff.dataset import Dataset  # noqa: E402
from jaxff.gdml.operator import KernelOperator  # noqa: E402

frames = Dataset.load(Path(__file__).parent / "data" / "ethanol_frames.npz")[:21]
group = gdml.find_symmetries(frames.positions, frames.molecule)
sizes = jax.device_count(), 1
meshes = [
    jax.sharding.Mesh(np.array(jax.devices()[:n] if n > 1 else jax.local_devices()[:1]), "frames")
    for n in sizes
]
many, one = (
    KernelOperator.of(frames.positions, group, 12.0, 1e-6).sharded(mesh) for mesh in meshes
)
y = [op.observed(frames.forces) for op in (many, one)]
product = np.abs(many.gathered(many @ y[0])[:21] - one.gathered(one @ y[1])).max()
models = [
    gdml.KernelSystem(
        frames, group, 12.0, 1e-6, solver=gdml.Solver("iterative", tolerance=1e-10, mesh=mesh)
    ).fit(frames)
    for mesh in (None, meshes[1])
]
forces = [model.predict(frames.positions)[1] for model in models]
print(
    json.dumps(
        {
            "devices": jax.device_count(),
            "product": float(product),
            "forces": float(np.abs(forces[0] - forces[1]).max()),
        }
    )
)
