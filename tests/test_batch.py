"""Stacks: molecules of different sizes in few compiled programs, equal to single ones."""

import logging
import pickle
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp
import network_models
import numpy as np
import pytest

import jaxff
from jaxff import Column, InputError, Molecule, Potential, Term
from jaxff.padding import SIZES, size_class

SMILES = (
    "CO N=C CC=O C=C C#C CF O=CO CCl CCO CC(=O)O CCN CC(C)=O OCCO c1ccccc1 CNC=O C1CC1 CCC=O CSC "
    "c1ccncc1 c1ccoc1 CC(=O)N Cc1ccccc1 CCOC(=O)C CCCCCO c1ccccc1O CC(C)(C)O CCCCCC C1CCCCC1 "
    "CCN(CC)CC CCCCCCN COc1ccccc1 CC(=O)OC(C)C"
)


@pytest.fixture(scope="module")
def molecules():
    return [Molecule.from_smiles(smiles, seed=3) for smiles in SMILES.split()]


@pytest.fixture(scope="module")
def frames(molecules):
    rng = np.random.default_rng(0)
    return [m.positions + 0.05 * rng.normal(size=m.positions.shape) for m in molecules]


def programs_compiled(function, caplog) -> int:
    """How many programs JAX compiles during a call."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        caplog.clear()
        function()
    names = [r.getMessage() for r in caplog.records]
    return sum("Finished XLA compilation of jit(" in name for name in names)


@pytest.mark.parametrize("compared", [(0, 11, 31), pytest.param(range(32), marks=pytest.mark.slow)])
def test_32_molecules_equal_single_ones_in_three_programs(molecules, frames, caplog, compared):
    assert len(molecules) == 32
    sizes = [m.n_atoms for m in molecules]
    assert min(sizes) <= 6
    assert max(sizes) <= 24
    potentials = [jaxff.gaff(m, charges="gasteiger") for m in molecules]
    stack = jaxff.stack(potentials)
    assert len(stack.groups) <= 3
    stack.params  # noqa: B018  (stacks arrays, by small programs)
    assert programs_compiled(lambda: stack.energy_and_forces(frames), caplog) <= 3
    assert programs_compiled(lambda: stack.energy_and_forces(frames[::1]), caplog) == 0
    energies, forces = stack.energy_and_forces(frames)
    for k in compared:
        energy, force = potentials[k].energy_and_forces(frames[k])
        np.testing.assert_allclose(energies[k], energy, rtol=0, atol=1e-10)
        np.testing.assert_allclose(forces[k], force, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", ["morse", "class2"])
def test_other_forms(molecules, frames, form):
    chosen = [0, 8, 21]
    potentials = [jaxff.gaff(molecules[k], charges="gasteiger", form=form) for k in chosen]
    energies, forces = jaxff.stack(potentials).energy_and_forces([frames[k] for k in chosen])
    for potential, k, energy, force in zip(potentials, chosen, energies, forces, strict=True):
        alone = potential.energy_and_forces(frames[k])
        np.testing.assert_allclose(energy, alone[0], rtol=0, atol=1e-10)
        np.testing.assert_allclose(force, alone[1], rtol=0, atol=1e-9)


def test_frames_of_any_number_and_other_parameters(molecules, frames):
    potentials = [jaxff.gaff(molecules[k], charges="gasteiger") for k in (0, 4, 9)]
    many = [np.repeat(frames[k][None], m, axis=0) for k, m in ((0, 3), (4, 0), (9, 10))]
    stack = jaxff.stack(potentials)
    predicted = stack.predict(many)
    assert [len(E) for E, _ in predicted] == [3, 0, 10]
    np.testing.assert_allclose(predicted[2][0], float(potentials[2](frames[9])), atol=1e-10)
    doubled = [jax.tree.map(lambda p: 2.0 * p, potential.params) for potential in potentials]
    other = stack.replace(doubled)
    assert other.groups is stack.groups
    expected = potentials[0].replace(doubled[0])(frames[0])
    np.testing.assert_allclose(other.predict(many)[0][0], float(expected), atol=1e-9)


def test_what_cannot_be_padded_shares_a_program_where_shapes_are_equal(molecules, frames):
    def network(molecule, seed):
        weights = network_models.variables(molecule.numbers, seed=seed)
        return jaxff.network(apply, weights, molecule)

    apply = network_models.build()
    chosen = [k for k, m in enumerate(molecules) if m.n_atoms == 9][:3]
    potentials = [network(molecules[k], k) for k in chosen] + [network(molecules[0], 0)]
    stack = jaxff.stack(potentials)
    assert sorted(len(group.members) for group in stack.groups) == [1, 3]
    positions = [frames[k] for k in chosen] + [frames[0]]
    energies = stack(positions)
    expected = [potential(R) for potential, R in zip(potentials, positions, strict=True)]
    np.testing.assert_allclose(energies, expected, rtol=1e-12)


def test_a_stack_is_fitted_with_common_parameters(molecules, frames):
    potentials = [jaxff.gaff(molecules[k], charges="gasteiger") for k in (8, 10)]
    rng = np.random.default_rng(1)
    data = []
    for potential, k in zip(potentials, (8, 10), strict=True):
        R = frames[k] + 0.05 * rng.normal(size=(12, *frames[k].shape))
        params = {name: dict(columns) for name, columns in potential.params.items()}
        params["bond"]["k"] = 1.2 * params["bond"]["k"]
        energies, forces = potential.replace(params).predict(R)
        data.append(jaxff.Dataset(molecules[k].numbers, R, forces, energies))
    fitted = jaxff.fit(jaxff.stack(potentials), data, trainable=["bond.k"])
    after = jaxff.stack(fitted.potentials)
    for (_, forces), own in zip(after.predict([d.positions for d in data]), data, strict=True):
        assert np.sqrt(np.mean((forces - own.forces) ** 2)) < 0.05


def test_bad_input_is_one_sentence(molecules, frames):
    potential = jaxff.gaff(molecules[0], charges="gasteiger")
    with pytest.raises(InputError, match="at least one potential"):
        jaxff.stack([])
    for wrong in (3, potential):
        with pytest.raises(InputError, match="stack needs a list of potentials"):
            jaxff.stack(wrong)
    with pytest.raises(InputError, match="element 1 is 'CCO'"):
        jaxff.stack([potential, "CCO"])
    with pytest.raises(InputError, match="whole molecules"):
        jaxff.stack([potential.on(range(1, 7))])
    stack = jaxff.stack([potential, potential])
    with pytest.raises(InputError, match=r"positions must contain arrays of 2 molecules .got 1"):
        stack([frames[0]])
    with pytest.raises(InputError, match=r"positions of molecule 1 have shape"):
        stack([frames[0], frames[9]])
    with pytest.raises(InputError, match=r"parameters of 2 potentials .got 1"):
        stack.replace([potential.params])


def test_replaced_parameters_compile_nothing(molecules, frames, caplog):
    potentials = [jaxff.gaff(molecules[k], charges="gasteiger") for k in (0, 4)]
    stack, positions = jaxff.stack(potentials), [frames[0], frames[4]]
    stack(positions)
    half = [jax.tree.map(lambda p: 0.5 * p, potential.params) for potential in potentials]
    other = stack.replace(half)
    other.params  # noqa: B018  (stacks arrays, by small programs)
    assert programs_compiled(lambda: other(positions), caplog) == 0
    expected = [p.replace(h)(R) for p, h, R in zip(potentials, half, positions, strict=True)]
    np.testing.assert_allclose(other(positions), expected, rtol=0, atol=1e-10)


@dataclass(frozen=True, eq=False)
class Bottom(Term):
    """A harmonic distance with a flat part, on both sides or above alone."""

    kind = "bottom"
    columns = MappingProxyType({"length": Column("Å")})
    notes = ("source",)

    n_atoms: int
    pair: np.ndarray
    sides: str
    source: str

    def energies(self, params, R, space):
        x = jnp.linalg.norm(R[self.pair[0]] - R[self.pair[1]]) - params["length"]
        x = jnp.abs(x) if self.sides == "both" else x
        return {"bottom": jnp.maximum(x - 0.1, 0.0) ** 2}


def test_an_option_of_a_term_is_no_name():
    params = {"length": jnp.asarray(3.0)}
    potentials = [
        Potential.of("bottom", Bottom(2, np.array([0, 1]), sides, source), params)
        for sides, source in (("both", "a"), ("above", "a"), ("both", "b"))
    ]
    R = [np.eye(2, 3)] * 3
    together = jaxff.stack(potentials)
    assert len(together.groups) == 2  # notes alone do not separate
    np.testing.assert_allclose(together(R), [p(R[0]) for p in potentials])
    assert potentials[0](R[0]) != potentials[1](R[0])


def test_factors_sums_and_types_are_those_of_the_potentials(molecules, frames):
    gaff = jaxff.gaff(molecules[0], charges="gasteiger")
    network = jaxff.network(
        network_models.build(), network_models.variables(molecules[0].numbers), molecules[0]
    )
    potentials = [gaff, 0.5 * gaff, gaff + network, gaff.only("bond", "angle") + (-gaff)]
    stack, positions = jaxff.stack(potentials), [frames[0] + 0.01 * k for k in range(4)]
    energies, forces = stack.energy_and_forces(positions)
    for potential, R, energy, force in zip(potentials, positions, energies, forces, strict=True):
        alone = potential.energy_and_forces(R)
        np.testing.assert_allclose(energy, alone[0], rtol=0, atol=1e-10)
        np.testing.assert_allclose(force, alone[1], rtol=0, atol=1e-10)
    single = jaxff.stack([gaff.astype("float32")])
    energies, forces = single.energy_and_forces([frames[0].astype("float32")])
    assert energies.dtype == forces[0].dtype == np.float32


def test_a_used_stack_is_pickled_without_compiled_functions(molecules, frames):
    potentials = [jaxff.gaff(molecules[k], charges="gasteiger") for k in (0, 4)]
    stack, positions = jaxff.stack(potentials), [frames[0], frames[4]]
    unused = len(pickle.dumps(jaxff.stack(potentials)))
    stack.predict([R[None] for R in positions])
    energies = stack(positions)
    text = pickle.dumps(stack)
    assert len(text) < unused + 2000
    np.testing.assert_array_equal(pickle.loads(text)(positions), energies)
    assert len(pickle.loads(pickle.dumps(stack.groups[0])).members) == 2


def test_parameters_that_are_replaced_in_their_dict_count(molecules, frames):
    potential = jaxff.gaff(molecules[0], charges="gasteiger")
    stack = jaxff.stack([potential])
    stack([frames[0]])
    potential.params["bond"]["k"] = 2.0 * potential.params["bond"]["k"]
    np.testing.assert_allclose(stack([frames[0]]), potential(frames[0]), rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        stack.predict([frames[0][None]])[0][0], potential(frames[0]), rtol=0, atol=1e-10
    )


def test_a_potential_that_needs_a_box_is_refused(molecules, frames):
    def optional(weights, numbers, R, box=None):
        return weights["k"] * ((R**2).sum() if box is None else box[0, 0])

    def needed(weights, numbers, R, box):
        return weights["k"] * box[0, 0] * (R**2).sum()

    weights = {"k": np.ones(())}
    soft = jaxff.network(optional, weights, molecules[0])
    np.testing.assert_allclose(jaxff.stack([soft])([frames[0]]), soft(frames[0]), rtol=1e-12)
    gaff = jaxff.gaff(molecules[0], charges="gasteiger")
    boxed = jaxff.network(needed, weights, molecules[0])
    with pytest.raises(InputError, match=r"potential 1 .*needs a box"):
        jaxff.stack([gaff, boxed])


def test_sizes_ascend():
    assert list(SIZES) == sorted(SIZES)
    assert size_class(9) == 16
    assert size_class(1000) == 1000
