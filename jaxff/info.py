"""Versions, devices, and a test that JAX computes correctly."""

from __future__ import annotations

import platform
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from jaxff.errors import InputError

PACKAGES = ("jaxff", "jax", "jaxlib", "jax-md", "flax", "optax", "numpy", "scipy", "ase", "rdkit")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that jaxff uses, {name: version}."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def installation() -> dict[str, str]:
    """Versions, platform, devices and default precision of JAX, as {name: text}."""
    precision = str(jnp.zeros(()).dtype)
    if precision != "float64":
        precision += " (set JAX_ENABLE_X64=1 for float64)"
    devices = ", ".join(f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices())
    return {
        **versions(),
        "platform": platform.platform(),
        "devices": devices,
        "precision": precision,
    }


def canary() -> str:
    """Compare the energy and forces of a small molecule from JAX and from NumPy.

    Some releases of JAX compile programs wrongly on some machines.  JAX is tested with and without
    compilation.  The test takes about a second.

    Returns:
        A sentence with the largest differences.

    Raises:
        InputError: the results disagree.
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

    # In float32 the differences are rounding errors of terms of about 100 kcal/mol.
    tolerance = (1e-9, 1e-4) if R.dtype == jnp.float64 else (1e-2, 5e-2)
    worst = [0.0, 0.0]
    for name, (e, gradient) in results.items():
        errors = abs(float(e) - numpy_energy), float(np.abs(gradient + numpy_forces).max())
        if not (errors[0] < tolerance[0] and errors[1] < tolerance[1]):
            raise InputError(
                f"jax {jax.__version__} computes wrongly on this machine: {name} results differ "
                f"from NumPy by {errors[0]:.2g} kcal/mol and {errors[1]:.2g} kcal/mol/Å; install "
                "another release of jax"
            )
        worst = [max(a, b) for a, b in zip(worst, errors, strict=True)]
    return (
        f"compiled and eager JAX agree with NumPy ({R.dtype}) within "
        f"{worst[0]:.1g} kcal/mol and {worst[1]:.1g} kcal/mol/Å (finite differences)"
    )


# Distorted hydrogen peroxide: atoms H O O H, Å.
_POSITIONS = np.array(
    [[0.91, 0.83, 0.47], [0.03, 0.72, -0.05], [-0.02, -0.74, 0.04], [-0.95, -0.88, 0.41]]
)


def _energy(xp, R):
    """Energy () kcal/mol of H-O-O-H: bonded terms, Coulomb and Lennard-Jones.

    Args:
        xp: NumPy or jax.numpy.
        R: (4, 3) Å.
    """
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
