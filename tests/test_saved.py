"""Files of potentials: any composition survives a round trip."""

import json

import jax
import numpy as np
import pytest

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
    with pytest.raises(InputError, match=r"not written, the parameter spring/k is not finite"):
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
    with pytest.raises(InputError, match="version 99, this jaxff reads"):
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
        with pytest.raises(InputError, match="it needs the function"):
            load(path)
    for key in ("params/gdml/sigma", "params/gdml/coefficients", "molecule/bonds"):
        np.savez(path, **{k: v for k, v in arrays.items() if k != key})
        with pytest.raises(InputError, match="incomplete or damaged"):
            load(path)
    np.savez(path, **{**arrays, "header": np.array("[1]")})
    with pytest.raises(InputError, match="its format is"):
        load(path)
