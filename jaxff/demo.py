"""The demonstration: GAFF, its refits, an sGDML kernel and a hybrid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxff import gdml, md
from jaxff.analysis import rotatable_torsions, torsion_angles, torsion_label
from jaxff.console import Console
from jaxff.dataset import Dataset, packaged_dataset
from jaxff.gaff import gaff
from jaxff.learn import errors, fit
from jaxff.potential import Potential
from jaxff.report import plot
from jaxff.report.page import Report
from jaxff.saved import save

MOLECULES = ("ethanol", "aspirin")
METRICS = ("energy_mae", "energy_rmse", "force_mae", "force_rmse")
TITLES = {
    "gaff": "GAFF",
    "gaff_refit": "GAFF refitted",
    "class2": "class-II",
    "sgdml": "sGDML",
    "hybrid": "hybrid: class-II + sGDML",
}
N_TRAIN, N_VALID, N_TEST = 200, 100, 1000
SIGMAS = (10.0, 20.0, 40.0)
TEMPERATURE, HOT = 300.0, 500.0  # K
TIME_STEP = 0.5  # fs
DPI = 130


def demo(name: str, out: Path, seed: int, console: Console) -> dict:
    """Run the demonstration for one molecule and write the results.

    Args:
        name: "ethanol" or "aspirin".
        out: an existing, writable folder for the results.
        seed: random seed of the split, the fits and the dynamics.
        console: display of progress and results.

    Returns:
        The output of `jaxff demo --json`: molecule, theory, numbers of frames, test errors of each
        model, kernel widths, and facts about the dynamics.
    """
    data = packaged_dataset(name)
    split = data.split(N_TRAIN, N_VALID, N_TEST, seed=seed)
    console.say(f"{data.name}: {data.theory}")
    console.say(
        f"{N_TRAIN} training, {N_VALID} validation, {N_TEST} test frames of {len(data)}, "
        f"drawn at random (seed {seed})"
    )

    potentials = build(split, seed, console)
    predicted, scores = {}, {}
    for i, (key, potential) in enumerate(potentials.items()):
        console("test", i / len(potentials))
        energies, forces = potential.predict(split.test.positions)
        predicted[TITLES[key]] = forces
        scores[key] = errors(split.test, energies, forces)
        save(out / f"{key}.npz", potential)
    console.close()

    console.say(f"\nerrors on {N_TEST} held-out frames (kcal/mol, kcal/mol/Å)")
    console.table(["model", *METRICS], score_rows(scores))
    console.say()

    parity = plot.force_parity(split.test.forces, predicted, data.theory)
    parity.savefig(out / "force_parity.png", dpi=DPI)
    dynamics = simulate(potentials["hybrid"], data, out, seed, console)
    console.close()
    console.say(f"frames outside the training data of the hybrid: {', '.join(outside(dynamics))}")
    sigmas = {key: float(potentials[key].params["gdml"]["sigma"]) for key in ("sgdml", "hybrid")}
    write_report(out / "report.html", data, scores, dynamics, sigmas)
    console.say(f"wrote {out}/report.html")
    return {
        "molecule": name,
        "theory": data.theory,
        "frames": {"train": N_TRAIN, "valid": N_VALID, "test": N_TEST},
        "models": {key: {"test": score} for key, score in scores.items()},
        "sigma": sigmas,
        "md": dynamics,
    }


def build(split, seed: int, console: Console) -> dict[str, Potential]:
    """Make the five potentials from the same training frames.

    Args:
        split: training and validation frames.
        seed: random seed of the kernels.
        console: display of progress.

    Returns:
        {name: potential}, with the names of `TITLES`.
    """
    plain = gaff(split.train.molecule)

    def titled(title):
        return lambda phase, fraction: console(f"{title}: {phase}", fraction)

    def refitted(start: Potential, title: str) -> Potential:
        result = fit(start, split.train, valid=split.valid, progress=titled(title))
        return result.potential

    def kernel(title: str, baseline: Potential | None = None) -> Potential:
        return gdml.train(
            split.train,
            split.valid,
            sigma=SIGMAS,
            baseline=baseline,
            run=gdml.Run(seed=seed, progress=titled(title)),
        )

    second = gaff(split.train.molecule, form="class2")
    class2 = refitted(second, "class-II")
    return {
        "gaff": plain,
        "gaff_refit": refitted(plain, "refit GAFF"),
        "class2": class2,
        "sgdml": kernel("sGDML"),
        "hybrid": kernel("hybrid", class2),
    }


def simulate(hybrid: Potential, data: Dataset, out: Path, seed: int, console: Console) -> dict:
    """Run Langevin dynamics of the hybrid at 300 K and 500 K, and draw the plots.

    Args:
        hybrid: the potential.
        data: reference frames, for comparison.
        out: folder for the trajectory and the plots.
        seed: random seed of the dynamics.
        console: display of progress.

    Returns:
        Settings, mean temperature in K, speed and extrapolation of the simulations.
    """
    molecule = data.molecule
    steps = 40_000 if molecule.n_atoms < 15 else 10_000
    ensemble = md.Langevin(TEMPERATURE, dt=TIME_STEP, friction=10.0)
    run = md.simulate(
        hybrid,
        molecule,
        ensemble,
        steps=steps,
        start=md.Start(seed=seed),
        output=md.Output(out / "trajectory.extxyz", every=20),
        progress=lambda _, fraction: console(f"dynamics at {TEMPERATURE:g} K", fraction),
    )
    hot = md.simulate(
        hybrid,
        molecule,
        replace(ensemble, temperature=HOT),
        steps=steps,
        start=md.Start(seed=seed),
        output=md.Output(every=20),
        progress=lambda _, fraction: console(f"dynamics at {HOT:g} K", fraction),
    )
    figure = plot.energy_and_temperature(
        run.times, run.potential_energies, run.kinetic_energies, run.temperatures, TEMPERATURE
    )
    figure.savefig(out / "energy_temperature.png", dpi=DPI)
    torsions = rotatable_torsions(molecule)[:4]
    first = len(run.positions) // 10  # the first tenth is equilibration
    samplings = {
        "reference, 500 K": data.positions,
        "hybrid, 500 K": hot.positions[first:],
        "hybrid, 300 K": run.positions[first:],
    }
    angles = {name: np.asarray(torsion_angles(R, torsions)) for name, R in samplings.items()}
    figure = plot.torsion_distributions(angles, [torsion_label(molecule, t) for t in torsions])
    figure.savefig(out / "torsions.png", dpi=DPI)
    return {
        "ensemble": "langevin",
        "temperature": TEMPERATURE,
        "steps": steps,
        "dt": TIME_STEP,
        "mean_temperature": float(run.temperatures[first:].mean()),
        "steps_per_second": steps / run.seconds,
        "extrapolation": {
            f"{kelvin:g} K": one.extrapolation and one.extrapolation.summary()
            for kelvin, one in ((TEMPERATURE, run), (HOT, hot))
        },
    }


def score_rows(scores: dict) -> list[list]:
    """Rows of the table of errors, one for each model: its title and its metrics."""
    return [[TITLES[key], *(score[m] for m in METRICS)] for key, score in scores.items()]


def outside(dynamics: dict) -> list[str]:
    """Texts about frames outside the training data, one for each simulation."""
    return [
        f"{found['outside']} of {found['frames']} at {kelvin}"
        + (f", the first at step {found['step']} ({found['reason']})" if found["outside"] else "")
        for kelvin, found in dynamics["extrapolation"].items()
    ]


def write_report(path: Path, data: Dataset, scores: dict, dynamics: dict, sigmas: dict) -> None:
    """Write a page that shows and explains the results.

    Args:
        path: the html file; the plots are in the same folder.
        data: all reference frames.
        scores: {model: {metric: error}}.
        dynamics: the results of `simulate`.
        sigmas: {model: kernel width, 1/Å}.
    """
    folder = path.parent
    best = min(scores, key=lambda key: scores[key]["force_mae"])
    gain = scores["sgdml"]["force_mae"] / scores["hybrid"]["force_mae"]
    report = Report(f"{data.name.replace('_', ' ').capitalize()}: five force fields compared")
    report.text(
        f"Reference: {data.theory}, {len(data)} frames. All models have the same {N_TRAIN} "
        f"training frames, {N_VALID} validation frames for the choice of the kernel width, and "
        f"{N_TEST} test frames. Energy errors are in kcal/mol, after subtraction of the mean "
        "difference. Force errors are in kcal/mol/Å for each Cartesian component."
    )
    lowest = data.molecule.with_positions(data.positions[np.argmin(np.asarray(data.energies))])
    report.molecules(
        {"": lowest}, "The frame of lowest energy. Drag it or use the arrow keys to rotate it."
    )
    report.heading("Errors on held-out frames")
    report.table(["model", *METRICS], score_rows(scores))
    report.text(
        "GAFF is the published force field, not fitted to this reference. GAFF refitted has the "
        "same terms, with parameters fitted to the training forces and energies. Class-II adds "
        "Morse bonds, anharmonic angles and couplings of neighbouring bonds, angles and dihedrals. "
        "sGDML is a kernel model of the whole energy with the permutational symmetries that were "
        "detected in the training frames. The hybrid is the sum of the class-II force field and a "
        "kernel that was trained on the errors of the class-II force field. "
        f"The model with the lowest force error is {TITLES[best]}. The force MAE of sGDML divided "
        f"by that of the hybrid is {gain:.2f}. The kernel width of sGDML is {sigmas['sgdml']:g} "
        "1/Å."
    )
    report.picture(
        folder / "force_parity.png",
        "Predicted against reference force components of the test frames. On the line, both are "
        "equal. The colour shows the number of components.",
    )
    report.heading("Dynamics of the hybrid")
    ps = dynamics["steps"] * dynamics["dt"] / 1000
    report.text(
        f"Langevin dynamics at {dynamics['temperature']:g} K with a time step of "
        f"{dynamics['dt']:g} fs, {ps:g} ps long. The mean temperature after the first tenth is "
        f"{dynamics['mean_temperature']:.1f} K. The speed was {dynamics['steps_per_second']:.0f} "
        "steps per second, without compilation. The file trajectory.extxyz contains the trajectory "
        "(Å, kcal/mol, fs, K)."
    )
    report.text(f"Frames outside the training data: {', '.join(outside(dynamics))}.")
    report.picture(
        folder / "energy_temperature.png",
        "Energies and temperature against time. The temperature of so few atoms fluctuates "
        "strongly, but its mean should approach the target.",
    )
    report.picture(
        folder / "torsions.png",
        "Torsion angles. Compare the reference frames with the simulation at 500 K, because they "
        "were sampled at this temperature. At 300 K the peaks are narrower. Short simulations "
        "rarely cross high barriers, so equivalent peaks may differ in height.",
    )
    report.heading("Use the results")
    report.code(
        "import jax; jax.config.update('jax_enable_x64', True)\n"
        "import jaxff\n"
        "hybrid = jaxff.load('hybrid.npz')      # also gaff, gaff_refit, class2, sgdml\n"
        "R = hybrid.molecule.positions          # (N, 3) Å\n"
        "energy, forces = hybrid.energy_and_forces(R)\n"
        "hybrid.terms(R)                        # bond, angle, ..., gdml"
    )
    report.write(path)
