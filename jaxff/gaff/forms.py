"""GAFF potentials of molecules."""

from __future__ import annotations

from jaxff.gaff.parametrize import parametrize
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# Forms of the force field by the names that `jaxff fit --form` takes: keywords of `gaff`.
FORMS: dict[str, dict] = {
    "gaff": {},
    "morse": {"bonds": "morse", "fourier_terms": 6},
    "nn": {"bonded": "neural"},
    "class2": {"bonded": "class2", "fourier_terms": 6},
}


def gaff(
    mol: Molecule, coulomb_constant: float | None = None, *, charges="auto", **form
) -> Potential:
    """The GAFF potential of `mol`, in its own atom order; what was assigned is its `origin`.

    GAFF 1.81: Wang et al., J. Comput. Chem. 25, 1157 (2004), doi:10.1002/jcc.20035.

    Args:
        mol: any organic molecule, see `parametrize`.
        coulomb_constant: kcal/mol Å/e²; AMBER's own (18.2223²) by default.
        charges: see `parametrize`.
        **form: ``bonds="morse"``, ``fourier_terms=6``, ``bonded="class2"`` (all couplings),
            ``bonded="neural"`` (GAFF-NN), see `jaxff.gaff.Topology.potential`.

    Raises:
        InputError: as `parametrize`.
    """
    return parametrize(mol, charges).potential(coulomb_constant, **form)
