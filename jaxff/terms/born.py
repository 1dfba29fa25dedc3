"""Implicit solvents: generalised Born energies with a surface term."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxff.potential import Array, Column, Params, Term
from jaxff.space import Space
from jaxff.terms.pairs import with_net_charge

PROBE = 1.4  # Å, radius of water in the surface term


class Model(NamedTuple):
    """Constants of a generalised Born model.

    Attributes:
        offset: Å, difference of intrinsic radius and offset radius.
        bounded: whether the function tanh bounds the Born radii.
        neck: factor of the neck integrals, or zero.
    """

    offset: float
    bounded: bool
    neck: float = 0.0


MODELS = {
    "hct": Model(0.09, False),
    "obc1": Model(0.09, True),
    "obc2": Model(0.09, True),
    "gbn2": Model(0.195141, True, 0.826836),
}
NECK_CUTOFF = 6.8  # Å beyond the sum of both radii
NECK_RADII = (1.0, 2.0)  # Å, range of the tables of neck integrals
_STEP = 0.05  # Å, spacing of these tables
_FAR = 1e6  # Å
ATOM_COLUMNS = ("radius", "screening", "alpha", "beta", "gamma", "surface_tension")


@dataclass(frozen=True, eq=False)
class GeneralizedBorn(Term):
    """Polarisation energy of a molecule in an implicit solvent, and a surface energy.

    The polarisation energy is −k/2 (1/ε_in − 1/ε_out) Σ_ij q_i q_j / f_ij with
    f² = r² + B_i B_j exp(−r²/(4 B_i B_j)) and the Born radii B (Still et al., J. Am. Chem. Soc.
    112, 6127 (1990)).  Born radii are those of the models

    - hct: Hawkins, Cramer and Truhlar, J. Phys. Chem. 100, 19824 (1996);
    - obc1, obc2: Onufriev, Bashford and Case, Proteins 55, 383 (2004);
    - gbn2: Nguyen, Roe and Simmerling, J. Chem. Theory Comput. 9, 2020 (2013).

    The surface energy ("ACE") is 4π Σ_i γ_i (r_i + 1.4 Å)² (r_i/B_i)⁶ with the intrinsic radii r
    and the surface tensions γ, by default one value for all atoms (Schaefer, Bartels and Karplus,
    J. Mol. Biol. 284, 835 (1998)).

    Attributes:
        model: name of the model, a key of `MODELS`.
        surface: whether the surface energy is included.
        atom_rows: (N,) rows of the columns `ATOM_COLUMNS`.
        charge_rows: (N,) rows of charge.
        labels: names of the rows of radius.
    """

    kind: ClassVar[str] = "generalized_born"
    columns: ClassVar[dict[str, Column]] = {
        "charge": Column("e", scale=0.03, trainable=False),
        "radius": Column("Å", scale=0.05, lower=0.3, upper=5.0),
        "screening": Column("1", scale=0.05),
        "alpha": Column("1", scale=0.05, trainable=False),
        "beta": Column("1", scale=0.05, trainable=False),
        "gamma": Column("1", scale=0.1, trainable=False),
        "surface_tension": Column("kcal/mol/Å²", scale=1e-3),
        "solute_dielectric": Column("1", lower=1.0, trainable=False),
        "solvent_dielectric": Column("1", lower=1.0, trainable=False),
        "coulomb_constant": Column("kcal/mol Å/e²", lower=0.0, trainable=False),
    }
    tables: ClassVar[dict[str, tuple[str, tuple[str, ...]]]] = {
        "atom_rows": ("labels", ATOM_COLUMNS),
        "charge_rows": ("", ("charge",)),
    }
    dimensions: ClassVar[dict[str, str]] = {
        "atom_rows": "N",
        "charge_rows": "N",
        "solute_dielectric": "",
        "solvent_dielectric": "",
        "coulomb_constant": "",
    }

    n_atoms: int
    model: str
    surface: bool
    atom_rows: np.ndarray
    charge_rows: np.ndarray
    labels: tuple[str, ...]

    def fault(self, params: Params) -> str | None:
        if self.model not in MODELS:
            return f"the model {self.model!r} is not one of {', '.join(MODELS)}"
        if (np.asarray(params["radius"]) <= MODELS[self.model].offset).any():
            return "a radius is not larger than the offset of the model"
        return None

    def frame_bytes(self, params: Params) -> int:
        return 16 * self.n_atoms**2 * params["radius"].dtype.itemsize

    def constrain(self, params: Params, start: Params) -> Params:
        return with_net_charge(self.charge_rows, params, start)

    def derived(self, params: Params) -> Params:
        """Values of atoms, (N,); products of charges and the properties of necks, (N, N).

        The products include the Coulomb constant and the factor of both dielectric constants.
        """
        inside, outside = params["solute_dielectric"], params["solvent_dielectric"]
        strength = params["coulomb_constant"] * (1.0 / inside - 1.0 / outside)
        rows, charge_rows = (self._with_ghosts(x) for x in (self.atom_rows, self.charge_rows))
        values = {f"atom_{name}": params[name][rows] for name in ATOM_COLUMNS}
        charges = params["charge"][charge_rows]
        values["products"] = strength * charges[:, None] * charges
        if MODELS[self.model].neck:
            for name, table in zip(("neck_at", "neck_height"), necks(), strict=True):
                values[name] = _interpolated(jnp.asarray(table), values["atom_radius"]).astype(
                    params["radius"].dtype
                )
        return values

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        p = {name: value.astype(R.dtype) for name, value in params.items()}
        square = jnp.sum((R[:, None] - R) ** 2, axis=-1)
        same = jnp.eye(self.n_atoms, dtype=bool)
        born = self._born_radii(p, jnp.where(same, _FAR, jnp.sqrt(jnp.where(same, 1.0, square))))
        products = born[:, None] * born
        f = jnp.sqrt(square + products * jnp.exp(-0.25 * square / products))
        energies = {"born": -0.5 * jnp.sum(p["products"] / f)}
        if self.surface:
            radius = p["atom_radius"]  # zero for ghosts
            area = 4.0 * jnp.pi * (radius + PROBE) ** 2 * (radius / born) ** 6
            energies["surface"] = jnp.sum(p["atom_surface_tension"] * area)
        return energies

    def _with_ghosts(self, rows: Any) -> Array:
        """Rows (n_atoms,); ghosts of a stack have the last row, which contains zeros."""
        return jnp.pad(rows, (0, self.n_atoms - len(rows)), constant_values=-1)

    def _born_radii(self, p: Params, r: Array) -> Array:
        """The Born radii (N,) Å; r (N, N) Å are distances, and very large on the diagonal."""
        model, real = MODELS[self.model], p["atom_radius"] > 0.0
        radius: Any = jnp.where(real, p["atom_radius"], 1.0)
        rho = radius - model.offset
        own, other = rho[:, None], p["atom_screening"] * rho
        upper, lower = r + other, jnp.maximum(own, jnp.abs(r - other))
        descreening = 0.5 * (
            1.0 / lower
            - 1.0 / upper
            + 0.25 * (r - other**2 / r) * (1.0 / upper**2 - 1.0 / lower**2)
            + 0.5 * jnp.log(lower / upper) / r
        )
        # An atom inside of another one is descreened by the whole of it.
        descreening += (own < other - r) * (1.0 / own - 1.0 / lower)
        descreening *= upper > own
        if model.neck:
            x = r - p["neck_at"]
            neck = p["neck_height"] / (1.0 + x**2 + 0.3 * x**6)
            near = real & (r < radius[:, None] + radius + NECK_CUTOFF)
            descreening += near * model.neck * neck
        integral = real * descreening.sum(axis=1)
        if not model.bounded:
            return 1.0 / (1.0 / rho - integral)
        psi = integral * rho
        psi = psi * (p["atom_alpha"] + psi * (psi * p["atom_gamma"] - p["atom_beta"]))
        return 1.0 / (1.0 / rho - jnp.tanh(psi) / radius)


@cache
def necks() -> tuple[np.ndarray, np.ndarray]:
    """Positions (21, 21) Å and heights (21, 21) 1/Å of the neck integrals of two atoms.

    Rows and columns are radii from 1 to 2 Å.  The tables are those of Nguyen et al. (2013) as
    distributed with OpenMM (MIT licence).
    """
    with (resources.files("jaxff.data") / "gbn2_necks.npz").open("rb") as file:
        tables = np.load(file)
        return tables["positions"], tables["heights"]


def _interpolated(table: Array, radii: Array) -> Array:
    """Values (N, N) of a table of neck integrals for pairs of atoms, by bilinear interpolation."""
    x = jnp.clip((radii - NECK_RADII[0]) / _STEP, 0.0, len(table) - 1.0)
    low = jnp.clip(jnp.floor(x).astype(int), 0, len(table) - 2)
    part = x - low
    rows = (1.0 - part)[:, None] * table[low] + part[:, None] * table[low + 1]
    return ((1.0 - part) * rows[:, low] + part * rows[:, low + 1]).T
