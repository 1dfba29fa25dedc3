"""Command that scans energies along internal coordinates."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from jaxff.commands.folders import writable_folder
from jaxff.commands.options import atoms, count, frcmod_of, positive, surface_options
from jaxff.commands.shared import (
    extrapolation_of,
    load_surface,
    load_surface_and_start,
    say_extrapolation,
    say_unknown,
    write_geometries,
)
from jaxff.errors import InputError

HELP = "Scan the energy along one or two internal coordinates, rigid or relaxed."
MORE = "Atoms are counted from 0. Writes the energies (npz), the geometries (xyz) and a plot."
EXAMPLE = "jaxff scan model.npz start.xyz --torsion 0,1,2,8 --torsion 3,0,1,2 --relax -o scan"


def options(sub) -> None:
    surface_options(sub)
    for name, number in (("torsion", 4), ("angle", 3), ("distance", 2)):
        sub.add_argument(
            f"--{name}", dest="coordinates", action="append", type=atoms(number),
            metavar=",".join("IJKL"[:number]), help="coordinate to scan; may be repeated",
        )  # fmt: skip
    sub.add_argument(
        "--range", action="append", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="range of each coordinate, degrees or Å (default for torsions: a full turn)",
    )  # fmt: skip
    sub.add_argument(
        "--points", type=positive(int), default=36, help="number of points of each coordinate"
    )
    sub.add_argument(
        "--relax", action="store_true", help="minimise all other degrees of freedom at each point"
    )
    sub.add_argument(
        "--sweeps", type=count, default=3,
        help="largest number of further minimisations from neighbouring points (default 3)",
    )  # fmt: skip
    sub.add_argument(
        "--tolerance", type=positive(float), default=1e-3,
        help="largest force on an atom at convergence, kcal/mol/Å (default 1e-3)",
    )  # fmt: skip
    sub.add_argument(
        "--max-steps", type=positive(int), default=1000,
        help="largest number of steps in each minimisation (default 1000)",
    )  # fmt: skip
    sub.add_argument(
        "--minus", metavar="OTHER_MODEL", help="also scan this model, and plot the difference"
    )
    sub.add_argument(
        "--highest", type=positive(float), metavar="E",
        help="highest energy in the plot, kcal/mol (default: the highest energy, at most 40)",
    )  # fmt: skip
    sub.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")


def run(arguments, console) -> dict:
    from jaxff.analysis import as_surface, scan
    from jaxff.md import Descent
    from jaxff.reference.cached import resumable
    from jaxff.reference.calculators import Method
    from jaxff.report import plot_surfaces

    out = writable_folder(arguments.output)
    coordinates = [tuple(c) for c in arguments.coordinates or ()]
    ranges = arguments.range or [None] * len(coordinates)
    if len(coordinates) not in (1, 2) or len(ranges) != len(coordinates):
        raise InputError(
            f"{len(coordinates)} coordinates and {len(arguments.range or ())} ranges: give one or "
            "two coordinates (--torsion, --angle or --distance), and one --range for each "
            "coordinate or, for torsions, no --range"
        )
    first, surface, molecule = load_surface_and_start(arguments)
    methods, surfaces = [first], [surface]
    if arguments.minus:
        companions = frcmod_of(arguments.minus, arguments)
        methods.append(Method(arguments.minus, {}, tuple(arguments.trust), companions))
        surfaces.append(load_surface(methods[1], molecule))
    for method, surface in zip(methods, surfaces, strict=True):
        say_unknown(console, method.name, surface, arguments.on_extrapolation)
    values = [_values(c, r, arguments.points) for c, r in zip(coordinates, ranges, strict=True)]
    descent = Descent(tolerance=arguments.tolerance, max_steps=arguments.max_steps)
    scans, files = {}, []
    with ExitStack() as stack:  # keeps the results of the first calculator until both are done
        stems = ("scan", "minus")[: len(methods)]
        for stem, name, method, surface in zip(
            stems, _names(methods), methods, surfaces, strict=True
        ):
            console(f"scan {name}", 0.0)
            scans[name] = scan(
                stack.enter_context(resumable(method, surface, molecule, out / f"{stem}.npz")),
                molecule, coordinates, values, arguments.relax, sweeps=arguments.sweeps,
                descent=descent,
                progress=lambda _, fraction, name=name: console(f"scan {name}", fraction),
            )  # fmt: skip
            console.close()
        for earlier in ("minus.npz", "minus.xyz"):
            (out / earlier).unlink(missing_ok=True)
        for stem, one in zip(stems, scans.values(), strict=True):
            one.save(out / f"{stem}.npz")
            _write_frames(out / f"{stem}.xyz", one, molecule)
            files += [out / f"{stem}.npz", out / f"{stem}.xyz"]
        draw = plot_surfaces.energy_curves if len(values) == 1 else plot_surfaces.energy_maps
        draw(scans, arguments.highest).savefig(out / "scan.png", dpi=130)
    files.append(out / "scan.png")
    results = _summary(scans, arguments.highest, console)
    for (name, one), surface in zip(scans.items(), surfaces, strict=True):
        surface, R = as_surface(surface, molecule), one.positions.reshape(-1, molecule.n_atoms, 3)
        outside = extrapolation_of(arguments, name, surface, R, one.energies.ravel())
        shown = say_extrapolation(console, name, outside, "points")
        results["models"][name]["extrapolation"] = shown
    console.say(f"wrote {', '.join(map(str, files))}")
    return {**results, "files": [str(file) for file in files]}


def _summary(scans: dict, highest: float | None, console) -> dict:
    """Print and return the range and lowest point of each scan, and the difference of two scans.

    `highest` is the highest energy in the plot, kcal/mol.
    """
    import numpy as np

    from jaxff.report.plot_surfaces import shown_difference, shown_values

    results: dict = {"coordinates": next(iter(scans.values())).names, "models": {}}
    for name, one in scans.items():
        low, high = float(np.nanmin(one.energies)), float(np.nanmax(one.relative))
        place = np.unravel_index(np.nanargmin(one.relative), one.relative.shape)
        where = [float(shown_values(one, k)[i]) for k, i in enumerate(place)]
        failed = int((~one.converged).sum())
        what = ", ".join(f"{label} {v:.4g}" for label, v in zip(one.names, where, strict=True))
        console.say(f"{name}: 0 to {high:.4g} kcal/mol, lowest at {what}")
        if failed:
            console.say(
                f"{name}: {failed} of {one.converged.size} points have not converged; raise "
                "--max-steps or --tolerance"
            )
        results["models"][name] = {
            "lowest": low, "range": high, "lowest_at": where, "points": one.converged.size,
            "not_converged": failed,
        }  # fmt: skip
    if len(scans) == 2:
        off = shown_difference(scans, highest)
        low, high = results["difference"] = [float(np.nanmin(off)), float(np.nanmax(off))]
        console.say(
            f"difference of the two models: {low:.4g} to {high:.4g} kcal/mol at points where both "
            "energies are in the plot"
        )
    return results


def _values(atoms, limits, points: int):
    """Return the values of a coordinate, (points,) rad or Å.

    `limits` are the lowest and highest value, degrees or Å, or None for a full turn of a torsion.
    """
    import numpy as np

    if limits is None:
        if len(atoms) != 4:
            name = "angle" if len(atoms) == 3 else "distance"
            raise InputError(
                f"--{name} {','.join(map(str, atoms))} has no range: add --range LOW HIGH"
            )
        return np.radians(-180.0 + 360.0 * np.arange(points) / points)
    low, high = limits
    shown = np.linspace(low, high, points)
    return shown if len(atoms) == 2 else np.radians(shown)


def _names(methods) -> list[str]:
    """Return the names of methods: file names without suffix, or numbered names if equal."""
    stems = [Path(m.name).stem if Path(m.name).is_file() else m.name for m in methods]
    whole = [f"{m.name} ({i})" for i, m in enumerate(methods)]
    return stems if len(set(stems)) == len(stems) else whole


def _write_frames(path, scan, molecule) -> None:
    """Write the geometries of a scan, with energies and coordinates in the comment lines."""
    import numpy as np

    from jaxff.report.plot_surfaces import shown_values

    axes = [shown_values(scan, k) for k in range(len(scan.values))]
    places = list(np.ndindex(*scan.energies.shape))
    infos = [
        {
            "coordinates": [float(axis[i]) for axis, i in zip(axes, place, strict=True)],
            "energy_kcal_mol": float(scan.energies[place]),
            "converged": bool(scan.converged[place]),
        }
        for place in places
    ]
    write_geometries(path, molecule, [scan.positions[place] for place in places], infos)
