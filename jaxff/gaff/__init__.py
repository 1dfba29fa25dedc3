"""GAFF for any organic molecule: atom types, charges and parameters.

The package can be called: ``jaxff.gaff(molecule)`` is `jaxff.gaff.gaff`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxff.gaff.drawing import depict
    from jaxff.gaff.force_constants import seminario
    from jaxff.gaff.forms import FORMS, Form
    from jaxff.gaff.parametrization import Parametrization, gaff, parametrize
    from jaxff.gaff.tables import Tables
    from jaxff.gaff.topology import Topology

# The command line reads FORMS before it imports JAX, so names are imported at first use.  No
# module may have the name of a function of this package, because its import would replace it.
_HOME = {
    "FORMS": "forms",
    "Form": "forms",
    "Parametrization": "parametrization",
    "Tables": "tables",
    "Topology": "topology",
    "depict": "drawing",
    "gaff": "parametrization",
    "parametrize": "parametrization",
    "seminario": "force_constants",
}

__all__ = [
    "FORMS",
    "Form",
    "Parametrization",
    "Tables",
    "Topology",
    "depict",
    "gaff",
    "parametrize",
    "seminario",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"jaxff.gaff.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jaxff.gaff' has no attribute {name!r}")


class _CallablePackage(ModuleType):
    """A module that can be called like the function `gaff`."""

    def __call__(self, *args, **kwargs):
        return import_module("jaxff.gaff.parametrization").gaff(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
