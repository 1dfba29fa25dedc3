"""The options of every command of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from jaxff import __version__

START = "geometry: xyz, extxyz, sdf, mol2, pdb; inpcrd of a prmtop"


def parser() -> argparse.ArgumentParser:
    """The parser of every command; `command` in its result names the one chosen."""
    top = argparse.ArgumentParser(
        prog="jaxff", description="Differentiable force fields on JAX: sGDML, GAFF, hybrids."
    )
    top.add_argument("--version", action="version", version=f"jaxff {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, example: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=f"{text}\n{more}".strip(),
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--seed", type=count, default=0, help="of every random choice (default 0)")
        sub.add_argument("--json", metavar="FILE", help="write the results for programs")
        return sub

    def data_options(sub, **several):
        sub.add_argument(
            "data", metavar="DATA.npz", help="sGDML, MD17 or rMD17 npz, or extxyz", **several
        )
        sub.add_argument("--length-unit", help="override the file's unit of length")
        sub.add_argument("--energy-unit", help="override the file's unit of energy")

    def sampling_options(sub, spacing: float, replicas: int):
        for name, default, text in (
            ("temperature", 500.0, "K"),
            ("dt", 0.5, "time step, fs"),
            ("friction", 10.0, "1/ps"),
            ("spacing", spacing, "of frames, fs"),
        ):
            sub.add_argument(
                f"--{name}", type=positive(float), default=default, help=f"{text} ({default:g})"
            )
        sub.add_argument(
            "--equilibration", type=float, default=1000.0, help="before the first frame, fs (1000)"
        )
        sub.add_argument(
            "--replicas", type=positive(int), default=replicas, help=f"runs at once ({replicas})"
        )

    def split_options(sub, n_train: int):
        sub.add_argument(
            "-n",
            dest="n_train",
            type=positive(int),
            default=n_train,
            metavar="N",
            help=f"training frames (default {n_train})",
        )
        sub.add_argument("--valid", type=count, metavar="N", help="validation frames (up to 500)")
        sub.add_argument("--test", type=count, metavar="N", help="test frames (up to 1000)")

    sub = command(
        "demo",
        "The main job on packaged data: GAFF, its refit, sGDML and their hybrid.",
        "jaxff demo aspirin -o aspirin-demo",
    )
    sub.add_argument("molecule", nargs="?", default="ethanol", choices=("ethanol", "aspirin"))
    sub.add_argument("-o", "--output", metavar="DIR", help="default: jaxff-demo-MOLECULE")

    sub = command(
        "parametrize",
        "GAFF for a molecule: types, charges, parameters, and where each is from.",
        "jaxff parametrize 'CC(=O)Nc1ccc(O)cc1' --charges resp -o paracetamol",
        "Writes a potential (npz), files of other programs, a drawing and the summary.",
    )
    sub.add_argument("molecule", metavar="SMILES|FILE", help="sdf, mol, mol2, pdb, xyz or SMILES")
    sub.add_argument(
        "--charges",
        default="auto",
        metavar="METHOD|FILE.mol2",
        help="resp (PySCF; default), gasteiger (crude), am1bcc (antechamber) or a mol2 file",
    )
    sub.add_argument("--charge", type=int, metavar="Q", help="net charge, where the file has none")
    sub.add_argument(
        "--formats",
        type=words,
        default=["prmtop", "mol2"],
        metavar="F,F,...",
        help="of prmtop (and inpcrd), mol2 (and frcmod), top (and gro), xml (default prmtop,mol2)",
    )
    sub.add_argument("--name", help="of the files (default: molecule)")
    sub.add_argument("--no-cache", action="store_true", help="compute charges anew")
    sub.add_argument("-o", "--output", metavar="DIR", required=True)

    sub = command(
        "fit",
        "Refit GAFF, or a richer form made of it, to forces and energies.",
        "jaxff fit ethanol.npz --form class2 -n 110 --plus sgdml -o ethanol_class2.npz",
        "Several data sets give one table of parameters, and a model for each molecule.\n"
        "Interrupted, the same command goes on from MODEL.npz.partial, where its state is kept.",
    )
    data_options(sub, nargs="+")
    sub.add_argument(
        "--topology",
        metavar="FILE.prmtop|SMILES|FILE",
        help="the start (default: GAFF of the data's molecule)",
    )
    sub.add_argument("--charges", default="auto", help="of a start made by GAFF, as parametrize")
    sub.add_argument(
        "--charge", type=charges, metavar="Q,Q,...", help="net charge of each data set's molecule"
    )
    sub.add_argument(
        "--form",
        choices=("gaff", "morse", "nn", "class2"),
        default="gaff",
        help="gaff; morse (and six Fourier terms); nn (networks); class2 (and all couplings)",
    )
    split_options(sub, 110)
    sub.add_argument(
        "--trainable", type=patterns, metavar="P,P,...", help='such as "bond.*,torsion.k"'
    )
    sub.add_argument(
        "--method",
        choices=("least-squares", "gradient"),
        default="least-squares",
        help="Levenberg and Marquardt's (default), or Adam",
    )
    sub.add_argument(
        "--energy-weight",
        type=positive(float),
        default=0.1,
        metavar="W",
        help="of the energies' mean square error beside that of forces, 1/Å² (0.1)",
    )
    sub.add_argument(
        "--prior",
        type=positive(float),
        default=0.005,
        metavar="P",
        help="pull towards the start, (kcal/mol/Å)² of a typical change over all frames (0.005)",
    )
    sub.add_argument(
        "--epochs", type=positive(int), default=150, help="of the gradient method (150)"
    )
    sub.add_argument(
        "--no-check", action="store_true", help="take labels however unlike the start they are"
    )
    sub.add_argument("--plus", choices=("sgdml",), help="then a kernel on what is left over")
    sub.add_argument("--show", type=count, default=20, metavar="N", help="changes to print (20)")
    sub.add_argument("--plot", metavar="FILE.png", help="forces against the reference, and history")
    sub.add_argument("-o", "--output", metavar="MODEL.npz", required=True)

    sub = command(
        "train",
        "Train an sGDML kernel, on the data or on the residual of a baseline.",
        "jaxff train ethanol.npz -n 200 --valid 100 --test 1000 --sigma 10,20,40 -o model.npz",
        "Interrupted, the same command goes on from MODEL.npz.partial, where its state is kept.",
    )
    data_options(sub)
    split_options(sub, 1000)
    sub.add_argument(
        "--sigma",
        type=numbers,
        metavar="S,S,...",
        help="kernel widths to choose among, going up (default: searched for)",
    )
    sub.add_argument(
        "--lam",
        type=numbers,
        metavar="L,L,...",
        help="regularisations to choose among (default 1e-10; with --around 1e-4,1e-3,1e-2)",
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
    sub.add_argument(
        "--atoms",
        type=indices,
        metavar="I,J,...",
        help="atoms that the kernel acts on, from 0 (default: all)",
    )
    sub.add_argument(
        "--around",
        nargs="+",
        metavar="FILE.xyz",
        help="correct the baseline on --atoms near these structures only: the frames most like "
        "them are learnt from and tested on, and the kernel ends smoothly beyond them",
    )
    sub.add_argument(
        "--hydrogen-weight",
        type=positive(float),
        default=1.0,
        metavar="W",
        help="weight of hydrogens in the descriptor: below 1 often helps (default 1)",
    )
    sub.add_argument("--no-symmetries", action="store_true", help="GDML: no permutations")
    sub.add_argument(
        "--energies",
        choices=("offset", "constrain", "none"),
        default="offset",
        help="what energies do: set the zero (default), be fitted beside the forces, or nothing",
    )
    sub.add_argument(
        "--solver",
        choices=("auto", "dense", "iterative"),
        default="auto",
        help="a Cholesky factor, or conjugate gradients (default: by size)",
    )
    sub.add_argument(
        "--tolerance",
        type=positive(float),
        default=1e-4,
        help="relative residual of the iterative solver (default 1e-4)",
    )
    sub.add_argument(
        "--max-memory",
        type=positive(float),
        metavar="GB",
        help="that the process may hold (default: 80 %% of the machine's)",
    )
    sub.add_argument(
        "--uncertainty",
        action="store_true",
        help="calibrate standard errors on the validation frames, report their test coverage",
    )
    sub.add_argument("--plot", metavar="PNG", help="picture of the validation errors against sigma")
    sub.add_argument("-o", "--output", required=True, metavar="MODEL.npz")

    sub = command(
        "evaluate",
        "Errors of a model on a data set.",
        "jaxff evaluate model.npz ethanol.npz",
    )
    sub.add_argument("model", metavar="MODEL.npz", help="a model file or an AMBER prmtop")
    data_options(sub)

    sub = command(
        "md",
        "Molecular dynamics of a model.",
        "jaxff md hybrid.npz start.xyz --ensemble langevin --temperature 300 --steps 10000 -o run",
        "The same command again continues a run that was interrupted, bit for bit.",
    )
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

    sub = command(
        "scan",
        "Energies along one or two internal coordinates, rigid or relaxed.",
        "jaxff scan model.npz start.xyz --torsion 0,1,2,8 --torsion 3,0,1,2 --relax -o scan",
        "Atoms are counted from 0. Writes the scan (npz), its geometries (xyz) and a picture.",
    )
    sub.add_argument(
        "model", metavar="MODEL.npz", help="a model file, a prmtop, or a calculator's name"
    )
    sub.add_argument("start", metavar="START.xyz", help="geometry: xyz, extxyz, sdf, mol2, pdb")
    for name, number in (("torsion", 4), ("angle", 3), ("distance", 2)):
        sub.add_argument(
            f"--{name}", dest="coordinates", action="append", type=atoms(number),
            metavar=",".join("IJKL"[:number]), help="to scan along; may be repeated",
        )  # fmt: skip
    sub.add_argument(
        "--range", action="append", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="degrees or Å, one for each coordinate (default: once around, torsions only)",
    )  # fmt: skip
    sub.add_argument("--points", type=positive(int), default=36, help="along each (default 36)")
    sub.add_argument("--relax", action="store_true", help="minimise the rest at each point")
    sub.add_argument(
        "--sweeps", type=count, default=3, help="times again from the best neighbour, at most (3)"
    )
    sub.add_argument(
        "--tolerance", type=positive(float), default=1e-3, help="largest force left, kcal/mol/Å"
    )
    sub.add_argument("--max-steps", type=positive(int), default=1000)
    sub.add_argument(
        "--minus", metavar="OTHER_MODEL", help="scan this likewise, and draw the difference"
    )
    sub.add_argument(
        "--highest", type=positive(float), metavar="E", help="end of the scale, kcal/mol (up to 40)"
    )
    sub.add_argument("-o", "--output", required=True, metavar="DIR")

    sub = command(
        "minimize",
        "The energy minimum downhill of a geometry.",
        "jaxff minimize hybrid.npz start.xyz -o minimum",
    )
    sub.add_argument("model", metavar="MODEL.npz", help="a model file or an AMBER prmtop")
    sub.add_argument("start", metavar="START.xyz", help=START)
    sub.add_argument("--method", choices=("lbfgs", "fire"), default="lbfgs")
    sub.add_argument(
        "--tolerance", type=positive(float), default=1e-4, help="largest force left, kcal/mol/Å"
    )
    sub.add_argument("--max-steps", type=positive(int), default=5000)
    sub.add_argument(
        "--conformers", type=positive(int), metavar="N",
        help="from so many geometries of RDKit's ETKDG, all minima they lead to (--seed)",
    )  # fmt: skip
    sub.add_argument("--modes", action="store_true", help="harmonic frequencies")
    sub.add_argument("-o", "--output", required=True, metavar="DIR")

    sub = command(
        "spectrum",
        "Vibrational density of states of molecular dynamics, its peaks and their shifts.",
        "jaxff spectrum run-100K run-300K -o spectra",
        "Folders that jaxff md wrote; replicas, or blocks of time, give the errors.",
    )
    sub.add_argument("runs", metavar="DIR-OF-MD", nargs="+", help="the coldest is the reference")
    sub.add_argument(
        "--resolution", type=positive(float), metavar="CM-1", help="default: 5, or what time allows"
    )
    sub.add_argument("--window", choices=("hann", "blackman", "none"), default="hann")
    sub.add_argument(
        "--skip", type=float, default=0.0, metavar="FS", help="left out at the start (default 0)"
    )
    sub.add_argument(
        "--within", type=positive(float), default=40.0, metavar="CM-1", help="largest shift (40)"
    )
    sub.add_argument(
        "--highest", type=positive(float), default=4000.0, metavar="CM-1", help="of the picture"
    )
    sub.add_argument(
        "--keep-rotation", action="store_true", help="keep the motion of the molecule as a whole"
    )
    sub.add_argument(
        "--no-step-correction", action="store_true",
        help="leave the integrator's shift in, 19 cm-1 at 3700 cm-1 and 0.5 fs",
    )  # fmt: skip
    sub.add_argument("-o", "--output", required=True, metavar="DIR")

    sub = command(
        "label",
        "Energies and forces from a calculator or potential, for frames or along its own dynamics.",
        "jaxff label CCO --calculator gfn2-xtb --md --temperature 500 --frames 2000 -o ethanol.npz",
    )
    sub.add_argument("start", metavar="FRAMES", help="xyz, extxyz or npz file, or a SMILES string")
    sub.add_argument(
        "--calculator",
        default="gfn2-xtb",
        metavar="NAME",
        help="gfn2-xtb, gfn1-xtb, pbe-d3bj, hf, mmff94, uff, ghemical, mmff94-rdkit, uff-rdkit, "
        "emt, lj, the file of a potential, or an import path package.module:Class",
    )
    sub.add_argument("--options", default="{}", metavar="JSON", help="the calculator's options")
    sub.add_argument("--charge", type=int, help="net charge, e (default: that of the frames)")
    sub.add_argument(
        "--molecule", metavar="SMILES|FILE", help="its bonds decide a force field's topology"
    )
    sub.add_argument("--workers", type=positive(int), default=2, help="processes (default 2)")
    sub.add_argument(
        "--scheduler", metavar="ADDRESS|local", help="label on a Dask cluster instead of processes"
    )
    sub.add_argument(
        "--skip-failed", action="store_true", help="leave frames out whose calculation fails"
    )
    dynamics = sub.add_argument_group("dynamics, to sample the frames first")
    dynamics.add_argument("--md", action="store_true", help="Langevin dynamics from FRAMES")
    dynamics.add_argument(
        "--sample-with", metavar="MODEL.npz", help="the same, but with the forces of this potential"
    )
    dynamics.add_argument(
        "--select", choices=("random", "energy", "farthest"), default="random",
        help="how, of ten times the frames of --sample-with, those to label are chosen; or all of "
        "as many (random, the default)",
    )  # fmt: skip
    dynamics.add_argument("--frames", type=positive(int), default=2000, help="in all (2000)")
    sampling_options(dynamics, spacing=10.0, replicas=2)
    sub.add_argument("-o", "--output", required=True, metavar="DATA.npz")

    sub = command(
        "active",
        "Active learning: sample with the model, label where it is unsure, train, and again.",
        "jaxff active CCO --calculator gfn2-xtb --target 0.5 -n 20 -o ethanol",
        "Interrupted, the same command goes on; a lower --target or more --max-frames go further.",
    )
    sub.add_argument("start", metavar="MOLECULE|START", help="SMILES, or file with a geometry")
    sub.add_argument(
        "--calculator", default="gfn2-xtb", metavar="NAME", help="that labels, as in jaxff label"
    )
    sub.add_argument("--options", default="{}", metavar="JSON", help="the calculator's options")
    sub.add_argument("--charge", type=int, metavar="Q", help="net charge, where the file has none")
    sub.add_argument("--workers", type=positive(int), default=2, help="processes (default 2)")
    sub.add_argument(
        "--target", type=positive(float), default=1.0, metavar="E",
        help="force RMSE on newly labelled frames to stop at, kcal/mol/Å (default 1)",
    )  # fmt: skip
    sub.add_argument(
        "-n", dest="n_round", type=positive(int), default=20, metavar="N",
        help="frames labelled in a turn (default 20)",
    )  # fmt: skip
    sub.add_argument("--initial", type=positive(int), default=50, metavar="N", help="before (50)")
    sub.add_argument(
        "--max-frames", type=positive(int), default=500, metavar="N", help="in all (default 500)"
    )
    sub.add_argument(
        "--candidates", type=positive(int), default=400, metavar="N", help="of each turn (400)"
    )
    sub.add_argument(
        "--baseline", default="gaff", metavar="MODEL.npz|gaff|none",
        help="whose residual the kernel learns (default gaff)",
    )  # fmt: skip
    sub.add_argument("--charges", default="gasteiger", help="of gaff, as in jaxff parametrize")
    sub.add_argument(
        "--sample-with", metavar="MODEL.npz", help="for the first frames (default: the baseline)"
    )
    sampling_options(sub, spacing=100.0, replicas=4)
    sub.add_argument("-o", "--output", required=True, metavar="DIR")

    sub = command(
        "reproduce",
        "Experiments of Sauceda et al. (2020), beside what the paper reports.",
        "jaxff reproduce table2 --data md17_ethanol.npz --data md17_aspirin.npz -o paper",
        "Everything is kept in DIR; the same command goes on where it was interrupted.",
    )
    sub.add_argument(
        "experiment",
        choices=("all", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "table1", "table2", "fig9"),
    )
    sub.add_argument(
        "--data", action="append", metavar="DATA.npz",
        help="of ethanol, keto-malondialdehyde or aspirin, in place of the packaged set",
    )  # fmt: skip
    sub.add_argument("--length-unit", help="override the files' unit of length")
    sub.add_argument("--energy-unit", help="override the files' unit of energy")
    sub.add_argument("--small", action="store_true", help="in minutes: shows that it works")
    sub.add_argument("-o", "--output", required=True, metavar="DIR")

    sub = command(
        "info", "Versions, devices and precision, or what a file holds.", "jaxff info --check"
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


def charges(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def numbers(text: str) -> list[float]:
    return [positive(float)(part) for part in text.split(",")]


def indices(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def atoms(number: int) -> Callable[[str], list[int]]:
    def convert(text: str) -> list[int]:
        found = indices(text)
        if len(set(found)) != number or len(found) != number:
            raise argparse.ArgumentTypeError(f"{text} is not {number} different atoms")
        return found

    return convert


def patterns(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def words(text: str) -> list[str]:
    found = [part.strip().lower() for part in text.split(",") if part.strip()]
    unknown = sorted(set(found) - {"prmtop", "mol2", "top", "xml"})
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown format {', '.join(unknown)}")
    return found
