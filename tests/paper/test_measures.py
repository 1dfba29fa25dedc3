"""The numbers that test the paper's statements, on examples with known answers."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from jaxff import Molecule, units
from jaxff.analysis import Estimate, Scan
from jaxff.analysis.modes import Modes
from jaxff.dataset import packaged_dataset
from jaxff.paper import (
    accuracy,
    basins,
    coupled_cluster,
    levels,
    refinement,
    residence,
    surfaces,
    table1,
    table2,
)
from jaxff.paper.claims import RUNS
from jaxff.paper.experiment import Setting
from jaxff.paper.minima import above_others, acid_turned
from jaxff.paper.rotor_modes import rotor_shares, rotors
from jaxff.paper.sampling import torsion_occupations
from jaxff.paper.spectra import Densities, displacement, shift
from jaxff.paper.verdicts import AGREES, DISAGREES, NOTHING, judged

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

    def band(centre, replicas=8):
        centres = centre + np.linspace(-6.0, 6.0, replicas)[:, None]
        return Densities(x, np.exp(-0.5 * ((x - centres) / 30.0) ** 2))

    first, second = band(1000.0), band(1020.0)
    for measure in (shift, displacement):
        found = measure(first, second, 500.0, 1500.0)
        assert found.mean == pytest.approx(20.0, abs=0.1)
        assert found.error == pytest.approx(4.2 * math.sqrt(2.0 / 8.0), rel=0.2)
    assert math.isnan(shift(first, band(1000.0, replicas=1), 500.0, 1500.0).mean)


def test_the_basins_of_aspirin_are_those_of_its_torsions():
    data = packaged_dataset("aspirin")
    molecule, R = data.molecule, data.positions[::40]
    counts = basins.counted(molecule, [R[:25], R[25:]])
    assert counts.sum(axis=1).tolist() == [25, 25]
    ester, acid, hydroxyl = basins.torsions(molecule)
    assert [molecule.symbols[a] for a in ester] == ["C", "C", "O", "C"]
    assert [molecule.symbols[a] for a in acid] == ["C", "C", "C", "O"]
    assert molecule.symbols[hydroxyl[-1]] == "H"
    mirrored = R * [1.0, 1.0, -1.0]
    np.testing.assert_array_equal(basins.basin_of(molecule, R), basins.basin_of(molecule, mirrored))
    assert basins.basin_of(molecule, R).max() < 4
    assert basins.basin_of(molecule, acid_turned(molecule, R[0])[None]) == [4]


def test_shares_of_weighted_frames_have_errors_over_replicas():
    rng = np.random.default_rng(0)
    near = rng.binomial(100, 0.4, size=64)
    table = np.stack([near, 0 * near, 100 - near, 0 * near, 0 * near], axis=1)
    found = basins.estimated(basins.facing, table)
    assert found.mean == pytest.approx(0.4, abs=0.02)
    assert found.error == pytest.approx(math.sqrt(0.4 * 0.6 / 6400.0), rel=0.3)
    assert basins.estimated(basins.facing, 3.0 * table).mean == pytest.approx(found.mean)
    assert math.isnan(basins.estimated(basins.facing, np.tile([[5, 0, 5, 0, 0]], (8, 1))).error)


def visits(share, rows=16, noise=0.01):
    near = share + noise * np.random.default_rng(1).normal(size=rows)
    return np.stack([near, 0 * near, 1 - near, 0 * near, 0 * near], axis=1)


@pytest.mark.parametrize(
    ("corrected", "noise", "expected"),
    [(0.43, 0.01, AGREES), (0.29, 0.01, DISAGREES), (0.72, 0.01, DISAGREES), (0.43, 0.3, NOTHING)],
)
def test_a_correction_recovers_the_sampling_if_less_than_half_of_the_deviation_remains(
    corrected, noise, expected
):
    tables = {
        "reference": visits(0.45),
        "GAFF": visits(0.28),
        "GAFF + ML": visits(corrected, noise=noise),
    }
    found = residence.findings(tables, "reference", 0)
    assert found[0].claim == "recovered"
    assert found[0].verdict == expected


def test_the_global_minimum_is_preferred_if_its_basin_leads():
    tables = {"reference": visits(0.6), "GAFF": visits(0.28)}
    for share, expected in ((0.6, AGREES), (0.4, DISAGREES), (0.5, NOTHING)):
        found = residence.findings({**tables, "GAFF + ML": visits(share)}, "reference", 0)
        assert found[1].verdict == expected


def test_equivalent_hydrogens_have_the_same_torsions():
    molecule = Molecule.from_smiles("CCO")
    occupied = torsion_occupations(molecule, molecule.positions[None], rotors(molecule))
    assert occupied.shape == (1, 36, 36)
    assert occupied.sum() == pytest.approx(1.0)
    methyl = occupied[0].sum(axis=0)  # staggered: three equal maxima, 120 degrees apart
    np.testing.assert_allclose(methyl, np.roll(methyl, 12), atol=0.02)


def test_refinement_must_be_better_than_as_many_frames_of_gaff():
    def verdict(refined, error=0.01):
        errors = {
            refinement.REFINED: Estimate(refined, error),
            refinement.MORE: Estimate(0.5, error),
        }
        return refinement.findings(errors)[0].verdict

    assert (verdict(0.4), verdict(0.6), verdict(0.5)) == (AGREES, DISAGREES, NOTHING)
    assert verdict(0.4, math.nan) == NOTHING


def test_energies_above_the_other_minima():
    each = np.arange(3)
    assert above_others(np.array([0.0, 1.5, 3.0]), 0, each).mean == pytest.approx(-1.5)
    assert above_others(np.array([2.0, 0.0, np.nan]), 0, each).mean == pytest.approx(2.0)


def test_a_minimum_that_relaxes_to_the_same_one_is_no_other_minimum():
    energies = np.array([0.0, 1.5, 0.0])
    assert above_others(energies, 0, np.array([0, 1, 0])).mean == pytest.approx(-1.5)
    # (a) itself relaxes to another minimum, which is the lowest of the others.
    assert above_others(energies, 0, np.array([2, 1, 2])).mean == pytest.approx(0.0)


def test_the_first_table_compares_with_the_sampling_of_gaff_itself():
    def errors(cross, error):
        cells = {("GAFF", "GAFF"): 0.2, ("DFT", "DFT"): 0.26, ("GAFF", "DFT"): cross}
        return {"ethanol": {pair: Estimate(value, error) for pair, value in cells.items()}}

    def verdict(cross, error):
        return table1.findings(errors(cross, error))[0].verdict

    assert verdict(0.38, 0.005) == AGREES
    assert verdict(0.24, 0.005) == DISAGREES
    assert verdict(0.38, 0.1) == NOTHING
    assert verdict(0.38, math.nan) == NOTHING


def test_no_kernel_labels_its_own_sampling(tmp_path, monkeypatch):
    data = packaged_dataset("ethanol")[:60]
    unknown = replace(data, theory="PBE+TS")
    asked = []

    def label(frames, out, labelling, **options):
        asked.append((len(frames), labelling.calculator))
        return SimpleNamespace(dataset=data)

    monkeypatch.setattr(table1, "label_frames", label)
    monkeypatch.setattr(table1, "gaff_frames", lambda setting, molecule: data.positions[None])
    for given, expected in (
        ({}, [(60, "gfn2-xtb")]),
        ({"ethanol": unknown}, [(60, "gfn2-xtb")] * 2),
    ):
        asked.clear()
        table1.labelled_samplings(Setting(tmp_path, small=True, given=given), "ethanol")
        assert asked == expected


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


def test_the_error_of_an_energy_error_is_that_over_the_frames():
    wrong = np.tile([0.1, -0.3], 50)
    found = accuracy.mean_absolute(wrong)
    assert found.mean == pytest.approx(0.2)
    assert found.error == pytest.approx(0.1 / math.sqrt(99.0))
    assert judged("accurate", {"ethanol": found}).verdict == DISAGREES
    assert judged("accurate", {"ethanol": accuracy.mean_absolute(0.1 * wrong)}).verdict == AGREES


def test_a_barrier_is_the_highest_point_of_the_lowest_path():
    grid = scan_of(FIRST + 0.4 * np.cos(ANGLES))  # the first torsion has a barrier of 2
    for scan, axis in ((grid, 0), (replace(grid, energies=grid.energies.T), 1)):
        place = levels.barrier(scan, axis)
        assert scan.energies[place] == pytest.approx(1.6)
        assert ANGLES[place[1 - axis]] == pytest.approx(-np.pi)


def test_the_deviation_of_dft_is_that_from_coupled_cluster_in_the_large_basis():
    # By DFT, then by MP2 and CCSD(T) in the small basis, and by MP2 in the large one.
    found = np.array([[5.0, 1.0, 2.0, 0.0], [6.0, 1.5, 2.8, 0.3]])
    assert coupled_cluster.extrapolated(np.array([0.5, 0.8, 0.3])) == pytest.approx(0.6)
    deviation = levels.largest_deviation(found)
    assert deviation.mean == pytest.approx(0.4)
    assert deviation.error == pytest.approx(0.1)
    verdicts = [judged(c, {"x": deviation}).verdict for c in ("dft-close", "dft-struggles")]
    assert verdicts == [AGREES, NOTHING]


def test_coupled_cluster_of_two_electrons_is_exact():
    pytest.importorskip("pyscf")
    from pyscf import fci, gto, scf

    hydrogen = Molecule([1, 1], np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.8]]), np.array([[0, 1]]))
    found = coupled_cluster.energies(hydrogen, "sto-3g", "3-21g")
    cell = gto.M(atom="H 0 0 0; H 0 0 0.8", basis="sto-3g", verbose=0)
    exact = fci.FCI(scf.RHF(cell).run()).kernel()[0]
    assert found[1] == pytest.approx(exact * units.HARTREE, abs=1e-3)
    assert found[2] < found[0]
