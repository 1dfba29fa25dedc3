"""What runs here, what a file holds, and a canary for compilers that compute wrongly."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError
from jaxff.npz import NpzReader

PACKAGES = ("jaxff", "jax", "jaxlib", "jax-md", "flax", "optax", "numpy", "scipy", "ase", "rdkit")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe(path: str | None = None) -> dict[str, str]:
    """Versions, devices and precision; or, given a file, what it holds.

    Raises:
        InputError: a file that jaxff cannot read.
    """
    if path is None:
        wide = "float64" if jax.config.jax_enable_x64 else "float32 (JAX_ENABLE_X64=1 for float64)"
        devices = ", ".join(f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices())
        return {
            **versions(),
            "platform": platform.platform(),
            "devices": devices,
            "precision": wide,
        }
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if Path(path).suffix.lower() == ".npz":
        file = NpzReader(path)
        is_model = any(key in file for key in ("header", "R_d_desc_alpha", "Rt_d_desc_alpha"))
        return _describe_potential(path) if is_model else _describe_dataset(path)
    if Path(path).suffix.lower() in (".prmtop", ".parm7", ".top"):
        return _describe_potential(path)
    from jaxff.molecule import Molecule

    molecule = Molecule.read(path)
    return {
        "molecule": molecule.name,
        "formula": molecule.formula,
        "charge": f"{molecule.charge} e",
        "bonds": str(len(molecule.bonds)),
    }


def _describe_dataset(path: str) -> dict[str, str]:
    from jaxff.dataset import Dataset

    data = Dataset.load(path)
    facts = {
        "data set": data.name,
        "molecule": f"{data.molecule.formula}, {data.n_atoms} atoms",
        "frames": str(len(data)),
        "theory": data.theory,
    }
    if data.energies is not None:
        span = f"{data.energies.min():.3f} to {data.energies.max():.3f} kcal/mol"
        facts["energies"] = f"{span}, standard deviation {data.energies.std():.3f}"
    facts["forces"] = f"standard deviation {data.forces.std():.3f} kcal/mol/Å"
    facts["fingerprint"] = data.fingerprint()
    return facts | {key: text for key, text in data.notes.items() if text}


def _describe_potential(path: str) -> dict[str, str]:
    from jaxff.cli import load_potential

    potential = load_potential(path)
    facts = {"potential": repr(potential)}
    if potential.molecule is not None:
        facts["atoms"] = " ".join(potential.molecule.symbols)
    for name, columns in potential.columns.items():
        own = potential.params[name]
        facts[name] = ", ".join(
            f"{key} {tuple(own[key].shape)} {column.unit}" for key, column in columns.items()
        )
    return facts


def canary() -> str:
    """Compare compiled, eager and NumPy energies and forces of a small molecule.

    Some jax releases miscompile on some machines; this takes about a second and would notice.

    Returns:
        what was compared, and the largest differences.

    Raises:
        InputError: they disagree, with the figures.
    """
    positions = _POSITIONS
    numpy_energy = _energy(np, positions)
    step = 1e-4
    shifts = step * np.eye(positions.size).reshape(-1, *positions.shape)
    numpy_forces = np.array(
        [_energy(np, positions - s) - _energy(np, positions + s) for s in shifts]
    ).reshape(positions.shape) / (2 * step)

    energy = jax.value_and_grad(lambda R: _energy(jnp, R))
    R = jnp.asarray(positions)
    batch = jax.jit(jax.vmap(energy))(jnp.stack([R + 0.1, R]))
    results = {"compiled": jax.tree.map(lambda x: x[1], batch), "eager": energy(R)}

    # In float32 the differences are rounding errors of terms of some 100 kcal/mol.
    tolerance = (1e-9, 1e-4) if R.dtype == jnp.float64 else (1e-2, 5e-2)
    worst = [0.0, 0.0]
    for name, (e, gradient) in results.items():
        errors = abs(float(e) - numpy_energy), float(np.abs(gradient + numpy_forces).max())
        if not (errors[0] < tolerance[0] and errors[1] < tolerance[1]):
            raise InputError(
                f"{name} JAX disagrees with NumPy by {errors[0]:.2g} kcal/mol and "
                f"{errors[1]:.2g} kcal/mol/Å: jax {jax.__version__} computes wrongly on this "
                "machine; install another release"
            )
        worst = [max(a, b) for a, b in zip(worst, errors, strict=True)]
    return (
        f"compiled and eager JAX agree with NumPy ({R.dtype}) within "
        f"{worst[0]:.1g} kcal/mol and {worst[1]:.1g} kcal/mol/Å (finite differences)"
    )


# Hydrogen peroxide, bent out of its minimum: atoms H O O H, Å.
_POSITIONS = np.array(
    [[0.91, 0.83, 0.47], [0.03, 0.72, -0.05], [-0.02, -0.74, 0.04], [-0.95, -0.88, 0.41]]
)


def _energy(xp, R):
    """Bonds, angles, a torsion, Coulomb and Lennard-Jones of H-O-O-H, kcal/mol; xp is NumPy or
    jax.numpy."""
    a, b, c = R[1] - R[0], R[2] - R[1], R[3] - R[2]
    bonds = [(a, 480.0, 0.97), (b, 300.0, 1.46), (c, 480.0, 0.97)]
    energy = sum(k * (xp.sqrt(xp.dot(v, v)) - r0) ** 2 for v, k, r0 in bonds)
    n, m = xp.cross(a, b), xp.cross(b, c)
    for u, v, normal in ((-a, b, n), (-b, c, m)):
        angle = xp.arctan2(xp.sqrt(xp.dot(normal, normal)), xp.dot(u, v))
        energy = energy + 60.0 * (angle - 1.75) ** 2
    phi = xp.arctan2(xp.dot(xp.cross(n, m), b) / xp.sqrt(xp.dot(b, b)), xp.dot(n, m))
    energy = energy + 1.4 * (1.0 + xp.cos(2.0 * phi)) + 0.7 * (1.0 + xp.cos(3.0 * phi - 0.3))
    ends = R[3] - R[0]
    distance = xp.sqrt(xp.dot(ends, ends))
    ratio = (2.2 / distance) ** 6
    return energy + 332.0 * 0.16 / distance + 0.06 * (ratio**2 - ratio)
