"""The command line: each command is a thin layer over the Python interface."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jaxff import __version__
from jaxff.errors import InputError

METRICS = ("energy_mae", "energy_rmse", "force_mae", "force_rmse")


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when done, 1 when it failed, 2 for wrong usage."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.json is not None:
            writable_file(arguments.json)
        results = run(arguments)
        if arguments.json is not None:
            write_json(arguments.json, results)
        return 0
    except (InputError, OSError, ArithmeticError) as error:
        print(f"jaxff {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"jaxff {arguments.command}: interrupted", file=sys.stderr)
        return 1


def run(arguments) -> dict:
    """Run a parsed command and return its results with what they cost."""
    import jax

    from jaxff import memory
    from jaxff.console import Console
    from jaxff.info import versions

    jax.config.update("jax_enable_x64", True)
    console = Console()
    started = time.perf_counter()
    try:
        results = arguments.action(arguments, console)
    finally:
        console.close()
    return {
        **results,
        "command": arguments.command,
        "seed": arguments.seed,
        "seconds": {**console.seconds, "total": time.perf_counter() - started},
        "peak_memory_gb": memory.peak() / 1e9,
        "versions": versions(),
    }


# -- commands ------------------------------------------------------------------------------


def demo(arguments, console) -> dict:
    out = writable_folder(arguments.output or f"jaxff-demo-{arguments.molecule}")
    from jaxff.demo import demo as run_demo

    return run_demo(arguments.molecule, out, arguments.seed, console)


def train(arguments, console) -> dict:
    from jaxff import gdml
    from jaxff.dataset import Dataset
    from jaxff.files import save
    from jaxff.learn import evaluate

    writable_file(arguments.output)
    if arguments.adapt and not arguments.baseline:
        raise InputError("--adapt needs a --baseline whose parameters it re-estimates")
    data = load_dataset(arguments)
    baseline = load_potential(arguments.baseline) if arguments.baseline else None
    split = data.split(*shares(len(data), arguments), seed=arguments.seed)
    console.say(
        f"{data.name}: {len(split.train)} training, {len(split.valid)} validation, "
        f"{len(split.test)} test frames ({data.theory})"
    )
    potential = gdml.train(
        split.train,
        sigma=arguments.sigma,
        lam=arguments.lam,
        valid=split.valid if len(split.valid) else None,
        baseline=baseline,
        adapt=arguments.adapt,
        symmetries=None if arguments.no_symmetries else "auto",
        seed=arguments.seed,
        progress=console,
    )
    parts: dict[str, Dataset] = {"train": split.train, "valid": split.valid, "test": split.test}
    scores = {key: evaluate(potential, part) for key, part in parts.items() if len(part)}
    # A plain kernel goes into the reference package's format, which that package reads too.
    write = save if baseline else gdml.save
    write(arguments.output, potential)
    console.close()
    kernel = potential.params["gdml"]
    sigma = float(kernel["sigma"])
    console.table(
        ["errors", *METRICS], [[k, *(v.get(m, "-") for m in METRICS)] for k, v in scores.items()]
    )
    console.say(f"sigma {sigma:g}; energies in kcal/mol, forces in kcal/mol/Å")
    console.say(f"wrote {arguments.output}")
    return {**scores, "sigma": sigma, "model": str(arguments.output)}


def evaluate_model(arguments, console) -> dict:
    from jaxff.learn import evaluate

    potential = load_potential(arguments.model)
    data = load_dataset(arguments)
    console("evaluate", 0.0)
    score = evaluate(potential, data)
    console.close()
    console.say(f"{arguments.model} on {len(data)} frames of {data.name} ({data.theory})")
    console.table(["metric", "error"], [[key, value] for key, value in score.items()])
    return {"test": score}


def simulate(arguments, console) -> dict:
    import jax.numpy as jnp

    from jaxff import md, plot
    from jaxff.molecule import Molecule

    out = writable_folder(arguments.output)
    potential = load_potential(arguments.model).astype(jnp.dtype(arguments.precision))
    molecule = Molecule.read(arguments.start)
    result = md.simulate(
        potential,
        molecule,
        ensemble=arguments.ensemble,
        temperature=arguments.temperature,
        dt=arguments.dt,
        steps=arguments.steps,
        friction=arguments.friction,
        record_every=arguments.record_every,
        seed=arguments.seed,
        out=out / "trajectory.extxyz",
        progress=console,
    )
    console.close()
    thermostat = arguments.temperature if arguments.ensemble == "langevin" else None
    figure = plot.energy_and_temperature(
        result.times,
        result.potential_energies,
        result.kinetic_energies,
        result.temperatures,
        thermostat,
    )
    figure.savefig(out / "energy_temperature.png", dpi=130)
    mean = float(result.temperatures.mean())
    rate = arguments.steps / result.seconds
    console.say(f"mean temperature {mean:.1f} K; {rate:.0f} steps/s")
    console.say(f"wrote {out}/trajectory.extxyz and energy_temperature.png")
    return {
        "mean_temperature": mean,
        "frames": len(result.times),
        "steps_per_second": rate,
        "trajectory": str(out / "trajectory.extxyz"),
    }


def label(arguments, console) -> dict:
    from jaxff.reference import label_frames, label_md
    from jaxff.reference.sample import starting_geometries

    writable_file(arguments.output)
    common = {
        "calculator": arguments.calculator,
        "options": calculator_options(arguments.options),
        "charge": arguments.charge,
        "workers": arguments.workers,
        "command": shlex.join(["jaxff", *sys.argv[1:]]),
        "progress": lambda _, fraction: console("label", fraction),
    }
    frames = starting_geometries(arguments.start, arguments.replicas if arguments.md else 1)
    if arguments.md:
        result = label_md(
            frames,
            arguments.output,
            temperature=arguments.temperature,
            dt=arguments.dt,
            friction=arguments.friction,
            spacing=arguments.spacing,
            equilibration=arguments.equilibration,
            n_frames=arguments.frames,
            replicas=arguments.replicas,
            seed=arguments.seed,
            **common,
        )
    else:
        result = label_frames(frames, arguments.output, skip_failed=arguments.skip_failed, **common)
    console.close()
    data = result.dataset
    console.say(f"{len(data)} frames at {data.theory} written to {arguments.output}")
    for what, found in (("failed", result.failed), ("bonded unlike the others", result.rebonded)):
        if found:
            console.say(f"{len(found)} frames {what}: {', '.join(map(str, found[:20]))}")
    return {
        "data": str(arguments.output),
        "frames": len(data),
        "theory": data.theory,
        "failed": result.failed,
        "rebonded": result.rebonded,
        "net_force": result.net_force,
        "net_torque": result.net_torque,
    }


def info(arguments, console) -> dict:
    from jaxff.info import canary, describe

    facts = describe(arguments.file)
    width = max(map(len, facts))
    for key, value in facts.items():
        console.say(f"{key:<{width}}  {value}")
    if arguments.check:
        facts |= {"check": canary()}
        console.say(f"check passed: {facts['check']}")
    return facts


# -- shared by commands --------------------------------------------------------------------


def load_dataset(arguments):
    from jaxff.dataset import Dataset

    return Dataset.load(
        arguments.data, length_unit=arguments.length_unit, energy_unit=arguments.energy_unit
    )


def load_potential(path: str):
    """A potential from a model file or an AMBER topology."""
    if Path(path).suffix.lower() in (".prmtop", ".parm7", ".top"):
        from jaxff.mm import read_amber

        return read_amber(path)
    from jaxff.files import load

    return load(path)


def calculator_options(text: str) -> dict:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InputError(f"--options is not JSON ({error}): {text}") from error
    if not isinstance(options, dict):
        raise InputError(f'--options must be a JSON object such as {{"accuracy": 0.1}}, not {text}')
    return options


def shares(n_frames: int, arguments) -> tuple[int, int, int]:
    """Training, validation and test frames: as asked, defaults cut to what the data leave."""
    left = n_frames - arguments.n_train
    valid = arguments.valid if arguments.valid is not None else max(min(500, left // 2), 0)
    test = arguments.test if arguments.test is not None else max(min(1000, left - valid), 0)
    return arguments.n_train, valid, test


def writable_folder(path) -> Path:
    """The folder, made if need be; InputError if files cannot be written in it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into the output folder {folder}: {error.strerror or error}"
        ) from error
    return folder


def writable_file(path) -> None:
    """InputError, before any work, if `path` cannot be written later."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file to write")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def write_json(path, results: dict) -> None:
    from jaxff.npz import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(results, indent=1, default=float) + "\n")


# -- the parser ----------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="jaxff", description="Differentiable force fields on JAX: sGDML, GAFF, hybrids."
    )
    top.add_argument("--version", action="version", version=f"jaxff {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, action: Callable, text: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(action=action)
        sub.add_argument("--seed", type=count, default=0, help="of every random choice (default 0)")
        sub.add_argument("--json", metavar="FILE", help="write the results for programs")
        return sub

    def data_options(sub):
        sub.add_argument("data", metavar="DATA.npz", help="sGDML, MD17 or rMD17 npz, or extxyz")
        sub.add_argument("--length-unit", help="override the file's unit of length")
        sub.add_argument("--energy-unit", help="override the file's unit of energy")

    sub = command(
        "demo",
        demo,
        "The main job on packaged data: GAFF, its refit, sGDML and their hybrid.",
        "jaxff demo aspirin -o aspirin-demo",
    )
    sub.add_argument("molecule", nargs="?", default="ethanol", choices=("ethanol", "aspirin"))
    sub.add_argument("-o", "--output", metavar="DIR", help="default: jaxff-demo-MOLECULE")

    sub = command(
        "train",
        train,
        "Train an sGDML kernel, on the data or on the residual of a baseline.",
        "jaxff train ethanol.npz -n 200 --valid 100 --test 1000 --sigma 10,20,40 -o model.npz",
    )
    data_options(sub)
    sub.add_argument(
        "-n",
        dest="n_train",
        type=positive(int),
        default=1000,
        metavar="N",
        help="training frames (default 1000)",
    )
    sub.add_argument("--valid", type=count, metavar="N", help="validation frames (up to 500)")
    sub.add_argument("--test", type=count, metavar="N", help="test frames (up to 1000)")
    sub.add_argument(
        "--sigma",
        type=numbers,
        metavar="S,S,...",
        help="kernel widths to choose among (default: 10 to 90 by 10)",
    )
    sub.add_argument(
        "--lam", type=positive(float), default=1e-10, help="regularisation (default 1e-10)"
    )
    sub.add_argument(
        "--baseline",
        metavar="MODEL.npz|X.prmtop",
        help="potential whose residual is learnt: the result is the hybrid",
    )
    sub.add_argument(
        "--adapt",
        action="store_true",
        help="re-estimate the baseline's parameters together with the kernel",
    )
    sub.add_argument("--no-symmetries", action="store_true", help="GDML: no permutations")
    sub.add_argument("-o", "--output", required=True, metavar="MODEL.npz")

    sub = command(
        "evaluate",
        evaluate_model,
        "Errors of a model on a data set.",
        "jaxff evaluate model.npz ethanol.npz",
    )
    sub.add_argument("model", metavar="MODEL.npz", help="a model file or an AMBER prmtop")
    data_options(sub)

    sub = command(
        "md",
        simulate,
        "Molecular dynamics of a model.",
        "jaxff md hybrid.npz start.xyz --ensemble langevin --temperature 300 --steps 10000 -o run",
    )
    sub.add_argument("model", metavar="MODEL.npz", help="a model file or an AMBER prmtop")
    sub.add_argument("start", metavar="START.xyz", help="geometry: xyz, extxyz, sdf, mol2, pdb")
    sub.add_argument("--ensemble", choices=("nve", "langevin"), default="langevin")
    sub.add_argument("--temperature", type=positive(float), default=300.0, help="K")
    sub.add_argument("--dt", type=positive(float), default=0.5, help="time step, fs")
    sub.add_argument("--steps", type=positive(int), default=10_000)
    sub.add_argument("--friction", type=positive(float), default=1.0, help="Langevin, 1/ps")
    sub.add_argument("--record-every", type=positive(int), default=10, metavar="STEPS")
    sub.add_argument("--precision", choices=("float32", "float64"), default="float64")
    sub.add_argument("-o", "--output", required=True, metavar="DIR")

    sub = command(
        "label",
        label,
        "Energies and forces from an ASE calculator, for given frames or along its own dynamics.",
        "jaxff label CCO --calculator gfn2-xtb --md --temperature 500 --frames 2000 -o ethanol.npz",
    )
    sub.add_argument("start", metavar="FRAMES", help="xyz, extxyz or npz file, or a SMILES string")
    sub.add_argument(
        "--calculator",
        default="gfn2-xtb",
        metavar="NAME",
        help="gfn2-xtb, gfn1-xtb, emt, lj, or an import path package.module:Class",
    )
    sub.add_argument("--options", default="{}", metavar="JSON", help="the calculator's options")
    sub.add_argument("--charge", type=int, help="net charge, e (default: that of the frames)")
    sub.add_argument("--workers", type=positive(int), default=2, help="processes (default 2)")
    sub.add_argument(
        "--skip-failed", action="store_true", help="leave frames out whose calculation fails"
    )
    dynamics = sub.add_argument_group("dynamics, to sample the frames first")
    dynamics.add_argument("--md", action="store_true", help="Langevin dynamics from FRAMES")
    dynamics.add_argument("--temperature", type=positive(float), default=500.0, help="K")
    dynamics.add_argument("--dt", type=positive(float), default=0.5, help="time step, fs")
    dynamics.add_argument("--friction", type=positive(float), default=10.0, help="1/ps")
    dynamics.add_argument("--frames", type=positive(int), default=2000, help="frames in all")
    dynamics.add_argument("--spacing", type=positive(float), default=10.0, help="of frames, fs")
    dynamics.add_argument("--equilibration", type=float, default=1000.0, help="before them, fs")
    dynamics.add_argument("--replicas", type=positive(int), default=2, help="independent runs")
    sub.add_argument("-o", "--output", required=True, metavar="DATA.npz")

    sub = command(
        "info", info, "Versions, devices and precision, or what a file holds.", "jaxff info --check"
    )
    sub.add_argument("file", nargs="?", help="a model, data set or topology to describe")
    sub.add_argument(
        "--check",
        action="store_true",
        help="compare compiled, eager and NumPy energies of a small molecule",
    )
    return top


def positive(kind: Callable):
    def convert(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def numbers(text: str) -> list[float]:
    return [positive(float)(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
