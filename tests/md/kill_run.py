"""A simulation that kills itself: see test_restart.py.

    kill_run.py FOLDER FORMAT ENSEMBLE REPLICAS FRAMES MOMENT

Saves after every frame and dies after so many of them, at this moment of the next one.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, str(Path(__file__).parents[1]))

from moments import Moments  # noqa: E402
from springs import springs  # noqa: E402

import jaxff  # noqa: E402
from jaxff import Molecule, md  # noqa: E402
from jaxff.md import record, simulation  # noqa: E402

FRAMES, EVERY = 200, 20


def run(folder, suffix, ensemble, replicas, progress=None):
    """The simulation, of one molecule where `replicas` is 0."""
    water = Molecule.from_smiles("O")
    return md.simulate(
        springs(water),
        water,
        md.ENSEMBLES[ensemble](),
        steps=FRAMES * EVERY,
        start=md.Start(replicas=replicas or None, seed=4),
        output=md.Output(
            Path(folder, f"run.{suffix}"), every=EVERY, restart=Path(folder, "restart.npz")
        ),
        progress=progress,
    )


def main(folder, suffix, ensemble, replicas, frames, moment):
    simulation.CHUNK_SECONDS, record.RESTART_SECONDS = 0.0, 0.0
    done = 0

    def progress(phase, fraction):
        nonlocal done
        done += 1
        if done == int(frames):
            stack.enter_context(Moments(int(moment), str(Path(jaxff.__file__).parent)))

    with ExitStack() as stack:
        run(folder, suffix, ensemble, int(replicas), progress)


if __name__ == "__main__":
    main(*sys.argv[1:])
