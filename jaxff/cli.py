"""The command line: each command is a thin layer over the Python interface."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from jaxff.errors import InputError
from jaxff.options import parser

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
        results = COMMANDS[arguments.command](arguments, console)
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

    for path in filter(None, (arguments.output, arguments.plot)):
        writable_file(path)
    if arguments.adapt and not arguments.baseline:
        raise InputError("--adapt needs a --baseline whose parameters it re-estimates")
    data = load_dataset(arguments)
    baseline = load_potential(arguments.baseline) if arguments.baseline else None
    if arguments.uncertainty and shares(len(data), arguments)[1] == 0:
        raise InputError("--uncertainty is calibrated on validation frames: give --valid N")
    split = data.split(*shares(len(data), arguments), seed=arguments.seed, stratify=True)
    console.say(
        f"{data.name}: {len(split.train)} training, {len(split.valid)} validation, "
        f"{len(split.test)} test frames ({data.theory})"
    )
    descriptor, light = gdml.inverse_distances, arguments.hydrogen_weight != 1.0
    if light:
        numbers = data.numbers[arguments.atoms] if arguments.atoms else data.numbers
        descriptor = gdml.light_hydrogens(numbers, arguments.hydrogen_weight)
    unfinished = Path(f"{arguments.output}.partial")
    trials: list[gdml.Trial] = []
    potential = gdml.train(
        split.train,
        sigma=arguments.sigma,
        lam=arguments.lam,
        valid=split.valid if len(split.valid) else None,
        baseline=baseline,
        adapt=arguments.adapt,
        atoms=arguments.atoms,
        symmetries=None if arguments.no_symmetries else "auto",
        energies=None if arguments.energies == "none" else arguments.energies,
        descriptor=descriptor,
        solver=arguments.solver,
        tolerance=arguments.tolerance,
        max_memory=arguments.max_memory,
        checkpoint=unfinished,
        seed=arguments.seed,
        progress=console,
        trials=trials,
    )
    parts: dict[str, Dataset] = {"train": split.train, "valid": split.valid, "test": split.test}
    scores = {key: evaluate(potential, part) for key, part in parts.items() if len(part)}
    # A plain kernel goes into the reference package's format, which that package reads too.
    plain = baseline is None and arguments.atoms is None and not light
    write = gdml.save if plain else save
    write(arguments.output, potential)
    shutil.rmtree(unfinished, ignore_errors=True)
    coverage = None
    if arguments.uncertainty:
        console("uncertainty", 0.0)
        errors = gdml.uncertainty(potential, split.train, split.valid, seed=arguments.seed)
        coverage = errors.coverage(potential, split.test) if len(split.test) else None
    console.close()
    if trials:
        console.table(
            ["sigma", "lambda", "prior", "frames", "solver", "validation force_rmse"],
            [[f"{t.sigma:g}", t.lam, t.prior, t.n_train, t.solver, t.valid_rmse] for t in trials],
        )
    if arguments.plot:
        from jaxff import plot

        plot.widths(trials).savefig(arguments.plot, dpi=130)
    console.table(
        ["errors", *METRICS], [[k, *(v.get(m, "-") for m in METRICS)] for k, v in scores.items()]
    )
    if coverage is not None:
        shares_within = ", ".join(f"{key} {value:.3f}" for key, value in coverage.items())
        console.say(f"test errors within 1 and 2 standard errors: {shares_within} (0.683, 0.954)")
    placed = next(p for p in reversed(potential.program.placed) if p.term.kind == "gdml")
    sigma = float(potential.params[placed.name]["sigma"])
    lam = float(potential.params[placed.name]["lam"])
    console.say(f"sigma {sigma:g}; energies in kcal/mol, forces in kcal/mol/Å")
    console.say(f"wrote {arguments.output}")
    return {
        **scores,
        "sigma": sigma,
        "lam": lam,
        "permutations": placed.term.permutations.tolist(),
        "trials": [asdict(trial) for trial in trials],
        "coverage": coverage,
        "model": str(arguments.output),
    }


def fit(arguments, console) -> dict:
    from jaxff import gdml
    from jaxff.files import save
    from jaxff.learn import evaluate
    from jaxff.learn import fit as find_parameters

    writable_file(arguments.output)
    data = load_dataset(arguments)
    start = load_form(arguments, data)
    split = data.split(*shares(len(data), arguments), seed=arguments.seed, stratify=True)
    console.say(
        f"{data.name}: {len(split.train)} training, {len(split.valid)} validation, "
        f"{len(split.test)} test frames ({data.theory})"
    )
    found = find_parameters(
        start,
        split.train,
        valid=split.valid if len(split.valid) else None,
        method="least-squares",
        trainable=arguments.trainable,
        progress=console,
    )
    potentials = {"start": start, arguments.form: found.potential}
    if arguments.plus:
        potentials[f"{arguments.form} + sgdml"] = gdml.train(
            split.train,
            valid=split.valid if len(split.valid) else None,
            baseline=found.potential,
            seed=arguments.seed,
            progress=console,
        )
    last = list(potentials.values())[-1]
    save(arguments.output, last)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    parts = {key: part for key, part in parts.items() if len(part)}
    console.close()
    shown = "test" if "test" in parts else "train"
    scores = {name: evaluate(p, parts[shown]) for name, p in potentials.items()}
    console.table(
        [f"{shown} errors", *METRICS],
        [[name, *(score.get(m, "-") for m in METRICS)] for name, score in scores.items()],
    )
    if not found.converged:
        console.say("the fit was stopped before it came to rest")
    console.table(
        ["parameter", "types", "start", "fitted", "error", "unit"],
        [
            [c.name, c.label, f"{c.start:.5g}", f"{c.fitted:.5g}", f"{c.error:.2g}", c.unit]
            for c in found.changes[: arguments.show]
        ],
    )
    if len(found.changes) > arguments.show:
        console.say(f"... and {len(found.changes) - arguments.show} more (--show, --json)")
    console.say(f"wrote {arguments.output}")
    return {
        **{key: evaluate(last, part) for key, part in parts.items()},
        "converged": found.converged,
        "steps": len(found.history["loss"]),
        "changes": [change._asdict() for change in found.changes],
        "model": str(arguments.output),
    }


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


def parametrize(arguments, console) -> dict:
    from jaxff.files import save
    from jaxff.mm import depict, write_force_field
    from jaxff.mm import parametrize as find_parameters
    from jaxff.npz import atomic_path

    out, stem = writable_folder(arguments.output), arguments.name or "molecule"
    if Path(stem).name != stem:
        raise InputError(f"--name {stem}: a name of files, without a folder")
    mol = load_molecule(arguments.molecule, arguments.charge, arguments.seed)
    console("parametrize", 0.0)
    found = find_parameters(mol, arguments.charges, cache=not arguments.no_cache)
    console.close()
    console.say(found.summary())
    potential = found.potential()
    written = [out / f"{stem}.npz"]
    save(written[0], potential)
    for form in arguments.formats:
        written += write_force_field(out / f"{stem}.{form}", potential)
    for kind in ("svg", "png"):
        written.append(out / f"{stem}.{kind}")
        depict(found, written[-1])
    summary = out / f"{stem}.txt"
    with atomic_path(summary) as temporary:
        temporary.write_text(found.summary() + "\n")
    written.append(summary)
    console.say(f"\nwrote {', '.join(path.name for path in written)} into {out}")
    worst = max((a.penalty for a in found.estimates), default=0.0)
    return {
        **found.to_dict(),
        "estimates": len(found.estimates),
        "worst_penalty": worst,
        "files": [str(path) for path in written],
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


COMMANDS = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate_model,
    "fit": fit,
    "md": simulate,
    "parametrize": parametrize,
    "label": label,
    "info": info,
}


# -- shared by commands --------------------------------------------------------------------


def load_dataset(arguments):
    from jaxff.dataset import Dataset

    return Dataset.load(
        arguments.data, length_unit=arguments.length_unit, energy_unit=arguments.energy_unit
    )


def load_molecule(text: str, charge: int | None, seed: int):
    """A molecule from a file, or from a SMILES string where no such file is."""
    from jaxff.molecule import Molecule

    path = Path(text)
    if path.suffix.lower() in Molecule.FORMATS or path.is_file():
        molecule = Molecule.read(path)
        return molecule if charge is None else replace(molecule, charge=charge)
    molecule = Molecule.from_smiles(text, seed=seed or 7)
    if charge not in (None, molecule.charge):
        raise InputError(f"{text} has charge {molecule.charge:+d}, not {charge:+d}")
    return molecule


def load_form(arguments, data):
    """The potential to fit: GAFF, or a form made of it, for the molecule of a data set."""
    from jaxff.mm import gaff
    from jaxff.mm.amber import read_topology

    forms = {
        "gaff": {},
        "morse": {"bonds": "morse", "fourier_terms": 6},
        "class2": {"bonded": "class2", "fourier_terms": 6},
    }
    form, where = forms[arguments.form], arguments.topology
    if where is None:
        return gaff(data.molecule, charges=arguments.charges, **form)
    if Path(where).suffix.lower() in (".prmtop", ".parm7"):
        return read_topology(where).potential(**form).matched(data.molecule)
    molecule = load_molecule(where, None, 0)
    return gaff(molecule, charges=arguments.charges, **form)


def load_potential(path: str):
    """A potential from a model file or a force field of another program."""
    if Path(path).suffix.lower() in (".prmtop", ".parm7", ".top", ".mol2", ".xml"):
        from jaxff.mm import read_force_field

        return read_force_field(path)
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


if __name__ == "__main__":
    sys.exit(main())
