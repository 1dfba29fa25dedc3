"""The numbers that test the paper's statements, on examples with known answers."""

import json
import math

import numpy as np
import pytest

from jaxff import Molecule
from jaxff.analysis import Estimate, Scan
from jaxff.analysis.modes import Modes
from jaxff.analysis.spectra import Spectrum
from jaxff.paper import surfaces, table1, table2
from jaxff.paper.claims import RUNS
from jaxff.paper.minima import above_others
from jaxff.paper.residence import other_basins
from jaxff.paper.rotor_modes import rotor_shares, rotors
from jaxff.paper.spectra import displacement, shift
from jaxff.paper.verdicts import AGREES, DISAGREES, NOTHING

ANGLES = np.radians(np.arange(-180.0, 180.0, 30.0))
FIRST = 1.0 + np.cos(3.0 * ANGLES)[:, None] + np.zeros(12)
COUPLED = 0.3 * np.cos(ANGLES)[:, None] * np.cos(ANGLES)


def scan_of(energies):
    shape = energies.shape
    return Scan(
        ("a", "b"), ((0, 1, 2, 3), (1, 2, 3, 4)), (ANGLES, ANGLES), np.ones(5, int),
        np.zeros((*shape, 5, 3)), energies, np.ones(shape, bool), True,
    )  # fmt: skip


@pytest.fixture
def reference():
    return surfaces.Surface(scan_of(FIRST + COUPLED), np.zeros((12, 12), bool), 0.05, "test")


def test_the_coupling_is_what_is_no_sum_of_functions_of_one_torsion(reference):
    np.testing.assert_allclose(surfaces.coupling(FIRST + FIRST.T + 2.0), 0.0, atol=1e-12)
    np.testing.assert_allclose(surfaces.coupling(FIRST + COUPLED), COUPLED, atol=1e-12)
    assert surfaces.coupling_slope(reference, scan_of(FIRST)).mean == pytest.approx(0.0, abs=1e-9)
    same = surfaces.coupling_slope(reference, reference.scan)
    assert same.mean == pytest.approx(1.0)
    assert same.error == pytest.approx(0.05 / COUPLED.std())
    assert surfaces.coupling_share(reference, scan_of(FIRST)).mean == pytest.approx(1.0)


def test_points_far_from_the_data_do_not_count(reference):
    wrong = FIRST + COUPLED
    wrong[:3] += 5.0
    far = np.zeros((12, 12), bool)
    far[:3] = True
    masked = surfaces.Surface(reference.scan, far, 0.05, "test")
    assert surfaces.correlation(reference, scan_of(wrong)).mean < 0.9
    assert surfaces.correlation(masked, scan_of(wrong)).mean == pytest.approx(1.0)
    assert surfaces.rms_difference(masked, scan_of(wrong)).mean == pytest.approx(0.0, abs=1e-9)
    nowhere = surfaces.Surface(reference.scan, np.ones((12, 12), bool), math.nan, "test")
    assert math.isnan(surfaces.correlation(nowhere, scan_of(wrong)).mean)


def test_minima_that_the_reference_contradicts_are_doubtful():
    known = surfaces.GridMinimum((0, 0), (0.0, 0.0), 1.3, off=-2.1)
    assert known.is_doubtful
    assert "doubtful" in str(known)
    assert not surfaces.GridMinimum((0, 0), (0.0, 0.0), 1.3, off=0.1, far=True).is_doubtful
    assert surfaces.GridMinimum((0, 0), (0.0, 0.0), 1.3, far=True).is_doubtful


def test_a_mode_that_turns_one_rotor_is_not_mixed():
    molecule = Molecule.from_smiles("CCO")
    torsions = rotors(molecule)
    R = molecule.positions
    turn = np.zeros_like(R)
    axis = R[torsions[0][1]] - R[torsions[0][2]]
    turn[torsions[0][3]] = np.cross(axis, R[torsions[0][3]] - R[torsions[0][2]])
    modes = Modes(np.array([200.0]), turn[None], np.ones(1))
    assert rotor_shares(modes, R, torsions, molecule.masses)[0] == pytest.approx([1.0, 0.0])


def test_shifts_and_displacements_of_bands():
    x = np.arange(0.0, 4000.0, 5.0)
    band = [np.exp(-0.5 * ((x - centre) / 30.0) ** 2) for centre in (1000.0, 1020.0)]
    first, second = (Spectrum(x, y, 1e-3 * y, (), 5.0, 4) for y in band)
    assert shift(first, second, 500.0, 1500.0).mean == pytest.approx(20.0, abs=0.1)
    assert displacement(first, second, 500.0, 1500.0).mean == pytest.approx(20.0, abs=0.1)
    unknown = Spectrum(x, band[0], np.full(len(x), np.nan), (), 5.0, 1)
    assert math.isnan(shift(first, unknown, 500.0, 1500.0).mean)


def test_basins_that_differ_by_chance_are_within_the_error():
    rng = np.random.default_rng(0)
    share = rng.uniform(0.3, 0.7, size=(16, 1))
    found = other_basins(np.hstack([share, 1.0 - share]), np.array([[0.5, 0.5]] * 8), 0)
    assert found.mean < 3.0 * found.error
    assert other_basins(np.array([[1.0, 0.0]] * 4), np.array([[0.0, 1.0]] * 4), 0).mean == 1.0


def test_energies_above_the_other_minima():
    assert above_others(np.array([0.0, 1.5, 3.0]), 0).mean == pytest.approx(-1.5)
    assert above_others(np.array([2.0, 0.0, np.nan]), 0).mean == pytest.approx(2.0)


def test_the_first_table_compares_with_the_sampling_of_gaff_itself():
    def errors(cross, error):
        cells = {("GAFF", "GAFF"): 0.2, ("DFT", "DFT"): 0.26, ("GAFF", "DFT"): cross}
        return {"ethanol": {pair: Estimate(value, error) for pair, value in cells.items()}}

    def verdict(cross, error):
        return table1.findings(errors(cross, error), [])[0].verdict

    assert verdict(0.38, 0.005) == AGREES
    assert verdict(0.24, 0.005) == DISAGREES
    assert verdict(0.38, 0.1) == NOTHING
    assert verdict(0.38, math.nan) == NOTHING


def test_circular_labels_are_not_judged():
    found = table1.findings({}, ["ethanol"])
    assert {f.verdict for f in found} == {NOTHING}
    assert all("circular" in f.reason for f in found)


def test_rows_of_the_second_table_that_were_not_made_are_not_judged():
    def finding(errors, claim):
        return next(f for f in table2.findings(errors) if f.claim == claim)

    one = {("ethanol", 0, "sGDML"): 0.4, ("ethanol", 110, "GAFF"): 6.5}
    errors = {(*key, m): Estimate(v, 0.1) for key, v in one.items() for m in table2.METRICS}
    assert finding(errors, "above-sgdml").verdict == AGREES
    for claim in ("saturated", "morse-better", "nn-best"):
        assert finding(errors, claim).obtained == "not tested"
    for metric in table2.METRICS:
        errors["ethanol", 1100, "GAFF", metric] = Estimate(6.4, 0.1)
    assert finding(errors, "saturated").verdict == AGREES
    errors["ethanol", 1100, "GAFF", "force_rmse"] = Estimate(4.0, 0.1)
    assert finding(errors, "saturated").verdict == DISAGREES


def test_averages_over_runs_have_an_error_and_single_runs_do_not():
    assert table2.averaged([1.0, 2.0, 3.0][:RUNS]).error == pytest.approx(1.0 / math.sqrt(3.0))
    assert math.isnan(table2.averaged([1.0]).error)
    json.dumps(table2.averaged([1.0, 2.0])._asdict())
