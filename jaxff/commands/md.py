"""Command that runs molecular dynamics."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import Field, fields
from functools import partial
from typing import TYPE_CHECKING

from jaxff.commands import systems
from jaxff.commands.folders import writable_folder
from jaxff.commands.md_results import (
    UNITS,
    averages_in_box,
    write_liquids,
    write_report,
    wrong_temperature,
)
from jaxff.commands.options import (
    START_OF_MODEL,
    extrapolation_option,
    model_option,
    not_negative,
    numbers,
    positive,
)
from jaxff.commands.shared import load_potential, load_start, say_unknown
from jaxff.commands.systems import (
    coordinate_suffix,
    load_system,
    long_step,
    potential_of,
    read_system,
    system_options,
)
from jaxff.errors import InputError
from jaxff.md.ensembles import ENSEMBLES, Ensemble
from jaxff.md.settings import Output, Stop
from jaxff.settings import ChoiceRule

if TYPE_CHECKING:
    from jaxff.system import System

HELP = "Run molecular dynamics with a model, or of a system in a box."
MORE = f"{systems.HELP}  Repeat the command to continue an interrupted simulation exactly."
EXAMPLE = "jaxff md hybrid.npz start.xyz --ensemble langevin --temperature 300 --steps 10000 -o run"

FORMATS = ("extxyz", "h5", "dcd")
EVERY = Output().every
SYSTEM_EVERY = 100  # steps between frames of systems, whose trajectories are large
MINIMIZATION_STEPS = 1000  # most steps of --minimize
FRAME_SPACING = 4.0  # fs: shows wavenumbers up to 4,170 cm⁻¹, and so the stretches of hydrogen
TRAJECTORY = re.compile(rf"trajectory(-\d+)?\.({'|'.join(FORMATS)})")


def options(sub) -> None:
    model_option(sub)
    sub.add_argument("start", nargs="?", metavar="START", help=START_OF_MODEL)
    lines = (f"{name}: {(kind.__doc__ or '').splitlines()[0]}" for name, kind in ENSEMBLES.items())
    sub.add_argument(
        "--ensemble", choices=tuple(ENSEMBLES), default="langevin",
        help=f"{' '.join(lines)} (default langevin)",
    )  # fmt: skip
    for name, (setting, kinds) in _settings().items():
        _ensemble_option(sub, name, setting, kinds)
    sub.add_argument(
        "--steps", type=positive(int), default=10_000,
        help="total number of steps, including the steps before an interruption",
    )  # fmt: skip
    sub.add_argument(
        "--max-temperature", type=float, metavar="K",
        help="stop above this temperature, K; inf: no limit (default: a temperature that thermal "
        "fluctuations do not reach; with nve, stop if the total energy changes too much)",
    )  # fmt: skip
    sub.add_argument(
        "--replicas", type=positive(int), metavar="R",
        help="number of simultaneous copies, with the seeds --seed, --seed + 1, ...",
    )  # fmt: skip
    sub.add_argument(
        "--record-every", type=positive(int), metavar="STEPS",
        help=f"steps between recorded frames (default {EVERY}, or fewer with a long --dt: "
        f"`jaxff spectrum` needs frames at most {FRAME_SPACING:g} fs apart; systems: "
        f"{SYSTEM_EVERY})",
    )  # fmt: skip
    sub.add_argument("--format", choices=FORMATS, default="extxyz", help="format of the trajectory")
    sub.add_argument(
        "--stretch", type=float, default=Stop.stretch, metavar="FACTOR",
        help="stop if a bond is longer than FACTOR times its initial length; inf: never "
        f"(default {Stop.stretch:g})",
    )  # fmt: skip
    extrapolation_option(sub)
    sub.add_argument(
        "--precision", choices=("float32", "float64"), default="float64",
        help="floating-point precision of the simulation; float32 is faster, in particular for "
        "systems in a box",
    )  # fmt: skip
    system_options(sub)
    sub.add_argument(
        "--hydrogen-mass", type=positive(float), metavar="AMU",
        help="systems: mass of hydrogen atoms, amu, taken from the atoms to which they are bonded; "
        "rigid water does not change (default: masses of the files)",
    )  # fmt: skip
    sub.add_argument(
        "--minimize", action="store_const", const=True,
        help="systems: minimise the energy before the first step, at most "
        f"{MINIMIZATION_STEPS} steps",
    )  # fmt: skip
    sub.add_argument(
        "--wrap", action="store_const", const=True,
        help="systems: write each molecule, as a whole, in the image whose centre is in the box",
    )  # fmt: skip
    sub.add_argument(
        "--overwrite", action="store_true",
        help="start a new simulation instead of continuing the one in DIR",
    )  # fmt: skip
    sub.add_argument(
        "--compilation-cache",
        metavar="FOLDER",
        help="folder for compiled code that later runs reuse",
    )
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")


def run(arguments, console) -> dict:
    _spread_over_cores(arguments.replicas)

    import jax.numpy as jnp
    import numpy as np

    from jaxff import md
    from jaxff.report import plot

    out = writable_folder(arguments.output)
    restart, ensemble, warnings = out / "restart.npz", _ensemble(arguments), []
    if restart.is_file() and not arguments.overwrite:
        console.say(f"continuing from {restart}")
    system = load_system(arguments, console)
    if system is None:
        potential = load_potential(arguments.model, arguments)
        warnings.append(
            say_unknown(console, arguments.model, potential, arguments.on_extrapolation)
        )
        molecule = load_start(arguments.start, potential, arguments.seed, arguments.trust)
    else:
        potential = potential_of(system, arguments)
        if arguments.minimize:
            system = _minimized(arguments, console, system, potential, out)
        molecule, warning = system, long_step(system, float(ensemble.dt))
        console.say(str(system))
        warnings.append(warning)
        if warning:
            console.say(warning)
    potential = potential.astype(jnp.dtype(arguments.precision))
    simulate = partial(
        md.simulate,
        potential,
        molecule,
        ensemble,
        steps=arguments.steps,
        start=md.Start(replicas=arguments.replicas, seed=arguments.seed),
        output=md.Output(
            out / f"trajectory.{arguments.format}",
            every=_every(arguments, ensemble, system is not None),
            restart=restart, overwrite=arguments.overwrite, keep=False, wrap=bool(arguments.wrap),
        ),
        stop=Stop(arguments.stretch, arguments.max_temperature, arguments.on_extrapolation),
        progress=console,
    )  # fmt: skip
    names = [""] if arguments.replicas is None else [f"-{r}" for r in range(arguments.replicas)]
    files = [out / f"trajectory{name}.{arguments.format}" for name in names]
    old = set(_trajectories(out)) - set(files) if arguments.overwrite else ()
    try:
        result = simulate()
    except InputError:
        old = ()  # nothing was overwritten, and the earlier run can still be continued
        raise
    finally:
        for path in old:
            path.unlink(missing_ok=True)
    console.close()
    series = (result.potential_energies, result.kinetic_energies, result.temperatures)
    shown = series if arguments.replicas is None else [x.mean(axis=0) for x in series]
    potential_energies, kinetic_energies, temperatures = shown
    first, last = (np.asarray(T) for T in (ensemble.temperature, ensemble.last_temperature))
    constant = first.ndim == 0 and first == last and not ensemble.conserves_energy
    figure = plot.energy_and_temperature(
        result.times, potential_energies, kinetic_energies, temperatures,
        float(first) if constant else None,
    )  # fmt: skip
    if arguments.replicas is not None:
        figure.suptitle(f"mean of {arguments.replicas} replicas")
    figure.savefig(out / "energy_temperature.png", dpi=130)
    means = np.mean(result.temperatures, axis=-1)
    rate, shown_files = result.ns_per_day / (0.0864 * ensemble.dt), list(map(str, files))
    console.say(f"mean temperature {np.mean(means):.1f} K")
    hot = wrong_temperature(result.temperatures, float(first)) if constant else None
    unsaid = []
    if hot is not None:
        unsaid.append(
            f"warning: the mean temperature is {hot.mean:.1f} ± {hot.error:.1f} K, but the target "
            f"is {float(first):g} K: lower --dt, or check the forces of the model"
        )
    found = result.extrapolation
    if found is not None:
        unsaid.append(found.text(arguments.model))
    for warning in filter(None, unsaid):
        console.say(warning)
    averages, in_box, pages = {}, {}, []
    if system is not None:
        averages = averages_in_box(system, result)
        in_box = {"system": _in_box(arguments, console, system, result, averages, out, names)}
        target = float(first) if constant else averages["temperature"].mean
        barostat = getattr(ensemble, "pressure", None)
        pages = write_liquids(console, out, system, files, target, barostat)
    who = "" if arguments.replicas is None else f"{arguments.replicas} replicas, "
    summary = (
        f"Model {arguments.model}; {ensemble}; {who}{result.times[-1] / 1000:g} ps until the last "
        f"frame. Mean temperature of the recorded frames: {np.mean(result.temperatures):.1f} K."
    )
    title = f"Molecular dynamics of {arguments.start or arguments.model}"
    write_report(out, title, summary, averages, result, [*warnings, *unsaid], pages)
    console.say(f"{rate:.0f} steps/s, {result.ns_per_day:.3g} ns/day for all replicas together")
    console.say(f"wrote {', '.join(shown_files[:3])}{', ...' * (len(files) > 3)}")
    console.say(f"wrote {out / 'report.html'}; to continue, repeat the command with more --steps")
    return {
        "mean_temperature": means.tolist(),
        "temperature_is_off": hot is not None,
        "extrapolation": None if found is None else found.summary(),
        "degrees_of_freedom": np.asarray(result.degrees_of_freedom).tolist(),
        "frames": len(result.times),
        "steps_per_second": rate,
        "ns_per_day": result.ns_per_day,
        "trajectory": shown_files if arguments.replicas else shown_files[0],
        **in_box,
    }


def _minimized(arguments, console, system: System, potential, out) -> System:
    """The system with minimised coordinates, which are read from a file in the output folder.

    A continued simulation reads the file, so that it has the same start to the last digit.
    """
    from jaxff import md

    path = out / f"minimum{coordinate_suffix(arguments.model)}"
    if arguments.overwrite or not ((out / "restart.npz").is_file() and path.is_file()):
        console("minimise", 0.0)
        descent = md.Descent(tolerance=systems.TOLERANCE, max_steps=MINIMIZATION_STEPS)
        end = md.minimize(potential, system, descent=descent, progress=console)
        console.close()
        system.replace(positions=end.positions).write(path)
        console.say(
            f"minimised in {int(end.steps)} steps to a largest force of {float(end.max_force):.2g} "
            f"kcal/mol/Å; wrote {path}"
        )
    return read_system(arguments, path)


def _in_box(arguments, console, system: System, run, averages, out, names) -> dict:
    """Print the averages of a system, write its last coordinates, and return the results."""
    for name, value in averages.items():
        if name != "temperature":
            error = f" ± {value.error:.2g}" if value.error else ""  # no error at constant volume
            console.say(f"{name:8s} {value.mean:.6g}{error} {UNITS[name]}")
    steps, rebuilds = run.state.step, run.rebuilds
    console.say(f"{steps} steps in total, {rebuilds} new neighbour lists")
    last, suffix = [], coordinate_suffix(arguments.model)
    R, boxes = run.state.positions, run.state.box
    for k, name in enumerate(names):
        position, box = (R, boxes) if arguments.replicas is None else (R[k], boxes[k])
        last += system.replace(positions=position, box=box).write(out / f"last{name}{suffix}")
    return {
        **{name: value._asdict() for name, value in averages.items()},
        "steps": steps,
        "rebuilds": rebuilds,
        "coordinates": list(map(str, last)),
    }


def _settings() -> dict[str, tuple[Field, list[str]]]:
    """Return each setting of the ensembles by name, with the ensembles that have the setting."""
    by_name: dict[str, tuple[Field, list[str]]] = {}
    for name, kind in ENSEMBLES.items():
        for setting in fields(kind):
            by_name.setdefault(setting.name, (setting, []))[1].append(name)
    return by_name


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _ensemble_option(sub, name: str, setting: Field, kinds: list[str]) -> None:
    """Add the option, with the default None, for a setting of the ensembles `kinds`."""
    users = "" if len(kinds) == len(ENSEMBLES) else f"{', '.join(kinds)}: "
    if isinstance(setting.default, bool):
        text = f"{users}{setting.metadata['help']}"
        sub.add_argument(_flag(name), action="store_const", const=True, help=text)
        return
    rule = setting.metadata["rule"]
    if isinstance(rule, ChoiceRule) or rule.whole:
        known = rule.choices if isinstance(rule, ChoiceRule) else None
        sub.add_argument(
            _flag(name), choices=known, type=str if known else positive(int),
            help=f"{users}{setting.metadata['help']} (default {setting.default})",
        )  # fmt: skip
        return
    kind = positive(float) if rule.above == 0.0 else not_negative
    default = "" if setting.default is None else f" (default {setting.default:g})"
    sub.add_argument(
        _flag(name), metavar=rule.unit, type=numbers if rule.several else kind,
        help=f"{users}{setting.metadata['help']}, {rule.unit}{default}",
    )  # fmt: skip


def _every(arguments, ensemble: Ensemble, in_box: bool) -> int:
    """Return the number of steps between recorded frames."""
    if arguments.record_every is not None:
        return arguments.record_every
    if in_box:
        return min(SYSTEM_EVERY, arguments.steps)
    return min(EVERY, max(int(FRAME_SPACING / ensemble.dt), 1))


def _ensemble(arguments) -> Ensemble:
    """Return the ensemble that the options describe.

    Raises:
        InputError: an option does not apply to this ensemble.
    """
    given = {}
    for name, (_, kinds) in _settings().items():
        if (value := getattr(arguments, name)) is None:
            continue
        if arguments.ensemble not in kinds:
            raise InputError(
                f"{_flag(name)} does not apply to --ensemble {arguments.ensemble}: omit "
                f"{_flag(name)}, or choose --ensemble {' or '.join(kinds)}"
            )
        given[name] = value
    return ENSEMBLES[arguments.ensemble](**given)


def _trajectories(folder):
    """Return the trajectory files that this command wrote in a folder."""
    return [path for path in folder.iterdir() if TRAJECTORY.fullmatch(path.name)]


def _spread_over_cores(replicas: int | None) -> None:
    """Make each CPU core a JAX device if each core gets the same number of replicas.

    At least two replicas for each core are needed.  A single device cannot use several cores
    efficiently for small molecules.
    """
    import jax

    cores = os.cpu_count() or 1
    if not replicas or cores == 1 or replicas % cores or replicas < 2 * cores:
        return
    if "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with suppress(RuntimeError):  # JAX has started already and keeps its devices
        jax.config.update("jax_num_cpu_devices", cores)
