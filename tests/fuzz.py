"""Damaged files and wrong options for every reader and every command.

    python tests/fuzz.py 2000 --results results.jsonl [--first 0] [--minutes 9]

Each case is decided by its number alone.  The file of results has one line for each case; the same
command continues after the last of them.  A case fails if jaxff raises anything but `InputError` or
prints more than one sentence about an error, takes more than 20 s of processor time, changes one of
its input files, or leaves temporary files.  Files and options that were accepted although they make
no sense are listed; they are fewer than 1 %.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import jax
import numpy as np
from mutations import damage

import jaxff
from jaxff import cli, gdml
from jaxff.dataset import Dataset
from jaxff.errors import InputError
from jaxff.formats import read_force_field, read_inpcrd, read_potential, write_force_field
from jaxff.md import read_trajectory
from jaxff.molecule import Molecule

LIMIT = 20  # s of processor time for one case; active learning trains and may take three times it
WAIT = 180  # s of real time, which other processes may take
MEMORY = 16 << 30  # bytes of address space beyond those in use at the start
SMILES = "CO"
TORSION = "2,0,1,5"


class Slow(BaseException):
    """A case took too long; no reader catches it by accident."""


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        what: the case in words.
        fault: what jaxff did wrong, or "".
        nonsense: why the result makes no sense although it was accepted, or "".
        accepted: whether there was no error.
        message: the error message.
    """

    what: str
    fault: str = ""
    nonsense: str = ""
    accepted: bool = False
    message: str = ""

    @property
    def kind(self) -> str:
        """The outcome in one word."""
        if self.fault or self.nonsense:
            return "fault" if self.fault else "nonsense"
        return "accepted" if self.accepted else "refused"


# -- files made by jaxff ------------------------------------------------------------------------


def make_files(folder: Path) -> None:
    """Write one valid file of each kind, and folders of runs that can be continued."""
    folder.mkdir(parents=True)
    molecule = Molecule.from_smiles(SMILES)
    molecule.to_ase().write(folder / "start.xyz", format="extxyz")
    potential = jaxff.gaff(molecule, charges="gasteiger")
    _write_molecules(folder, SMILES)
    for name in ("x.prmtop", "x.mol2", "x.top", "x.xml"):
        write_force_field(folder / name, potential)
    system = jaxff.System.read(SYSTEM)
    system = system.select(np.flatnonzero(system.molecules < 6))
    for name in ("s.prmtop", "s.top", "s.xml"):
        system.write(folder / name)
    jaxff.save(folder / "gaff.npz", potential)
    jaxff.save(folder / "class2.npz", jaxff.gaff(molecule, charges="gasteiger", form="class2"))
    rng = np.random.default_rng(0)
    R = molecule.positions + rng.normal(scale=0.04, size=(40, molecule.n_atoms, 3))
    E, F = map(np.asarray, potential.predict(R))
    F = F + rng.normal(scale=0.3, size=F.shape)
    data = Dataset(molecule.numbers, R, F, E, name="methanol", theory="GAFF with noise")
    data.save(folder / "data.npz")
    np.savez(folder / "rmd17.npz", nuclear_charges=data.numbers, coords=R, energies=E, forces=F)
    _write_extxyz(folder / "data.extxyz", data)
    kernel = gdml.train(data, n_train=12, sigma=4.0)
    gdml.save(folder / "sgdml.npz", kernel)
    jaxff.save(folder / "hybrid.npz", potential + 0.5 * kernel)
    for form in ("extxyz", "h5", "dcd"):
        make(["md", "gaff.npz", "start.xyz", *MD, "--format", form, "-o", f"md-{form}"], folder)
        shutil.copyfile(folder / f"md-{form}/trajectory.{form}", folder / f"trajectory.{form}")
    make(["scan", "gaff.npz", "start.xyz", *SCAN, "-o", "scan"], folder)
    make(["label", "data.extxyz", *LABEL, "-o", "labelled.npz"], folder)


def _write_molecules(folder: Path, smiles: str) -> None:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=7)
    with Chem.SDWriter(str(folder / "m.sdf")) as writer:
        writer.write(mol)
    Chem.MolToMolFile(mol, str(folder / "m.mol"))
    Chem.MolToPDBFile(mol, str(folder / "m.pdb"))


def _write_extxyz(path: Path, data: Dataset) -> None:
    """Write a data set in eV and Å."""
    import ase.io
    from ase import units
    from ase.calculators.singlepoint import SinglePointCalculator

    unit, frames = units.kcal / units.mol, []
    for R, F, E in zip(data.positions, data.forces, data.energies, strict=True):
        frames.append(data.molecule.with_positions(R).to_ase())
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=E * unit, forces=F * unit)
    ase.io.write(path, frames, "extxyz")


# -- cases --------------------------------------------------------------------------------------

MD = ("--steps", "20", "--record-every", "5", "--dt", "0.5", "--temperature", "100")
SCAN = ("--torsion", TORSION, "--points", "4")
SYSTEM = Path(__file__).parent / "data" / "systems" / "eth_tip4pew.prmtop"
LABEL = ("--calculator", "gaff.npz", "--workers", "1")
SIZES = ("-n", "12", "--valid", "6", "--test", "6")


def _molecule(path):
    m = Molecule.read(path)
    return {"coordinates": m.positions, "numbers": m.numbers, "bonds": m.bonds, "charge": m.charge}


def _dataset(path):
    d = Dataset.load(path)
    energies = np.zeros(1) if d.energies is None else d.energies
    return {
        "coordinates": d.positions, "forces": d.forces, "energies": energies, "numbers": d.numbers,
    }  # fmt: skip


def _surface(potential):
    R = np.asarray(Molecule.from_smiles(SMILES).positions)
    E, F = potential.energy_and_forces(R)
    return {"forces": np.asarray(F), "energies": np.asarray(E)}


def _force_field(*paths):
    return _surface(read_force_field(*paths))


def _coordinates(path):
    return {"coordinates": read_inpcrd(path)}


def _system(*paths):
    system = jaxff.System.read(*paths, constraints="h-bonds")
    return {"coordinates": system.positions, "numbers": system.numbers, "bonds": system.bonds}


def _trajectory(path):
    frames = read_trajectory(path)
    return {"coordinates": frames["positions"], **{k: v for k, v in frames.items()}}


# Reader, its files (the first or any may be damaged).
READERS = (
    *((_molecule, (name,)) for name in ("start.xyz", "m.sdf", "m.mol", "m.pdb", "x.mol2")),
    *((_dataset, (name,)) for name in ("data.npz", "rmd17.npz", "data.extxyz")),
    *(
        (lambda path: _surface(read_potential(path)), (name,))
        for name in ("gaff.npz", "class2.npz", "sgdml.npz", "hybrid.npz")
    ),
    (_force_field, ("x.prmtop", "x.inpcrd")),
    (_force_field, ("x.mol2", "x.frcmod")),
    (_force_field, ("x.top", "x.gro")),
    (_force_field, ("x.xml", "m.pdb")),
    (_coordinates, ("x.inpcrd",)),
    (_system, ("s.prmtop", "s.rst7")),
    (_system, ("s.top", "s.gro")),
    (_system, ("s.xml", "s.pdb")),
    *((_trajectory, (f"trajectory.{form}",)) for form in ("extxyz", "h5", "dcd")),
)
# Command line, and the files or folders of which one file may be damaged.
COMMANDS = (
    *((("info", name), (name,)) for name in (
        "start.xyz", "m.sdf", "m.pdb", "x.mol2", "data.npz", "gaff.npz", "hybrid.npz", "x.prmtop",
        "x.top", "x.xml", "data.extxyz", "sgdml.npz", "x.inpcrd", "x.frcmod", "x.gro",
        "trajectory.h5", "md-h5/restart.npz", "scan/scan.npz",
    )),
    *((("parametrize", name, "--charges", "gasteiger", "-o", "out"), (name,))
      for name in ("m.sdf", "start.xyz", "x.mol2")),
    *((("evaluate", model, "data.npz"), (model, "data.npz"))
      for model in ("gaff.npz", "hybrid.npz", "x.prmtop")),
    (("train", "data.npz", *SIZES, "--sigma", "4", "-o", "out.npz"), ("data.npz",)),
    (("train", "data.extxyz", *SIZES, "--sigma", "4", "--baseline", "x.prmtop", "-o", "out.npz"),
     ("data.extxyz", "x.prmtop")),
    (("fit", "data.npz", *SIZES, "--charges", "gasteiger", "-o", "out.npz"), ("data.npz",)),
    (("fit", "data.npz", *SIZES, "--topology", "x.prmtop", "-o", "out.npz"),
     ("data.npz", "x.prmtop")),
    (("md", "gaff.npz", "start.xyz", *MD, "-o", "out"), ("gaff.npz", "start.xyz")),
    (("md", "x.prmtop", "x.inpcrd", *MD, "-o", "out"), ("x.prmtop", "x.inpcrd")),
    *((("md", "gaff.npz", "start.xyz", "--steps", "30", *MD[2:], "--format", form, "-o",
        f"md-{form}"), (f"md-{form}",)) for form in ("extxyz", "h5", "dcd")),
    (("minimize", "gaff.npz", "start.xyz", "-o", "out"), ("gaff.npz", "start.xyz")),
    (("scan", "gaff.npz", "start.xyz", *SCAN, "-o", "scan"), ("scan", "start.xyz")),
    (("label", "start.xyz", *LABEL, "-o", "out.npz"), ("start.xyz", "gaff.npz")),
    (("label", "data.extxyz", *LABEL, "-o", "labelled.npz"), ("data.extxyz", "labelled.npz")),
    *((("spectrum", f"md-{form}", "-o", "out"), (f"md-{form}",)) for form in ("extxyz", "h5")),
    (("active", "start.xyz", "--calculator", "gaff.npz", "--workers", "1", "--initial", "12",
      "-n", "4", "--max-frames", "16", "--candidates", "8", "--replicas", "1", "--spacing", "5",
      "--equilibration", "5", "-o", "out"), ("start.xyz", "gaff.npz")),
)  # fmt: skip
# Numbers of the first kind for options of any kind, the others for those that take real numbers.
WRONG = ("-1", "0", "x", "", "nan", "1.5", "1,2", "-", "é", "{", "missing/x.npz", ".")
REAL = ("inf", "1e300", "-1e300", "1e-300")
SKIPPED = ("help", "compilation_cache", "scheduler", "seed")


def options_of(name: str) -> list[argparse.Action]:
    """The options of a command, with or without a value."""
    top = cli.parser()
    commands = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    return [
        a for a in commands.choices[name]._actions if a.option_strings and a.dest not in SKIPPED
    ]


def with_wrong_option(argv: list[str], rng) -> list[str]:
    """A command line with one changed argument."""
    if rng.random() < 0.15:
        place = int(rng.integers(1, len(argv)))
        value = ("missing.npz", ".", "", "x.frcmod", "data.npz", "CO", "C[", "-5")
        return [*argv[:place], value[rng.integers(len(value))], *argv[place + 1 :]]
    action = (found := options_of(argv[0]))[rng.integers(len(found))]
    flag = max(action.option_strings, key=len)
    if action.nargs == 0:
        return [*argv, flag]
    real = action.type is not None and "float" in getattr(action.type, "__name__", "")
    values = WRONG + (REAL if real else ()) + tuple(map(str, action.choices or ()))
    width = action.nargs if isinstance(action.nargs, int) else 1
    chosen = [values[rng.integers(len(values))] for _ in range(width)]
    return [*argv, f"{flag}={chosen[0]}"] if width == 1 else [*argv, flag, *chosen]


# -- running and judging ------------------------------------------------------------------------


def make(argv: list[str], folder: Path) -> None:
    """Run a command that must succeed."""
    status, _, errors = command(argv, folder)
    assert status == 0, errors


def command(argv: list[str], folder: Path) -> tuple[int, str, str]:
    """Run a command in a folder; return its exit status, output and errors."""
    out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(argv)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        os.chdir(here)
        _close_figures()
    return status, out.getvalue(), err.getvalue()


def _close_figures() -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@contextlib.contextmanager
def limited(factor: int = 1):
    """Raise `Slow` when the block has taken too long."""

    def stop(*_):
        raise Slow

    previous = [signal.signal(s, stop) for s in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, factor * LIMIT, 1.0)
    signal.setitimer(signal.ITIMER_REAL, WAIT, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in zip((signal.SIGPROF, signal.SIGALRM), previous, strict=True):
            signal.signal(s, handler)


def sums(folder: Path) -> dict[str, str]:
    """MD5 checksums of all files in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def absurd(values) -> str:
    """Why a result makes no sense, or ""."""
    for key, value in values.items():
        value = np.asarray(value)
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            return f"{key} are not finite"
        limit = {"coordinates": 1e6, "forces": 1e12, "energies": 1e12}.get(key)
        if limit and value.size and np.abs(value).max() > limit:
            return f"{key} of {np.abs(value).max():.3g}"
    return ""


def not_finite(value) -> bool:
    """Whether nested JSON values contain a number that is not finite."""
    if isinstance(value, dict):
        return any(map(not_finite, value.values()))
    if isinstance(value, list):
        return any(map(not_finite, value))
    return isinstance(value, float) and not np.isfinite(value)


@dataclass
class Fuzzer:
    """Cases on copies of one folder of valid files."""

    files: Path
    scratch: Path
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, number: int) -> Outcome:
        """Case `number`."""
        rng = np.random.default_rng(number)
        folder = self.scratch / f"case-{number}"
        shutil.copytree(self.files, folder)
        kind = rng.random()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                if kind < 0.5:
                    found = self._reader(folder, rng)
                else:
                    found = self._command(folder, rng, options=kind > 0.8)
        finally:
            shutil.rmtree(folder)
        found.what = f"{number}: {found.what}"
        self.outcomes.append(found)
        return found

    def _damage(self, folder: Path, names, rng) -> str:
        path = folder / names[rng.integers(len(names))]
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".png")
            path = inside[rng.integers(len(inside))]
        others = sorted(p for p in folder.rglob("*") if p.is_file())
        return f"{path.relative_to(folder)}: {damage(path, others, rng)}"

    def _reader(self, folder: Path, rng) -> Outcome:
        read, names = READERS[rng.integers(len(READERS))]
        found = Outcome(f"read {' '.join(names)}; {self._damage(folder, names, rng)}")
        before = sums(folder)
        try:
            with limited(), contextlib.redirect_stderr(io.StringIO()) as noise:
                values = read(*(folder / name for name in names))
            found.accepted, found.nonsense = True, absurd(values)
        except InputError as error:
            found.message = str(error).replace(str(folder), "")
        except Slow:
            found.fault = f"more than {LIMIT} s"
        except Exception as error:
            found.fault = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        if not found.fault and "Traceback" in noise.getvalue():
            found.fault = noise.getvalue()
        if sums(folder) != before:
            found.fault = found.fault or "changed files"
        return found

    def _command(self, folder: Path, rng, *, options: bool) -> Outcome:
        argv, names = COMMANDS[rng.integers(len(COMMANDS))]
        argv = list(argv)
        if options:
            argv = with_wrong_option(argv, rng)
            found = Outcome(f"jaxff {' '.join(argv)}")
        else:
            found = Outcome(f"jaxff {' '.join(argv)}; {self._damage(folder, names, rng)}")
        if "--json" not in " ".join(argv):
            argv += ["--json", "results.json"]
        before = sums(folder)
        status = None
        try:
            with limited(3 if argv[0] == "active" else 1):
                status, _, errors = command(argv, folder)
        except Slow:
            found.fault = f"more than {LIMIT} s"
        except Exception as error:
            found.fault = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        if status is not None:
            self._judge(found, status, errors, folder)
        self._look(found, status, argv, before, folder)
        return found

    def _judge(self, found: Outcome, status: int, errors: str, folder: Path) -> None:
        """Judge the exit status, messages and results of a command."""
        lines = [line for line in errors.splitlines() if line.strip()]
        found.accepted = status == 0
        found.message = lines[-1] if lines else ""
        if status == 1 and (len(lines) != 1 or not lines[0].startswith("jaxff ")):
            found.fault = "not one sentence:\n" + errors[:3000]
        if status not in (0, 1, 2):
            found.fault = f"exit status {status}"
        results = folder / "results.json"
        if status == 0 and results.is_file() and not_finite(json.loads(results.read_text())):
            found.nonsense = "results that are not finite"

    def _look(self, found: Outcome, status, argv, before, folder: Path) -> None:
        """Look for files that were changed or left."""
        after = sums(folder)
        outputs = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word in ("-o", "--output")]
        flags = ("--output=", "--json=", "--plot=")
        outputs += [word.split("=", 1)[1] for word in argv if word.startswith(flags)]
        mine = [o.strip("./") for o in outputs] + ["results.json"]

        def own(name: str) -> bool:
            made = [(f"{o}/", f"{o}.", f"{o}-") for o in mine]
            return name in mine or "" in mine or any(map(name.startswith, made))

        changed = [n for n in before if after.get(n) != before[n] and not own(n)]
        if changed:
            found.fault = found.fault or f"changed {', '.join(changed)}"
        left = [
            n for n in after.keys() - before.keys()
            if Path(n).name.startswith(".") or (not own(n) and n != "results.json")
        ]  # fmt: skip
        left += [
            str(p.relative_to(folder))
            for p in folder.rglob("*.part")
            if status == 0 or not any(p.iterdir() if p.is_dir() else [1])
        ]
        if left:
            found.fault = found.fault or f"left {', '.join(sorted(left))}"


@contextlib.contextmanager
def prepared():
    """A `Fuzzer` in a temporary folder, with a limit of memory."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder, previous = Path(name), tempfile.tempdir
        (folder / "tmp").mkdir()
        tempfile.tempdir = str(folder / "tmp")
        try:
            make_files(folder / "files")
            (folder / "scratch").mkdir()
            yield Fuzzer(folder / "files", folder / "scratch")
            left = sorted(p.name for p in (folder / "tmp").iterdir())
            assert not left, f"left in the folder of temporary files: {left}"
        finally:
            tempfile.tempdir = previous


def main() -> int:
    """Run cases, print those that failed, and return 1 if there are any or if cases are left."""
    parser = argparse.ArgumentParser(description="Run jaxff on damaged files and wrong options.")
    parser.add_argument("cases", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--results", type=Path, help="keep the outcomes here, and continue")
    arguments = parser.parse_args()
    until = time.monotonic() + 60.0 * arguments.minutes
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))
    jax.config.update("jax_enable_x64", True)
    file, outcomes = arguments.results, []
    if file and file.exists():
        outcomes = [Outcome(**json.loads(line)) for line in file.read_text().splitlines()]
    last = arguments.first + arguments.cases
    with prepared() as fuzzer:
        for number in range(arguments.first + len(outcomes), last):
            if time.monotonic() > until:
                break
            found = fuzzer.run(number)
            outcomes.append(found)
            if file:
                with file.open("a") as lines:
                    lines.write(json.dumps(asdict(found)) + "\n")
            if number % 50 == 49:
                jax.clear_caches()
    for found in outcomes:
        if found.fault or found.nonsense:
            print(f"{found.kind} {found.what}\n  {found.fault or found.nonsense}")
    counts = Counter(outcome.kind for outcome in outcomes)
    left = arguments.cases - len(outcomes)
    print(dict(counts), f"{left} cases left" if left else "all cases done")
    return int(bool(left or counts["fault"] or counts["nonsense"] >= 0.01 * len(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
