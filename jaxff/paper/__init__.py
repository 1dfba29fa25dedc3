"""The comparison of Sauceda et al. (2020), one module a figure or table; see `reproduce`.

Source of all experiments: H. E. Sauceda, M. Gastegger, S. Chmiela, K.-R. Müller and A. Tkatchenko,
J. Chem. Phys. 153, 124109 (2020), https://doi.org/10.1063/5.0023005.
"""

from jaxff.paper.reproduce import EXPERIMENTS, reproduce

__all__ = ["EXPERIMENTS", "reproduce"]
