"""Command that trains an sGDML kernel."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jaxff.commands.options import (
    data_options,
    frcmod_option,
    indices,
    numbers,
    positive,
    split_options,
    trust_option,
)
from jaxff.commands.shared import (
    METRICS,
    USUAL,
    load_dataset,
    load_molecule,
    load_potential,
    say_coverage,
    shares,
    split_frames,
    training_frames,
)
from jaxff.console import Console
from jaxff.errors import InputError
from jaxff.npz import writable_file

HELP = "Train an sGDML kernel on a data set, or as a correction of a baseline."
MORE = "Repeat the command to continue an interrupted training from MODEL.npz.partial."
EXAMPLE = "jaxff train ethanol.npz -n 200 --valid 100 --test 1000 --sigma 10,20,40 -o model.npz"


def options(sub: argparse.ArgumentParser) -> None:
    data_options(sub)
    trust_option(sub)
    frcmod_option(sub)
    split_options(sub, 1000)
    sub.add_argument(
        "--sigma",
        type=numbers,
        metavar="S,S,...",
        help="kernel widths to choose among, 1/Å, in ascending order (default: a search)",
    )
    sub.add_argument(
        "--lam",
        type=numbers,
        metavar="L,L,...",
        help="regularisation strengths to choose among (default: 1e-10; with --around: "
        "1e-4,1e-3,1e-2)",
    )
    sub.add_argument(
        "--baseline",
        metavar="MODEL.npz|X.prmtop",
        help="potential that the kernel corrects; MODEL.npz is the sum of both",
    )
    sub.add_argument(
        "--adapt",
        action="store_true",
        help="fit the parameters of the baseline together with the kernel",
    )
    sub.add_argument(
        "--atoms",
        type=indices,
        metavar="I,J,...",
        help="atoms on which the kernel acts, counted from 0 (default: all)",
    )
    sub.add_argument(
        "--around",
        nargs="+",
        metavar="FILE.xyz",
        help="structures near which the kernel corrects the baseline on --atoms: only similar "
        "frames are used, and the kernel vanishes far from these structures",
    )
    sub.add_argument(
        "--hydrogen-weight",
        type=positive(float),
        default=1.0,
        metavar="W",
        help="weight of hydrogens in the descriptor; less than 1 is often better (default: 1)",
    )
    sub.add_argument(
        "--learn-metric",
        action="store_true",
        help="optimise the weights of interatomic distances; more accurate with few frames",
    )
    sub.add_argument(
        "--fragments",
        action="store_true",
        help="add kernels on the surroundings of each heavy atom; more accurate with few frames of "
        "molecules with many heavy atoms",
    )
    sub.add_argument("--no-symmetries", action="store_true", help="ignore permutations (GDML)")
    sub.add_argument(
        "--energies",
        choices=("offset", "constrain", "none"),
        default="offset",
        help="use of the energies: offset (only to set the energy zero, default), constrain (fit "
        "together with the forces) or none",
    )
    sub.add_argument(
        "--solver",
        default="auto",
        help="dense (Cholesky), iterative (conjugate gradients) or auto (by size, default)",
    )
    sub.add_argument(
        "--tolerance",
        type=positive(float),
        default=1e-4,
        help="relative residual of the iterative solver (default: 1e-4)",
    )
    sub.add_argument(
        "--max-memory",
        type=positive(float),
        metavar="GB",
        help="memory limit of the process, GB (default: 80 %% of the memory of the machine)",
    )
    sub.add_argument(
        "--uncertainty",
        action="store_true",
        help="calibrate standard errors on validation frames, and check the calibration on test "
        "frames",
    )
    sub.add_argument("--plot", metavar="PNG", help="plot the validation errors against sigma")
    sub.add_argument("-o", "--output", required=True, metavar="MODEL.npz", help="output file")


def run(arguments: argparse.Namespace, console: Console) -> dict:
    from jaxff import gdml
    from jaxff.dataset import Dataset
    from jaxff.gdml.fragments import BONDS
    from jaxff.learn import evaluate
    from jaxff.saved import save

    for path in filter(None, (arguments.output, arguments.plot)):
        writable_file(path)
    if arguments.adapt and not arguments.baseline:
        raise InputError("--adapt fits the parameters of a baseline: add --baseline")
    if arguments.around:
        _check_local(arguments)
    elif arguments.fragments:
        _check_fragments(arguments)
    trials: list[gdml.Trial] = []
    unfinished = Path(f"{arguments.output}.partial")
    settings = gdml.Run(
        seed=arguments.seed,
        memory=arguments.max_memory,
        checkpoint=unfinished,
        progress=console,
        on_trial=trials.append,
        check_labels=arguments.check_labels,
    )
    solver = gdml.Solver(arguments.solver, arguments.tolerance)
    data = load_dataset(arguments)
    baseline = None
    if arguments.baseline or arguments.frcmod:  # --frcmod alone is refused
        baseline = load_potential(arguments.baseline, arguments)
    if arguments.uncertainty and shares(len(data.distinct()), arguments)[1] == 0:
        raise InputError("--uncertainty needs validation frames: add --valid N")
    background, usual = None, USUAL
    if arguments.around:
        # Frames far from the structures are useless for a local correction, so few are used.
        n_train = training_frames(len(data.distinct()), arguments)
        usual = (n_train // 4, n_train // 2)
        data, background = _region(data, arguments, console, usual)
    split = split_frames(data, arguments, console, usual)
    descriptor, light = gdml.inverse_distances, arguments.hydrogen_weight != 1.0
    if light:
        numbers = data.numbers[arguments.atoms] if arguments.atoms else data.numbers
        descriptor = gdml.light_hydrogens(numbers, arguments.hydrogen_weight)
        if arguments.learn_metric:
            raise InputError(
                "--learn-metric also optimises the weight of hydrogens: give only one of "
                "--learn-metric and --hydrogen-weight"
            )
    if arguments.check_labels and baseline is None:
        _check_labels(split.train, console)
    if arguments.around:
        potential = _local(split, background, baseline, arguments, settings)
    else:
        kernel = gdml.Kernel(
            lam=arguments.lam or gdml.Kernel.lam,
            symmetries=None if arguments.no_symmetries else "auto",
            descriptor=descriptor,
            learn_metric=arguments.learn_metric,
            energies=None if arguments.energies == "none" else arguments.energies,
            atoms=arguments.atoms,
            adapt_baseline=arguments.adapt,
            fragments=BONDS if arguments.fragments else None,
        )
        potential = gdml.train(
            split.train,
            split.valid if len(split.valid) else None,
            sigma=arguments.sigma,
            baseline=baseline,
            kernel=kernel,
            solver=solver,
            run=settings,
        )
    parts: dict[str, Dataset] = {"train": split.train, "valid": split.valid, "test": split.test}
    scores = {key: evaluate(potential, part) for key, part in parts.items() if len(part)}
    # A plain kernel is written in the format of the sGDML package, which can then read the file.
    special = arguments.atoms or arguments.learn_metric or light or arguments.fragments
    plain = baseline is None and not special
    (gdml.save if plain else save)(arguments.output, potential)
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
        from jaxff.report import plot

        plot.widths(trials).savefig(arguments.plot, dpi=130)
    console.table(
        ["errors", *METRICS], [[k, *(v.get(m, "-") for m in METRICS)] for k, v in scores.items()]
    )
    if coverage is not None:
        say_coverage(console, coverage)
    name, term = next(
        (p.name, p.term)
        for p in reversed(potential.program.placed)
        if isinstance(p.term, gdml.KernelTerm)
    )
    sigma, lam = (float(potential.params[name][key]) for key in ("sigma", "lam"))
    console.say(f"sigma {sigma:g}; energies in kcal/mol, forces in kcal/mol/Å")
    console.say(f"wrote {arguments.output}")
    return {
        **scores,
        "sigma": sigma,
        "lam": lam,
        "permutations": term.permutations.tolist(),
        "trials": [asdict(trial) for trial in trials],
        "coverage": coverage,
        "model": str(arguments.output),
    }


def _check_labels(data, console) -> None:
    """Compare the labels with GAFF, if GAFF has parameters for the molecule."""
    from jaxff.gaff import gaff
    from jaxff.sanity import check_labels

    if data.lattice is not None:
        return
    try:
        known = gaff(data.molecule, charges="gasteiger")
    except InputError as error:
        console.say(f"the labels are not compared with GAFF, which has no parameters: {error}")
        return
    check_labels(data, *known.predict(data.positions))


# -- local corrections ---------------------------------------------------------------------------


def _check_local(arguments) -> None:
    if not (arguments.baseline and arguments.atoms):
        raise InputError("--around needs --baseline and --atoms: give both")
    refused = {
        "--adapt": arguments.adapt,
        "--uncertainty": arguments.uncertainty,
        "--energies": arguments.energies != "offset",
        "--hydrogen-weight": arguments.hydrogen_weight != 1.0,
        "--learn-metric": arguments.learn_metric,
        "--fragments": arguments.fragments,
        "--solver": arguments.solver == "iterative",
    }
    if wrong := [name for name, given in refused.items() if given]:
        raise InputError(
            f"{', '.join(wrong)} cannot be used with --around: omit {', '.join(wrong)}"
        )


def _check_fragments(arguments) -> None:
    refused = {
        "--atoms": arguments.atoms,
        "--hydrogen-weight": arguments.hydrogen_weight != 1.0,
        "--learn-metric": arguments.learn_metric,
        "--energies constrain": arguments.energies == "constrain",
        "--solver iterative": arguments.solver == "iterative",
        "--uncertainty": arguments.uncertainty,
    }
    if wrong := [name for name, given in refused.items() if given]:
        raise InputError(f"{', '.join(wrong)} cannot be used with --fragments: omit one of them")


def _region(data, arguments, console, usual):
    """Return the frames most similar to the structures of --around, and the other frames."""
    from jaxff import gdml

    data = data[data.distinct()]
    n, valid, test = shares(len(data), arguments, usual)
    structures = []
    for path in arguments.around:
        molecule = load_molecule(path, None, 0)
        structures.append(molecule.positions[data.molecule.match(molecule)])
    count = n + valid + test
    if count > len(data):
        raise InputError(
            f"{data.label} has {len(data)} distinct frames, but {n} training, {valid} validation "
            f"and {test} test frames are requested: lower -n, --valid or --test"
        )
    near = gdml.nearest_frames(
        data, np.array(structures), count, atoms=arguments.atoms, seed=arguments.seed
    )
    far = np.setdiff1d(np.arange(len(data)), near)
    console.say(
        f"{data.label}: {len(near)} frames near {', '.join(arguments.around)} are used; the other "
        f"{len(far)} frames set the energy zero of the correction"
    )
    return data[near], data[far] if len(far) else None


def _local(split, background, baseline, arguments, settings):
    """Train a local correction, and return the sum of the baseline and the correction.

    The frames of `background` set the energy zero of the correction.
    """
    from jaxff import gdml
    from jaxff.gdml.correction import SIGMA

    symmetries = None if arguments.no_symmetries else "auto"
    correction = gdml.train_correction(
        split.train,
        baseline,
        arguments.atoms,
        split.valid if len(split.valid) else None,
        background=background,
        sigma=arguments.sigma or SIGMA,
        kernel=gdml.LocalKernel(arguments.lam or gdml.LocalKernel.lam, symmetries),
        run=settings,
    )
    return baseline.matched(split.train.molecule) + correction.on(arguments.atoms)
