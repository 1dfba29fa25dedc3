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
from jaxff.md import record, simulation  # noqa: E402

simulation.CHUNK_SECONDS, record.RESTART_SECONDS = 0.02, 0.0


def main(folder, suffix, ensemble, replicas=None):
    water = Molecule.from_smiles("O")
    run = md.simulate(
        springs(water),
        water,
        md.ENSEMBLES[ensemble](),
        steps=60_000,
        start=md.Start(replicas=None if replicas is None else int(replicas), seed=4),
        output=md.Output(
            Path(folder, f"run.{suffix}"), every=20, restart=Path(folder, "restart.npz")
        ),
        progress=lambda phase, fraction: print("chunk", flush=True),
    )
    print("done", run.state.step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
