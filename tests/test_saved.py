"""Files of potentials: any composition survives a round trip."""

import json
from pathlib import Path

import jax
import network_models
import numpy as np
import pytest

import jaxff
from jaxff import InputError, Molecule, load, save


@pytest.fixture
def mixed(springs):
    molecule = Molecule.from_smiles("O")
    return springs(3, molecule=molecule) + 0.5 * springs(2, 40.0).on([2, 0])


def test_round_trip_keeps_energies_terms_and_molecule(tmp_path, mixed):
    path = tmp_path / "mixed.npz"
    save(path, mixed)
    read = load(path)
    R = np.random.default_rng(0).normal(size=(3, 3))
    assert read(R) == mixed(R)
    assert list(read.terms(R)) == list(mixed.terms(R))
    assert jax.tree.all(jax.tree.map(np.array_equal, read.params, mixed.params))
    assert read.program.placed[1].atoms.tolist() == [2, 0]
    assert np.array_equal(read.molecule.bonds, mixed.molecule.bonds)
    assert read.columns == mixed.columns
    with np.load(path) as raw:
        assert "kcal/mol" in json.loads(str(raw["header"]))["units"]


def test_faults_are_one_sentence(tmp_path, mixed):
    path = tmp_path / "x.npz"
    bad = mixed.replace(jax.tree.map(lambda p: p * np.nan, mixed.params))
    with pytest.raises(
        InputError, match=r"not written, because the parameter spring/k is not finite"
    ):
        save(path, bad)
    assert not path.exists()
    save(path, mixed)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="not a readable potential"):
        load(path)
    np.savez(path, a=1)
    with pytest.raises(InputError, match="not a potential written by jaxff"):
        load(path)
    header = {"format": "jaxff potential", "version": 99}
    np.savez(path, header=np.array(json.dumps(header)))
    with pytest.raises(InputError, match="version 99, but this jaxff reads"):
        load(path)
    header |= {"version": 1, "terms": [{"name": "a", "kind": "b", "atoms": None, "fields": {}}]}
    np.savez(path, header=np.array(json.dumps(header)))
    with pytest.raises(InputError, match="unknown kind of term 'b'"):
        load(path)


def test_a_file_runs_no_code_of_others_and_misses_no_parameter(tmp_path):
    from jaxff import gdml
    from jaxff.dataset import packaged_dataset

    path = tmp_path / "m.npz"
    frames = packaged_dataset("ethanol")[:6]
    save(path, gdml.train(frames, sigma=10.0, kernel=gdml.Kernel(symmetries=None)))
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    for name in ("builtins:print", "os:system", "subprocess:run", "json:loads"):
        header["terms"][0]["fields"]["descriptor"] = {"function": name}
        np.savez(path, **{**arrays, "header": np.array(json.dumps(header))})
        with pytest.raises(InputError, match="the file needs the function"):
            load(path)
    for key in ("params/gdml/sigma", "params/gdml/coefficients", "molecule/bonds"):
        np.savez(path, **{k: v for k, v in arrays.items() if k != key})
        with pytest.raises(InputError, match="incomplete or damaged"):
            load(path)
    np.savez(path, **{**arrays, "header": np.array("[1]")})
    with pytest.raises(InputError, match="the format is"):
        load(path)


V1 = Path(__file__).parent / "data" / "v1"


@pytest.mark.parametrize("name", ["gaff", "morse", "class2", "neural", "hybrid"])
def test_files_of_version_1_give_the_energies_that_they_had(name):
    potential = load(V1 / f"{name}.npz")
    known = json.loads((V1 / "energies.json").read_text())
    for R, energy in zip(np.array(known["positions"]), known[name], strict=True):
        R = np.concatenate([R, R + 20.0]) if name == "hybrid" else R
        np.testing.assert_allclose(potential(R), energy, rtol=1e-12)


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_random_compositions_survive_to_the_last_bit(tmp_path, every):
    """Terms, networks, placements and factors, in fifty random sums of random depth.

    All parameters and indices are compared; energies, which must be compiled, of every tenth.
    """
    rng = np.random.default_rng(7)
    parts = [load(V1 / f"{name}.npz") for name in ("gaff", "morse", "class2", "neural")]
    hybrid = load(V1 / "hybrid.npz")
    parts.append(hybrid.only("gdml").on(range(9)))
    numbers = parts[0].molecule.numbers
    for seed in range(3):
        weights = network_models.variables(numbers, 4, seed)
        parts.append(
            jaxff.network(
                network_models.build(4), weights, numbers,
                builder="network_models:build", config={"width": 4},
            )
        )  # fmt: skip
    R = 2.0 * np.array(json.loads((V1 / "energies.json").read_text())["positions"][0])
    R = np.concatenate([R, R[::-1] + 9.0])
    for k in range(50):
        total = None
        for _ in range(rng.integers(1, 4)):
            part = parts[rng.integers(len(parts))]
            if rng.random() < 0.5:
                part = float(rng.normal()) * part
            names = [p.name for p in part.program.placed]
            if rng.random() < 0.4:
                part = part.only(*rng.permutation(names)[: rng.integers(1, len(names) + 1)])
            part = part.on(rng.permutation(18)[: part.n_atoms or part.program.n_atoms_min])
            total = part if total is None else total + part
            if rng.random() < 0.3:
                total = total / 3.0
        save(tmp_path / "c.npz", total)
        read = load(tmp_path / "c.npz")
        assert jax.tree.structure(read.params) == jax.tree.structure(total.params)
        for a, b in ((read.params, total.params), (read.program, total.program)):
            leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
            assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in leaves), k
        if k % every == 0:
            assert read(R) == total(R), k
