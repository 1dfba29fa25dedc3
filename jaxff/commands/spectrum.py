"""Command that computes vibrational spectra from molecular dynamics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxff import units
from jaxff.commands.folders import writable_folder
from jaxff.commands.options import not_negative, positive
from jaxff.errors import InputError

if TYPE_CHECKING:
    from jaxff.analysis.spectra import Spectrum

HELP = "Compute the vibrational density of states, the peaks, and shifts with temperature."
MORE = "Errors are estimated from replicas and from blocks of each trajectory."
EXAMPLE = "jaxff spectrum run-100K run-300K -o spectra"

FORMAT = "jaxff spectra 1"
BLOCKS = 4  # fewest for errors that are worth reading
FASTEST = 4000.0  # cm⁻¹: above the stretches of hydrogen, up to about 3,800 cm⁻¹


class Sampled(NamedTuple):
    """Trajectories of R replicas at one temperature, with F frames of N atoms."""

    numbers: np.ndarray  # (N,) atomic numbers
    positions: np.ndarray  # (R, F, N, 3) Å
    velocities: np.ndarray  # (R, F, N, 3) Å/fs
    dt: float  # time between frames, fs
    step: float | None  # time step of the dynamics, fs; None if unknown


def options(sub) -> None:
    sub.add_argument(
        "runs", metavar="DIR-OF-MD", nargs="+",
        help="folders that `jaxff md` wrote; shifts are relative to the lowest temperature",
    )  # fmt: skip
    sub.add_argument(
        "--resolution", type=positive(float), metavar="CM-1",
        help="resolution, cm-1 (default: 5, or coarser for short trajectories)",
    )  # fmt: skip
    sub.add_argument(
        "--window", choices=("hann", "blackman", "none"), default="hann",
        help="window of the correlation function",
    )  # fmt: skip
    sub.add_argument(
        "--skip", type=not_negative, default=0.0, metavar="FS",
        help="time omitted at the start, fs",
    )  # fmt: skip
    sub.add_argument(
        "--within",
        type=positive(float),
        default=40.0,
        metavar="CM-1",
        help="largest shift of a peak between two spectra, cm-1",
    )
    sub.add_argument(
        "--highest", type=positive(float), default=4000.0, metavar="CM-1",
        help="highest wavenumber in the plot, cm-1",
    )  # fmt: skip
    sub.add_argument(
        "--keep-rotation", action="store_true", help="keep the overall rotation of the molecule"
    )
    sub.add_argument(
        "--no-step-correction", action="store_true",
        help="keep the shift due to the time step (19 cm-1 at 3700 cm-1 and 0.5 fs)",
    )  # fmt: skip
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")


def run(arguments, console) -> dict:
    from ase.data import atomic_masses_iupac2016

    from jaxff.analysis.spectra import peak_shifts, spectrum
    from jaxff.report import plot_sampling

    out = writable_folder(arguments.output)
    samples: dict[str, tuple[float, Sampled]] = {}
    atoms = None
    for i, folder in enumerate(arguments.runs):
        console("read", i / len(arguments.runs))
        for temperature, files in sorted(temperatures(Path(folder)).items()):
            sampled = read(files, arguments.skip)
            if atoms is not None and not np.array_equal(atoms, sampled.numbers):
                raise InputError(
                    f"{folder} and {arguments.runs[0]} contain different molecules: give folders "
                    "of one molecule"
                )
            atoms = sampled.numbers
            label = f"{Path(folder).name}, {temperature:g} K"
            if label in samples:
                raise InputError(
                    f"{folder}: another folder has the same name and temperature; rename one of "
                    "the two folders"
                )
            samples[label] = temperature, sampled
    spectra = {}
    for label, (_, sampled) in sorted(samples.items(), key=lambda item: item[1][0]):
        console("spectra", len(spectra) / len(samples))
        spectra[label] = spectrum(
            sampled.velocities,
            atomic_masses_iupac2016[atoms],
            sampled.dt,
            positions=None if arguments.keep_rotation else sampled.positions,
            resolution=arguments.resolution,
            window=arguments.window,
            step=None if arguments.no_step_correction else sampled.step,
        )
    console.close()
    rows = peak_shifts(list(spectra.values()), arguments.within)
    files = [*write(out, spectra, rows), out / "spectrum.png"]
    plot_sampling.spectra(spectra, arguments.highest).savefig(files[-1], dpi=130)
    first = next(iter(spectra.values()))
    console.say(
        f"resolution {first.resolution:.3g} cm⁻¹, "
        + (
            f"errors from {first.n_blocks} blocks"
            if first.n_blocks > 1
            else "no errors, because the trajectories are too short (run more steps)"
        )
    )
    shown = [[_with_error(p.wavenumber, p.error) for p in row["peaks"][:1]] for row in rows]
    for cells, row in zip(shown, rows, strict=True):
        shifts = zip(row["shifts"][1:], row["errors"][1:], strict=True)
        cells += [_with_error(shift, error, "+") for shift, error in shifts]
    names = list(spectra)
    console.table([f"peaks of {names[0]}, cm⁻¹", *(f"shift at {n}" for n in names[1:])], shown)
    for label, one in spectra.items():
        if (doubt := too_short(label, samples[label][1], one, arguments.resolution)) is not None:
            console.say(doubt)
    console.say(f"wrote {', '.join(map(str, files))}")
    return {
        "spectra": {
            label: {
                "resolution": one.resolution,
                "blocks": one.n_blocks,
                "peaks": [peak._asdict() for peak in one.peaks],
            }
            for label, one in spectra.items()
        },
        "shifts": [{"shifts": row["shifts"], "errors": row["errors"]} for row in rows],
        "files": [str(path) for path in files],
    }


def temperatures(folder: Path) -> dict[float, list[Path]]:
    """Return the trajectory files of an output folder of `jaxff md`, by temperature, K.

    Raises:
        InputError: the folder is missing or contains no trajectory files, the temperature was not
            constant, or the trajectories contain no velocities.
    """
    from jaxff.npz import NpzReader

    restart = folder / "restart.npz"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder that `jaxff md` wrote")
    if not restart.is_file():
        raise InputError(f"{folder} contains no restart.npz: give a folder that `jaxff md` wrote")
    try:
        request = json.loads(NpzReader(restart, "restart file").text("header"))["request"]
        name, replicas = request["trajectory"], request["replicas"]
        ramp, temperature = request["steps of the ramp"], request["temperature"]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{restart} is not a restart file of this version of jaxff: run `jaxff md` again"
        ) from error
    if ramp is not None:
        raise InputError(
            f"{folder}: the temperature changed during the run, but a spectrum needs a constant "
            "temperature; run `jaxff md` without --final-temperature"
        )
    if name is None or Path(name).suffix == ".dcd":
        raise InputError(
            f"{folder}: the trajectory contains no velocities; run `jaxff md` with --format extxyz "
            "or h5"
        )
    stem, suffix = Path(name).stem, Path(name).suffix
    names = [name] if replicas is None else [f"{stem}-{r}{suffix}" for r in range(replicas)]
    groups: dict[float, list[Path]] = {}
    for file, kelvin in zip(names, np.broadcast_to(temperature, len(names)).tolist(), strict=True):
        groups.setdefault(kelvin, []).append(folder / file)
    return groups


def read(files: list[Path], skip: float) -> Sampled:
    """Read the trajectories of replicas.

    Args:
        files: one trajectory for each replica.
        skip: time omitted at the start, fs.

    Raises:
        InputError: too few frames, or frames too far or unevenly spaced in time.
    """
    from jaxff.md import read_trajectory

    frames = [read_trajectory(path) for path in files]
    times = frames[0]["times"]
    kept = times >= times[0] + skip
    if kept.sum() < 16:
        raise InputError(
            f"{files[0]}: {kept.sum()} frames are left, but a spectrum needs at least 16; "
            "lower --skip, or run more steps"
        )
    gaps = np.diff(times[kept])
    if np.ptp(gaps) > 1e-6 * gaps[0] or any(len(f["times"]) != len(times) for f in frames):
        raise InputError(
            f"{files[0]}: frames are unevenly spaced in time, or the replicas have different "
            "numbers of frames; run `jaxff md` again with --overwrite"
        )
    numbers = _numbers(files[0])
    dt, step = float(gaps[0]), None
    if "steps" in frames[0]:
        step = dt / float(np.diff(frames[0]["steps"][kept])[0])
    highest = 0.5 * units.WAVENUMBER_PER_FS / dt
    if 1 in numbers and highest < FASTEST:
        raise InputError(
            f"{files[0]}: frames {dt:g} fs apart resolve wavenumbers only up to {highest:.0f} "
            "cm⁻¹, below the stretches of hydrogen; run `jaxff md` with --record-every "
            f"{max(int(dt / (step or dt) * highest / FASTEST), 1)} or less"
        )
    positions, velocities = (
        np.stack([f[key][kept] for f in frames]) for key in ("positions", "velocities")
    )
    return Sampled(numbers, positions, velocities, dt, step)


def too_short(label: str, sampled: Sampled, found: Spectrum, wanted: float | None) -> str | None:
    """Return a warning if trajectories are too short for their spectrum, or None.

    They are too short if the resolution is coarser than the wanted one (`RESOLUTION` for None), or
    if there are fewer than `BLOCKS` blocks of time and replicas.
    """
    from jaxff.analysis.spectra import RESOLUTION

    aim = wanted or RESOLUTION
    if found.resolution < 1.05 * aim and found.n_blocks >= BLOCKS:
        return None
    replicas, frames = sampled.velocities.shape[:2]
    longest = 1e-3 * frames * sampled.dt
    segment = 1e-3 * units.WAVENUMBER_PER_FS / aim
    least = max(segment, 2 * BLOCKS * segment / replicas)
    return (
        f"warning: {label}: a trajectory of {longest:.3g} ps cannot separate lines less than "
        f"{1e-3 * units.WAVENUMBER_PER_FS / longest:.3g} cm⁻¹ apart; this spectrum separates "
        f"{found.resolution:.3g} cm⁻¹, from {found.n_blocks} block{'s' * (found.n_blocks > 1)}, "
        f"so that peaks and errors are rough: for {aim:g} cm⁻¹ and {BLOCKS} blocks, run `jaxff md` "
        f"for {least:.3g} ps" + (f" with {replicas} replicas" if replicas > 1 else "")
    )


def write(out: Path, spectra: dict, rows: list[dict]) -> list[Path]:
    """Write spectra.npz, spectra.csv and peaks.csv to a folder, and return their paths.

    Args:
        out: the folder.
        spectra: the `Spectrum` of each trajectory by label.
        rows: peaks and their shifts from `peak_shifts`.
    """
    from jaxff.npz import atomic_path, write_npz

    arrays = {"format": np.array(FORMAT), "units": np.array("cm-1, 1/cm-1")}
    arrays["labels"] = np.array(list(spectra))
    lines = ["label,wavenumber (1/cm),density (cm),error (cm)"]
    for i, (label, one) in enumerate(spectra.items()):
        columns = {"wavenumbers": one.wavenumbers, "density": one.density, "error": one.error}
        arrays |= {f"{key}_{i}": column for key, column in columns.items()}
        arrays[f"peaks_{i}"] = np.array(one.peaks).reshape(-1, 3)
        table = np.stack(list(columns.values()), axis=1).tolist()
        lines += [f'"{label}",{x:.4f},{y:.8g},{e:.8g}' for x, y, e in table]
    peaks = ["label,wavenumber (1/cm),error (1/cm),shift (1/cm),error of the shift (1/cm)"]
    for i, label in enumerate(spectra):
        for row in rows:
            if (peak := row["peaks"][i]) is not None:
                values = (peak.wavenumber, peak.error, row["shifts"][i], row["errors"][i])
                peaks.append(f'"{label}",' + ",".join(f"{value:.3f}" for value in values))
    write_npz(out / "spectra.npz", arrays)
    for name, text in (("spectra.csv", lines), ("peaks.csv", peaks)):
        with atomic_path(out / name) as temporary:
            temporary.write_text("\n".join(text) + "\n")
    return [out / name for name in ("spectra.npz", "spectra.csv", "peaks.csv")]


def _numbers(path: Path) -> np.ndarray:
    """Read the atomic numbers (N,) of a trajectory file."""
    from jaxff.molecule import Molecule

    if path.suffix in (".extxyz", ".xyz"):
        return Molecule.read(path).numbers
    import h5py

    from jaxff.md.h5md import GROUP

    with h5py.File(path, "r") as file:
        return np.asarray(file[f"{GROUP}/species"]).astype(int)


def _with_error(value: float, error: float, sign: str = "") -> str:
    if np.isnan(value):
        return "-"
    return f"{value:{sign}.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")
