"""ASE calculators by name or import path, with descriptions of their level of theory."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxff
from jaxff.errors import InputError
from jaxff.formats.registry import companions_of, is_potential

if TYPE_CHECKING:
    from jaxff.molecule import Molecule
    from jaxff.potential import Potential


@dataclass(frozen=True)
class Known:
    """A calculator with a name.

    Attributes:
        path: "package.module:attribute" of the function that creates the calculator.
        theory: level of theory in words, or a function of the options that returns these words.
        package: distribution package of the calculator.
        extra: extra of jaxff that installs the package; None for a dependency of jaxff.
        defaults: default options, with convergence tight enough for labels (xTB with accuracy
            0.1: forces to 1e-3 kcal/mol/Å).
        spin: name of the option for unpaired electrons, and the value for one unpaired electron.
    """

    path: str
    theory: str | Callable[[Mapping[str, Any]], str]
    package: str
    extra: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    spin: tuple[str, int] | None = None


def _quantum_theory(options: Mapping[str, Any]) -> str:
    dispersion = options.get("dispersion")
    return f"{options['xc']}{f'-{dispersion}' if dispersion else ''}/{options['basis']}".upper()


def _xtb(method: str) -> Known:
    defaults = {"method": method, "accuracy": 0.1, "verbosity": 0}
    path, spin = "tblite.ase:TBLite", ("multiplicity", 2)
    return Known(path, lambda options: str(options["method"]), "tblite", "xtb", defaults, spin)


def _pyscf(**defaults) -> Known:
    path = "jaxff.reference.quantum:PySCF"
    return Known(path, _quantum_theory, "pyscf", "quantum", defaults, ("spin", 1))


def _force_field(name: str, theory: str, package: str, extra: str | None = None) -> Known:
    path = "jaxff.reference.force_fields:ForceField"
    return Known(path, theory, package, extra, {"force_field": name})


_BABEL = ("openbabel-wheel", "openbabel")
# The only list of calculators; the help of the command line and the guides use it.
KNOWN = {
    "gfn2-xtb": _xtb("GFN2-xTB"),
    "gfn1-xtb": _xtb("GFN1-xTB"),
    "pbe-d3bj": _pyscf(xc="pbe", basis="def2-svp", dispersion="d3bj"),
    "hf": _pyscf(xc="hf", basis="6-31g*"),
    "uff": _force_field("uff", "UFF", *_BABEL),
    "mmff94": _force_field("mmff94", "MMFF94", *_BABEL),
    "ghemical": _force_field("ghemical", "Ghemical", *_BABEL),
    "uff-rdkit": _force_field("uff-rdkit", "UFF", "rdkit"),
    "mmff94-rdkit": _force_field("mmff94-rdkit", "MMFF94", "rdkit"),
    "emt": Known("ase.calculators.emt:EMT", "EMT", "ase"),
    "lj": Known("ase.calculators.lj:LennardJones", "Lennard-Jones", "ase"),
}
CHOICES = f"{', '.join(KNOWN)}, a potential file, or an import path package.module:Class"


@dataclass(frozen=True)
class Method:
    """A calculator with its options.

    Attributes:
        calculator: a name in `KNOWN`, an import path "package.module:Class", a potential file, or
            a `Potential`.
        options: keyword options of the calculator (JSON values).
        trust: modules that may build the networks of a potential, see `jaxff.load`.
        companions: files that accompany a force-field file, see `jaxff.read_force_field`.
    """

    calculator: str | Potential
    options: Mapping[str, Any] = field(default_factory=dict)
    trust: tuple[str, ...] = field(default=(), compare=False)
    companions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the calculator, or the kinds of terms of a `Potential`."""
        if isinstance(self.calculator, str):
            return self.calculator
        return " + ".join(dict.fromkeys(p.term.kind for p in self.calculator.program.placed))

    @property
    def known(self) -> Known | None:
        """The entry of this calculator in `KNOWN`, or None."""
        return KNOWN.get(self.name.lower())

    @property
    def is_potential(self) -> bool:
        """Whether the calculator is a `Potential` or a potential file."""
        return not isinstance(self.calculator, str) or is_potential(self.calculator)

    @property
    def all_options(self) -> dict[str, Any]:
        """The options, with the default options of the calculator."""
        return {**(self.known.defaults if self.known else {}), **self.options}

    @property
    def theory(self) -> str:
        """The level of theory in words, such as "GFN2-xTB (tblite 0.8.0)"."""
        if not isinstance(self.calculator, str):
            return self.name
        if self.is_potential:
            return f"{Path(self.name).stem} ({self.version})"
        theory = self.known.theory if self.known else self.name
        return f"{theory(self.all_options) if callable(theory) else theory} ({self.version})"

    @property
    def version(self) -> str:
        """Name and version of the package; for a potential file, also the MD5 checksum."""
        if not isinstance(self.calculator, str):
            return f"jaxff {jaxff.__version__}"
        if self.is_potential:
            files = [Path(self.name), *companions_of(self.name, self.companions)]
            content = b"".join(file.read_bytes() for file in files)
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
            return f"jaxff {jaxff.__version__}, md5 {digest[:8]}"
        from importlib import metadata  # a slow import that most commands do not need

        package = (
            self.known.package if self.known else self.name.partition(":")[0].partition(".")[0]
        )
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            return package

    @property
    def takes_molecule(self) -> bool:
        """Whether the energies depend on the bonds of the molecule."""
        return not self.is_potential and _takes("molecule", _resolve(self.name, self.known))

    def settings(self, molecule: Molecule) -> dict[str, Any]:
        """Return all settings on which the energies of a molecule depend."""
        settings = {
            "calculator": self.name,
            "options": self.all_options,
            "version": self.version,
            "numbers": molecule.numbers.tolist(),
            "charge": molecule.charge,
        }
        if self.takes_molecule:
            settings["bonds"] = molecule.bonds.tolist()
        if not isinstance(self.calculator, str):
            import jax

            from jaxff.ase import match

            predicted = match(self.calculator, molecule).predict(molecule.positions[None])
            settings["potential"] = [*jax.tree.leaves(self.calculator.params), *predicted]
        return settings

    def potential(self) -> Potential:
        """Return the `Potential`, read from a file if necessary.

        Raises:
            InputError: there are options, or the file cannot be read.
        """
        if self.options:
            raise InputError(
                f"{self.name} is a potential and has no options: omit the options {self.options}"
            )
        if not isinstance(self.calculator, str):
            return self.calculator
        from jaxff.formats import read_potential

        return read_potential(self.calculator, self.trust, self.companions)

    def make(self, charge: int | None = None, molecule: Molecule | None = None) -> Any:
        """Create the ASE calculator for a molecule.

        Args:
            charge: net charge, e; None for the charge of the molecule.
            molecule: molecule with the bonds for a force field.

        Raises:
            InputError: see `calculator`.
        """
        if charge is None:
            charge = 0 if molecule is None else molecule.charge
        if self.is_potential:
            from jaxff.ase import Calculator

            return Calculator(_with_charge(self.name, self.potential(), charge))
        maker = _resolve(self.name, self.known)
        options = self.all_options
        if _takes("charge", maker):
            options.setdefault("charge", charge)
        elif charge != 0:
            raise InputError(
                f"the calculator {self.name!r} has no option for the charge, but the molecule has "
                f"charge {charge}: use another calculator, or give charge 0"
            )
        if molecule is not None and _takes("molecule", maker):
            options.setdefault("molecule", molecule)
        if molecule is not None and self.known and self.known.spin:
            name, one = self.known.spin
            if (int(molecule.numbers.sum()) - charge) % 2 and options.get(name) is None:
                raise InputError(
                    f"{molecule.formula} with charge {charge:+d} has an odd number of electrons: "
                    f"correct the charge or, for a radical, give the option {name} ({one} for one "
                    "unpaired electron)"
                )
        try:
            return maker(**options)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the calculator {self.name!r} does not accept the options {options} ({error}): "
                "correct the options"
            ) from error


def calculator(
    name: str, *, charge: int | None = None, molecule: Molecule | None = None, **options: Any
) -> Any:
    """Create an ASE calculator.

    Args:
        name: a name in `KNOWN`, such as "gfn2-xtb", "pbe-d3bj" or "mmff94"; an import path
            "package.module:Class" of a callable that returns an ASE calculator; or a potential
            file (see `jaxff.load` and `jaxff.read_force_field`).
        charge: net charge, e; None for the charge of the molecule, or 0 without a molecule.
        molecule: molecule with the bonds for a force field, in the atom order of the geometries;
            None for bonds perceived from the first geometry. Other methods ignore `molecule`.
        options: keyword options of the calculator.

    Raises:
        InputError: an unknown name, a missing package, or options or a charge that the calculator
            does not accept.
    """
    return Method(name, options).make(charge, molecule)


def _with_charge(name: str, potential: Potential, charge: int) -> Potential:
    """Return the potential; raise InputError unless `charge`, e, is 0 or that of the potential."""
    made_for = None if potential.molecule is None else potential.molecule.charge
    if made_for is not None and charge not in (0, made_for):
        raise InputError(
            f"{name} is a potential for charge {made_for:+d}, but the frames have charge "
            f"{charge:+d}: correct the charge, or use another potential"
        )
    return potential


def _resolve(name: str, known: Known | None) -> Callable:
    """Return the callable that creates a calculator.

    Raises:
        InputError: the name is unknown, or the callable cannot be imported.
    """
    path = known.path if known else name
    module_name, _, attribute = path.partition(":")
    if name.lower() == "gaff":
        raise InputError(
            'there is no calculator "gaff": write a model file with `jaxff parametrize`, and give '
            "this file as the calculator"
        )
    if not attribute:
        raise InputError(
            f"unknown calculator {name!r}: use one of {', '.join(KNOWN)}, an existing potential "
            'file, or an import path such as "package.module:Class"'
        )
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        package = f'"jaxff[{known.extra}]"' if known and known.extra else module_name.split(".")[0]
        raise InputError(
            f"the calculator {name!r} cannot be imported ({error}): pip install {package}"
        ) from error
    except AttributeError as error:
        raise InputError(
            f"the module {module_name!r} has no {attribute!r}: correct the name of the calculator"
        ) from error


def _takes(option: str, maker: Callable) -> bool:
    """Return whether a callable that creates calculators accepts an option."""
    try:
        declared = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        declared = {}
    return option in declared or option in getattr(maker, "default_parameters", {})
