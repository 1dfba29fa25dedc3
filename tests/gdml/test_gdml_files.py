"""Model files of the sGDML package: read, written, refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxff import gdml, units
from jaxff.errors import InputError
from jaxff.gdml.descriptor import pair_permutations


def contents(path):
    # Written by the reference package and by the test itself: pickles are trusted here.
    with np.load(path, allow_pickle=True) as file:
        return dict(file)


def rewrite(source, target, **changes):
    arrays = contents(source) | changes
    np.savez_compressed(target, **{k: v for k, v in arrays.items() if v is not None})
    return target


@pytest.mark.parametrize("name", ["ethanol_model", "ethanol_energy_model"])
def test_saving_a_loaded_model_reproduces_the_file(name, data, tmp_path):
    gdml.save(tmp_path / "again.npz", gdml.load(data / f"{name}.npz"))
    theirs, ours = contents(data / f"{name}.npz"), contents(tmp_path / "again.npz")
    assert set(theirs) <= set(ours)
    assert set(ours) - set(theirs) <= {"r_unit", "e_unit", "charge"}
    for key, value in theirs.items():
        mine = ours[key]
        assert mine.shape == value.shape, key
        assert mine.dtype.kind.replace("u", "i") == value.dtype.kind.replace("u", "i"), key
        if value.dtype.kind == "f":
            np.testing.assert_allclose(mine, value, rtol=1e-14, err_msg=key)
        elif value.dtype.kind != "O":
            np.testing.assert_array_equal(mine, value, err_msg=key)
    assert set(ours["f_err"].item()) == {"mae", "rmse"}


def test_the_files_permutation_index_is_the_packages(data, group):
    lin = contents(data / "ethanol_model.npz")["tril_perms_lin"]
    pairs = pair_permutations(group)
    n_perms, n_pairs = pairs.shape
    d, p = np.arange(n_pairs)[:, None], np.arange(n_perms)
    np.testing.assert_array_equal(lin.reshape(n_pairs, n_perms), pairs.T[d, p] + p * n_pairs)


def test_a_trained_model_survives_the_round_trip(frames, group, tmp_path):
    trained = gdml.train(frames, n_train=16, sigma=12.0, kernel=gdml.Kernel(symmetries=group))
    gdml.save(tmp_path / "model.npz", trained)
    loaded = gdml.load(tmp_path / "model.npz")
    R = frames.positions[20]
    np.testing.assert_allclose(loaded.forces(R), trained.forces(R), rtol=0, atol=1e-8)
    np.testing.assert_allclose(loaded(R), trained(R), rtol=0, atol=1e-8)
    old, new = trained.program.placed[0].term, loaded.program.placed[0].term
    np.testing.assert_array_equal(new.train_index, old.train_index)
    assert new.train_md5 == old.train_md5 == frames.fingerprint()
    assert new.dataset == "ethanol"


def test_the_molecule_of_a_loaded_model(model, frames):
    assert model.molecule.formula == "C2H6O"
    np.testing.assert_array_equal(model.molecule.bonds, frames.molecule.bonds)
    distances = [
        np.linalg.norm(R[:, None] - R[None], axis=-1)
        for R in (model.molecule.positions, frames.positions[0])
    ]
    np.testing.assert_allclose(*distances, atol=1e-8)


def test_declared_units_are_converted(data, tmp_path, frames):
    """The same numbers, declared as Hartree and Bohr, are the same surface in those units."""
    plain = gdml.load(data / "ethanol_energy_model.npz")
    path = rewrite(
        data / "ethanol_energy_model.npz", tmp_path / "au.npz", r_unit="Bohr", e_unit="Ha"
    )
    converted = gdml.load(path)
    R = frames.positions[20]
    E, F = converted.energy_and_forces(R * units.BOHR)
    np.testing.assert_allclose(E, plain(R) * units.HARTREE, rtol=1e-11)
    expected = plain.forces(R) * units.HARTREE / units.BOHR
    np.testing.assert_allclose(F, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": np.array("d")}, "not a model"),
        ({"R_desc": None}, "'R_desc' is missing"),
        ({"sig": None}, "'sig' is missing"),
        ({"z": np.array([6, 1])}, "expected"),
        ({"c": np.array(np.nan)}, "not finite"),
        ({"R_d_desc_alpha": np.full((16, 36), np.nan)}, "not finite"),
        ({"R_d_desc_alpha": np.zeros((15, 36))}, r"expected \(16, 36\)"),
        ({"z": np.array([[6, 6, 8]])}, r"shape \(1, 3\), expected a list of numbers"),
        ({"perms": np.zeros((6, 9), int)}, "not permutations"),
        ({"sig": np.array(-1)}, "positive"),
        ({"r_unit": np.array("furlong")}, "unknown length unit"),
        ({"R_desc": np.array([{}], object)}, "pickled"),
    ],
)
def test_unusable_files_are_refused_in_one_sentence(changes, message, data, tmp_path):
    path = rewrite(data / "ethanol_model.npz", tmp_path / "bad.npz", **changes)
    with pytest.raises(InputError, match=message) as error:
        gdml.load(path)
    assert "bad.npz" in str(error.value)


def test_truncated_and_missing_files_are_refused(data, tmp_path):
    whole = (data / "ethanol_model.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.npz"):
        gdml.load(tmp_path / "cut.npz")
    with pytest.raises(InputError, match="no such file"):
        gdml.load(tmp_path / "absent.npz")


def test_only_plain_models_are_written(model, tmp_path):
    path = tmp_path / "model.npz"
    path.write_text("precious")
    own = model.params["gdml"]
    broken = model.replace({"gdml": {**own, "offset": jnp.asarray(jnp.nan)}})
    for potential, message in (
        (model + model, r"jaxff\.save"),
        (2.0 * model, r"jaxff\.save"),
        (model.on(range(9)), r"jaxff\.save"),
        (broken, "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            gdml.save(path, potential)
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
