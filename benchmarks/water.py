"""Properties of liquid TIP3P water, compared with OpenMM's own simulation of the same system.

    python benchmarks/water.py FOLDER --run jaxff --ns 5      # continues after an interruption
    python benchmarks/water.py FOLDER --run openmm --ns 5
    python benchmarks/water.py FOLDER                         # compares the frames so far

Both programs simulate 216 rigid molecules at 298.15 K and 1 bar: time step 2 fs, Langevin friction
1/ps, PME with the same width and grid, cutoff 9 Å, dispersion tail. jaxff computes in float32 and
rescales the box stochastically; OpenMM's CPU platform has mixed precision and its Monte Carlo
barostat. A larger --ns continues a finished run. Friction slows the diffusion of both alike.
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import jaxff  # noqa: E402
from jaxff import md, units  # noqa: E402
from jaxff.analysis import (  # noqa: E402
    Estimate,
    compressibility,
    dielectric_constant,
    diffusion,
    dipole_moments,
    enthalpies,
    finite_size_correction,
    hydrogen_bonds,
    mass_densities,
    mean_and_error,
    molecular_centres,
    molecule_pairs,
    radial_distributions,
    thermal_expansion,
)
from jaxff.npz import atomic_path  # noqa: E402
from jaxff.solvent.models import water_model  # noqa: E402
from jaxff.solvent.parts import Copies, join, of_water  # noqa: E402

TEMPERATURE, PRESSURE, FRICTION, DT = 298.15, 1.0, 1.0, 2.0  # K, bar, 1/ps, fs
CUTOFF = 9.0  # Å
EVERY = 250  # steps between frames: 0.5 ps
SEGMENT = 20  # frames in a file of OpenMM
VISCOSITY = 0.321  # mPa s, of TIP3P: González and Abascal, J. Chem. Phys. 132, 096101 (2010)
WINDOW = (2e3, 1e4)  # fs, lags of the fit of diffusion coefficients
BLOCKS = 20  # blocks of the errors of g(r)
FRAMES = 4000  # largest number of frames for g(r) and hydrogen bonds


def water() -> jaxff.System:
    """The box of 216 TIP3P molecules that the package contains."""
    with resources.as_file(resources.files("jaxff") / "data" / "water_tile.npz") as path:
        tile = np.load(path)
        positions, edge = tile["positions"].astype(float), float(tile["edge"])
    molecules = Copies(of_water(water_model("tip3p")), positions.reshape(-1, 3, 3))
    return join([molecules], edge * np.eye(3), "water")


def potential_of(system: jaxff.System) -> jaxff.Potential:
    """The potential of both programs."""
    return system.potential(cutoff=CUTOFF)


def run_jaxff(folder: Path, system: jaxff.System, steps: int) -> None:
    """Simulate up to a number of steps in total, and print the progress."""
    ensemble = md.NPT(TEMPERATURE, pressure=PRESSURE, friction=FRICTION, dt=DT)
    output = md.Output(
        folder / "jaxff.h5", every=EVERY, restart=folder / "jaxff.npz", keep=False
    )  # fmt: skip
    potential = potential_of(system).astype(jnp.float32)
    run = md.simulate(
        potential, system, ensemble, steps=steps, output=output, progress=_Progress(steps)
    )
    print(f"jaxff: {run.ns_per_day:.3g} ns/day, {run.rebuilds} neighbour lists")


class _Progress:
    """Prints every tenth of a run."""

    def __init__(self, steps: int):
        self.steps, self.shown = steps, -1

    def __call__(self, text: str, fraction: float) -> None:
        if int(10 * fraction) > self.shown:
            self.shown = int(10 * fraction)
            print(f"{text}: {fraction * self.steps * DT * 1e-6:.3f} ns", flush=True)


def run_openmm(folder: Path, system: jaxff.System, steps: int, threads: int) -> None:
    """Simulate up to a number of steps in total, in files of SEGMENT frames each."""
    import openmm

    system.write(folder / "water.xml")
    made = openmm.XmlSerializer.deserialize((folder / "water.xml").read_text())
    term = next(p.term for p in potential_of(system).program.placed if p.term.needs_list)
    for force in made.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(openmm.NonbondedForce.PME)
            force.setCutoffDistance(0.1 * CUTOFF)
            force.setUseDispersionCorrection(True)
            force.setUseSwitchingFunction(False)
            force.setPMEParameters(10.0 * term.alpha, *term.grid)
    done = len(list(folder.glob("openmm-*.npz")))
    barostat = openmm.MonteCarloBarostat(PRESSURE, TEMPERATURE)
    barostat.setRandomNumberSeed(1 + 2 * done)
    made.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, 1e-3 * DT)
    integrator.setRandomNumberSeed(2 + 2 * done)  # a continued run has new noise
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(made, integrator, platform, {"Threads": str(threads)})
    if done:
        last = np.load(folder / f"openmm-{done - 1:05d}.npz")
        context.setState(openmm.XmlSerializer.deserialize(str(last["state"])))
    else:
        context.setPositions(0.1 * system.positions)
        context.setVelocitiesToTemperature(TEMPERATURE, 1)
    nm, kj = openmm.unit.nanometer, openmm.unit.kilojoule_per_mole
    for k in range(done, -(-steps // (EVERY * SEGMENT))):
        frames = []
        for _ in range(SEGMENT):
            integrator.step(EVERY)
            state = context.getState(positions=True, energy=True)
            frames.append(
                {
                    "positions": 10.0 * state.getPositions(asNumpy=True).value_in_unit(nm),
                    "boxes": 10.0 * state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(nm),
                    "potential_energies": units.KJ_MOL * state.getPotentialEnergy() / kj,
                    "kinetic_energies": units.KJ_MOL * state.getKineticEnergy() / kj,
                }
            )
        arrays = {key: np.array([frame[key] for frame in frames]) for key in frames[0]}
        arrays["positions"] = arrays["positions"].astype(np.float32)
        state = context.getState(positions=True, velocities=True)
        path = folder / f"openmm-{k:05d}.npz"
        with atomic_path(path) as temporary:
            text = np.array(openmm.XmlSerializer.serialize(state))
            with Path(temporary).open("wb") as file:
                np.savez(file, state=text, **arrays)
        print(f"OpenMM: {(k + 1) * SEGMENT * EVERY * DT * 1e-6:.3f} ns", flush=True)


def frames_of(folder: Path, program: str, system: jaxff.System) -> dict[str, np.ndarray]:
    """The frames of a program after the start."""
    if program == "jaxff":
        found = md.read_trajectory(folder / "jaxff.h5", system)
        wanted = ("positions", "boxes", "potential_energies", "kinetic_energies")
        return {key: found[key][1:] for key in wanted}
    parts = [np.load(path) for path in sorted(folder.glob("openmm-*.npz"))]
    keys = [key for key in parts[0].files if key != "state"]
    return {key: np.concatenate([part[key] for part in parts]) for key in keys}


def properties(frames: dict[str, np.ndarray], system: jaxff.System) -> dict[str, Estimate]:
    """Properties by name and unit."""
    boxes, n = frames["boxes"], len(system.waters)
    freedom = 3 * len(system) - len(system.constraints)
    temperature = 2.0 * frames["kinetic_energies"] / (freedom * units.BOLTZMANN)
    heat = enthalpies(frames["potential_energies"], boxes, PRESSURE)
    dipoles = dipole_moments(frames["positions"], system.tables.charges, system.molecules)
    some = slice(None, None, -(-len(boxes) // FRAMES))
    bonds = hydrogen_bonds(system, frames["positions"][some], boxes[some])["O-H···O"]
    squeezed, grown = (
        compressibility(boxes, TEMPERATURE),
        thermal_expansion(boxes, heat, TEMPERATURE),
    )
    out = {
        "temperature, K": mean_and_error(temperature),
        "density, g/cm³": mean_and_error(mass_densities(boxes, system.masses)),
        "energy, kcal/mol per molecule": mean_and_error(frames["potential_energies"] / n),
        "compressibility, 10⁻⁶/bar": Estimate(*(1e6 * x for x in squeezed)),
        "thermal expansion, 10⁻⁴/K": Estimate(*(1e4 * x for x in grown)),
        "dielectric constant": dielectric_constant(dipoles, boxes, TEMPERATURE),
        "hydrogen bonds per molecule": mean_and_error(bonds / n),
    }
    times = EVERY * DT * np.arange(len(boxes))
    centres = molecular_centres(frames["positions"], boxes, system)
    found = diffusion(times, centres, window=WINDOW)
    if found.coefficient is None:
        print(f"no diffusion coefficient: {found.reason}")
    else:
        larger = finite_size_correction(boxes.mean(axis=0), TEMPERATURE, VISCOSITY)
        value, error = found.coefficient
        out["diffusion in this box, 10⁻⁹ m²/s"] = found.coefficient
        out[f"diffusion with + {larger:.2f} for finite size"] = Estimate(value + larger, error)
    return out


def structure(frames: dict[str, np.ndarray], system: jaxff.System) -> tuple[np.ndarray, Estimate]:
    """The middles of bins, Å, and g(r) of oxygen atoms."""
    edges = np.arange(2.3, 9.0 + 1e-6, 0.1)
    some = slice(None, None, -(-len(frames["boxes"]) // FRAMES))
    g = radial_distributions(
        frames["positions"][some], molecule_pairs(system, "O"), edges, frames["boxes"][some]
    )
    return 0.5 * (edges[1:] + edges[:-1]), mean_and_error(g, n_blocks=min(BLOCKS, len(g) // 2))


def compare(folder: Path, system: jaxff.System, discard: float) -> None:
    """Print the properties from the frames so far, and their differences in joint errors."""
    found, curves = [], []
    for program in ("jaxff", "openmm"):
        frames = frames_of(folder, program, system)
        first = round(1e3 * discard / (EVERY * DT))
        frames = {key: x[first:] for key, x in frames.items()}
        print(f"{program}: {len(frames['boxes']) * EVERY * DT * 1e-6:.3f} ns after {discard:g} ps")
        if len(frames["boxes"]) < 2 * BLOCKS:
            raise SystemExit(f"{program} has too few frames: continue the run or discard less")
        found.append(properties(frames, system))
        r, g = structure(frames, system)
        curves.append(g)
    print(f"{'':42s} {'jaxff':>18s} {'OpenMM':>18s} {'difference in joint errors':>28s}")
    for (name, ours), theirs in zip(found[0].items(), found[1].values(), strict=False):
        z = (ours.mean - theirs.mean) / np.hypot(ours.error, theirs.error)
        a, b = (f"{float(x.mean):.4f} ± {float(x.error):.4f}" for x in (ours, theirs))
        print(f"{name:42s} {a:>18s} {b:>18s} {float(z):28.2f}")
    (a, da), (b, db) = (map(np.asarray, g) for g in curves)
    joint = np.hypot(da, db)
    known = joint > 0.0
    z = (a - b)[known] / joint[known]
    worst = int(np.argmax(np.abs(z)))
    print(
        f"g(r) of O–O, {known.sum()} bins of 0.1 Å: largest difference {z[worst]:.2f} joint errors "
        f"at {r[known][worst]:.2f} Å, root mean square {np.sqrt((z**2).mean()):.2f}; largest "
        f"absolute difference {np.abs(a - b).max():.4f} at {r[np.argmax(np.abs(a - b))]:.2f} Å; "
        f"first peaks {a.max():.3f} and {b.max():.3f} at {r[np.argmax(a)]:.2f} and "
        f"{r[np.argmax(b)]:.2f} Å"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the trajectories")
    parser.add_argument("--run", choices=("jaxff", "openmm"), help="simulate with this program")
    parser.add_argument("--ns", type=float, default=1.0, help="length of the run in total, ns")
    parser.add_argument("--threads", type=int, default=1, help="threads of OpenMM")
    parser.add_argument("--discard", type=float, default=50.0, help="ps that are not analysed")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    box, steps = water(), EVERY * round(1e6 * options.ns / (EVERY * DT))
    if options.run == "jaxff":
        run_jaxff(options.folder, box, steps)
    elif options.run == "openmm":
        run_openmm(options.folder, box, steps, options.threads)
    else:
        compare(options.folder, box, options.discard)
