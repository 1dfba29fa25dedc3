"""Functional forms of the bonded terms, by their names for `jaxff fit --form`.

A new form takes one line in `FORMS` and a function that makes its terms; see
`jaxff.gaff.bonded`.  This module imports no JAX, so that the command line can read it quickly.
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
        function: "module:function" that makes its terms from a `jaxff.gaff.bonded.Bonded`.
        fourier_terms: each torsion has the periodicities from 1 to this number; terms that GAFF
            lacks are added with k = 0 (0: only the periodicities of GAFF).
    """

    summary: str
    function: str
    fourier_terms: int = 0

    def terms(self) -> Callable:
        """The function that makes the terms."""
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
    """The form of this name.

    Raises:
        InputError: there is no form of this name.
    """
    if name not in FORMS:
        raise InputError(f"form={name!r}: use one of {', '.join(FORMS)}")
    return FORMS[name]
