"""Read and write model files of the sGDML package.

Files from 2018 up to version 1.0.3 can be read; files are written in the format of version 1.0.3.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import covalent_radii

from jaxff import units
from jaxff.domain import Domain, Trained
from jaxff.errors import InputError
from jaxff.gdml.descriptor import inverse_distances, pair_permutations
from jaxff.gdml.model import KernelTerm, kernel_potential
from jaxff.molecule import BOND_TOLERANCE, Molecule
from jaxff.npz import NpzReader, usable, write_npz
from jaxff.potential import Potential
from jaxff.soundness import fault_of

DOMAIN = "jaxff_domain_"  # prefix of the names of the arrays that describe the training frames
RETRAIN = "the file is damaged, train the model again"


def load(path: str | Path) -> Potential:
    """Load the potential of a model file of the sGDML package.

    Energies and lengths are converted from the units in the file (default: kcal/mol and Å).  The
    molecule has the geometry of the first training frame, up to a rotation and reflection.

    Raises:
        InputError: the file is not an sGDML model, or it is damaged or incomplete.
    """
    file = NpzReader(path, "model")
    legacy = "Rt_desc" in file
    if not legacy and file.text("type") != "m":
        raise InputError(
            f"{path}: the file is not a model of the sGDML package; give a file whose array "
            "'type' is 'm'"
        )
    lattice = file.need("lattice", _real(_shape(3, 3))) if "lattice" in file else None
    if lattice is not None and abs(np.linalg.det(lattice)) < 1e-6:
        raise InputError(
            f"{path}: the vectors of the array 'lattice' are linearly dependent; train the model "
            "again with another lattice"
        )
    numbers = file.need("z", _natural(_shape(None), 1, len(covalent_radii) - 1)).astype(int)
    n_atoms = len(numbers)
    n_pairs = n_atoms * (n_atoms - 1) // 2
    x_key, b_key = ("Rt_desc", "Rt_d_desc_alpha") if legacy else ("R_desc", "R_d_desc_alpha")
    descriptors = file.need(x_key, _real(_shape(n_pairs, None))).T
    n_train = len(descriptors)
    coefficients = file.need(b_key, _real(_coefficients(n_train, n_pairs)))
    coefficients = coefficients.reshape(n_train, n_pairs)
    permutations = file.need("perms", _natural(_shape(None, n_atoms), 0, n_atoms - 1)).astype(int)
    if not (np.sort(permutations, axis=1) == np.arange(n_atoms)).all():
        raise InputError(
            f"{path}: the array 'perms' contains rows that are not permutations; {RETRAIN}"
        )
    if "tril_perms_lin" in file:  # it follows from the permutations
        file.need("tril_perms_lin", _size(len(permutations) * n_pairs))
    alphas = (
        file.need("alphas_F", _real(_size(3 * n_atoms * n_train))) if "alphas_F" in file else None
    )
    energy_alphas = file.need("alphas_E", _real(_size(n_train))) if "alphas_E" in file else None
    sigma, offset, std, lam = (
        float(file.need(key, _shape() if key in ("sig", "lam") else _real(_shape())))
        if default is None or key in file
        else default
        for key, default in (
            ("sig", None),
            ("c", None),
            ("std", 1.0 if legacy else None),
            ("lam", 0.0),
        )
    )
    if min(sigma, std) <= 0.0 or (descriptors <= 0.0).any():
        raise InputError(f"{path}: sigma, std and descriptors must be positive; {RETRAIN}")
    if lam < 0.0:
        raise InputError(f"{path}: lam is negative; {RETRAIN}")
    index = {
        key: file.need(key, _natural(_list, 0)).astype(int)
        for key in ("idxs_train", "idxs_valid")
        if key in file
    }
    knows_energies = file.need("use_E", _flag).item() if "use_E" in file else True

    try:
        length = units.length_factor(file.text("r_unit") or "Ang")
        energy = units.energy_factor(file.text("e_unit") or "kcal/mol")
        molecule = _molecule(numbers, descriptors / length, file.text("dataset_name"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    columns = {
        "coefficients": coefficients / length,
        "alphas": None if alphas is None else alphas.reshape(n_train, n_atoms, 3) * length,
        "energy_alphas": None if energy_alphas is None else energy_alphas.reshape(-1),
        "lattice": None if lattice is None else lattice * length,
        "sigma": sigma / length,
        "std": std * energy,
        "offset": offset * energy,
        "lam": lam,
    }
    term = KernelTerm(
        n_atoms,
        permutations,
        dataset=file.text("dataset_name") or file.text("dataset"),
        theory=file.text("dataset_theory", "unknown"),
        train_index=index.get("idxs_train", np.arange(n_train)),
        train_md5=file.text("md5_train"),
        valid_index=index.get("idxs_valid", np.zeros(0, int)),
        valid_md5=file.text("md5_valid"),
        knows_energies=bool(knows_energies),
    )
    if "charge" in file:  # written by jaxff
        charge = file.need("charge", _natural(_size(1), -n_atoms * 4, sum(numbers)))
        molecule = replace(molecule, charge=int(charge.item()))
    potential = kernel_potential(term, descriptors / length, columns, molecule)
    if fault := fault_of(term, potential.params["gdml"]):
        raise InputError(f"{path}: {fault}; {RETRAIN}")
    known = {k.removeprefix(DOMAIN): file.get(k) for k in file if k.startswith(DOMAIN)}
    domain = Domain.from_arrays(known)
    if domain is None or not np.array_equal(domain.atoms, molecule.symbols):
        return potential
    return potential.with_training([Trained(domain)])


def save(path: str | Path, potential: Potential) -> None:
    """Write an sGDML model as a file for the sGDML package (version 1.0.3).

    Raises:
        InputError: the potential has other terms than one kernel of inverse distances on all
            atoms, or a parameter is not finite.
    """
    first, *others = potential.program.placed
    term, molecule = first.term, potential.molecule
    if (
        others
        or first.atoms is not None
        or type(term) is not KernelTerm
        or term.descriptor is not inverse_distances
        or "scale" in potential.params[first.name]
        or molecule is None
    ):
        raise InputError(
            f"{path}: not written, because {potential!r} is not a single sGDML model with inverse "
            "distances; use jaxff.save, which writes any potential"
        )
    params = {key: np.asarray(v, float) for key, v in potential.params[first.name].items()}
    for key, value in params.items():
        if not np.isfinite(value).all():
            raise InputError(
                f"{path}: not written, because the parameter {key} is not finite; train the model "
                "again"
            )
    pairs = pair_permutations(term.permutations)
    sigma = float(params["sigma"])
    pending = np.array({"mae": np.nan, "rmse": np.nan}, object)  # the package's "not tested yet"
    arrays = {
        "type": "m",
        "code_version": "1.0.3",
        "dataset_name": term.dataset,
        "dataset_theory": term.theory,
        "solver_name": "analytic",
        "z": molecule.numbers.astype(np.uint8),
        "charge": molecule.charge,
        "idxs_train": term.train_index,
        "md5_train": term.train_md5.encode(),
        "idxs_valid": term.valid_index,
        "md5_valid": term.valid_md5.encode(),
        "n_test": 0,
        "md5_test": np.array(None, object),
        "f_err": pending,
        "R_desc": (params["descriptors"] + params["centre"]).T,
        "R_d_desc_alpha": params["coefficients"],
        "c": params["offset"],
        "std": params["std"],
        "sig": int(sigma) if sigma.is_integer() else sigma,  # the package prints integers only
        "lam": params["lam"],
        "perms": term.permutations,
        "tril_perms_lin": (pairs + np.arange(len(pairs))[:, None] * pairs.shape[1]).T.ravel(),
        "use_E": term.knows_energies,
        "r_unit": "Ang",
        "e_unit": "kcal/mol",
    }
    if len(potential.trained) == 1 and potential.trained[0].atoms is None:
        known = potential.trained[0].domain.arrays()
        arrays |= {f"{DOMAIN}{key}": value for key, value in known.items()}
    if term.knows_energies:
        arrays["e_err"] = pending
    if "alphas" in params:
        arrays["alphas_F"] = params["alphas"].ravel()
    if "lattice" in params:
        arrays["lattice"] = params["lattice"]
    if "energy_alphas" in params:
        arrays["alphas_E"] = params["energy_alphas"]
    write_npz(path, {key: np.asarray(value) for key, value in arrays.items()})


# -- checks for `NpzReader.need` ---------------------------------------------------------------


def _shape(*wanted):
    def fault(array):
        if array.dtype.kind not in "fiu":
            return f"is not numeric ({array.dtype})"
        if array.ndim != len(wanted) or any(
            w not in (None, n) for w, n in zip(wanted, array.shape, strict=True)
        ):
            if len(wanted) == 1:
                size = "numbers" if wanted[0] is None else f"{wanted[0]} numbers"
                return f"has shape {array.shape}, expected a list of {size}"
            shape = ", ".join("any number" if w is None else str(w) for w in wanted)
            return f"has shape {array.shape}, expected ({shape})"
        return None if array.size and usable(array).all() else "is empty or not finite"

    return fault


def _coefficients(n_train: int, n_pairs: int):
    def fault(array):
        wanted = (n_train, n_pairs), (n_train, n_pairs, 1)  # the second shape is of 2018
        if array.shape not in wanted:
            return f"has shape {array.shape}, expected {wanted[0]}"
        return _size(None)(array)

    return fault


def _real(fault):
    """Return a check that requires floating-point numbers, and then applies `fault`."""

    def both(array):
        return fault(array) if array.dtype.kind == "f" else f"is of type {array.dtype}, not float"

    return both


def _natural(fault, least: int, most: float = np.inf):
    """Return a check that applies `fault`, and then requires integers from `least` to `most`."""

    def both(array):
        message = fault(array)
        if message is not None or not array.size:
            return message
        whole = (array == np.round(array)).all()
        if whole and array.min() >= least and array.max() <= most:
            return None
        limit = f" to {most}" if np.isfinite(most) else ""
        return f"contains numbers that are not integers from {least}{limit}"

    return both


def _list(array):
    if array.ndim != 1:
        return f"has shape {array.shape}, expected a list of numbers"
    return _size(None)(array)


def _flag(array):
    flag = array.shape == () and array.dtype.kind in "biu" and array.item() in (0, 1)
    return None if flag else f"is not true or false ({array.dtype}, shape {array.shape})"


def _size(wanted: int | None):
    def fault(array):
        if array.dtype.kind not in "fiu":
            return f"is not numeric ({array.dtype})"
        if wanted is not None and array.size != wanted:
            return f"has {array.size} numbers, expected {wanted}"
        return None if usable(array).all() else "is not finite or too large"

    return fault


def _molecule(numbers: np.ndarray, descriptors: np.ndarray, name: str) -> Molecule:
    """Molecule of a model file, from the distances in the training frames.

    The median distances determine the bonds.  Multidimensional scaling of the distances of the
    first frame gives the positions.

    Args:
        numbers: (N,) atomic numbers.
        descriptors: (M, D) inverse distances, 1/Å.

    Returns:
        The N atoms with positions in Å.
    """
    n_atoms = len(numbers)
    i, j = np.tril_indices(n_atoms, -1)
    median = 1.0 / np.median(descriptors, axis=0)
    bonded = median < BOND_TOLERANCE * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
    squared = np.zeros((n_atoms, n_atoms))
    squared[i, j] = squared[j, i] = descriptors[0] ** -2.0
    centring = np.eye(n_atoms) - 1.0 / n_atoms
    values, vectors = np.linalg.eigh(-0.5 * centring @ squared @ centring)
    positions = np.zeros((n_atoms, 3))
    top = min(3, n_atoms)
    positions[:, :top] = vectors[:, -top:] * np.sqrt(np.maximum(values[-top:], 0.0))
    return Molecule(numbers, positions, np.stack([j, i], axis=1)[bonded], name=name)
