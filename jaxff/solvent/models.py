"""Published parameters of rigid water models and of ions for each model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxff.errors import InputError

Ions = dict[str, tuple[float, float]]  # {element: (R_min/2 Å, ε kcal/mol)}

CHARGES = {"Li": 1, "Na": 1, "K": 1, "Rb": 1, "Cs": 1, "F": -1, "Cl": -1, "Br": -1, "I": -1}


@dataclass(frozen=True)
class WaterModel:
    """A rigid water model with one Lennard-Jones site on oxygen.

    Attributes:
        name: name in messages.
        length: Å, distance O–H.
        angle: degrees, angle H–O–H.
        charge: e, charge of hydrogen.
        sigma: Å, of oxygen.
        epsilon: kcal/mol, of oxygen.
        site: Å, distance of the virtual site with the negative charge from oxygen, on the bisector
            of the angle; 0: the charge is on oxygen.
        ions: parameters of ions for this model.
        source: articles on the water model and on the ions.
    """

    name: str
    length: float
    angle: float
    charge: float
    sigma: float
    epsilon: float
    ions: Ions
    source: str
    site: float = 0.0

    @property
    def half_width(self) -> float:
        """Å, half of the distance H–H."""
        return self.length * float(np.sin(np.radians(0.5 * self.angle)))

    @property
    def height(self) -> float:
        """Å, distance of oxygen from the line between the hydrogens."""
        return self.length * float(np.cos(np.radians(0.5 * self.angle)))


# The parameters of AMBER's files frcmod.ionsjc_tip3p, _spce and _tip4pew.
_JOUNG = "Joung and Cheatham, J. Phys. Chem. B 112, 9020 (2008), doi:10.1021/jp8001614"
_IONS_TIP3P: Ions = {
    "Li": (1.025, 0.0279896), "Na": (1.369, 0.0874393), "K": (1.705, 0.1936829),
    "Rb": (1.813, 0.3278219), "Cs": (1.976, 0.4065394), "F": (2.303, 0.0033640),
    "Cl": (2.513, 0.0355910), "Br": (2.608, 0.0586554), "I": (2.860, 0.0536816),
}  # fmt: skip
_IONS_SPCE: Ions = {
    "Li": (0.791, 0.3367344), "Na": (1.212, 0.3526418), "K": (1.593, 0.4297054),
    "Rb": (1.737, 0.4451036), "Cs": (2.021, 0.0898565), "F": (2.257, 0.0074005),
    "Cl": (2.711, 0.0127850), "Br": (2.751, 0.0269586), "I": (2.919, 0.0427845),
}  # fmt: skip
_IONS_TIP4PEW: Ions = {
    "Li": (0.808, 0.1039884), "Na": (1.226, 0.1684375), "K": (1.590, 0.2794651),
    "Rb": (1.709, 0.4331494), "Cs": (1.888, 0.3944318), "F": (2.538, 0.0015752),
    "Cl": (2.760, 0.0116615), "Br": (2.768, 0.0303773), "I": (2.952, 0.0417082),
}  # fmt: skip
# The sets for hydration free energies, of AMBER's files frcmod.ionslm_126_opc3 and _opc.  Joung and
# Cheatham made no ions for these water models.
_SENGUPTA = (
    "Sengupta, Li, Song, Li and Merz, J. Chem. Inf. Model. 61, 869 (2021), "
    "doi:10.1021/acs.jcim.0c01390"
)
_IONS_OPC3: Ions = {
    "Li": (1.270, 0.00325650), "Na": (1.469, 0.03012160), "K": (1.703, 0.14021803),
    "Rb": (1.800, 0.21312875), "Cs": (1.965, 0.35762995), "F": (1.818, 0.22795460),
    "Cl": (2.306, 0.64226672), "Br": (2.501, 0.76074098), "I": (2.780, 0.87175814),
}  # fmt: skip
_IONS_OPC: Ions = {
    "Li": (1.242, 0.00216058), "Na": (1.467, 0.02960343), "K": (1.702, 0.13953816),
    "Rb": (1.818, 0.22795460), "Cs": (1.960, 0.35308749), "F": (1.840, 0.24650465),
    "Cl": (2.360, 0.67878870), "Br": (2.499, 0.75971103), "I": (2.900, 0.90300541),
}  # fmt: skip

WATER_MODELS: dict[str, WaterModel] = {
    "tip3p": WaterModel(
        "TIP3P", 0.9572, 104.52, 0.417, 3.1507524, 0.1520, _IONS_TIP3P,
        f"Jorgensen et al., J. Chem. Phys. 79, 926 (1983), doi:10.1063/1.445869; {_JOUNG}",
    ),
    "spce": WaterModel(
        "SPC/E", 1.0, 109.47, 0.4238, 3.1657195, 0.1553, _IONS_SPCE,
        f"Berendsen et al., J. Phys. Chem. 91, 6269 (1987), doi:10.1021/j100308a038; {_JOUNG}",
    ),
    "opc3": WaterModel(
        "OPC3", 0.978882, 109.4711586, 0.447585, 3.1742704, 0.163406, _IONS_OPC3,
        "Izadi and Onufriev, J. Chem. Phys. 145, 074501 (2016), doi:10.1063/1.4960175; "
        f"{_SENGUPTA}",
    ),
    "tip4pew": WaterModel(
        "TIP4P-Ew", 0.9572, 104.52, 0.52422, 3.16435, 0.162750, _IONS_TIP4PEW,
        f"Horn et al., J. Chem. Phys. 120, 9665 (2004), doi:10.1063/1.1683075; {_JOUNG}",
        site=0.125,
    ),
    "opc": WaterModel(
        "OPC", 0.87243313, 103.5989297, 0.679142, 3.1665521, 0.21280081, _IONS_OPC,
        f"Izadi et al., J. Phys. Chem. Lett. 5, 3863 (2014), doi:10.1021/jz501780a; {_SENGUPTA}",
        site=0.15939833,
    ),
}  # fmt: skip


def water_model(name: str) -> WaterModel:
    """The water model with a name.

    Raises:
        InputError: there is no such model.
    """
    if name not in WATER_MODELS:
        raise InputError(f"unknown water model {name!r}; use {', '.join(WATER_MODELS)}")
    return WATER_MODELS[name]
