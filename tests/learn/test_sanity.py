"""Labels that cannot be meant are named before anything is fitted to them."""

from dataclasses import replace

import numpy as np
import pytest

import jaxff
from jaxff import Dataset, InputError
from jaxff.dataset import packaged_dataset
from jaxff.learn import Gradient, LeastSquares, aligned
from jaxff.sanity import check_labels


@pytest.fixture(scope="module", params=["ethanol", "aspirin", "keto_malondialdehyde"])
def known(request):
    """Frames and what GAFF makes of them."""
    data = packaged_dataset(request.param)[:60]
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    data = aligned(data, start)
    return data, start.predict(data.positions)


def relabelled(data, forces=1.0, energies=1.0):
    return Dataset(
        data.numbers, data.positions, forces * data.forces, energies * data.energies, name="mine"
    )


def test_sound_labels_pass(known):
    data, predicted = known
    check_labels(data, *predicted)
    check_labels(data[:5], predicted[0][:5], predicted[1][:5])


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((-1.0, 1.0), "gradients: change their sign"),
        ((23.06, 23.06), "kcal/mol/Å taken for eV/Å"),
        ((1 / 23.06, 1 / 23.06), "eV/Å taken for kcal/mol/Å"),
        ((4.184, 4.184), "kJ/mol/Å taken for kcal/mol/Å"),
        ((1 / 1185.8, 1 / 627.5), "Hartree/Bohr taken for kcal/mol/Å"),
        ((0.529, 1.0), "kcal/mol/Bohr taken for kcal/mol/Å"),
        ((1.89, 1.89), "kcal/mol/Å taken for kcal/mol/Bohr"),
        ((0.0, 1.0), "all forces are zero"),
        ((1.0, -1.0), "energies have the opposite sign"),
        ((1.0, 23.06), "energies are .*kcal/mol taken for eV|correct the unit"),
        ((1.0, 1 / 627.5), "energies are 0.0.*Hartree taken|correct the unit"),
    ],
)
def test_wrong_units_and_signs_are_named(known, factors, message):
    data, predicted = known
    with pytest.raises(InputError, match=message):
        check_labels(relabelled(data, *factors), *predicted)


def test_frames_far_off_are_named(known):
    data, predicted = known
    forces, energies = data.forces.copy(), data.energies.copy()
    forces[7] *= 60.0
    energies[11] += 1000.0
    for own, frame in (((forces, data.energies), 7), ((data.forces, energies), 11)):
        bad = Dataset(data.numbers, data.positions, *own)
        with pytest.raises(InputError, match=rf"frames {frame} differ"):
            check_labels(bad, *predicted)


def test_one_monstrous_force_among_many_atoms_is_named(known):
    data, predicted = known
    forces = data.forces.copy()
    forces[7, 1] += [480.0, -360.0, 0.0]
    with pytest.raises(InputError, match="frames 7 differ"):
        check_labels(Dataset(data.numbers, data.positions, forces, data.energies), *predicted)


def test_labels_of_other_frames_or_atoms_are_named(known):
    data, predicted = known
    order = np.roll(np.arange(len(data)), 7)
    atoms = np.roll(np.arange(data.n_atoms), 3)
    flipped = data.forces.copy()
    flipped[[3, 20]] *= -1.0
    swapped = data.positions.copy()
    first, last = np.flatnonzero(data.numbers == 1)[[0, -1]]
    swapped[::4, [first, last]] = swapped[::4, [last, first]]
    for R, F, E, message in (
        (data.positions, data.forces[order], data.energies, "forces hardly correlate with"),
        (data.positions, data.forces[:, atoms], data.energies, "forces hardly correlate with"),
        (data.positions, flipped, data.energies, "forces of frames 3, 20 differ"),
        (data.positions, data.forces, data.energies[order], "energies hardly correlate with"),
        (swapped, data.forces, data.energies, "in 15 frames .* a bond is more than 1.6 times"),
    ):
        bad = Dataset(data.numbers, R, F, E)
        with pytest.raises(InputError, match=message):
            check_labels(bad, *predicted)


def test_a_few_frames_tell_too(known):
    data, (energies, forces) = known
    data, predicted = data[:12], (energies[:12], forces[:12])
    check_labels(data, *predicted)
    bad = data.forces.copy()
    bad[[2, 5]] *= 50.0
    for F, E, message in (
        (bad, data.energies, "forces of frames 2, 5 differ"),
        (data.forces, 23.06 * data.energies, "energies are .* times"),
        (0.529 * data.forces, data.energies, "kcal/mol/Bohr taken for kcal/mol/Å"),
    ):
        with pytest.raises(InputError, match=message):
            check_labels(Dataset(data.numbers, data.positions, F, E), *predicted)


def test_strained_geometries_are_not_the_labels_fault(known):
    """A frame whose compressed bond pushes harder than the start's harmonic one."""
    data, (energies, forces) = known
    i, j = data.molecule.bonds[0]
    R, F, E = data.positions.copy(), data.forces.copy(), data.energies.copy()
    bond = R[4, j] - R[4, i]
    R[4, j] = R[4, i] + 0.7 * bond
    push = 900.0 * bond / np.linalg.norm(bond)
    F[4, j] += push
    F[4, i] -= push
    E[4] += 150.0
    check_labels(Dataset(data.numbers, R, F, E), energies, forces)


def test_what_the_start_takes_for_a_clash_is_not_the_labels_fault(known):
    data, (energies, forces) = known
    energies, forces = energies.copy(), forces.copy()
    energies[7] += 1000.0
    forces[11] *= 50.0
    check_labels(data, energies, forces)


def test_the_packaged_sets_are_sound_by_gaff():
    # Two frames of aspirin have a contact that GAFF takes for a clash of 64 kcal/mol.
    data = packaged_dataset("aspirin").split(1100, 100, 100, seed=0).train
    start = jaxff.gaff(data.molecule)
    check_labels(aligned(data, start), *start.predict(data.positions))


@pytest.mark.parametrize(
    "method", [Gradient(epochs=1), LeastSquares(steps=1)], ids=["gradient", "least-squares"]
)
def test_fits_look_first_unless_told_not_to(method):
    data = packaged_dataset("ethanol")[:40]
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    with pytest.raises(InputError, match="change their sign"):
        jaxff.fit(start, relabelled(data, -1.0), method=method)
    unchecked = replace(method, check_labels=False)
    jaxff.fit(start, relabelled(data, 0.4, 0.4), method=unchecked)
