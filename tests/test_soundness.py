"""Every array of model files is changed: the file is refused, or it means the same."""

import json
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import network_models
import numpy as np
import pytest

import jaxff
from jaxff import InputError, load, save
from jaxff.gdml.local import LocalKernelTerm
from jaxff.potential import Placed, Potential
from jaxff.soundness import fault_of

HERE = Path(__file__).parent
V1, KERNELS = HERE / "data" / "v1", HERE / "gdml" / "data"
# Nothing else in a file counts these, so a shorter list is as good as a whole one.
FREE_LENGTH = ("exclusions", "bonds", "train_index", "valid_index", "idxs_train", "idxs_valid")
# Not read, or only passed on.
UNREAD = ("header", "tril_perms_lin", "n_test", "e_mae", "e_rmse", "f_mae", "f_rmse", "solver_tol",
          "solver_iters", "lam", "solver_resid", "inducing_pts_idxs", "norm_y_train")  # fmt: skip


def network(folder):
    water = jaxff.Molecule.from_smiles("O", seed=1)
    weights = network_models.variables(water.numbers, 3)
    made = jaxff.network(
        network_models.build(3), weights, water,
        builder="network_models:build", config={"width": 3},
    )  # fmt: skip
    save(folder / "network.npz", made)
    return folder / "network.npz"


def local(folder):
    kernel = load(KERNELS / "ethanol_model.npz")
    (placed,) = kernel.program.placed
    values = {f.name: getattr(placed.term, f.name) for f in fields(placed.term)}
    params = {**kernel.params["gdml"], "inner": 0.1, "outer": 0.2, "softness": 0.01}
    made = Potential([Placed("gdml", LocalKernelTerm(**values))], {"gdml": params})
    save(folder / "local.npz", made)
    return folder / "local.npz"


FILES = {
    **{name: lambda _, name=name: V1 / f"{name}.npz" for name in ("class2", "neural", "hybrid")},
    **{
        name: lambda _, name=name: KERNELS / f"{name}.npz"
        for name in ("ethanol_energy_model", "ethanol_periodic_model", "ethanol_model_2018")
    },
    "network": network,
    "local": local,
}
NOT_NEGATIVE = ("k", "length", "depth", "width", "sigma", "epsilon", "lj14", "coulomb14", "std",
                "coulomb_constant", "angle", "lengths", "softness", "sig")  # fmt: skip


def mutations(key, array):
    """Changed arrays; each is impossible, or means the same."""
    last = key.rpartition("/")[2]
    for kind in (bool, np.uint8, np.int64, np.float64, np.complex128, str):
        if kind == np.int64 and array.dtype.kind in "iu":
            continue
        yield kind.__name__, array.astype(kind)
    yield "leading axis", array[None]
    yield "trailing axis", array[..., None]
    yield "13 copies", np.array([array] * 13)
    if array.ndim > 1:
        yield "flat", array.ravel()
    if array.shape != array.T.shape:
        yield "transposed", array.T
    if array.ndim and last not in FREE_LENGTH:
        yield "shorter", array[:-1]
        yield "one row", array[:1]
    if array.ndim and last not in (*FREE_LENGTH, "charge"):  # rows that nothing reads
        yield "longer", np.concatenate([array, array[-1:]])
    if array.dtype.kind == "f":
        for value in (np.nan, np.inf):
            bad = array.copy()
            bad[(0,) * array.ndim if array.size else ...] = value
            yield str(value), bad
    if array.dtype.kind in "iu" and last != "sig":
        yield "large", array.astype(np.int64) + 10**6 * (last not in FREE_LENGTH[2:])
    if array.dtype.kind in "iu" or (last in NOT_NEGATIVE and "torsion/k" not in key):
        yield "negative", -1 - array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


def meaning(potential):
    leaves = [*jax.tree.leaves(potential.params), *jax.tree.leaves(potential.program)]
    molecule = potential.molecule
    if molecule is not None:
        leaves += [molecule.numbers, molecule.positions, molecule.bonds]
    return [np.asarray(leaf) for leaf in leaves]


def same(a, b):
    return np.array_equal(a, b) or a.size == b.size == 0


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILES)
def test_a_changed_array_is_refused_or_means_the_same(name, every, tmp_path):
    """All changes, or every seventh."""
    whole = FILES[name](tmp_path)
    with np.load(whole) as file:
        arrays = {}
        for key in file.files:
            try:
                arrays[key] = file[key]
            except ValueError:  # pickled by the sGDML package
                continue
    expected = meaning(load(whole))
    path, accepted, refused, count = tmp_path / "changed.npz", [], 0, 0
    for key, array in arrays.items():
        if key in UNREAD or array.dtype.kind not in "fiu":
            continue
        for what, changed in mutations(key, array):
            count += 1
            if count % every:
                continue
            np.savez(path, **{**arrays, key: changed})
            try:
                found = meaning(load(path))
            except InputError:
                refused += 1
                continue
            if not all(map(same, expected, found)) or len(expected) != len(found):
                accepted.append(f"{key}: {what}")
    assert not accepted
    assert refused > 60 / every


def test_a_kernel_without_an_array_is_refused(tmp_path):
    for name, prefix, keys in (
        ("hybrid", "params/gdml/", ("std", "sigma", "centre", "coefficients")),
        ("ethanol_model", "", ("std", "sig", "c", "perms", "R_desc")),
    ):
        with np.load((V1 if prefix else KERNELS) / f"{name}.npz") as file:
            arrays = {k: file[k] for k in file.files if k not in ("md5_test", "f_err", "e_err")}
        for key in keys:
            rest = {k: v for k, v in arrays.items() if k != prefix + key}
            np.savez(tmp_path / "x.npz", **rest)
            with pytest.raises(InputError, match=r"missing|incomplete or damaged"):
                load(tmp_path / "x.npz")


def test_what_a_fit_or_a_force_field_produces_can_be_saved(tmp_path):
    """Values at the bounds of training, zero Lennard-Jones parameters and float32."""
    potential = load(V1 / "gaff.npz")
    params = {name: dict(own) for name, own in potential.params.items()}
    params["nonbonded"]["epsilon"] = jnp.zeros_like(params["nonbonded"]["epsilon"])
    for name, own in params.items():
        for key, value in own.items():
            column = potential.columns[name][key]
            if np.isfinite(column.upper):
                own[key] = jnp.full_like(value, column.upper)
    edge = potential.replace(params)
    for one in (edge, edge.astype(jnp.float32)):
        save(tmp_path / "edge.npz", one)
        assert all(map(np.array_equal, meaning(load(tmp_path / "edge.npz")), meaning(one)))
    params["nonbonded"]["epsilon"] -= 0.1
    with pytest.raises(InputError, match=r"not written.*epsilon has the value -0.1 kcal/mol"):
        save(tmp_path / "edge.npz", potential.replace(params))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_atoms": 2}, "numbers has the shape"),
        ({"n_atoms": "3"}, "n_atoms must be a positive integer .got '3'"),
        ({"n_atoms": True}, "n_atoms must be a positive integer .got True"),
        (
            {"energy_factor": 0.0},
            r"the energy_factor of the network must be a positive number .got 0.0",
        ),
        (
            {"energy_factor": "1"},
            r"the energy_factor of the network must be a positive number .got '1'",
        ),
        (
            {"length_factor": -1.0},
            r"the length_factor of the network must be a positive number .got -1.0",
        ),
        (
            {"length_factor": float("nan")},
            r"the length_factor of the network must be a positive number .got nan",
        ),
        ({"cutoff": 0.0}, r"the cutoff of the network must be a positive number .got 0.0"),
    ],
)
def test_damaged_fields_of_networks_are_refused(change, message, tmp_path):
    path = network(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    header["terms"][0]["fields"] |= change
    np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
    with pytest.raises(InputError, match=message):
        load(path)
    np.savez(path, **{**arrays, "term/0/numbers": np.array([8, 1, 500])})
    with pytest.raises(InputError, match="from 1 to 118"):
        load(path)


def test_variables_whose_keys_are_no_strings_are_named(tmp_path):
    water = jaxff.Molecule.from_smiles("O", seed=1)
    weights = {0: jnp.ones(())}

    def apply(variables, numbers, R):
        return variables[0] * jnp.sum(R**2)

    network_models.by_number = lambda: apply
    network_models.by_number.__module__ = "network_models"
    made = jaxff.network(apply, weights, water, builder="network_models:by_number")
    with pytest.raises(InputError, match="a dict with keys that are not strings: use only"):
        save(tmp_path / "x.npz", made)


def test_one_atom_twice_and_wrong_periodicities_are_faults():
    potential = load(V1 / "gaff.npz")
    terms = {p.name: p.term for p in potential.program.placed}
    bond = replace(terms["bond"], atoms=np.zeros_like(terms["bond"].atoms))
    assert "one atom twice" in fault_of(bond, potential.params["bond"])
    torsion = terms["torsion"]
    wrong = replace(torsion, periodicities=(-1,) * len(torsion.periodicities))
    assert "periodicities" in fault_of(wrong, potential.params["torsion"])
    assert all(fault_of(term, potential.params[name]) is None for name, term in terms.items())
