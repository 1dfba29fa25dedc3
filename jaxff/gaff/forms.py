"""Functional forms of the bonded terms, by their names for `jaxff fit --form`.

For a new form, add a line in `FORMS` and a function that makes the terms; see `jaxff.gaff.bonded`.
This module does not import JAX, so that the command line can import it quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from jaxff.errors import InputError


@dataclass(frozen=True)
class Form:
    """A functional form.

    Attributes:
        summary: the form in words.
        function: name "module:function" of the function that makes the terms from a
            `jaxff.gaff.bonded.Bonded`.
        fourier_terms: largest periodicity of torsions; missing Fourier terms are added with k = 0
            (0: only the periodicities of GAFF).
    """

    summary: str
    function: str
    fourier_terms: int = 0

    def terms(self) -> Callable:
        """Import and return the function that makes the terms."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


FORMS = {
    "gaff": Form("harmonic bonds and angles", "jaxff.gaff.bonded:harmonic"),
    "morse": Form("Morse bonds and six Fourier terms", "jaxff.gaff.bonded:morse", 6),
    "nn": Form("a small neural network for each bonded term", "jaxff.gaff.bonded:neural"),
    "class2": Form(
        "Morse bonds, anharmonic angles, couplings and six Fourier terms",
        "jaxff.gaff.bonded:class2",
        6,
    ),
}


def form_of(name: str) -> Form:
    """The form with this name, a key of `FORMS`.

    Raises:
        InputError: the name is unknown.
    """
    if name not in FORMS:
        raise InputError(f"form must be one of {', '.join(FORMS)} (got {name!r})")
    return FORMS[name]
