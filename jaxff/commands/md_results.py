"""Averages, warnings and the report of `jaxff md`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxff.errors import InputError

if TYPE_CHECKING:
    from jaxff.md import Run
    from jaxff.system import System

FEW_FRAMES = 100  # with fewer frames the mean temperature is not checked
# A mean temperature differs from the target if the difference exceeds ERRORS standard errors and
# the fraction TEMPERATURE_ERROR of the target, which the error of the integrator can cause.
ERRORS, TEMPERATURE_ERROR = 4.0, 0.02


class Average(NamedTuple):
    """A mean and its standard error; the error is NaN with too few frames."""

    mean: float
    error: float


def average(series) -> Average:
    """The mean of a quantity, and its standard error.

    The first tenth of the frames is omitted as equilibration.

    Args:
        series: (F,) or (R, F), of F frames and R replicas.
    """
    import numpy as np

    from jaxff.analysis import mean_and_error

    series = np.atleast_2d(series)
    series = series[:, series.shape[1] // 10 :]
    if series.shape[1] < 2:
        return Average(float(series.mean()), float("nan"))
    estimates = [mean_and_error(one) for one in series]
    mean = float(np.mean([e.mean for e in estimates]))
    error = float(np.sqrt(np.sum([float(e.error) ** 2 for e in estimates])) / len(series))
    return Average(mean, error)


def wrong_temperature(temperatures, target: float) -> Average | None:
    """The mean temperature if it differs significantly from the target.

    Args:
        temperatures: (F,) or (R, F) K, of F frames and R replicas.
        target: K.

    Returns:
        the mean and its standard error, K; None without a significant difference, or with too few
        frames.
    """
    import numpy as np

    frames = np.shape(temperatures)[-1]
    if frames - frames // 10 < FEW_FRAMES:
        return None
    found = average(temperatures)
    allowed = max(ERRORS * found.error, TEMPERATURE_ERROR * target)
    return found if abs(found.mean - target) > allowed else None


# Averages of systems, with their units.
UNITS = {"temperature": "K", "density": "g/cm³", "volume": "Å³", "pressure": "bar"}


def averages_in_box(system: System, run: Run) -> dict[str, Average]:
    """Averages of the recorded frames of a system by the names in `UNITS`."""
    from jaxff.analysis.liquids import mass_densities, volumes

    assert run.boxes is not None
    assert run.pressures is not None
    return {
        "temperature": average(run.temperatures),
        "density": average(mass_densities(run.boxes, system.masses)),
        "volume": average(volumes(run.boxes)),
        "pressure": average(run.pressures),
    }


def write_liquids(
    console, folder: Path, system: System, files: list[Path], temperature: float,
    pressure: float | None,
) -> list[Path]:  # fmt: skip
    """Analyse the whole trajectory of each replica as a liquid, and return the written pages.

    Args:
        console: prints the reason if there are too few frames.
        folder: output folder.
        system: the system.
        files: trajectories, one for each replica.
        temperature: K.
        pressure: bar, of the barostat; None at constant volume.
    """
    from jaxff.report import liquid

    pages = []
    for file in files:
        name = file.stem.replace("trajectory", "liquid")
        try:
            liquid.write(
                folder, system, file, temperature=temperature, pressure=pressure, name=name
            )
        except InputError as error:
            console.say(f"no page of the liquid: {error}")
            break
        pages.append(folder / f"{name}.html")
    if pages:
        console.say(f"wrote {', '.join(map(str, pages[:3]))}{', ...' * (len(pages) > 3)}")
    return pages


def write_report(
    folder: Path, title: str, summary: str, averages, run: Run, warnings, pages=()
) -> None:
    """Write report.html.

    Args:
        folder: output folder, which contains energy_temperature.png.
        title: heading of the page.
        summary: first paragraph.
        averages: result of `averages_in_box`, or {} for molecules.
        run: the simulation.
        warnings: texts; empty texts are left out.
        pages: result of `write_liquids`; the pictures of the first page are repeated.
    """
    from jaxff.report import Report

    page = Report(title)
    page.text(summary)
    page.heading("Checks")
    found = run.extrapolation
    if found is not None and not found.outside:
        page.text(f"All {found.frames} compared frames are within the training data.")
    elif found is None and not any(warnings):
        page.text("The frames were not compared with the training data.")
    for warning in filter(None, warnings):
        page.text(warning[0].upper() + warning[1:])
    if averages:
        page.heading("Averages")
        page.text(
            "Without the first tenth of the frames. If the command continued an earlier run, these "
            "are the frames since then."
        )
        page.table(
            ["quantity", "mean", "standard error", "unit"],
            [[name, *value, UNITS[name]] for name, value in averages.items()],
        )
    page.heading("Energy and temperature")
    page.picture(folder / "energy_temperature.png", "Energies and temperature against time.")
    if pages:
        page.heading("Liquid")
        page.text(f"All frames; numbers are in {', '.join(path.name for path in pages)}.")
        for picture in sorted(folder.glob(f"{pages[0].stem}_*.png")):
            page.picture(picture, picture.stem.partition("_")[2])
    page.write(folder / "report.html")
