"""Lennard-Jones and Coulomb energies in a periodic box, with a cutoff and Ewald sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from jaxff import geometry
from jaxff.errors import InputError
from jaxff.interaction import Interactions, total
from jaxff.neighbors import check_box
from jaxff.space import Space
from jaxff.term import Array, Params
from jaxff.terms import ewald
from jaxff.terms.boys import Polynomials, boys, smooth_coulomb
from jaxff.terms.dispersion import tail_energy
from jaxff.terms.pair_sum import Form, PairSum, intervals, pair_energy
from jaxff.terms.pairs import AtomPairs, lennard_jones_coulomb
from jaxff.terms.pairs import pair_energy as full_energy

Electrostatics = Literal["pme", "cutoff", "none"]
RULES = ("lorentz-berthelot", "geometric")
WATER = 78.3  # dielectric constant of the reaction field, as in OpenMM


def periodic(
    fields: Mapping[str, Any],
    params: Params,
    box,
    cutoff: float = 9.0,
    switch: float | None = None,
    electrostatics: Literal["auto"] | Electrostatics = "auto",
    ewald_tolerance: float = 5e-4,
    dispersion_correction: bool = True,
) -> PeriodicNonbonded:
    """The nonbonded term of a box.

    Args:
        fields: {field: value} of `PeriodicNonbonded`, such as the arrays of atoms.  `alpha`, `grid`
            and `order` may be given here; by default, alpha and grid follow from the tolerance.
        params: parameters of the term, {column: array}.
        box: (3, 3) Å, lattice vectors as rows; PME keeps the grid of this box in other boxes.
        cutoff: Å, at most half of the smallest width of the box.
        switch: distance at which the switching function of Lennard-Jones energies begins, Å.
        electrostatics: "pme", "cutoff" (a reaction field of water), "none" (without
            Coulomb energies), or "auto": "pme" if there are charges, else "none".
        ewald_tolerance: relative error of the forces of PME.
        dispersion_correction: whether the energy contains the tail of the Lennard-Jones energy.

    Raises:
        InputError: an argument is wrong, or the box is too small for the cutoff.
    """
    if box is None:
        raise InputError("periodic electrostatics and dispersion need a box; give box (3, 3) in Å")
    if not cutoff > 0.0 or not (switch is None or 0.0 <= switch < cutoff):
        raise InputError(
            f"the cutoff must be positive and switch below it, in Å (got {cutoff} and {switch})"
        )
    if electrostatics not in ("auto", "pme", "cutoff", "none"):
        raise InputError(
            f'electrostatics must be "auto", "pme", "cutoff" or "none" (got {electrostatics!r})'
        )
    if not 0.0 < ewald_tolerance < 0.5:
        raise InputError(f"ewald_tolerance must lie between 0 and 0.5 (got {ewald_tolerance})")
    box = check_box(box, cutoff)
    if electrostatics == "auto":
        charged = np.any(np.asarray(params["charge"])[np.asarray(fields["charge_rows"])])
        electrostatics = "pme" if charged else "none"
    mesh: dict[str, Any] = {}
    if electrostatics == "pme":
        mesh["alpha"], mesh["grid"] = ewald.settings_of(box, cutoff, ewald_tolerance)
    return PeriodicNonbonded(
        **{**mesh, **fields},
        cutoff=float(cutoff),
        switch=None if switch is None else float(switch),
        electrostatics=electrostatics,
        dispersion_correction=bool(dispersion_correction),
    )


@dataclass(frozen=True, eq=False)
class PeriodicNonbonded(AtomPairs):
    """Lennard-Jones and Coulomb energies of the pairs of a neighbour list, in a periodic box.

    Excluded and 1-4 pairs are computed without the box, because molecules are whole, and without a
    cutoff.  The excluded pairs of an Ewald sum subtract erf(αr)/r.

    Attributes:
        cutoff: Å.
        switch: distance at which the switching function of Lennard-Jones energies begins, Å; None:
            no switching function.
        electrostatics: "pme", "cutoff" (a reaction field) or "none".
        alpha: splitting parameter of the Ewald sum, 1/Å.
        grid: numbers of grid points of PME along the lattice vectors.
        order: order of the B-splines of PME.
        dispersion_correction: whether the energy contains the tail of the Lennard-Jones energy.
        combination: rule for σ of two types, "lorentz-berthelot" or "geometric".
        excluded: (N, K, 2) intervals of atoms that are excluded from the list for each atom;
            computed from `exclusions` if None.
    """

    kind: ClassVar[str] = "periodic_nonbonded"
    needs_list: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("excluded",)
    dimensions: ClassVar[dict[str, str]] = {**AtomPairs.dimensions, "excluded": "N _ 2"}

    cutoff: float
    switch: float | None = None
    electrostatics: Electrostatics = "pme"
    alpha: float = 0.0
    grid: tuple[int, int, int] = (0, 0, 0)
    order: int = 5
    dispersion_correction: bool = True
    combination: str = "lorentz-berthelot"
    excluded: np.ndarray | None = field(default=None, metadata={"saved": False})

    def __post_init__(self):
        object.__setattr__(self, "grid", tuple(self.grid))  # files contain lists
        mesh_is_set = self.alpha > 0.0 and len(self.grid) == 3 and min(self.grid) > 0
        if self.electrostatics == "pme" and not (mesh_is_set and self.order >= 3):
            raise InputError(
                f"PME needs a positive alpha, three grid sizes and order >= 3 (got {self.alpha}, "
                f"{self.grid} and {self.order})"
            )
        if self.combination not in RULES:
            raise InputError(f"combination must be one of {RULES} (got {self.combination!r})")
        if self.excluded is None:
            object.__setattr__(self, "excluded", intervals(self.exclusions, self.n_atoms))

    def reads(self, params: Params) -> tuple[str, ...]:
        return ("box", "neighbor")

    def list_cutoff(self) -> float | None:
        return self.cutoff

    def mixed_sigma(self, sigma):
        if self.combination == "geometric":
            return geometry.safe_sqrt(sigma[:, None] * sigma)
        return super().mixed_sigma(sigma)

    def derived(self, params: Params) -> Params:
        """Coefficients of pairs of types, charges of atoms, and coefficients of bonded pairs.

        The charges (N,) include the square root of the Coulomb constant.
        """
        c12, c6 = self.coefficients(params)
        charges = jnp.sqrt(params["coulomb_constant"]) * params["charge"][self.charge_rows]
        (i, j), (k, l) = self.pairs14.T, self.exclusions.T
        types = jnp.asarray(self.lj_rows)
        lj14, coulomb14 = params["lj14"][self.rows14], params["coulomb14"][self.rows14]
        return {
            "table_c12": c12,
            "table_c6": c6,
            "charges": charges,
            "c12_14": lj14 * c12[types[i], types[j]],
            "c6_14": lj14 * c6[types[i], types[j]],
            "qq_14": coulomb14 * charges[i] * charges[j],
            "qq_excluded": charges[k] * charges[l],
        }

    def energy(self, params: Params, R: Array, space: Space) -> Array:
        bonded = [self._pairs14(params)]
        if self.electrostatics == "pme" and len(self.exclusions):
            bonded.append(self._excluded_pairs(params))
        energy = pair_energy(*self._pair_sum(params, R, space)) + total(bonded, R)
        if self.electrostatics == "pme":
            energy += self._long_range(params, R, space.box)
        if self.dispersion_correction:
            energy += self._tail(params, R, space.box)
        return energy

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        pairs, R, box = self._pair_sum(params, R, space)
        lj, coulomb = pairs.energies(R, box)
        lj14, coulomb14 = replace(self._pairs14(params), energy=lennard_jones_coulomb).each(R)
        if self.electrostatics == "pme":
            coulomb += self._long_range(params, R, space.box)
            coulomb += self._excluded_pairs(params).sum(R)
        energies = {"lj": lj, "lj14": lj14.sum()}
        if self.dispersion_correction:
            energies["lj_tail"] = self._tail(params, R, space.box)
        return {**energies, "coulomb": coulomb, "coulomb14": coulomb14.sum()}

    # -- parts ---------------------------------------------------------------------------

    def _form(self, dtype) -> Form:
        digits = 15 if dtype == jnp.float64 else 8
        smooth: Polynomials | None = None
        if self.electrostatics == "pme":
            smooth = smooth_coulomb(self.alpha, self.cutoff, digits)
        elif self.electrostatics == "cutoff":
            # P = c − k r² = c − k (1 + u)/2 · cutoff²
            k = (WATER - 1.0) / (2.0 * WATER + 1.0) / self.cutoff**3
            c = 3.0 * WATER / (2.0 * WATER + 1.0) / self.cutoff
            half = 0.5 * k * self.cutoff**2
            smooth = ((c - half, -half), (-k,))
        return Form(self.cutoff, self.switch, smooth)

    def _pair_sum(self, params, R, space: Space) -> tuple[PairSum, Array, Array]:
        """The sum over pairs, positions (N, 3) Å, and box (3, 3) Å, in the type of R."""
        if space.box is None:
            raise InputError("a periodic potential needs the box; call it with box=box")
        if space.neighbor is None:
            raise InputError(
                "in transformed or compiled code a periodic potential needs a neighbour list: make "
                "it before by potential.neighbors(R, box) and call with neighbor=..."
            )
        pairs = PairSum(
            jnp.asarray(self.lj_rows),
            params["charges"].astype(R.dtype),
            params["table_c12"].astype(R.dtype),
            params["table_c6"].astype(R.dtype),
            space.neighbor,
            jnp.asarray(self.excluded),
            self._form(R.dtype),
            space.row,
        )
        return pairs, R, space.box.astype(R.dtype)

    def _pairs14(self, params) -> Interactions:
        values = tuple(params[f"{key}_14"] for key in ("c12", "c6", "qq"))
        return Interactions(full_energy, self.pairs14.T, values)

    def _excluded_pairs(self, params) -> Interactions:
        scale = 2.0 * self.alpha / math.sqrt(math.pi)

        def energy(d, qq):
            return -scale * qq * boys(0, self.alpha**2 * geometry.square(d))

        return Interactions(energy, self.exclusions.T, (params["qq_excluded"],))

    def _long_range(self, params, R, box):
        charges, box = params["charges"].astype(R.dtype), box.astype(R.dtype)
        mesh = ewald.mesh_energy(R, charges, box, self.alpha, self.grid, self.order)
        return mesh + ewald.constant_energy(charges, box, self.alpha)

    def _tail(self, params, R, box):
        values = (params["table_c12"], params["table_c6"], jnp.asarray(self.lj_rows), box)
        return tail_energy(*values, self._form(R.dtype)).astype(R.dtype)
