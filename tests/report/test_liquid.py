"""The page of a simulation of a liquid, from made-up frames of water."""

import warnings

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxff import InputError, System, units
from jaxff.report import liquid
from jaxff.solvent.models import water_model
from jaxff.solvent.parts import Copies, join, of_ion, of_water

MODEL = water_model("tip3p")
D, STEP, FRAMES, WATERS = 2.5e-4, 400.0, 900, 27  # Å²/fs, fs


def made_up(with_ions: bool = False) -> tuple[System, dict[str, np.ndarray]]:
    """Water molecules on a lattice, moved by random walks in a box of fluctuating size."""
    random, box = np.random.default_rng(0), 10.0 * np.eye(3)
    water = of_water(MODEL)
    lattice = (np.indices((3, 3, 3)).reshape(3, -1).T + 0.5) * box[0, 0] / 3.0
    parts = [Copies(water, water.positions + lattice[:, None])]
    if with_ions:
        parts = [Copies(of_ion(e, MODEL), lattice[k][None, None] + 1.6)
                 for k, e in enumerate(("Na", "Cl"))] + parts  # fmt: skip
    system = join(parts, box, "water")
    boxes = box * (1.0 + 0.004 * random.normal(size=(FRAMES, 1, 1)))
    steps = random.normal(size=(FRAMES, WATERS, 3)) * np.sqrt(2.0 * D * STEP)
    centres = np.cumsum(steps, axis=0) + lattice
    turns = Rotation.random(FRAMES * WATERS, random_state=1).as_matrix()
    turned = water.positions @ turns.reshape(FRAMES, WATERS, 3, 3)
    R = np.repeat(system.positions[None], FRAMES, axis=0)
    R[:, -3 * WATERS :] = (centres[:, :, None] + turned).reshape(FRAMES, -1, 3)
    kinetic = 0.5 * units.BOLTZMANN * 298.0 * 160 * random.normal(1.0, 0.1, FRAMES)
    return system, {
        "positions": R,
        "boxes": boxes,
        "potential_energies": random.normal(-270.0, 4.0, FRAMES),
        "kinetic_energies": kinetic,
        "temperatures": 2.0 * kinetic / (160 * units.BOLTZMANN),
        "times": STEP * np.arange(FRAMES),
    }


def test_the_page_contains_numbers_and_pictures(tmp_path):
    system, frames = made_up()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        numbers = liquid.write(
            tmp_path, system, frames, temperature=298.0, pressure=1.0, viscosity=0.3
        )
    found = {q.name: q.value for q in numbers}
    page = (tmp_path / "liquid.html").read_text()
    for key in ("series", "structure", "dielectric", "diffusion", "bonds"):
        assert (tmp_path / f"liquid_{key}.png").stat().st_size > 5000
    assert page.count("<img") == 5
    for name in found:
        assert name in page
    assert abs(found["density"].mean - system.density) < 0.02
    exact = units.BAR * (3 * 0.004 * 1000.0) ** 2 / (1000.0 * units.BOLTZMANN * 298.0)
    np.testing.assert_allclose(found["compressibility"].mean, 1e6 * exact, rtol=0.3)
    water = "HOH (H2O)"
    bare = found[f"diffusion of {water}, in this box"]
    assert abs(bare.mean - units.DIFFUSION * D) < 5.0 * bare.error
    assert found[f"diffusion of {water}, corrected"].mean > bare.mean
    assert found["hydrogen bonds O-H···O per molecule"].mean > 0.0


def test_at_constant_volume_and_with_ions_the_page_says_what_is_missing(tmp_path):
    system, frames = made_up(with_ions=True)
    frames = {key: x[:120] for key, x in frames.items()}
    frames["boxes"] = np.broadcast_to(10.0 * np.eye(3), (120, 3, 3))
    numbers = liquid.write(tmp_path, system, frames, temperature=298.0, name="salt")
    names = [q.name for q in numbers]
    assert "compressibility" not in names
    assert "dielectric constant" not in names
    page = (tmp_path / "salt.html").read_text()
    assert "because molecules are charged" in page
    assert "No diffusion coefficient of HOH (H2O)" in page
    assert numbers[1].value.error == 0.0


def test_frames_that_cannot_be_analysed_are_refused(tmp_path):
    system, frames = made_up()
    with pytest.raises(InputError, match="needs boxes"):
        liquid.write(tmp_path, system, {**frames, "boxes": None}, temperature=298.0)
    few = {key: x[:10] for key, x in frames.items()}
    with pytest.raises(InputError, match="at least 20 frames, not 10"):
        liquid.write(tmp_path, system, few, temperature=298.0)
    other = {**frames, "positions": frames["positions"][:, 1:]}
    with pytest.raises(InputError, match="system has 81 particles"):
        liquid.write(tmp_path, system, other, temperature=298.0)
    assert not list(tmp_path.iterdir())
