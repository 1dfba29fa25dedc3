"""The main job, end to end: GAFF, refits of it, an sGDML kernel and a hybrid, compared and run."""

from __future__ import annotations

from pathlib import Path

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
TEMPERATURE = 300.0  # K
TIME_STEP = 0.5  # fs


def demo(name: str, out: Path, seed: int, console: Console) -> dict:
    """Run the demonstration for one molecule and leave models, trajectory, pictures and report.

    Args:
        name: "ethanol" or "aspirin".
        out: folder for the results; exists and can be written.
        seed: of the split, the fit and the dynamics.
        console: where progress and the table go.

    Returns:
        {"models": {model: {"test": errors}}, ...}, as `jaxff demo --json` writes it.
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

    picture(out / "force_parity.png", plot.force_parity(split.test.forces, predicted, data.theory))
    dynamics = simulate(potentials["hybrid"], data, out, seed, console)
    console.close()
    sigmas = {key: float(_kernel_sigma(potentials[key])) for key in ("sgdml", "hybrid")}
    write_report(out / "report.html", data, scores, dynamics, sigmas)
    console.say(f"wrote {out}/: open report.html")
    return {
        "molecule": name,
        "theory": data.theory,
        "frames": {"train": N_TRAIN, "valid": N_VALID, "test": N_TEST},
        "models": {key: {"test": score} for key, score in scores.items()},
        "sigma": sigmas,
        "md": dynamics,
    }


def build(split, seed: int, console: Console) -> dict[str, Potential]:
    """The five potentials, from the same training frames."""
    plain = gaff(split.train.molecule)

    def titled(title):
        return lambda phase, fraction: console(f"{title}: {phase}", fraction)

    def refitted(start: Potential, title: str) -> Potential:
        found = fit(start, split.train, valid=split.valid, progress=titled(title))
        return found.potential

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


def _kernel_sigma(potential: Potential):
    return potential.params["gdml"]["sigma"]


def simulate(hybrid: Potential, data: Dataset, out: Path, seed: int, console: Console) -> dict:
    """Langevin dynamics of the hybrid at 300 K, kept, and at the data's temperature, to compare."""
    molecule = data.molecule
    steps = 40_000 if molecule.n_atoms < 15 else 10_000
    common = {"dt": TIME_STEP, "friction": 10.0, "record_every": 20, "seed": seed}
    run = md.simulate(
        hybrid,
        molecule,
        temperature=TEMPERATURE,
        steps=steps,
        out=out / "trajectory.extxyz",
        progress=lambda _, fraction: console("dynamics at 300 K", fraction),
        **common,
    )
    warm = md.simulate(
        hybrid,
        molecule,
        temperature=500.0,
        steps=steps,
        progress=lambda _, fraction: console("dynamics at 500 K", fraction),
        **common,
    )
    picture(
        out / "energy_temperature.png",
        plot.energy_and_temperature(
            run.times, run.potential_energies, run.kinetic_energies, run.temperatures, TEMPERATURE
        ),
    )
    torsions = rotatable_torsions(molecule)[:4]
    settled = len(run.positions) // 10  # the first tenth equilibrates
    picture(
        out / "torsions.png",
        plot.torsion_distributions(
            {
                "reference, 500 K": torsion_angles(data.positions, torsions),
                "hybrid, 500 K": torsion_angles(warm.positions[settled:], torsions),
                "hybrid, 300 K": torsion_angles(run.positions[settled:], torsions),
            },
            [torsion_label(molecule, torsion) for torsion in torsions],
        ),
    )
    return {
        "ensemble": "langevin",
        "temperature": TEMPERATURE,
        "steps": steps,
        "dt": TIME_STEP,
        "mean_temperature": float(run.temperatures[settled:].mean()),
        "steps_per_second": steps / run.seconds,
    }


def picture(path: Path, figure) -> None:
    figure.savefig(path, dpi=130)


def score_rows(scores: dict) -> list[list]:
    return [[TITLES[key], *(score[m] for m in METRICS)] for key, score in scores.items()]


def write_report(path: Path, data: Dataset, scores: dict, dynamics: dict, sigmas: dict) -> None:
    """The page that shows the results and says what they mean."""
    folder = path.parent
    best = min(scores, key=lambda key: scores[key]["force_mae"])
    gain = scores["sgdml"]["force_mae"] / scores["hybrid"]["force_mae"]
    report = Report(f"{data.name.replace('_', ' ').capitalize()}: five force fields compared")
    report.text(
        f"Reference: {data.theory}, {len(data)} frames. Each model saw the same {N_TRAIN} training "
        f"frames ({N_VALID} more chose the kernel widths); the errors are on "
        f"{N_TEST} other frames. Energies in kcal/mol after removing the mean offset, forces in "
        "kcal/mol/Å per Cartesian component."
    )
    lowest = data.molecule.with_positions(data.positions[data.energies.argmin()])
    report.molecules(
        {"": lowest}, "The frame of lowest energy. Drag, or use the arrow keys, to turn it."
    )
    report.heading("Errors on held-out frames")
    report.table(["model", *METRICS], score_rows(scores))
    report.text(
        "GAFF is the force field as it comes: types and charges of its topology, no knowledge of "
        "this reference. GAFF refitted has the same terms with parameters fitted to the training "
        "forces and energies. Class-II has Morse bonds, anharmonic angles and the couplings of "
        "neighbouring bonds, angles and dihedrals besides, at the cost of molecular mechanics. "
        "sGDML is a kernel model of the whole energy that respects the molecule's permutational "
        "symmetries, found from the data. The hybrid is the sum of the class-II force field and a "
        f"second kernel trained on what that gets wrong. Lowest force error: {TITLES[best]}; the "
        f"kernel's force MAE divided by the hybrid's is {gain:.2f}. Kernel width chosen: "
        f"{sigmas['sgdml']:g}."
    )
    report.picture(
        folder / "force_parity.png",
        "Every force component of the test frames: predicted against reference. A perfect model "
        "lies on the line; colour counts components.",
    )
    report.heading("Dynamics of the hybrid")
    ps = dynamics["steps"] * dynamics["dt"] / 1000
    report.text(
        f"Langevin dynamics at {dynamics['temperature']:g} K, {dynamics['dt']:g} fs a step, "
        f"{ps:g} ps. Mean temperature after the first tenth: {dynamics['mean_temperature']:.1f} K; "
        f"{dynamics['steps_per_second']:.0f} steps per second on this machine, compilation "
        "apart. The trajectory is trajectory.extxyz (Å, kcal/mol, fs, K)."
    )
    report.picture(
        folder / "energy_temperature.png",
        "Energies and temperature against time. The instantaneous temperature of so few atoms "
        "fluctuates widely; its mean should approach the target.",
    )
    report.picture(
        folder / "torsions.png",
        "Torsion angles. The reference frames were sampled at 500 K, so the hybrid's 500 K run is "
        "the one to compare with them; at 300 K the peaks are narrower. A run this short visits "
        "rarely crossed barriers unevenly, so heights of equivalent peaks may differ.",
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
