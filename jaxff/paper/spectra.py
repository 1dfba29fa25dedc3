"""Fig. 6: vibrational densities of states (VDOS) of ethanol at several temperatures."""

from __future__ import annotations

import numpy as np

from jaxff import md
from jaxff.analysis import Estimate, Spectrum, spectrum
from jaxff.dataset import Dataset
from jaxff.npz import write_npz
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.verdicts import judged, minus, shown
from jaxff.potential import Potential
from jaxff.report import plot_sampling

MOLECULE = "ethanol"
TEMPERATURES = (100.0, 200.0, 300.0, 400.0)
WINDOWS = {  # cm⁻¹
    "rotors": (20.0, 500.0),
    "fingerprint": (500.0, 1500.0),
    "stretches": (2500.0, 4500.0),
}
STEP = 0.5  # fs
EVERY = 4  # steps between frames: 2 fs
SAMPLES = 200  # draws that propagate the errors of the density


def run(setting: Setting) -> Result:
    """Spectra of NVE dynamics after Langevin dynamics, compared by windows."""
    data, folder = setting.dataset(MOLECULE), setting.place("fig6")
    models = {"sGDML": setting.kernel(MOLECULE), "GAFF": setting.gaff(MOLECULE)}
    temperatures = setting.size(TEMPERATURES, (100.0, 400.0))
    spectra_of: dict[str, list[Spectrum]] = {}
    pictures = []
    for name, potential in models.items():
        spectra_of[name] = [_spectrum(setting, potential, data, name, t) for t in temperatures]
        shown_by = {f"{t:g} K": s for t, s in zip(temperatures, spectra_of[name], strict=True)}
        caption = (
            f"VDOS of ethanol, {name}: bands are two standard errors, dotted lines mark the peaks "
            f"at {temperatures[0]:g} K."
        )
        figure = plot_sampling.spectra(shown_by)
        pictures.append(picture(folder, f"vdos_{name.lower()}.png", figure, caption))
        arrays = {
            f"{label} {field}": getattr(s, field)
            for field in ("wavenumbers", "density", "error")
            for label, s in shown_by.items()
        }
        write_npz(folder / f"vdos_{name.lower()}.npz", arrays)
    shifts = {
        name: {w: shift(spectra[0], spectra[-1], *limits) for w, limits in WINDOWS.items()}
        for name, spectra in spectra_of.items()
    }
    apart = {
        w: [
            displacement(a, b, *limits)
            for a, b in zip(spectra_of["sGDML"], spectra_of["GAFF"], strict=True)
        ]
        for w, limits in WINDOWS.items()
    }
    coldest, hottest = temperatures[0], temperatures[-1]
    headers = [f"{name}, {low:g} to {high:g} cm⁻¹" for name, (low, high) in WINDOWS.items()]
    return Result(
        "Fig. 6: vibrational density of states of ethanol",
        f"{data.theory}; sGDML trained on it; {setting.charge_model}; classical dynamics",
        findings(shifts, {w: values[0] for w, values in apart.items()}, f"{coldest:g} K"),
        [
            "The displacement of two densities in a window is the mean distance by which one must "
            "be moved to give the other (of the first Wasserstein order). Shifts are those of the "
            "mean wavenumber of a window."
        ],
        {
            "shifts": {n: {w: v._asdict() for w, v in s.items()} for n, s in shifts.items()},
            "displacements": {w: [v._asdict() for v in values] for w, values in apart.items()},
        },
        [
            Table(
                f"Shift of the mean wavenumber from {coldest:g} to {hottest:g} K, cm⁻¹",
                ["model", *headers],
                [[name, *map(shown, values.values())] for name, values in shifts.items()],
            ),
            Table(
                "Displacement of GAFF's density from sGDML's, cm⁻¹",
                ["temperature", *headers],
                [
                    [f"{t:g} K", *(shown(apart[w][k]) for w in WINDOWS)]
                    for k, t in enumerate(temperatures)
                ],
            ),
        ],
        pictures,
    )


def findings(shifts: dict, apart: dict, coldest: str) -> list:
    """The tests of the paper's statements on shifts and displacements (cm⁻¹) by window."""
    still = {f"{w}": shifts["GAFF"][w] for w in ("fingerprint", "stretches")}
    return [
        judged("fingerprint", {coldest: apart["fingerprint"]}),
        judged("stretches", {coldest: apart["stretches"]}),
        judged("gaff-still", still),
        judged("rotors-red", {"GAFF": shifts["GAFF"]["rotors"]}),
        judged("sgdml-shifts", {"sGDML": shifts["sGDML"]["stretches"]}),
    ]


def shift(first: Spectrum, second: Spectrum, low: float, high: float) -> Estimate:
    """Difference of the mean wavenumbers of a window, cm⁻¹."""
    return minus(*(estimated(lambda x, p: (x * p).sum(), low, high, s) for s in (second, first)))


def displacement(first: Spectrum, second: Spectrum, low: float, high: float) -> Estimate:
    """First Wasserstein distance of two normalised densities in a window, cm⁻¹."""

    def moved(x, p, q):
        # Densities on one grid: the integral of the difference of the cumulative shares.
        return np.abs(np.cumsum(p - q)[:-1] * np.diff(x)).sum()

    return estimated(moved, low, high, first, second)


def estimated(measure, low: float, high: float, *spectra: Spectrum) -> Estimate:
    """A measure of the normalised densities in a window, with its error.

    The error is the standard deviation over draws from the errors of the densities, which are
    taken as independent.

    Args:
        measure: function of wavenumbers (K,) and of the shares (K,) of each spectrum.
        low, high: cm⁻¹.
        spectra: all on the grid of the first.
    """
    x = spectra[0].wavenumbers
    inside = (x >= low) & (x <= high)
    x, rng = x[inside], np.random.default_rng(0)
    parts = []
    for one in spectra:
        grid = one.wavenumbers
        density, error = (np.interp(x, grid, y) for y in (one.density, one.error))
        parts.append((density, error))

    def shares(noise: float) -> list[np.ndarray]:
        values = [np.maximum(p + noise * e * rng.normal(size=len(x)), 0.0) for p, e in parts]
        return [p / p.sum() for p in values]

    if not all(np.isfinite(e).all() and p.sum() > 0.0 for p, e in parts):
        return Estimate(np.nan, np.nan)
    draws = [measure(x, *shares(1.0)) for _ in range(SAMPLES)]
    return Estimate(float(measure(x, *shares(0.0))), float(np.std(draws, ddof=1)))


def _spectrum(
    setting: Setting, potential: Potential, data: Dataset, name: str, temperature: float
) -> Spectrum:
    replicas = setting.size(8, 2)
    warm = setting.sample(
        f"{name} at {temperature:g} K, equilibration", potential, data.molecule,
        setting.sampling(temperature, replicas, 100, STEP), setting.size(5.0, 1.0),
    )  # fmt: skip
    run = md.simulate(
        potential, data.molecule, md.NVE(dt=STEP), steps=setting.size(80_000, 4_000),
        start=md.Start(warm.positions[:, -1], warm.velocities[:, -1]),
        output=md.Output(every=EVERY),
        progress=setting.titled(f"{name} at {temperature:g} K"),
    )  # fmt: skip
    return spectrum(
        run.velocities, data.molecule.masses, EVERY * STEP, positions=run.positions, step=STEP,
        resolution=setting.size(5.0, 20.0),
    )  # fmt: skip
