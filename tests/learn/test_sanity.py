"""Labels that cannot be meant are named before anything is fitted to them."""

import pytest

import jaxff
from jaxff import Dataset, InputError
from jaxff.demo import packaged_dataset
from jaxff.learn import aligned
from jaxff.learn.sanity import check_labels


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
        ((-1.0, 1.0), "gradients; change their sign"),
        ((23.06, 23.06), "kcal/mol/Å taken for eV/Å"),
        ((1 / 23.06, 1 / 23.06), "eV/Å taken for kcal/mol/Å"),
        ((4.184, 4.184), "kJ/mol/Å taken for kcal/mol/Å"),
        ((1 / 1185.8, 1 / 627.5), "Hartree/Bohr taken for kcal/mol/Å"),
        ((0.529, 1.0), "kcal/mol/Bohr taken for kcal/mol/Å"),
        ((1.89, 1.89), "kcal/mol/Å taken for kcal/mol/Bohr"),
        ((0.0, 1.0), "all forces are zero"),
        ((1.0, -1.0), "energies fall where"),
        ((1.0, 23.06), "energies are .*kcal/mol taken for eV|another unit"),
        ((1.0, 1 / 627.5), "energies are 0.0.*Hartree taken|another unit"),
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
        with pytest.raises(InputError, match=rf"frames {frame} are"):
            check_labels(bad, *predicted)


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


@pytest.mark.parametrize("method", ["gradient", "least-squares"])
def test_fits_look_first_unless_told_not_to(method):
    data = packaged_dataset("ethanol")[:40]
    start = jaxff.gaff(data.molecule, charges="gasteiger")
    with pytest.raises(InputError, match="change their sign"):
        jaxff.fit(start, relabelled(data, -1.0), method=method)
    jaxff.fit(start, relabelled(data, 0.4, 0.4), method=method, check=False, steps=1, epochs=1)
