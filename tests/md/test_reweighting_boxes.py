"""Reweighting of frames in boxes, at constant volume and at constant pressure."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boxes import argon, fluid, waters

from jaxff import Dataset, InputError, evaluate, md, units
from jaxff.learn import EnsembleAverage, RelativeEntropy, fit
from jaxff.md.differentiable import Frames, Sampling, average, reweight
from jaxff.potential import Column, Potential, Term

KT = units.BOLTZMANN * 300.0


@dataclass(frozen=True, eq=False)
class Press(Term):
    """An additional pressure: the energy is the pressure times the volume of the box."""

    n_atoms: int

    kind = "test press"
    columns = dict(pressure=Column("kcal/mol/Å³"))  # noqa: RUF012

    def reads(self, params):
        return ("box",)

    def energies(self, params, R, space):
        return {"press": params["pressure"] * jnp.linalg.det(space.box)}


def volume(R, boxes):
    return jnp.linalg.det(boxes)


def test_volumes_of_an_ideal_gas_are_those_in_closed_form():
    """Volumes of N atoms at the pressure p have a gamma distribution with the mean (N + 1) kT/p."""
    n, p, rng = 20, 0.01, np.random.default_rng(0)
    volumes = rng.gamma(n + 1, KT / p, 40_000)
    boxes = np.cbrt(volumes)[:, None, None] * np.eye(3)
    R = rng.random((len(volumes), n, 3)) * np.cbrt(volumes)[:, None, None]

    def press(pressure):
        return Potential.of("press", Press(n), {"pressure": jnp.asarray(pressure)})

    frames = Frames.of(press(0.0), R, 300.0, boxes=boxes)
    more = 0.0005
    found = average(press(more), frames, volume)
    slope = jax.grad(lambda potential: average(potential, frames, volume))(press(more))
    assert float(found) == pytest.approx((n + 1) * KT / (p + more), rel=5e-3)
    derivative = float(slope.params["press"]["pressure"])
    assert derivative == pytest.approx(-(n + 1) * KT / (p + more) ** 2, rel=3e-2)
    weighted = reweight(press(more), frames)
    # The information between two gamma distributions of shape n + 1 is (n + 1)(ln x − 1 + 1/x).
    x = (p + more) / p
    assert weighted.share == pytest.approx(np.exp(-(n + 1) * (np.log(x) - 1 + 1 / x)), rel=2e-2)
    assert weighted.average(volume).error > 0.0


def test_gradients_in_boxes_are_those_of_finite_differences():
    system, rng = waters(8, spacing=3.6), np.random.default_rng(1)
    potential = fluid(system, cutoff=3.5)
    scales = 1.0 + 0.02 * rng.random(6)
    boxes = scales[:, None, None] * system.box
    shifts = rng.normal(0.0, 0.05, (6, *system.positions.shape))
    R = scales[:, None, None] * system.positions + shifts
    frames = Frames.of(potential, R, 300.0, boxes=boxes)
    single = [float(potential(x, box=box)) for x, box in zip(R, boxes, strict=True)]
    np.testing.assert_allclose(frames.energies, single, rtol=1e-12)
    slope = jax.grad(lambda p: average(p, frames, volume))(potential).params["fluid"]
    for column in ("sigma", "epsilon", "charge"):
        old = potential.params["fluid"][column]
        direction = rng.normal(size=old.shape) * (old != 0)

        def moved(step, column=column, old=old, direction=direction):
            columns = {**potential.params["fluid"], column: old + step * direction}
            return float(average(potential.replace({"fluid": columns}), frames, volume))

        expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
        assert (slope[column] * direction).sum() == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.slow
def test_frames_are_drawn_at_constant_pressure_and_fitted():
    system = argon(27, spacing=4.2)
    potential = fluid(system, cutoff=6.2, charged=False)
    ensemble = md.NPT(temperature=120.0, pressure=300.0, dt=4.0, pressure_relaxation=200.0)
    sampling = Sampling(
        system, ensemble, steps=1000, equilibration=500, every=50, start=md.Start(replicas=4)
    )
    frames = sampling.draw(potential)
    assert frames.boxes.shape == (80, 3, 3)
    assert np.ptp(np.linalg.det(frames.boxes)) > 1.0
    mean = float(average(potential, frames, volume))
    assert mean == pytest.approx(np.linalg.det(frames.boxes).mean())
    target = EnsembleAverage(sampling, volume, np.array(mean), np.array(0.1 * mean))
    result = fit(potential, targets=[target], trainable=["fluid.epsilon"])
    assert np.isfinite(result.potential.params["fluid"]["epsilon"]).all()
    entropy = RelativeEntropy(sampling, frames.positions[:4])
    with pytest.raises(InputError, match="relative entropies of systems in boxes"):
        fit(potential, targets=[entropy], trainable=["fluid.epsilon"])


def test_boxes_of_wrong_shape_are_refused():
    system = argon(8, spacing=4.2)
    potential = fluid(system, cutoff=4.0)
    with pytest.raises(InputError, match="boxes must have shape"):
        Frames.of(potential, system.positions[None], 300.0, boxes=system.box)


def test_potentials_are_evaluated_on_data_in_a_box():
    system, rng = argon(27, spacing=3.9), np.random.default_rng(2)
    potential = fluid(system, cutoff=5.5)
    box = system.box @ np.array([[1.0, 0.0, 0.0], [0.0, 1.05, 0.0], [0.0, 0.0, 1.1]])
    R = system.positions + rng.normal(0.0, 0.2, (3, *system.positions.shape))
    energies, forces = potential.predict(R, box=box)
    data = Dataset(system.numbers, R, forces, energies, lattice=box.T)
    found = evaluate(potential, data)
    assert found["force_mae"] < 1e-9
    assert found["energy_mae"] < 1e-9
