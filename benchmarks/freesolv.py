"""Hydration free energies by GAFF and OBC2, with published and with fitted parameters.

    python benchmarks/freesolv.py FOLDER -o OUT

FOLDER contains ``freesolv.json`` and ``amber.tar.gz`` of FreeSolv (Mobley and Guthrie 2014; Duarte
Ramos Matos et al. 2017): experiments, and AMBER topologies with AM1-BCC charges.  The script
samples all molecules in vacuum at 298 K for 20 ps, and computes free energies of hydration by
exponential averaging of the energy of the implicit solvent.  It then fits the radius, screening
factor and surface tension of each class of atoms (`jaxff.gaff.born_radii.environments`) to the
experiments, with cross-validation over molecules.  OUT/hydration.json contains the fitted table,
and OUT/predictions.csv the predictions for molecules that were left out.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import jaxff
from jaxff.gaff.born_radii import coefficients, environments
from jaxff.space import Space
from jaxff.terms.born import GeneralizedBorn
from jaxff.units import BOLTZMANN

TEMPERATURE = 298.15  # K
BETA = 1.0 / (BOLTZMANN * TEMPERATURE)
MODEL = "obc2"
SCALES = {"radius": 0.1, "screening": 0.05, "surface_tension": 0.02}  # of the prior
FOLDS = 5
ROBUST = 1.5  # kcal/mol; molecules with larger deviations count less


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("freesolv"), help="folder")
    parser.add_argument("--frames", type=int, default=20, help="frames of each molecule")
    parser.add_argument("--prior", type=float, default=0.15, help="weight of the prior")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    experiments = json.loads((arguments.folder / "freesolv.json").read_text())
    names = sorted(experiments)
    potentials = read(arguments.folder / "amber.tar.gz", arguments.output, names)
    frames = sampled(arguments.output / "frames.npz", potentials, names, arguments.frames)
    measured = np.array([experiments[name]["expt"] for name in names])
    explicit = np.array([experiments[name]["calc"] for name in names])
    problem = Problem(potentials, frames, measured)
    print(
        f"{len(names)} molecules, {len(problem.classes)} classes, {len(problem.start)} parameters"
    )
    show("explicit TIP3P, published", explicit - measured)
    started = time.perf_counter()
    before, _ = problem.predict(np.zeros(len(problem.start)))
    first = time.perf_counter() - started
    started = time.perf_counter()
    np.asarray(problem.predict(np.full(len(problem.start), 1e-6))[0])
    again = time.perf_counter() - started
    print(f"energies of {frames.shape[1]} frames and gradients: {first:.1f} s, then {again:.1f} s")
    show("OBC2 and ACE as published", before - measured)
    fold = np.random.default_rng(0).permutation(len(names)) % FOLDS
    left_out = np.zeros(len(names))
    for k in range(FOLDS):
        fitted = problem.fit(fold != k, arguments.prior)
        left_out[fold == k] = np.asarray(problem.predict(fitted)[0])[fold == k]
    show(f"fitted, {FOLDS}-fold cross-validation over molecules", left_out - measured)
    fitted = problem.fit(np.ones(len(names), bool), arguments.prior)
    show("fitted, training", np.asarray(problem.predict(fitted)[0]) - measured)
    table = problem.table(fitted)
    (arguments.output / "hydration.json").write_text(json.dumps(table, indent=1) + "\n")
    rows = [
        f"{n},{experiments[n]['smiles']},{a:.2f},{b:.2f}"
        for n, a, b in zip(names, measured, left_out, strict=True)
    ]
    header = "name,smiles,experiment,left out\n"
    (arguments.output / "predictions.csv").write_text(header + "\n".join(rows) + "\n")


def show(what: str, deviation: np.ndarray) -> None:
    rmse, mue = np.sqrt(np.mean(deviation**2)), np.abs(deviation).mean()
    print(f"{what}: RMSE {rmse:.2f}, mean unsigned error {mue:.2f}, mean {deviation.mean():+.2f}")


def read(archive: Path, out: Path, names: list[str]) -> list[jaxff.Potential]:
    """The GAFF potentials of molecules from the archive of topologies."""
    if not (out / "amber").exists():
        with tarfile.open(archive) as file:
            file.extractall(out / "amber", filter="data")
    found = {path.stem: path for path in (out / "amber").rglob("*.prmtop")}
    return [
        jaxff.read_force_field(found[name], found[name].with_suffix(".inpcrd")) for name in names
    ]


def sampled(path: Path, potentials, names: list[str], count: int) -> np.ndarray:
    """Frames (M, count, N, 3) Å in vacuum; atoms that a molecule does not have are far away."""
    if not path.exists():
        molecules = [potential.molecule for potential in potentials]
        ensemble = jaxff.md.Langevin(temperature=TEMPERATURE, dt=0.5, friction=1.0)
        runs = jaxff.md.simulate_stack(
            jaxff.stack(potentials), molecules, ensemble, steps=40_000,
            output=jaxff.md.Output(every=1000),
        )  # fmt: skip
        arrays = {
            name: np.asarray(run.positions).reshape(-1, molecule.n_atoms, 3)
            for name, run, molecule in zip(names, runs, molecules, strict=True)
        }
        np.savez(path, **arrays)
    largest = max(potential.molecule.n_atoms for potential in potentials)
    out = np.empty((len(names), count, largest, 3))
    out[...] = 1e3 + 50.0 * np.arange(largest)[:, None]
    with np.load(path) as file:
        for m, name in enumerate(names):
            frames = file[name][-40:][:: max(1, 40 // count)][:count]
            out[m, :, : frames.shape[1]] = frames
    return out


class Problem:
    """Free energies of hydration of molecules as functions of one table of parameters.

    Args:
        potentials: potentials with charges.
        frames: (M, F, N, 3) Å.
        measured: (M,) kcal/mol.
    """

    def __init__(self, potentials, frames: np.ndarray, measured: np.ndarray):
        solvents = [jaxff.gbsa(potential, MODEL) for potential in potentials]
        kinds = [environments(p.molecule.symbols, p.molecule.neighbours) for p in potentials]
        self.measured, self.frames = measured, jnp.asarray(frames)
        self.classes = sorted(set().union(*kinds))
        count, n_atoms = len(self.classes), frames.shape[2]
        rows = np.full((len(kinds), n_atoms), count)  # the last row is that of missing atoms
        charges = np.zeros(rows.shape)
        values = {name: [[] for _ in self.classes] for name in SCALES}
        for m, (solvent, kind) in enumerate(zip(solvents, kinds, strict=True)):
            rows[m, : len(kind)] = [self.classes.index(k) for k in kind]
            term, params = solvent.program.placed[0].term, solvent.params["gbsa"]
            charges[m, : len(kind)] = np.asarray(params["charge"])[term.charge_rows]
            for atom, row in enumerate(rows[m, : len(kind)]):
                for name in SCALES:
                    values[name][row].append(float(params[name][term.atom_rows[atom]]))
        self.rows, self.charges = jnp.asarray(rows), jnp.asarray(charges)
        base = {name: np.array([np.mean(x) for x in values[name]]) for name in SCALES}
        self.start, self.unravel = ravel_pytree(base)
        self.scale = ravel_pytree({k: np.full(count, SCALES[k]) for k in SCALES})[0]
        constants = np.tile(coefficients(["C"], MODEL)[0], (count, 1)).T
        self.constants = dict(zip(("alpha", "beta", "gamma"), constants, strict=True))
        self.predict = jax.jit(self._predict)

    def _free_energy(self, x, rows, charges, frames):
        """Free energy () kcal/mol of one molecule by exponential averaging."""
        n_atoms = frames.shape[1]
        table = {**self.unravel(self.start + self.scale * x), **self.constants}
        params = {name: jnp.append(values, 0.0) for name, values in table.items()} | {
            "charge": charges,
            "solute_dielectric": jnp.array(1.0),
            "solvent_dielectric": jnp.array(78.5),
            "coulomb_constant": jnp.array(jaxff.units.AMBER_COULOMB),
        }
        term = GeneralizedBorn(n_atoms, MODEL, True, rows, jnp.arange(n_atoms), ())
        ready = {**params, **term.derived(params)}
        energies = jax.vmap(lambda R: term.energy(ready, R, Space.of(None, None)))(frames)
        return -(jax.scipy.special.logsumexp(-BETA * energies) - jnp.log(len(frames))) / BETA

    def _predict(self, x):
        """Free energies (M,) kcal/mol and their derivatives (M, P)."""

        def one(molecule):
            return jax.value_and_grad(self._free_energy)(x, *molecule)

        return jax.lax.map(one, (self.rows, self.charges, self.frames), batch_size=16)

    def fit(self, chosen: np.ndarray, prior: float, steps: int = 8) -> np.ndarray:
        """Parameters (P,), in units of the prior, that fit chosen molecules best."""
        x = np.zeros(len(self.start))
        for _ in range(steps):
            predicted, slopes = (np.asarray(value) for value in self.predict(jnp.asarray(x)))
            deviation, slopes = (predicted - self.measured)[chosen], slopes[chosen]
            weight = 1.0 / np.sqrt(1.0 + (deviation / ROBUST) ** 2)
            matrix = (weight[:, None] * slopes).T @ slopes + prior * np.eye(len(x))
            gradient = slopes.T @ (weight * deviation) + prior * x
            x = x - np.clip(np.linalg.solve(matrix, gradient), -1.0, 1.0)
        return x

    def table(self, x: np.ndarray) -> dict[str, dict[str, float]]:
        """The fitted values of each class of atoms."""
        values = {k: np.asarray(v) for k, v in self.unravel(self.start + self.scale * x).items()}
        return {
            kind: {name: round(float(values[name][k]), 5) for name in SCALES}
            for k, kind in enumerate(self.classes)
        }


if __name__ == "__main__":
    main()
