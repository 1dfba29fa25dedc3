"""Energies along internal coordinates."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from jaxff.commands.options import atoms, count, positive, surface_options
from jaxff.commands.shared import load_surface, load_surface_and_start, writable_folder
from jaxff.errors import InputError

HELP = "Energies along one or two internal coordinates, rigid or relaxed."
MORE = "Atoms are counted from 0. Writes the scan (npz), its geometries (xyz) and a picture."
EXAMPLE = "jaxff scan model.npz start.xyz --torsion 0,1,2,8 --torsion 3,0,1,2 --relax -o scan"


def options(sub) -> None:
    surface_options(sub)
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


def run(arguments, console) -> dict:
    import numpy as np

    from jaxff.analysis import scan
    from jaxff.md import Descent
    from jaxff.reference.cached import resumable
    from jaxff.reference.calculators import Method
    from jaxff.report import plot_surfaces

    out = writable_folder(arguments.output)
    coordinates = [tuple(c) for c in arguments.coordinates or ()]
    ranges = arguments.range or [None] * len(coordinates)
    if len(coordinates) not in (1, 2) or len(ranges) != len(coordinates):
        raise InputError(
            "give one or two of --torsion, --angle and --distance, and one --range for each of "
            "them if any (an angle or a distance has no other)"
        )
    first, surface, molecule = load_surface_and_start(arguments)
    methods, surfaces = [first], [surface]
    if arguments.minus:
        methods.append(Method(arguments.minus))
        surfaces.append(load_surface(methods[1], molecule))
    values = [_values(c, r, arguments.points) for c, r in zip(coordinates, ranges, strict=True)]
    draw = plot_surfaces.energy_curves if len(values) == 1 else plot_surfaces.energy_maps
    found, files, stems = {}, [], ("scan", "minus")[: len(methods)]
    with ExitStack() as stack:  # what the first has computed is kept until the second is done
        for stem, name, method, surface in zip(
            stems, _names(methods), methods, surfaces, strict=True
        ):
            console(f"scan {name}", 0.0)
            found[name] = scan(
                stack.enter_context(resumable(method, surface, molecule, out / f"{stem}.npz")),
                molecule, coordinates, values, arguments.relax, sweeps=arguments.sweeps,
                descent=Descent(tolerance=arguments.tolerance, max_steps=arguments.max_steps),
                progress=lambda _, fraction, name=name: console(f"scan {name}", fraction),
            )  # fmt: skip
            console.close()
        for earlier in ("minus.npz", "minus.xyz"):
            (out / earlier).unlink(missing_ok=True)
        for stem, one in zip(stems, found.values(), strict=True):
            one.save(out / f"{stem}.npz")
            _write_frames(out / f"{stem}.xyz", one, molecule)
            files += [out / f"{stem}.npz", out / f"{stem}.xyz"]
        draw(found, arguments.highest).savefig(out / "scan.png", dpi=130)
    results = {"coordinates": next(iter(found.values())).names, "models": {}}
    for name, one in found.items():
        low, high = float(np.nanmin(one.energies)), float(np.nanmax(one.relative))
        place = np.unravel_index(np.nanargmin(one.relative), one.relative.shape)
        where = [float(plot_surfaces.shown_values(one, k)[i]) for k, i in enumerate(place)]
        lost = int((~one.converged).sum())
        what = ", ".join(f"{label} {v:.4g}" for label, v in zip(one.names, where, strict=True))
        console.say(f"{name}: 0 to {high:.4g} kcal/mol, lowest at {what}")
        if lost:
            console.say(f"{name}: {lost} of {one.converged.size} points have not converged")
        results["models"][name] = {
            "lowest": low, "range": high, "lowest_at": where, "points": one.converged.size,
            "not_converged": lost,
        }  # fmt: skip
    if len(found) == 2:
        off = plot_surfaces.shown_difference(found, arguments.highest)
        results["difference"] = [float(np.nanmin(off)), float(np.nanmax(off))]
        low, high = results["difference"]
        console.say(f"difference {low:.4g} to {high:.4g} kcal/mol, where both are on the scale")
    files.append(out / "scan.png")
    console.say(f"wrote {', '.join(map(str, files))}")
    return {**results, "files": [str(file) for file in files]}


def _values(atoms, limits, points: int):
    """Radians or Å: once around for a torsion without limits, else both ends and between."""
    import numpy as np

    if limits is None:
        if len(atoms) != 4:
            raise InputError(
                f"{'angle' if len(atoms) == 3 else 'distance'} {atoms} needs a --range"
            )
        return np.radians(-180.0 + 360.0 * np.arange(points) / points)
    low, high = limits
    degrees = np.linspace(low, high, points)
    return degrees if len(atoms) == 2 else np.radians(degrees)


def _names(methods) -> list[str]:
    stems = [Path(m.name).stem if Path(m.name).is_file() else m.name for m in methods]
    whole = [f"{m.name} ({i})" for i, m in enumerate(methods)]
    return stems if len(set(stems)) == len(stems) else whole


def _write_frames(path, scan, molecule) -> None:
    """The geometries as extended xyz, with energies and coordinates in the comment lines."""
    import ase.io
    import numpy as np

    from jaxff.npz import atomic_path
    from jaxff.report.plot_surfaces import shown_values

    axes = [shown_values(scan, k) for k in range(len(scan.values))]
    frames = []
    for index in np.ndindex(*scan.energies.shape):
        atoms = molecule.with_positions(scan.positions[index]).to_ase()
        # Not "energy", which ASE would take to be in eV.
        atoms.info |= {
            "coordinates": [float(axis[i]) for axis, i in zip(axes, index, strict=True)],
            "energy_kcal_mol": float(scan.energies[index]),
            "converged": bool(scan.converged[index]),
        }
        frames.append(atoms)
    with atomic_path(path) as temporary:
        ase.io.write(temporary, frames, "extxyz")
