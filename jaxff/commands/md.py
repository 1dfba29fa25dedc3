"""Molecular dynamics."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import partial

from jaxff.commands.options import START, numbers, positive
from jaxff.commands.shared import load_potential, load_start, writable_folder
from jaxff.errors import InputError

HELP = "Molecular dynamics of a model."
MORE = "The same command again continues a run that was interrupted, bit for bit."
EXAMPLE = "jaxff md hybrid.npz start.xyz --ensemble langevin --temperature 300 --steps 10000 -o run"

TRAJECTORY = re.compile(r"trajectory(-\d+)?\.(extxyz|h5|dcd)")


def options(sub) -> None:
    sub.add_argument("model", metavar="MODEL.npz", help="a model file or an AMBER prmtop")
    sub.add_argument("start", metavar="START.xyz", help=START)
    sub.add_argument(
        "--ensemble", choices=("nve", "langevin", "nose-hoover", "csvr"), default="langevin"
    )
    sub.add_argument(
        "--temperature", type=numbers, default=[300.0], metavar="K[,K...]",
        help="K; one, or one a replica (default 300)",
    )  # fmt: skip
    sub.add_argument(
        "--final-temperature", type=positive(float), metavar="K",
        help="reached at a constant rate at the last step",
    )  # fmt: skip
    sub.add_argument("--dt", type=positive(float), default=0.5, help="time step, fs")
    sub.add_argument("--steps", type=positive(int), default=10_000, help="in all (default 10000)")
    sub.add_argument("--friction", type=positive(float), default=1.0, help="Langevin, 1/ps")
    sub.add_argument(
        "--relaxation", type=positive(float), default=100.0, help="Nosé-Hoover and CSVR, fs"
    )
    sub.add_argument("--remove-rotation", action="store_true", help="NVE without rotation")
    sub.add_argument(
        "--max-temperature", type=float, metavar="K",
        help="stop above it; inf: never (default: far beyond chance; NVE: by the total energy)",
    )  # fmt: skip
    sub.add_argument(
        "--replicas", type=positive(int), metavar="R", help="molecules at once, seeds from --seed"
    )
    sub.add_argument("--record-every", type=positive(int), default=10, metavar="STEPS")
    sub.add_argument(
        "--format", choices=("extxyz", "h5", "dcd"), default="extxyz", help="of the trajectory"
    )
    sub.add_argument(
        "--stretch", type=positive(float), metavar="FACTOR",
        help="stop where a bond is so many times as long as at the start",
    )  # fmt: skip
    sub.add_argument("--precision", choices=("float32", "float64"), default="float64")
    sub.add_argument(
        "--overwrite", action="store_true", help="start anew instead of continuing what is in DIR"
    )
    sub.add_argument(
        "--compilation-cache", metavar="FOLDER", help="keeps compiled code for the next run"
    )
    sub.add_argument("-o", "--output", required=True, metavar="DIR")


def run(arguments, console) -> dict:
    _spread_over_cores(arguments.replicas)

    import jax.numpy as jnp
    import numpy as np

    from jaxff import md
    from jaxff.report import plot

    out = writable_folder(arguments.output)
    restart, aside = out / "restart.npz", out / "restart-before.npz"
    potential = load_potential(arguments.model).astype(jnp.dtype(arguments.precision))
    molecule = load_start(arguments.start, potential)
    temperatures = arguments.temperature
    if restart.is_file():
        if arguments.overwrite:
            restart.replace(aside)
        else:
            console.say(f"continuing from {restart}")
    simulate = partial(
        md.simulate,
        potential,
        molecule,
        ensemble=arguments.ensemble,
        temperature=temperatures if len(temperatures) > 1 else temperatures[0],
        final_temperature=arguments.final_temperature,
        dt=arguments.dt,
        steps=arguments.steps,
        friction=arguments.friction,
        relaxation=arguments.relaxation,
        record_every=arguments.record_every,
        seed=arguments.seed,
        replicas=arguments.replicas,
        stretch=arguments.stretch,
        max_temperature=arguments.max_temperature,
        remove_rotation=arguments.remove_rotation,
        out=out / f"trajectory.{arguments.format}",
        restart_file=restart,
        keep=False,
        progress=console,
    )
    names = [""] if arguments.replicas is None else [f"-{r}" for r in range(arguments.replicas)]
    files = [out / f"trajectory{name}.{arguments.format}" for name in names]
    stale = set(_trajectories(out)) - set(files) if arguments.overwrite else ()
    try:
        result = simulate()
    except InputError:
        stale = ()
        # Refused: what was to be overwritten is still there, and can still be continued.
        if aside.is_file() and not restart.is_file():
            aside.replace(restart)
        raise
    finally:
        for path in (aside, *stale):
            path.unlink(missing_ok=True)
    console.close()
    constant = arguments.ensemble != "nve" and arguments.final_temperature is None
    series = (result.potential_energies, result.kinetic_energies, result.temperatures)
    shown = series if arguments.replicas is None else [x.mean(axis=0) for x in series]
    target = temperatures[0] if constant and len(set(temperatures)) == 1 else None
    figure = plot.energy_and_temperature(result.times, *shown, target)
    if arguments.replicas is not None:
        figure.suptitle(f"mean of {arguments.replicas} replicas")
    figure.savefig(out / "energy_temperature.png", dpi=130)
    means = np.mean(result.temperatures, axis=-1)
    rate, files = result.ns_per_day / (0.0864 * arguments.dt), list(map(str, files))
    console.say(f"mean temperature {np.mean(means):.1f} K")
    console.say(f"{rate:.0f} steps/s, {result.ns_per_day:.3g} ns/day in all")
    console.say(f"wrote {', '.join(files[:3])}{', ...' * (len(files) > 3)}")
    console.say(f"wrote {out / 'energy_temperature.png'}; {restart} continues with more --steps")
    return {
        "mean_temperature": means.tolist(),
        "degrees_of_freedom": np.asarray(result.degrees_of_freedom).tolist(),
        "frames": len(result.times),
        "steps_per_second": rate,
        "ns_per_day": result.ns_per_day,
        "trajectory": files if arguments.replicas else files[0],
    }


def _trajectories(folder):
    """The files that runs of this command write to a folder."""
    return [path for path in folder.iterdir() if TRAJECTORY.fullmatch(path.name)]


def _spread_over_cores(replicas: int | None) -> None:
    """Each core a device of JAX's, where that leaves each as many replicas, two or more.

    XLA alone shares the short loops of a small molecule among cores poorly.
    """
    import jax

    cores = os.cpu_count()
    if not replicas or cores == 1 or replicas % cores or replicas < 2 * cores:
        return
    if "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with suppress(RuntimeError):  # where JAX is at work already, its devices stay
        jax.config.update("jax_num_cpu_devices", cores)
