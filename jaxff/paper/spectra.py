"""Fig. 6: vibrational densities of states (VDOS) of ethanol at several temperatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxff import md
from jaxff.analysis import Estimate, spectrum
from jaxff.npz import NpzReader, write_npz
from jaxff.paper.experiment import Setting
from jaxff.paper.result import Result, Table, picture
from jaxff.paper.verdicts import judged, shown
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
SAMPLES = 400  # of the bootstrap over replicas


class Densities(NamedTuple):
    """Densities of states of independent replicas.

    Attributes:
        wavenumbers: (K,) cm⁻¹.
        parts: (R, K) 1/cm⁻¹, one row for each replica.
    """

    wavenumbers: np.ndarray
    parts: np.ndarray

    @property
    def estimate(self) -> Estimate:
        """Compute the mean (K,) over the replicas and the standard error, 1/cm⁻¹."""
        error = self.parts.std(axis=0, ddof=1) / np.sqrt(len(self.parts))
        return Estimate(self.parts.mean(axis=0), error)


def run(setting: Setting) -> Result:
    """Compare spectra of sGDML and GAFF in windows of the wavenumber (Fig. 6)."""
    data, folder = setting.dataset(MOLECULE), setting.place("fig6")
    models = {
        "sGDML": lambda: setting.kernel(MOLECULE), "GAFF": lambda: setting.gaff(MOLECULE)
    }  # fmt: skip
    temperatures = setting.size(TEMPERATURES, (100.0, 400.0))
    by = {
        name: [densities(setting, make, name, t) for t in temperatures]
        for name, make in models.items()
    }
    shifts = {
        name: {w: shift(some[0], some[-1], *limits) for w, limits in WINDOWS.items()}
        for name, some in by.items()
    }
    apart = {
        w: [displacement(a, b, *limits) for a, b in zip(by["sGDML"], by["GAFF"], strict=True)]
        for w, limits in WINDOWS.items()
    }
    coldest, hottest = temperatures[0], temperatures[-1]
    headers = [f"{name}, {low:g} to {high:g} cm⁻¹" for name, (low, high) in WINDOWS.items()]
    figure = plot_sampling.spectra_by_model(
        {
            name: {f"{t:g} K": d.estimate for t, d in zip(temperatures, some, strict=True)}
            for name, some in by.items()
        },
        by["GAFF"][0].wavenumbers,
    )
    caption = "VDOS of ethanol by sGDML and GAFF; bands are two standard errors over the replicas."
    return Result(
        "Fig. 6: vibrational density of states of ethanol",
        f"{data.theory}; sGDML trained at this level; {setting.charge_model}; classical dynamics",
        findings(shifts, {w: values[0] for w, values in apart.items()}, f"{coldest:g} K"),
        [
            "The displacement of two densities in a window is the first Wasserstein distance. "
            "Shifts are differences of the mean wavenumber in a window. Errors come from a "
            "bootstrap over independent replicas."
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
        [picture(folder, "vdos.png", figure, caption)],
    )


def findings(shifts: dict, apart: dict, coldest: str) -> list:
    """Test the paper's statements on shifts and displacements (cm⁻¹) in each window."""
    still = {f"{w}": shifts["GAFF"][w] for w in ("fingerprint", "stretches")}
    return [
        judged("fingerprint", {coldest: apart["fingerprint"]}),
        judged("stretches", {coldest: apart["stretches"]}),
        judged("gaff-still", still),
        judged("rotors-red", {"GAFF": shifts["GAFF"]["rotors"]}),
        judged("sgdml-shifts", {"sGDML": shifts["sGDML"]["stretches"]}),
    ]


def shift(first: Densities, second: Densities, low: float, high: float) -> Estimate:
    """Return the difference of the mean wavenumbers in a window, second minus first, cm⁻¹."""
    return estimated(lambda x, p, q: np.sum(x * (q - p)), low, high, first, second)


def displacement(first: Densities, second: Densities, low: float, high: float) -> Estimate:
    """Return the first Wasserstein distance of two normalised densities in a window, cm⁻¹."""

    def moved(x, p, q):
        # Densities on one grid: the integral of the difference of the cumulative shares.
        return np.abs(np.cumsum(p - q)[:-1] * np.diff(x)).sum()

    return estimated(moved, low, high, first, second)


def estimated(
    measure: Callable[..., np.ndarray], low: float, high: float, *spectra: Densities
) -> Estimate:
    """Compute a measure of the normalised densities in a window, with a standard error.

    The error comes from a bootstrap over the replicas of each spectrum; NaN for a single replica.

    Args:
        measure: function of the wavenumbers (K,) and of the shares (K,) of each spectrum.
        low, high: bounds of the window, cm⁻¹.
        spectra: the spectra, which are interpolated to the grid of the first spectrum.
    """
    x = spectra[0].wavenumbers
    inside = (x >= low) & (x <= high)
    rng, x = np.random.default_rng(0), x[inside]
    parts = [np.array([np.interp(x, s.wavenumbers, row) for row in s.parts]) for s in spectra]

    def value(rows: list) -> float:
        densities = [part[chosen].mean(axis=0) for part, chosen in zip(parts, rows, strict=True)]
        return float(measure(x, *(p / p.sum() for p in densities)))

    if min(map(len, parts)) < 2 or not all(part.sum() > 0.0 for part in parts):
        return Estimate(np.nan, np.nan)
    draws = [value([rng.integers(len(p), size=len(p)) for p in parts]) for _ in range(SAMPLES)]
    return Estimate(value([slice(None)] * len(parts)), float(np.std(draws, ddof=1)))


def densities(
    setting: Setting, make: Callable[[], Potential], name: str, temperature: float
) -> Densities:
    """Compute densities of states at one temperature, or read them from the folder `fig6`."""
    path = setting.place("fig6") / f"{name.lower()}-{temperature:g}K.npz"
    if not path.is_file():
        write_npz(path, _simulated(setting, make(), name, temperature)._asdict())
    file = NpzReader(path, "spectra")
    return Densities(file.need("wavenumbers"), file.need("parts"))


def _simulated(setting: Setting, potential: Potential, name: str, temperature: float) -> Densities:
    molecule, replicas = setting.dataset(MOLECULE).molecule, setting.size(8, 2)
    warm = setting.sample(
        f"{name} at {temperature:g} K, equilibration", potential, molecule,
        setting.sampling(temperature, replicas, 100, STEP), setting.size(5.0, 1.0),
    )  # fmt: skip
    run = md.simulate(
        potential, molecule, md.NVE(dt=STEP), steps=setting.size(80_000, 4_000),
        start=md.Start(warm.positions[:, -1], warm.velocities[:, -1]),
        output=md.Output(every=EVERY),
        progress=setting.titled(f"{name} at {temperature:g} K"),
    )  # fmt: skip
    setting.watched(f"{name} at {temperature:g} K", run)
    each = [
        spectrum(
            v, molecule.masses, EVERY * STEP, positions=R, step=STEP,
            resolution=setting.size(5.0, 20.0),
        )
        for v, R in zip(run.velocities, run.positions, strict=True)
    ]  # fmt: skip
    return Densities(each[0].wavenumbers, np.array([one.density for one in each]))
