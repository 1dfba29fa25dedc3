"""A simulation to be killed: see test_restart.py.

    kill_run.py FOLDER FORMAT ENSEMBLE [REPLICAS]

Saves after every chunk, in short chunks, and says so on a line each.
"""

import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, str(Path(__file__).parents[1]))

from springs import springs  # noqa: E402

from jaxff import Molecule, md  # noqa: E402
from jaxff.md import record, simulate  # noqa: E402

simulate.CHUNK_SECONDS, record.RESTART_SECONDS = 0.02, 0.0


def main(folder, suffix, ensemble, replicas=None):
    water = Molecule.from_smiles("O")
    run = md.simulate(
        springs(water),
        water,
        ensemble=ensemble,
        steps=60_000,
        record_every=20,
        seed=4,
        replicas=None if replicas is None else int(replicas),
        out=Path(folder, f"run.{suffix}"),
        restart_file=Path(folder, "restart.npz"),
        progress=lambda phase, fraction: print("chunk", flush=True),
    )
    print("done", run.state.step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
