"""The sGDML model as a term of a potential."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxff.errors import InputError
from jaxff.gdml.descriptor import Descriptor, entry_permutations, inverse_distances
from jaxff.gdml.kernel import Expansion, expand
from jaxff.molecule import Molecule
from jaxff.potential import Array, Column, Params, Potential, Term
from jaxff.space import Space


@dataclass(frozen=True, eq=False)
class KernelTerm(Term):
    """The sGDML energy: a sum over training frames and permutations.

    E = std Σ_j Σ_p 5/(3σ²) (1 + t) exp(−t) δ·β_j + offset, with t = √5 |δ|/σ.  δ is the permuted
    descriptor minus the descriptor of training frame j.  The sums over M frames and P permutations
    are matrix products.  They are always in float64, because single terms are up to 10⁸ times as
    large as E.

    Attributes:
        n_atoms: N.
        permutations: (P, N) permutations p of equivalent atoms.
        dataset, theory: names of the training data set and of its level of theory.
        train_index: (M,) indices of the training frames in the data set.
        train_md5: fingerprint of the data set.
        valid_index: (V,) indices of the validation frames in the data set of validation frames.
        valid_md5: fingerprint of the data set of validation frames.
        descriptor: function whose values the kernel compares, see `jaxff.gdml.descriptor`.
        entries: (P, D) permutations of the entries of the descriptor (None: computed).
        knows_energies: whether the training data had energies; if not, `offset` is arbitrary.

    Parameters:
        descriptors: (M, D) 1/Å, relative to `centre`.
        centre: (D,) 1/Å, the mean training descriptor; subtracting it reduces rounding errors.
        coefficients: (M, D) Å, β_j = J_j α_j with the Jacobian J_j of descriptor j.
        alphas: (M, N, 3) Å², α_j (optional; written to files of the sGDML package).
        energy_alphas: (M,) Å, coefficients of energy constraints (optional).
        lattice: (3, 3) Å, lattice vectors as columns (periodic models only); used unless a box
            is given.
        sigma: () 1/Å, length scale.
        std: () kcal/mol/Å, standard deviation of the training labels.
        offset: () kcal/mol, constant of the energy.
        lam: () regularisation λ (written to files of the sGDML package).
    """

    kind: ClassVar[str] = "gdml"
    learnt: ClassVar[bool] = True
    precise: ClassVar[bool] = True
    notes: ClassVar[tuple[str, ...]] = ("dataset", "theory", "train_md5", "valid_md5")
    columns: ClassVar[dict[str, Column]] = {
        "descriptors": Column("1/Å", trainable=False),
        "centre": Column("1/Å", trainable=False),
        "coefficients": Column("Å", trainable=False),
        "alphas": Column("Å²", trainable=False),
        "energy_alphas": Column("Å", trainable=False),
        "lattice": Column("Å", trainable=False),
        "sigma": Column("1/Å", scale=1.0, lower=0.0, trainable=False),
        "std": Column("kcal/mol/Å", lower=0.0, trainable=False),
        "offset": Column("kcal/mol", trainable=False),
        "lam": Column("1", lower=0.0, trainable=False),
    }
    dimensions: ClassVar[dict[str, str]] = {
        "permutations": "P N",
        "entries": "P D",
        "descriptors": "M D",
        "centre": "D",
        "coefficients": "M D",
        "alphas": "M N 3",
        "energy_alphas": "M",
        "lattice": "3 3",
        **dict.fromkeys(("sigma", "std", "offset", "lam"), ""),
        **dict.fromkeys(("train_index", "valid_index"), "_"),
    }

    n_atoms: int
    permutations: np.ndarray
    dataset: str = ""
    theory: str = "unknown"
    train_index: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    train_md5: str = ""
    valid_index: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    valid_md5: str = ""
    knows_energies: bool = True
    descriptor: Descriptor = inverse_distances
    entries: np.ndarray | None = None

    def __post_init__(self):
        if self.entries is None:
            object.__setattr__(
                self, "entries", entry_permutations(self.descriptor, self.permutations)
            )

    def fault(self, params: Params) -> str | None:
        if params["sigma"] <= 0.0 or params["std"] <= 0.0:
            return "sigma and std must be positive"
        for key in ("permutations", "entries"):
            rows = np.sort(getattr(self, key), axis=1)
            if not (rows == np.arange(rows.shape[1])).all() or not len(rows):
                return f"{key} contains rows that are not permutations"
        if min(self.train_index.min(initial=0), self.valid_index.min(initial=0)) < 0:
            return "train_index or valid_index is negative"
        distances = self.descriptor is inverse_distances
        if distances and ((params["descriptors"] + params["centre"]) <= 0.0).any():
            return "a training descriptor is not positive"
        return None

    def derived(self, params: Params) -> Params:
        expansion = Expansion.of(
            params["descriptors"],
            params["coefficients"],
            params["sigma"],
            params.get("energy_alphas"),
        )
        return {"squares": expansion.squares, "projections": expansion.projections}

    def frame_bytes(self, params: Params) -> int:
        descriptors = params["descriptors"]
        return 4 * descriptors.dtype.itemsize * len(self.permutations) * len(descriptors)

    def reads(self, params: Params) -> tuple[str, ...]:
        return ("box",) if "lattice" in params else ()

    def images(self, params: Params, R: Array, space: Space) -> Array:
        """Permuted descriptors (P, D) of R (N, 3) Å, relative to `centre`.

        Raises:
            InputError: the parameters are not in float64.
        """
        dtype = params["descriptors"].dtype
        if dtype != np.float64:
            raise InputError(
                f"an sGDML kernel needs float64, but its parameters are in {dtype}: call "
                'jax.config.update("jax_enable_x64", True) before the model is loaded, or set '
                "JAX_ENABLE_X64=1"
            )
        R, lattice = R.astype(dtype), params.get("lattice")
        if lattice is not None and space.box is not None:
            lattice = space.box.T
        # |x − x_j^p| = |x^(p⁻¹) − x_j|: the one query is permuted instead of the training set.
        # Known entries are inverted here, as the compiler takes seconds for a constant sort.
        entries: Any = self.entries
        library = jnp if isinstance(entries, Tracer) else np
        inverse = library.argsort(entries, axis=1)
        return self.descriptor(R, lattice)[inverse] - params["centre"]

    def energies(self, params: Params, R: Array, space: Space) -> dict[str, Array]:
        x = self.images(params, R, space)
        expansion = Expansion(
            params["descriptors"],
            params["coefficients"],
            params["sigma"],
            params["squares"],
            params["projections"],
            params.get("energy_alphas"),
        )
        energy = params["std"] * jnp.sum(expand(x, expansion)) + params["offset"]
        return {"gdml": energy.astype(R.dtype)}


def kernel_potential(
    term: KernelTerm, descriptors: np.ndarray, columns: Mapping[str, Any], molecule: Molecule
) -> Potential:
    """The potential of an sGDML model.

    Args:
        term: the permutations of the N atoms and the description of the training data.
        descriptors: (M, D) 1/Å, training descriptors from which no mean was subtracted.
        columns: the other parameters of `KernelTerm` by name; those with value None are omitted.
        molecule: the N atoms.
    """
    descriptors = np.asarray(descriptors, float)
    centre = descriptors.mean(axis=0)
    values = {"descriptors": descriptors - centre, "centre": centre, **columns}
    params = {key: jnp.asarray(v, float) for key, v in values.items() if v is not None}
    return Potential.of("gdml", term, params, molecule)
