"""Samplings compared, against closed forms, SciPy and the scatter of repeated draws."""

import itertools

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.distance import jensenshannon
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from jaxff.analysis import density, occupations
from jaxff.analysis.sampling import compare, joint_occupations, residence, rmsd, torsion_distance
from jaxff.errors import InputError

EDGES = np.linspace(-6.0, 6.0, 49)


def correlated(rng, n, mean=0.0, memory=0.9):
    """A series of standard normal values about a mean, correlated over 1/(1 − memory) frames."""
    kicks = rng.normal(size=n) * np.sqrt(1.0 - memory**2)
    kicks[0] = rng.normal()
    return mean + lfilter([1], [1, -memory], kicks)


def test_measures_are_scipy_s_and_those_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40_000), rng.normal(size=40_000) + 1.0
    p, q = (np.asarray(density(values, EDGES)) for values in (x, y))
    found = compare(*(np.asarray(occupations(v, EDGES)) for v in (x, y)))
    width = EDGES[1] - EDGES[0]
    assert found.overlap.mean == pytest.approx(np.minimum(p, q).sum() * width, rel=1e-10)
    assert found.divergence.mean == pytest.approx(jensenshannon(p, q, base=2) ** 2, rel=1e-9)
    assert found.overlap.mean == pytest.approx(2 * norm.cdf(-0.5), abs=5 * found.overlap.error)
    assert 0.001 < found.overlap.error < 0.01
    apart = compare(np.eye(2)[[0, 0, 0]], np.eye(2)[[1, 1, 1]], n_blocks=3)
    assert apart.overlap.mean == 0.0
    assert apart.divergence.mean == pytest.approx(1.0)


def test_errors_are_the_scatter_of_repeated_correlated_draws():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        series = (correlated(rng, 3000), correlated(rng, 5000, 0.7))
        found.append(compare(*(occupations(x, EDGES) for x in series), n_samples=200))
    for key in ("overlap", "divergence"):
        values = np.array([getattr(f, key) for f in found])
        claimed = np.sqrt(np.mean(values[:, 1] ** 2))
        assert values[:, 0].std(ddof=1) == pytest.approx(claimed, rel=0.35)


def test_samplings_of_one_distribution_differ_by_chance():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(40):
        series = (correlated(rng, 4000), correlated(rng, 4000))
        found.append(compare(*(occupations(x, EDGES) for x in series), n_samples=200))
    for key in ("overlap", "divergence"):
        seen = np.array([getattr(f, key).mean for f in found])
        chance = np.array([getattr(f, f"chance_{key}") for f in found])
        assert seen.mean() == pytest.approx(chance[:, 0].mean(), abs=0.25 * abs(1 - seen.mean()))
        assert seen.std(ddof=1) == pytest.approx(np.sqrt(np.mean(chance[:, 1] ** 2)), rel=0.5)
    assert found[0].overlap.mean < 0.99


def test_two_coordinates_at_once_are_numpy_s_histogram():
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-1, 1, (2, 500))
    edges = np.linspace(-1, 1, 6)
    both = joint_occupations(occupations(x, edges), occupations(y, edges))
    np.testing.assert_allclose(both.sum(axis=0), np.histogram2d(x, y, edges)[0])
    assert compare(both, both).overlap.mean == pytest.approx(1.0)


@pytest.mark.parametrize("mirror", [False, True])
def test_distances_are_those_of_every_superposition_and_exchange(mirror):
    rng = np.random.default_rng(4)
    frames, minima = rng.normal(size=(5, 4, 3)), rng.normal(size=(3, 4, 3))
    exchanges = np.array([[0, 1, 2, 3], [0, 2, 1, 3]])

    def brute(a, b):
        images = [b[p] for p in exchanges]
        images += [-image for image in images] if mirror else []
        a = a - a.mean(axis=0)
        return min(
            Rotation.align_vectors(a, image - image.mean(axis=0))[1] for image in images
        ) / np.sqrt(4)

    expected = [[brute(a, b) for b in minima] for a in frames]
    np.testing.assert_allclose(rmsd(frames, minima, exchanges, mirror), expected, atol=1e-6)
    turned = (frames[0] @ Rotation.random(rng=rng).as_matrix().T)[[0, 2, 1, 3]] + 5.0
    assert rmsd(turned[None], frames[:1], exchanges, mirror)[0, 0] < 1e-6
    if not mirror:
        assert rmsd(-frames[:1], frames[:1])[0, 0] > 0.1


@pytest.mark.parametrize("mirror", [False, True])
def test_matched_atoms_are_as_near_as_in_the_best_of_all_orders(mirror):
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(3, 9, 3))
    groups = [(1, 4, 6), (2, 8)]
    orders = []
    for first, second in itertools.product(*(itertools.permutations(g) for g in groups)):
        order = np.arange(9)
        order[[1, 4, 6]], order[[2, 8]] = first, second
        orders.append(order)
    exact = rmsd(frames, frames, orders, mirror)
    moved = np.array([R[orders[rng.integers(12)]] for R in frames])
    moved += 0.02 * rng.normal(size=moved.shape)
    moved = moved @ (Rotation.random(rng=rng).as_matrix() * (-1 if mirror else 1)) + 3.0
    found = rmsd(moved, frames, mirror=mirror, exchangeable=groups)
    exact = rmsd(moved, frames, orders, mirror)
    np.testing.assert_allclose(np.diag(found), np.diag(exact), atol=1e-7)
    assert np.diag(found).max() < 0.06
    assert (found > exact - 1e-7).all()
    # Orders of all the atoms come on top.
    swap = np.array([np.arange(9), [0, 1, 2, 5, 4, 3, 6, 7, 8]])
    assert rmsd(moved[:1, swap[1]], frames[:1], swap, mirror, groups)[0, 0] < 0.06


def test_a_line_does_not_tell_how_to_match():
    rod = np.zeros((1, 5, 3))
    rod[0, :, 2] = [0.0, 1.0, 2.0, 2.5, 2.5]
    rod[0, 3:, 0] = [0.8, -0.8]
    with pytest.warns(UserWarning, match="are in line"):
        rmsd(rod, rod, exchangeable=[(3, 4)])


def test_torsions_differ_the_short_way_round():
    found = torsion_distance(np.radians([[175.0, 10.0]]), np.radians([[-175.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(np.degrees(found), [[10.0, 175.0]])


def test_residence_is_the_share_of_a_two_state_chain():
    """Left with rates a and b, states are occupied as b : a and correlated by 1 − a − b."""
    rng, a, b, n = np.random.default_rng(5), 0.02, 0.06, 40_000
    draws, state = rng.random(n), np.empty(n, int)
    now = 0
    for i, u in enumerate(draws):
        now = 1 - now if u < (a, b)[now] else now
        state[i] = now
    distances = np.where(state[:, None] == [0, 1], 0.1, 0.9)
    distances[::100] = 2.0
    found = residence(distances, within=1.0)
    assert found.elsewhere.mean == pytest.approx(0.01)
    assert (found.nearest[::100] == -1).all()
    p = b / (a + b)
    memory = 1.0 - a - b
    error = np.sqrt(p * (1 - p) / n * (1 + memory) / (1 - memory))
    np.testing.assert_allclose(found.shares.error, 0.99 * error, rtol=0.35)
    np.testing.assert_allclose(found.shares.mean, [0.99 * p, 0.99 * (1 - p)], atol=4 * error)
    assert found.shares.mean.sum() + found.elsewhere.mean == pytest.approx(1.0)


def test_bad_input_is_one_sentence():
    ones = np.ones((10, 3))
    with pytest.raises(InputError, match=r"shapes \(F, bins\) and \(G, bins\)"):
        compare(ones, np.ones((10, 4)))
    with pytest.raises(InputError, match="n_blocks must be 2 to 10"):
        compare(ones, ones)
    with pytest.raises(InputError, match="no frame of the second sampling"):
        compare(ones, 0.0 * ones, n_blocks=2)
    with pytest.raises(InputError, match=r"shapes \(F, A\) and \(F, B\)"):
        joint_occupations(ones, ones[:5])
    with pytest.raises(InputError, match=r"references \(K, N, 3\)"):
        rmsd(np.zeros((2, 3, 3)), np.zeros((2, 4, 3)))
    with pytest.raises(InputError, match=r"the numbers 0 to 2 in each row"):
        rmsd(np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), [[0, 0, 1]])
    bad = np.zeros((2, 3, 3))
    bad[1, 0, 0] = np.nan
    with pytest.raises(InputError, match="references are not finite in geometry 1"):
        rmsd(np.zeros((2, 3, 3)), bad)
    with pytest.raises(InputError, match="without NaN"):
        residence(np.full((4, 2), np.nan))
