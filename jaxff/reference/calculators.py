"""ASE calculators by name or import path, with their level of theory in words."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from jaxff.errors import InputError


@dataclass(frozen=True)
class Known:
    """A calculator known by name: where it lives, its theory in words, its package, what it needs.

    `defaults` are options set unless the caller sets them: silence, and convergence tight enough
    for labels (xTB at accuracy 0.1: forces to 1e-3 kcal/mol/Å).
    """

    path: str
    theory: str | Callable[[Mapping[str, Any]], str]
    package: str
    extra: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _quantum_theory(options: Mapping[str, Any]) -> str:
    dispersion = options.get("dispersion")
    return f"{options['xc']}{f'-{dispersion}' if dispersion else ''}/{options['basis']}".upper()


_XTB = {"accuracy": 0.1, "verbosity": 0}
_PYSCF = "jaxff.reference.quantum:PySCF"
KNOWN = {
    "gfn2-xtb": Known(
        "tblite.ase:TBLite", "GFN2-xTB", "tblite", "xtb", {"method": "GFN2-xTB", **_XTB}
    ),
    "gfn1-xtb": Known(
        "tblite.ase:TBLite", "GFN1-xTB", "tblite", "xtb", {"method": "GFN1-xTB", **_XTB}
    ),
    "pbe-d3bj": Known(
        _PYSCF,
        _quantum_theory,
        "pyscf",
        "quantum",
        {"xc": "pbe", "basis": "def2-svp", "dispersion": "d3bj"},
    ),
    "hf": Known(_PYSCF, _quantum_theory, "pyscf", "quantum", {"xc": "hf", "basis": "6-31g*"}),
    "emt": Known("ase.calculators.emt:EMT", "EMT", "ase"),
    "lj": Known("ase.calculators.lj:LennardJones", "Lennard-Jones", "ase"),
}


@dataclass(frozen=True)
class Method:
    """A calculator to be made: picklable, and comparable with the one of an earlier run.

    Attributes:
        name: a known name, or an import path "package.module:Class".
        options: keyword options, JSON values.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> Known | None:
        return KNOWN.get(self.name.lower())

    @property
    def all_options(self) -> dict[str, Any]:
        """The options with the defaults of the known calculators."""
        return {**(self.known.defaults if self.known else {}), **self.options}

    @property
    def theory(self) -> str:
        """The level of theory in words, such as "GFN2-xTB (tblite 0.8.0)"."""
        theory = self.known.theory if self.known else self.name
        return f"{theory(self.all_options) if callable(theory) else theory} ({self.version})"

    @property
    def version(self) -> str:
        """Name and version of the package the calculator comes from."""
        package = (
            self.known.package if self.known else self.name.partition(":")[0].partition(".")[0]
        )
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            return package

    def make(self, charge: int = 0):
        """The ASE calculator, for a molecule of this charge (see `calculator`)."""
        maker = _resolve(self.name, self.known)
        options = self.all_options
        if _takes_charge(maker):
            options.setdefault("charge", charge)
        elif charge != 0:
            raise InputError(
                f"the calculator {self.name!r} takes no charge, but the molecule has charge "
                f"{charge}; use another calculator, or set the molecule's charge to 0"
            )
        try:
            return maker(**options)
        except Exception as error:
            raise InputError(
                f"the calculator {self.name!r} does not accept the options {options}: {error}"
            ) from error


def calculator(name: str, *, charge: int = 0, **options):
    """An ASE calculator.

    Args:
        name: "gfn2-xtb", "gfn1-xtb", "emt", "lj", or an import path "package.module:Class" (any
            callable that returns an ASE calculator).
        charge: the molecule's net charge, e; passed on where the calculator knows a charge.
        options: keyword options of the calculator.

    Raises:
        InputError: unknown name, missing package, options it refuses, or a charge it cannot have.
    """
    return Method(name, options).make(charge)


def _resolve(name: str, known: Known | None):
    path = known.path if known else name
    module_name, _, attribute = path.partition(":")
    if not attribute:
        raise InputError(
            f"unknown calculator {name!r}: use one of {', '.join(KNOWN)}, "
            'or an import path such as "package.module:Class"'
        )
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        remedy = f'pip install "jaxff[{known.extra}]"' if known and known.extra else "install it"
        raise InputError(
            f"the calculator {name!r} cannot be imported ({error}): {remedy}"
        ) from error
    except AttributeError as error:
        raise InputError(f"the module {module_name!r} has no {attribute!r}") from error


def _takes_charge(maker) -> bool:
    try:
        declared = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        declared = {}
    return "charge" in declared or "charge" in getattr(maker, "default_parameters", {})
