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

from boxes import argon, fluid, waters  # noqa: E402
from moments import Moments  # noqa: E402
from springs import springs  # noqa: E402

import jaxff  # noqa: E402
from jaxff import Molecule, md  # noqa: E402
from jaxff.md import record, simulation  # noqa: E402

FRAMES, EVERY = 200, 20
# Simulations in a box; the others, by the name of the ensemble, are of a molecule.
IN_BOX = {
    "npt-rescaling": md.NPT(temperature=120.0, dt=4.0, barostat_every=3),
    "npt-monte-carlo": md.NPT(
        temperature=120.0,
        dt=4.0,
        barostat_every=3,
        barostat="monte-carlo",
        scaling="semi-isotropic",
    ),
    "langevin-rigid": md.Langevin(temperature=250.0, dt=2.0, friction=20.0),
}


def run(folder, suffix, ensemble, replicas, progress=None):
    """The simulation, of one molecule where `replicas` is 0."""
    if ensemble not in IN_BOX:
        system = Molecule.from_smiles("O")
        potential = springs(system)
    elif ensemble == "langevin-rigid":
        system = waters(8, spacing=3.4)
        potential = fluid(system, cutoff=3.36)
    else:
        system = argon(27, spacing=3.9)
        potential = fluid(system, cutoff=5.0)
    return md.simulate(
        potential,
        system,
        IN_BOX[ensemble] if ensemble in IN_BOX else md.ENSEMBLES[ensemble](),
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
