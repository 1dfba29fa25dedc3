"""Networks: energy functions of positions and a tree of weights as terms."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from types import FunctionType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols

from jaxff import units
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.padding import ghost_positions
from jaxff.potential import Column, Params, Potential, Term
from jaxff.space import Space

OPTIONAL = ("box", "neighbor")
_MARK = "__jaxff_builder__"


def network_builder(function: Callable) -> Callable:
    """Decorate a builder: a function that makes the `apply` of a network.

    `jaxff.load` may call a decorated function with any JSON configuration from a file.  Therefore
    the function must not write files or run programs.
    """
    setattr(function, _MARK, True)
    return function


def network(
    apply: Callable,
    variables: Any,
    atoms: Molecule | Sequence[int],
    cutoff: float | None = None,
    energy_unit: str = "kcal/mol",
    length_unit: str = "Ang",
    builder: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Potential:
    """The potential of a network or of any other energy function.

    Args:
        apply: ``apply(variables, numbers, R)`` returns the energy (), in `energy_unit`, of atoms
            with atomic numbers (N,) at R (N, 3) in `length_unit`.  An optional argument `box`
            receives the lattice vectors as rows, (3, 3) in `length_unit`, or None.  An optional
            argument `neighbor` receives pairs of atoms (2, P), each pair once.  The pairs are those
            of the neighbour list, with indices N as padding, or all pairs if there is no list.
        variables: the weights, any tree of floating-point arrays.
        atoms: the molecule, or its atomic numbers (N,).
        cutoff: largest distance of interacting atoms, Å (None: unlimited).  Neighbour lists must
            contain all pairs up to this distance.
        energy_unit, length_unit: units of the network; see `jaxff.units`.
        builder: name of an importable function, "package.module:function".  A call
            ``function(**config)`` returns `apply`, or `apply` and an example of `variables`.  The
            example is needed if the tree of weights contains nodes other than dicts, lists and
            tuples.  A potential without a builder cannot be saved.
        config: keyword arguments of the builder, JSON values.

    Raises:
        InputError: an argument is wrong, the energy is not a scalar, or the builder makes a
            function that differs from `apply`.
    """
    molecule = atoms if isinstance(atoms, Molecule) else None
    numbers = np.asarray(molecule.numbers if molecule is not None else atoms)
    if numbers.ndim != 1 or not len(numbers) or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(
            f"atoms must be a molecule or a list of atomic numbers (N,) (got {atoms!r})"
        )
    if _no_elements(numbers):
        raise InputError(f"atomic numbers must be from 1 to 118 (got {numbers.tolist()})")
    if cutoff is not None and not (isinstance(cutoff, Real) and 0.0 < cutoff < np.inf):
        raise InputError(f"cutoff must be a positive number of Å, or None (got {cutoff!r})")
    if config is not None and builder is None:
        raise InputError("config is given without builder; give the builder, too")
    _check_weights(variables)
    text = _json(config or {})
    term = Network(
        n_atoms=len(numbers),
        numbers=numbers.astype(np.int32),
        cutoff=None if cutoff is None else float(cutoff),
        energy_factor=units.energy_factor(energy_unit),
        length_factor=units.length_factor(length_unit),
        builder=builder or "",
        config=text,
        apply=apply,
    )
    made = apply
    if builder is not None:
        function = _imported(builder)
        made, _ = _built(function, text)
        setattr(function, _MARK, True)  # the caller of this function trusts it
        if _arguments(made) != _arguments(apply):
            raise InputError(
                f"the builder {builder} must return a function with the same arguments as apply "
                f"(got {_arguments(made)}, expected {_arguments(apply)})"
            )
    potential = Potential.of("network", term, {"weights": variables}, molecule)
    potential.program.trace(potential.params)  # an error now rather than at the first use
    if builder is not None:
        _compare(term, replace(term, apply=made), potential.params["network"])
    return potential


def _compare(term: Network, other: Network, params: Params) -> None:
    """Compare the energies of two terms at a test geometry.

    Args:
        term: the term with the given function.
        other: the term with the function of the builder.
        params: parameters of both terms.

    Raises:
        InputError: the energies differ.
    """
    R = jnp.asarray(ghost_positions(term.n_atoms))  # no two atoms coincide
    space = Space(box=20.0 * jnp.eye(3)) if "box" in _arguments(term.apply) else Space()
    energies = [float(one.energies(params, R, space)["network"]) for one in (term, other)]
    if not np.allclose(*energies, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise InputError(
            f"the builder {term.builder} with config {term.config} makes a function that "
            f"differs from apply: the energies of a test geometry are {energies[1]:.6g} and "
            f"{energies[0]:.6g} kcal/mol; give the same builder and config as for apply"
        )


@dataclass(frozen=True, eq=False)
class Network(Term):
    """The term of a network; see `network`.

    Attributes:
        numbers: (N,) atomic numbers.
        cutoff: largest distance of interacting atoms, Å, or None.
        energy_factor: factor from the energy unit of the network to kcal/mol.
        length_factor: factor from the length unit of the network to Å.
        builder: name of the function that makes `apply`, or "".
        config: keyword arguments of the builder as JSON text.
        apply: energy function; see `network`.
    """

    kind: ClassVar[str] = "network"
    learnt: ClassVar[bool] = True
    physical: ClassVar[bool] = False
    notes: ClassVar[tuple[str, ...]] = ("builder", "config")
    columns: ClassVar[dict[str, Column]] = {"weights": Column("1", scale=0.05)}

    dimensions: ClassVar[dict[str, str]] = {"numbers": "N"}

    n_atoms: int
    numbers: np.ndarray
    cutoff: float | None
    energy_factor: float
    length_factor: float
    builder: str
    config: str
    apply: Callable = field(metadata={"saved": False})

    def reads(self, params: Params) -> tuple[str, ...]:
        return _arguments(self.apply)

    def list_cutoff(self) -> float | None:
        if "neighbor" not in _arguments(self.apply):
            return None
        return np.inf if self.cutoff is None else self.cutoff

    def energies(self, params: Params, R: jax.Array, space: Space) -> dict[str, jax.Array]:
        weights = params["weights"]
        # Positions get the dtype of the weights, because some networks accept no other dtype.
        dtype = jnp.result_type(*jax.tree.leaves(weights)) if jax.tree.leaves(weights) else R.dtype
        optional = {}
        arguments = _arguments(self.apply)
        if "box" in arguments:
            box = space.box
            optional["box"] = None if box is None else (box / self.length_factor).astype(dtype)
        if "neighbor" in arguments:
            pairs = space.neighbor
            if pairs is not None:  # both indices of padding are N
                pairs = jnp.where((pairs < len(R)).all(axis=0), pairs, len(R))
            optional["neighbor"] = _all_pairs(len(R)) if pairs is None else pairs
        X = (R / self.length_factor).astype(dtype)
        energy = self.apply(weights, jnp.asarray(self.numbers), X, **optional)
        what = type(energy).__name__
        if isinstance(energy, float | np.generic | np.ndarray | jax.Array):
            energy = jnp.asarray(energy)
            if energy.shape == () and jnp.issubdtype(energy.dtype, jnp.floating):
                return {"network": self.energy_factor * energy.astype(R.dtype)}
            what = f"an array of type {energy.dtype} and shape {energy.shape}"
        raise InputError(f"the network must return the energy as a real scalar () (got {what})")

    def frame_bytes(self, params: Params) -> int:
        """Total size of all intermediate arrays of the forces, in bytes."""

        def energy(params, R):
            return self.energies(params, R, Space())["network"]

        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
        R = jax.ShapeDtypeStruct((self.n_atoms, 3), jnp.result_type(float))
        jaxpr = jax.make_jaxpr(jax.grad(energy, argnums=1))(shapes, R)
        return _intermediate_bytes(jaxpr.jaxpr)

    @classmethod
    def restored(cls, values: dict[str, Any], trust: Sequence[str]) -> Network:
        """Make the term from the fields in a file; see `Term.restored` for the arguments.

        Raises:
            InputError: a field is wrong, or the builder is not trusted.
        """
        for key in ("energy_factor", "length_factor", "cutoff"):
            value = values[key]
            if key == "cutoff" and value is None:
                continue
            if type(value) not in (int, float) or not 0.0 < value < np.inf:
                raise InputError(
                    f"the {key} of the network must be a positive number (got {value!r}); make the "
                    "file again"
                )
        function = _trusted(values["builder"], trust)
        apply, _ = _built(function, values["config"])
        return cls(**values, apply=apply)

    def fault(self, params: Params) -> str | None:
        if _no_elements(self.numbers):
            return "numbers must contain atomic numbers from 1 to 118"
        return None

    def template(self) -> Any:
        """An example of the weights, made by the builder."""
        return _built(_imported(self.builder), self.config)[1]


def _no_elements(numbers: np.ndarray) -> bool:
    """Whether one of the numbers (N,) is not the atomic number of an element."""
    return not ((numbers > 0) & (numbers < len(chemical_symbols))).all()


def _check_weights(variables) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            what = type(leaf).__name__ if dtype is None else str(dtype)
            raise InputError(
                f"variables{jax.tree_util.keystr(path)} must be a floating-point array (got {what})"
                ": put everything else into apply (in Equinox, by eqx.partition(model, "
                "eqx.is_inexact_array))"
            )


def _arguments(apply: Callable) -> tuple[str, ...]:
    """The optional arguments, "box" and "neighbor", that a function declares.

    Raises:
        InputError: the arguments of the function are unknown.
    """
    try:
        declared = inspect.signature(apply).parameters
    except (TypeError, ValueError) as error:
        raise InputError(
            f"apply must be a function with arguments that Python can inspect (got {apply!r})"
        ) from error
    return tuple(name for name in OPTIONAL if name in declared)


def _all_pairs(n_atoms: int) -> np.ndarray:
    return np.stack(np.triu_indices(n_atoms, 1)).astype(np.int32)


def _json(config: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(config), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"config must contain JSON values only ({error})") from error
    return text


def _imported(name: str) -> Callable:
    """Import a function by its name "package.module:function".

    Raises:
        InputError: the name has another form, or the function cannot be imported.
    """
    form = f'builder must be an importable function "package.module:function" (got {name!r})'
    module, colon, qualified = str(name).partition(":")
    if not (module and colon and qualified):
        raise InputError(form)
    try:
        value: Any = importlib.import_module(module)
        for part in qualified.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the builder {name!r} cannot be imported ({error}): install its package or correct "
            "the name"
        ) from error
    if not callable(value) or "<" in qualified:
        raise InputError(form)
    return value


def _trusted(name: str, trust: Sequence[str]) -> Callable:
    """The builder in a file, if it is trusted.

    A builder is trusted if it is decorated by `network_builder`, was passed to `network` in this
    process, or belongs to a module in `trust`.  Modules that are not trusted are not imported.  A
    function that a trusted module imports must be defined in a trusted module or package.

    Args:
        name: "package.module:function".
        trust: names of trusted modules.

    Raises:
        InputError: the builder is not trusted.
    """
    module = name.partition(":")[0]
    named = (trust,) if isinstance(trust, str) else trust
    trusted = [one for one in named if one.partition(".")[0] not in sys.stdlib_module_names]
    if module in trusted:
        function = _imported(name)
        home = str(getattr(function, "__module__", None))
        if any(home == one or home.startswith(f"{one}.") for one in trusted):
            return function
        raise InputError(
            f"the builder {name} of the network is defined in {home}, which is not trusted: if you "
            f"trust this module, load the file with trust={[module, home]!r} (--trust {module} "
            f"--trust {home})"
        )
    value: Any = sys.modules.get(module)
    for part in name.partition(":")[2].split("."):
        value = vars(value).get(part) if hasattr(value, "__dict__") else None
    if isinstance(value, FunctionType) and getattr(value, _MARK, False):
        return value
    raise InputError(
        f"the builder {name} of the network is not trusted: if you trust this module, load the "
        f"file with trust=[{module!r}] (--trust {module})"
    )


def _built(function: Callable, config: str) -> tuple[Callable, Any]:
    """Call a builder; return `apply` and the example of the weights, or None.

    Raises:
        InputError: the builder returns neither a function nor a function and an example.
    """
    try:
        made = function(**json.loads(config))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the builder {function.__name__} fails with config {config}: {error}; give its "
            "keyword arguments as config"
        ) from error
    apply, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not callable(apply):
        raise InputError(
            f"the builder {function.__module__}:{function.__qualname__} must return the function "
            f"apply, or (apply, variables) (got {type(made).__name__})"
        )
    return apply, example


def _intermediate_bytes(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [x for value in equation.params.values() for x in _jaxprs(value)]
        outputs = (v.aval for v in equation.outvars)
        total += sum(
            int(np.prod(a.shape)) * a.dtype.itemsize for a in outputs if hasattr(a, "shape")
        )
        total += sum(map(_intermediate_bytes, inner))
    return total


def _jaxprs(value):
    for item in value if isinstance(value, tuple | list) else (value,):
        if hasattr(item, "jaxpr"):
            yield item.jaxpr
        elif hasattr(item, "eqns"):
            yield item
