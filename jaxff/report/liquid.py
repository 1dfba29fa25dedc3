"""The page of results of a simulation of a liquid."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxff import units
from jaxff.analysis.averages import Estimate, equilibration, mean_and_error
from jaxff.analysis.coordinates import floating
from jaxff.analysis.distributions import radial_distributions
from jaxff.analysis.hydrogen_bonds import hydrogen_bonds
from jaxff.analysis.liquids import (
    compressibility,
    dielectric_constant,
    dipole_moments,
    enthalpies,
    mass_densities,
    molecule_pairs,
    thermal_expansion,
    volumes,
)
from jaxff.analysis.thermodynamics import heat_capacity_and_error
from jaxff.analysis.transport import (
    Diffusion,
    diffusion,
    finite_size_correction,
    molecular_centres,
)
from jaxff.cell import widths
from jaxff.errors import InputError
from jaxff.md.trajectory import read_trajectory
from jaxff.report import plot_liquid
from jaxff.report.page import Report

FEW_FRAMES = 20  # fewer frames have no standard errors
BIN = 0.05  # Å, width of the bins of g(r)
FARTHEST = 10.0  # Å, largest distance of g(r)
PAIRS = 5e7  # largest number of distances computed for each g(r)
FRAMES = 200  # largest number of frames in which hydrogen bonds are counted
CURVES, KINDS = 6, 4  # largest numbers of plotted g(r) and of kinds of molecules


class Quantity(NamedTuple):
    """A result: its name, value with standard error, and unit."""

    name: str
    value: Estimate
    unit: str


def write(
    folder,
    system: Any,
    trajectory: Any,
    *,
    temperature: float,
    pressure: float | None = None,
    viscosity: float | None = None,
    name: str = "liquid",
) -> list[Quantity]:
    """Analyse a simulation of a liquid, and write a page of pictures and numbers.

    The frames before the liquid is in equilibrium are left out; see `equilibration`.  Fluctuations
    of the volume are analysed only with a pressure.

    Args:
        folder: the folder of ``liquid.html`` and of the pictures ``liquid_*.png``.
        system: the `System`.
        trajectory: a trajectory file, a `Run`, or frames as `read_trajectory` returns them.
        temperature: K, of the thermostat.
        pressure: bar, of the barostat; None at constant volume.
        viscosity: mPa s, of the model, for the finite-size correction of diffusion coefficients;
            None: no correction.
        name: the start of the names of the files.

    Returns:
        The numbers on the page.

    Raises:
        InputError: the frames have no boxes, belong to another system, or are too few.
    """
    folder = Path(folder)
    frames = _frames(trajectory, system)
    density = np.asarray(mass_densities(frames["boxes"], system.masses), float)
    energies = frames["potential_energies"]
    start = equilibration(energies)
    if pressure is not None:
        start = max(start, equilibration(density))
    used = {key: x[start:] for key, x in frames.items()}
    page = Report(f"Simulation of {system.name or 'a liquid'}")
    numbers = _bulk(system, used, temperature, pressure)
    times = frames["times"]
    page.text(
        f"{', '.join(f'{n} {label}' for label, n in system.contents().items())}; "
        f"{len(times)} frames during {(times[-1] - times[0]) / 1e3:.4g} ps; the first "
        f"{(times[start] - times[0]) / 1e3:.4g} ps are not analysed. Errors are standard errors."
    )
    pictures: list[tuple[str, Any, str]] = []
    shown = {"density, g/cm³": density} if pressure is not None else {}
    shown |= {"temperature, K": frames["temperatures"], "potential energy,\nkcal/mol": energies}
    pictures.append(
        ("series", plot_liquid.series(times, shown, start), "Density, temperature and energy.")
    )
    pictures.append(_structure(system, used))
    dielectric = _dielectric(system, used, temperature)
    if isinstance(dielectric, str):
        page.text(dielectric)
    else:
        numbers.append(dielectric[0])
        pictures.append(dielectric[1])
    found, notes = _diffusion(system, used, temperature, viscosity)
    numbers += found[0]
    pictures.append(found[1])
    bonds = _bonds(system, used)
    if bonds is not None:
        numbers += bonds[0]
        pictures.append(bonds[1])
    page.heading("Numbers")
    page.table(
        ["quantity", "value", "standard error", "unit"],
        [[q.name, f"{q.value.mean:.4g}", f"{q.value.error:.2g}", q.unit] for q in numbers],
    )
    for note in notes:
        page.text(note)
    page.heading("Pictures")
    for key, figure, caption in pictures:
        path = folder / f"{name}_{key}.png"
        figure.savefig(path, dpi=130)
        page.picture(path, caption)
    page.write(folder / f"{name}.html")
    return numbers


def _frames(trajectory: Any, system: Any) -> dict[str, np.ndarray]:
    """The frames as arrays, checked."""
    if isinstance(trajectory, str | Path):
        trajectory = read_trajectory(trajectory, system)
    if not isinstance(trajectory, Mapping):
        trajectory = vars(trajectory)
    wanted = ("positions", "boxes", "potential_energies", "kinetic_energies", "temperatures",
              "times")  # fmt: skip
    missing = [key for key in wanted if trajectory.get(key) is None]
    if missing:
        raise InputError(
            f"the analysis of a liquid needs {', '.join(missing)}; record frames of a system in a "
            "box, in a file other than dcd"
        )
    frames = {key: np.asarray(trajectory[key]) for key in wanted}
    if frames["positions"].shape[1:] != (len(system), 3):
        raise InputError(
            f"the frames have shape {frames['positions'].shape}, but the system has "
            f"{len(system)} particles"
        )
    if len(frames["times"]) < FEW_FRAMES:
        raise InputError(
            f"the analysis of a liquid needs at least {FEW_FRAMES} frames, not "
            f"{len(frames['times'])}; simulate longer, or record more frames"
        )
    return frames


def _bulk(system, frames, temperature, pressure) -> list[Quantity]:
    """Temperature, density, and fluctuations of volume and energy."""
    boxes, energies = frames["boxes"], frames["potential_energies"]
    kinetic, hot = frames["kinetic_energies"], frames["temperatures"]
    freedom = float(np.round(np.median(2.0 * kinetic / (units.BOLTZMANN * hot))))
    molecules = int(system.molecules.max()) + 1
    out = [
        Quantity("temperature", mean_and_error(hot), "K"),
        Quantity("density", mean_and_error(mass_densities(boxes, system.masses)), "g/cm³"),
        Quantity("potential energy per molecule", mean_and_error(energies / molecules),
                 "kcal/mol"),
    ]  # fmt: skip
    if pressure is None:
        out[1] = out[1]._replace(value=Estimate(out[1].value.mean, 0.0))
        heat, label = energies, "heat capacity per molecule, constant volume"
    else:
        heat, label = enthalpies(energies, boxes, pressure), "heat capacity per molecule"
        squeezed = compressibility(boxes, temperature)
        grown = thermal_expansion(boxes, heat, temperature)
        out += [
            Quantity("compressibility", _scaled(squeezed, 1e6), "10⁻⁶/bar"),
            Quantity("thermal expansion", _scaled(grown, 1e4), "10⁻⁴/K"),
        ]
    capacity = heat_capacity_and_error(heat, temperature, freedom)
    out.append(Quantity(label, _scaled(capacity, 1e3 / molecules), "cal/mol/K"))
    return out


def _structure(system, frames) -> tuple[str, Any, str]:
    """The picture of pair distribution functions of the most frequent elements."""
    symbols = np.array(system.symbols)
    elements, counts = np.unique(symbols[system.numbers > 0], return_counts=True)
    order = sorted(zip(elements, counts, strict=True), key=lambda one: (one[0] == "H", -one[1]))
    pairs: dict[str, np.ndarray] = {}
    for a, b in combinations_with_replacement([str(element) for element, _ in order], 2):
        try:
            pairs[f"{a}–{b}"] = molecule_pairs(system, a, b)
        except InputError:
            continue  # one atom, or atoms of one molecule
    largest = sorted(pairs, key=lambda label: -len(pairs[label]))[:CURVES]
    reach = min(FARTHEST, 0.5 * widths(frames["boxes"]).min() - 1e-6)
    edges = np.arange(0.0, reach, BIN)
    curves = {}
    for label in (label for label in pairs if label in largest):
        some = _spaced(len(frames["boxes"]), PAIRS / len(pairs[label]))
        g = radial_distributions(
            frames["positions"][some], pairs[label], edges, frames["boxes"][some]
        )
        curves[label] = mean_and_error(g)
    figure = plot_liquid.pair_distributions(edges, curves)
    return "structure", figure, (
        "Pair distribution functions of atoms of different molecules, with two standard errors."
    )  # fmt: skip


def _dielectric(system, frames, temperature):
    """The dielectric constant and its picture, or why there is none."""
    try:
        charges = system.tables.charges
        dipoles = np.asarray(dipole_moments(frames["positions"], charges, system.molecules))
    except InputError:
        return "The dielectric constant is not computed, because molecules are charged."
    if not np.abs(dipoles).max() > 1e-6:
        return "The dielectric constant is not computed, because no molecule has a dipole moment."
    value = dielectric_constant(dipoles, frames["boxes"], temperature)
    size = np.asarray(volumes(frames["boxes"]), float)
    count = np.arange(1, len(dipoles) + 1)
    moment = np.cumsum(dipoles, axis=0) / count[:, None]
    square = np.cumsum((dipoles**2).sum(axis=1)) / count
    change = (square - (moment**2).sum(axis=1)) / (np.cumsum(size) / count)
    running = 1.0 + change * float(value.mean - 1.0) / change[-1]
    figure = plot_liquid.convergence(frames["times"], running, value, "dielectric constant")
    caption = "Dielectric constant from the frames up to each time, and its final standard error."
    return Quantity("dielectric constant", value, ""), ("dielectric", figure, caption)


def _diffusion(system, frames, temperature, viscosity):
    """Diffusion coefficients of the most frequent molecules, their picture, and notes."""
    centres = molecular_centres(frames["positions"], frames["boxes"], system)
    kinds, examples = system.kinds
    labels = list(system.contents())
    found: dict[str, Diffusion] = {}
    for kind in np.argsort(-np.bincount(kinds), kind="stable")[:KINDS]:
        label = system.residue_names[system.residues[examples[kind][0]]]
        label = next((text for text in labels if text.startswith(f"{label} ")), label)
        found[label] = diffusion(frames["times"], centres[:, kinds == kind])
    numbers, notes = [], []
    correction = None
    if viscosity is not None:
        correction = finite_size_correction(frames["boxes"].mean(axis=0), temperature, viscosity)
        notes.append(
            f"Corrected diffusion coefficients include {correction:.3g} × 10⁻⁹ m²/s for the finite "
            f"box with a viscosity of {viscosity:g} mPa s (Yeh and Hummer, 2004)."
        )
    for label, one in found.items():
        if one.coefficient is None:
            notes.append(f"No diffusion coefficient of {label}: {one.reason}.")
            continue
        value = one.coefficient
        numbers.append(Quantity(f"diffusion of {label}, in this box", value, "10⁻⁹ m²/s"))
        if correction is not None:
            value = Estimate(value.mean + correction, value.error)
            numbers.append(Quantity(f"diffusion of {label}, corrected", value, "10⁻⁹ m²/s"))
    caption = "Mean square displacements of molecular centres, and fitted lines (dashed)."
    figure = plot_liquid.displacements(found)
    return (numbers, ("diffusion", figure, caption)), notes


def _bonds(system, frames):
    """Numbers of hydrogen bonds per molecule and their picture; None without donors."""
    some = _spaced(len(frames["times"]), FRAMES)
    counts = hydrogen_bonds(system, frames["positions"][some], frames["boxes"][some])
    molecules = int(system.molecules.max()) + 1
    per_molecule = {label: x / molecules for label, x in counts.items() if x.any()}
    if not per_molecule:
        return None
    numbers = [
        Quantity(f"hydrogen bonds {label} per molecule", mean_and_error(x), "")
        for label, x in per_molecule.items()
    ]
    figure = plot_liquid.series(
        frames["times"][some], {f"{label}\nper molecule": x for label, x in per_molecule.items()}
    )
    caption = (
        "Hydrogen bonds between molecules, divided by the number of molecules: donor and acceptor "
        "within 3.5 Å, angle hydrogen–donor–acceptor below 30° (Luzar and Chandler, 1996)."
    )
    return numbers, ("bonds", figure, caption)


def _spaced(count: int, most: float) -> slice:
    """Every kth of `count` frames, at most about `most` but at least two."""
    return slice(None, None, max(1, min(int(np.ceil(count / max(most, 2.0))), count // 2)))


def _scaled(value: Estimate, factor: float) -> Estimate:
    return Estimate(*(floating(x) * factor for x in value))
