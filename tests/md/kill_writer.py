"""Kills a process that writes a trajectory, again and again, and lets another one continue.

Usage: kill_writer.py FOLDER SUFFIX KILLS SEED.  It exits with 0 if the file, continued from the
last saved mark after every kill, ends as that of a writer that nobody disturbed.  The writers kill
themselves at calls of functions that follow from the seed.
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from moments import Moments

from jaxff.md.trajectory import open_trajectory, read_trajectory, resume_trajectory
from jaxff.molecule import Molecule

N_ATOMS, N_FRAMES, PER_APPEND, PER_MARK = 9, 160, 2, 3


def all_frames(rng):
    scalars = rng.normal(size=(3, N_FRAMES))
    vectors = rng.normal(size=(3, N_FRAMES, N_ATOMS, 3))
    steps = 10 * np.arange(N_FRAMES)
    return {
        **dict(zip(("positions", "velocities", "forces"), vectors, strict=True)),
        **dict(
            zip(("potential_energies", "kinetic_energies", "temperatures"), scalars, strict=True)
        ),
        "times": 0.5 * steps,
        "steps": steps,
    }


def write(path, saved, molecule, frames):
    """All the frames, or the rest of them where a mark was saved."""
    mark = json.loads(saved.read_text()) if saved.exists() else None
    writer = open_trajectory(path, molecule) if mark is None else resume_trajectory(
        path, molecule, mark
    )  # fmt: skip
    done = mark["frames"] if mark else 0
    for n, begin in enumerate(range(done, N_FRAMES, PER_APPEND)):
        writer.append({key: x[begin : begin + PER_APPEND] for key, x in frames.items()})
        if n % PER_MARK == 0:
            save(writer.mark(), saved)
    save(writer.mark(), saved)
    writer.close()


def save(mark, saved):
    temporary = saved.with_suffix(".tmp")
    temporary.write_text(json.dumps(mark))
    os.replace(temporary, saved)


def killed(moment, *task) -> bool:
    """Do `write(*task)` in a child that kills itself at this moment, unless it ends before."""
    child = os.fork()
    if child == 0:
        try:
            with Moments(moment):
                write(*task)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"the writer failed with status {status}"
    return status != 0


def main(folder, suffix, kills, seed):
    rng = np.random.default_rng(int(seed))
    molecule = Molecule.from_smiles("CCO", geometry=False)
    frames, folder = all_frames(rng), Path(folder)
    gc.disable()  # what it calls depends on what happened before
    for name in ("first", "reference"):  # the first one imports modules, which needs more calls
        reference = folder / f"{name}{suffix}"
        with Moments() as whole:
            write(reference, folder / f"{name}.mark", molecule, frames)
    known = {path.name for path in folder.iterdir()} | {f"run{suffix}", "run.mark", "run.tmp"}
    expected = read_trajectory(reference, molecule)
    count = 0
    while count < int(kills):
        path, saved = folder / f"run{suffix}", folder / "run.mark"
        path.unlink(missing_ok=True)
        saved.unlink(missing_ok=True)
        while killed(int(whole.count * rng.uniform(0.02, 0.6)), path, saved, molecule, frames):
            count += 1
            if suffix == ".h5" and saved.exists():
                marked = json.loads(saved.read_text())["frames"]
                there = read_trajectory(path, molecule)  # whole without any repair
                assert len(there["steps"]) >= marked
                for key, array in there.items():
                    np.testing.assert_array_equal(array, expected[key][: len(array)])
        found = read_trajectory(path, molecule)
        assert list(found) == list(expected)
        for key, array in found.items():
            np.testing.assert_array_equal(array, expected[key])
        if suffix != ".h5":
            assert path.read_bytes() == reference.read_bytes()
        left = {path.name for path in folder.iterdir()} - known
        assert not left, left
    print(f"{count} kills of a run of {whole.count} calls")


if __name__ == "__main__":
    main(*sys.argv[1:])
