"""The experiments of Sauceda et al. (2020), with one module for each figure or table.

`reproduce` runs the experiments. Source: H. E. Sauceda, M. Gastegger, S. Chmiela,
K.-R. Müller and A. Tkatchenko, J. Chem. Phys. 153, 124109 (2020),
https://doi.org/10.1063/5.0023005.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxff.paper.comparison import reproduce

# Module and function of each experiment, in the order of the paper. Later experiments use models
# that earlier ones trained.
EXPERIMENTS = {
    "accuracy": ("accuracy", "run"),
    "fig2": ("force_field_surfaces", "run"),
    "fig3": ("force_field_surfaces", "hartree_fock"),
    "fig4": ("differences", "run"),
    "fig5": ("minima", "run"),
    "fig6": ("spectra", "run"),
    "modes": ("rotor_modes", "run"),
    "fig7": ("sampling", "run"),
    "level": ("levels", "run"),
    "fig8": ("drawing", "run"),
    "table1": ("table1", "run"),
    "refinement": ("refinement", "run"),
    "table2": ("table2", "run"),
    "fig9": ("residence", "run"),
}

__all__ = ["EXPERIMENTS", "reproduce"]


def __getattr__(name: str):
    if name == "reproduce":  # imported when it is needed: the command line reads EXPERIMENTS alone
        from jaxff.paper.comparison import reproduce

        return reproduce
    raise AttributeError(f"module 'jaxff.paper' has no attribute {name!r}")
