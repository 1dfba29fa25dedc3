"""Command that fits force fields to data."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from jaxff.commands.options import charges, count, data_options, patterns, positive, split_options
from jaxff.commands.shared import METRICS, load_dataset, load_form, say_coverage, split_frames
from jaxff.commands.teaching import run_with_teacher, teacher_options
from jaxff.errors import InputError
from jaxff.gaff.forms import FORMS
from jaxff.learn.settings import METHODS, Gradient, LeastSquares, Method
from jaxff.npz import writable_file

HELP = "Fit GAFF or a more flexible functional form to forces and energies."
MORE = (
    "Several data sets give one model for each molecule; all models share the fitted parameters.\n"
    "Repeat the command to continue an interrupted fit from MODEL.npz.partial."
)
EXAMPLE = "jaxff fit ethanol.npz --form class2 -n 110 --plus sgdml -o ethanol_class2.npz"


def options(sub) -> None:
    data_options(sub, nargs="+")
    sub.add_argument(
        "--topology",
        metavar="FILE.prmtop|SMILES|FILE",
        help="initial force field, or a molecule for which GAFF is used (default: the molecule of "
        "the data set)",
    )
    sub.add_argument(
        "--charges", default="auto", help="charges for GAFF; see `jaxff parametrize --charges`"
    )
    sub.add_argument(
        "--charge", type=charges, metavar="Q,Q,...",
        help="net charge of each molecule, e (default: the charge in the data set)",
    )  # fmt: skip
    sub.add_argument(
        "--form",
        choices=tuple(FORMS),
        default="gaff",
        help="functional form (default gaff): "
        + "; ".join(f"{name}: {form.summary}" for name, form in FORMS.items()),
    )
    split_options(sub, 110)
    sub.add_argument(
        "--trainable",
        type=patterns,
        metavar="P,P,...",
        help='parameters to fit, such as "bond.*,torsion.k" (default: all trainable parameters)',
    )
    sub.add_argument(
        "--method",
        choices=tuple(METHODS),
        default=next(iter(METHODS)),
        help="least-squares (Levenberg-Marquardt, default) or gradient (descent with Adam)",
    )
    for name, kind, default, text in (
        ("energy-weight", float, Method.energy_weight, "weight of the energies, 1/Å²"),
        ("prior", float, LeastSquares.prior, "strength of the restraint on the initial values"),
        ("epochs", int, Gradient.epochs, "number of epochs of gradient descent"),
    ):
        sub.add_argument(f"--{name}", type=positive(kind), default=default, help=text)
    sub.add_argument("--plus", choices=("sgdml",), help="add a kernel that corrects the fit")
    sub.add_argument(
        "--learn-metric",
        action="store_true",
        help="with --plus sgdml: optimise the weights of interatomic distances in the kernel",
    )
    sub.add_argument(
        "--fragments",
        action="store_true",
        help="with --plus sgdml: add kernels on the surroundings of each heavy atom "
        "(--teacher tries them without this option)",
    )
    sub.add_argument(
        "--uncertainty",
        action="store_true",
        help="with --plus sgdml: calibrate standard errors on validation frames (by "
        "cross-validation with --teacher), and check the calibration on test frames",
    )
    teacher_options(sub)
    sub.add_argument(
        "--show", type=count, default=20, metavar="N", help="largest number of printed parameters"
    )
    sub.add_argument(
        "--plot", metavar="FILE.png", help="plot the predicted forces and the history of the fit"
    )
    sub.add_argument("-o", "--output", metavar="MODEL.npz", required=True, help="output file")


def run(arguments, console) -> dict:
    from jaxff import gdml
    from jaxff.gdml.fragments import BONDS
    from jaxff.learn import evaluate, fit
    from jaxff.saved import save

    if arguments.teacher is not None:
        return run_with_teacher(arguments, console, _method(arguments))
    if arguments.budget is not None:
        raise InputError("--budget limits fits with --teacher: add --teacher, or omit --budget")
    if arguments.uncertainty and (not arguments.plus or arguments.valid == 0):
        raise InputError(
            "--uncertainty needs a kernel and validation frames: add --plus sgdml and --valid N"
        )
    for name, given in {
        "--learn-metric": arguments.learn_metric,
        "--fragments": arguments.fragments,
    }.items():
        if given and not arguments.plus:
            raise InputError(f"{name} needs a kernel: add --plus sgdml")
    if arguments.fragments and (arguments.learn_metric or arguments.uncertainty):
        raise InputError(
            "--fragments cannot be used with --learn-metric or --uncertainty: omit one of them"
        )
    outputs = _outputs(arguments)
    for path in filter(None, (*outputs, arguments.plot)):
        writable_file(path)
    data = [load_dataset(arguments, path) for path in arguments.data]
    charges = arguments.charge or [None] * len(data)
    if len(charges) != len(data):
        raise InputError(
            f"--charge gives {len(charges)} charges for {len(data)} data sets: give one charge "
            "for each data set"
        )
    console("parametrize", 0.0)
    starts = [load_form(arguments, *both) for both in zip(data, charges, strict=True)]
    splits = [split_frames(part, arguments, console) for part in data]
    unfinished = Path(f"{arguments.output}.partial")
    result = fit(
        starts,
        [split.train for split in splits],
        valid=[split.valid for split in splits] if all(len(s.valid) for s in splits) else None,
        method=_method(arguments),
        trainable=arguments.trainable,
        checkpoint=unfinished,
        progress=console,
    )
    results, pictured = [], []
    for start, fitted, split, path in zip(starts, result.potentials, splits, outputs, strict=True):
        potentials = {"start": start, arguments.form: fitted}
        if arguments.plus:
            potentials[f"{arguments.form} + sgdml"] = gdml.train(
                split.train,
                split.valid if len(split.valid) else None,
                baseline=fitted,
                kernel=gdml.Kernel(
                    learn_metric=arguments.learn_metric,
                    fragments=BONDS if arguments.fragments else None,
                ),
                run=gdml.Run(seed=arguments.seed, progress=console, check_labels=False),
            )
        last = list(potentials.values())[-1]
        save(path, last)
        coverage = None
        if arguments.uncertainty:
            console("uncertainty", 0.0)
            errors = gdml.uncertainty(last, split.train, split.valid, seed=arguments.seed)
            coverage = errors.coverage(last, split.test) if len(split.test) else None
        console.close()
        parts = {"train": split.train, "valid": split.valid, "test": split.test}
        parts = {key: part for key, part in parts.items() if len(part)}
        shown = "test" if "test" in parts else "train"
        scores = {name: evaluate(p, parts[shown]) for name, p in potentials.items()}
        console.table(
            [f"{split.train.name} {shown} errors", *METRICS],
            [[name, *(score.get(m, "-") for m in METRICS)] for name, score in scores.items()],
        )
        if coverage is not None:
            say_coverage(console, coverage)
        scores = {key: evaluate(last, p) for key, p in parts.items()}
        results.append({**scores, "coverage": coverage, "model": path})
        pictured.append((parts[shown], potentials))
    unfinished.unlink(missing_ok=True)
    if not result.converged:
        remedy = "--epochs" if arguments.method == "gradient" else "--prior"
        console.say(f"the fit has not converged: raise {remedy}, or fit fewer parameters")
    console.table(
        ["parameter", "types", "start", "fitted", "error", "unit"],
        [
            [
                *(c.name, c.label, f"{c.start:.5g}", f"{c.fitted:.5g}"),
                *("-" if c.error is None else f"{c.error:.2g}", c.unit),
            ]
            for c in result.changes[: arguments.show]
        ],
    )
    if len(result.changes) > arguments.show:
        hidden = len(result.changes) - arguments.show
        console.say(f"{hidden} more parameters are not shown: raise --show, or use --json")
    if arguments.plot:
        _draw(arguments.plot, result.history, pictured, console)
    console.say(f"wrote {', '.join(outputs)}")
    return {
        **(results[0] if len(results) == 1 else {"molecules": results}),
        "converged": result.converged,
        "steps": len(result.history["loss"]),
        "history": {key: values.tolist() for key, values in result.history.items()},
        "changes": [change._asdict() for change in result.changes],
    }


def _method(arguments) -> Method:
    """Return the settings of the fitting method that the options describe."""
    kind = METHODS[arguments.method]
    names = {field.name for field in fields(kind)} & set(vars(arguments))
    return kind(**{name: getattr(arguments, name) for name in names})


def _outputs(arguments) -> list[str]:
    """Return the name of the model file for each data set.

    Raises:
        InputError: --topology is given for several data sets, or data sets have equal names.
    """
    if len(arguments.data) == 1:
        return [arguments.output]
    if arguments.topology:
        raise InputError("--topology describes one molecule: omit --topology, or fit one data set")
    output, names = Path(arguments.output), [Path(path).stem for path in arguments.data]
    if len(set(names)) < len(names):
        raise InputError(
            f"the data sets {', '.join(names)} give equal names of model files: rename a data set"
        )
    return [str(output.with_name(f"{output.stem}-{name}{output.suffix}")) for name in names]


def _draw(path, history, pictured, console) -> None:
    """Plot the forces of each molecule to `path`, and the history of the fit to a second file."""
    from jaxff.learn import aligned
    from jaxff.report import plot

    path = Path(path)
    written = [path.with_name(f"{path.stem}-history{path.suffix}")]
    plot.fit_history(history).savefig(written[0], dpi=130)
    for k, (part, potentials) in enumerate(pictured):
        ordered = [aligned(part, potential) for potential in potentials.values()]
        predicted = {
            name: potential.predict(data.positions)[1]
            for (name, potential), data in zip(potentials.items(), ordered, strict=True)
        }
        written.append(path if k == 0 else path.with_name(f"{path.stem}-{k + 1}{path.suffix}"))
        # All potentials of a molecule have the same order of atoms.
        plot.force_parity(ordered[0].forces, predicted, part.theory).savefig(written[-1], dpi=130)
    console.say(f"wrote {', '.join(map(str, written))}")
