"""GAFF for any organic molecule: atom types, charges, parameters.

The package is callable: ``jaxff.gaff(molecule)`` is `jaxff.gaff.gaff`.
"""

import sys
from types import ModuleType

from jaxff.gaff.depict import depict
from jaxff.gaff.forms import FORMS, gaff
from jaxff.gaff.parametrize import Parametrization, parametrize
from jaxff.gaff.seminario import seminario
from jaxff.gaff.topology import Topology

__all__ = [
    "FORMS",
    "Parametrization",
    "Topology",
    "depict",
    "gaff",
    "parametrize",
    "seminario",
]


class _CallablePackage(ModuleType):
    """A module that is called like the function `gaff`: both have one name in `jaxff`."""

    def __call__(self, *args, **kwargs):
        return gaff(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
