"""Errors on left-out frames in closed form."""

import numpy as np

from jaxff import gaff, gdml
from jaxff.gdml.adapt import Adaptation
from jaxff.gdml.leave_out import Inverse, leave_out_errors


def test_left_out_errors_are_those_of_trainings_without_the_frame(frames, group):
    few = frames[:6]
    op = gdml.KernelOperator.of(few.positions, group, 20.0)
    [errors] = leave_out_errors(Inverse.of(op), few.forces)
    for m in (0, 4):
        rest = few[np.arange(6) != m]
        model = gdml.train(rest, sigma=20.0, kernel=gdml.Kernel(symmetries=group))
        predicted = model.forces(few.positions[m])
        np.testing.assert_allclose(errors[m], few.forces[m] - predicted, atol=1e-5)


def test_weak_moves_of_parameters_change_nothing_and_free_ones_help(frames, group):
    """A baseline that is wrong in one force constant only needs no kernel once this is free."""
    few = frames[:8]
    baseline = gaff(frames.molecule)
    slopes = Adaptation(baseline).slopes(few.positions)
    labels = baseline.predict(few.positions)[1] + (slopes[:, :, 0]).reshape(few.forces.shape)
    left = labels - baseline.predict(few.positions)[1]
    op = gdml.KernelOperator.of(few.positions, group, 20.0, 1e-6)
    [plain] = leave_out_errors(Inverse.of(op), left)
    stiff, free = leave_out_errors(Inverse.of(op), left, slopes, (1e12, 1e-6))
    np.testing.assert_allclose(stiff, plain, atol=1e-4 * np.abs(plain).max())
    assert np.abs(free).mean() < 0.05 * np.abs(plain).mean()
