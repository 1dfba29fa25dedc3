"""Makes the files in data/: frames with GFN2-xTB, models and predictions with the sGDML package.

python make_fixtures.py frames              (needs tblite)
SGDML_PYTHON make_fixtures.py models        (needs sgdml 1.0.3 with numpy < 2.4)
"""

import sys
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
N_TRAIN, N_FRAMES, SIGMA = 16, 24, 12
# Larger than usual, so that the package's own rounding stays below 1e-9 kcal/mol.
LAM, ENERGY_LAM = 1e-6, 1e-4
# The methyl rotation as a set of two, not a group: it distinguishes a permutation from its inverse.
# A cell whose nearest images are the molecule itself; lattice vectors as columns.
LATTICE = np.array([[9.0, 1.0, 0.0], [0.0, 8.5, 0.5], [0.0, 0.0, 9.5]])
CYCLE = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 4, 5, 3, 6, 7, 8]])


def frames():
    """Ethanol at 500 K: C C O, three methyl H, two methylene H, the hydroxyl H."""
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.units import fs
    from tblite.ase import TBLite

    from jaxff import Dataset, Molecule, units

    atoms = Molecule.from_smiles("CCO").to_ase()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    rng = np.random.default_rng(3)
    MaxwellBoltzmannDistribution(atoms, temperature_K=500, rng=rng)
    md = Langevin(atoms, 0.5 * fs, temperature_K=500, friction=0.02 / fs, fixcm=False, rng=rng)
    R, E, F = [], [], []
    for _ in range(N_FRAMES):
        md.run(200)
        R.append(atoms.get_positions())
        E.append(atoms.get_potential_energy() * units.EV)
        F.append(atoms.get_forces() * units.EV)
    data = Dataset(atoms.numbers, np.array(R), np.array(F), np.array(E), name="ethanol")
    data.save(DATA / "ethanol_frames.npz")


def models():
    """Models of the reference package: plain, with energies constrained or unused, without
    symmetries, solved iteratively, periodic; a set of permutations that is no group; and the plain
    one in the format of 2018."""
    from sgdml.predict import GDMLPredict
    from sgdml.train import GDMLTrain
    from sgdml.utils.desc import Desc

    with np.load(DATA / "ethanol_frames.npz") as file:
        data = dict(file)
    train = {k: v[:N_TRAIN] if k in ("R", "E", "F") else v for k, v in data.items()}
    predictions = {"R": data["R"]}

    def tril_perms_lin(perms):
        pairs = np.array([Desc.perm(p) for p in perms])
        return (pairs + np.arange(len(pairs))[:, None] * pairs.shape[1]).T.ravel()

    def finish(name, model, R=data["R"]):
        np.savez_compressed(DATA / f"{name}.npz", **model)
        predict = GDMLPredict(model, max_processes=1)
        E, F = predict.predict(R.reshape(N_FRAMES, -1))
        predictions[f"{name}_E"], predictions[f"{name}_F"] = E, F.reshape(data["R"].shape)

    trainer = GDMLTrain(max_processes=1)

    def fit(lam, symmetric=True, train=train, **options):
        task = trainer.create_task(
            train, N_TRAIN, train, 0, sig=SIGMA, lam=lam, use_sym=False, **options
        )
        order = np.argsort(task["idxs_train"])
        for key in {"R_train", "F_train", "E_train", "idxs_train"} & set(task):
            task[key] = task[key][order]
        if not symmetric:
            return trainer.train(task)
        methyl = [(3, 4, 5), (4, 5, 3), (5, 3, 4), (4, 3, 5), (3, 5, 4), (5, 4, 3)]
        task["perms"] = np.array(
            [(0, 1, 2, *m, *((6, 7) if k < 3 else (7, 6)), 8) for k, m in enumerate(methyl)]
        )
        return trainer.train(task)

    model = fit(LAM)
    finish("ethanol_model", model)
    finish("ethanol_energy_model", fit(ENERGY_LAM, use_E_cstr=True))
    finish("ethanol_force_only_model", fit(LAM, use_E=False))
    finish("ethanol_unsymmetrised_model", fit(LAM, symmetric=False))

    rng = np.random.default_rng(0)
    wrapped = data["R"] + rng.integers(-1, 2, size=data["R"].shape) @ LATTICE.T
    predictions["R_wrapped"] = wrapped
    periodic = {**train, "R": wrapped[:N_TRAIN], "lattice": LATTICE}
    finish("ethanol_periodic_model", fit(LAM, train=periodic), wrapped)

    trainer._max_memory = 1e-3  # GB: too little for its analytic solver
    iterative = fit(1e-4)
    assert iterative["solver_name"] == "cg"
    assert iterative["solver_resid"] < 1e-3 * iterative["norm_y_train"]
    finish("ethanol_cg_model", iterative)

    cycle = {**model, "perms": CYCLE, "tril_perms_lin": tril_perms_lin(CYCLE)}
    finish("ethanol_cycle_model", cycle)
    legacy = {key: model[key] for key in ("z", "perms", "sig", "tril_perms_lin")}
    legacy |= {
        "c": model["c"],
        "Rt_desc": model["R_desc"],
        "Rt_d_desc_alpha": model["std"] * model["R_d_desc_alpha"][:, :, None],
        "e_mae": 0.1,
        "e_rmse": 0.2,
        "f_mae": 0.3,
        "f_rmse": 0.4,
        "dataset": "ethanol",
    }
    np.savez_compressed(DATA / "ethanol_model_2018.npz", **legacy)
    np.savez_compressed(DATA / "predictions.npz", **predictions)


if __name__ == "__main__":
    {"frames": frames, "models": models}[sys.argv[1]]()
