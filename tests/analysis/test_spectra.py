"""Spectra: lines at the normal modes, errors that are those seen, shifts that were put in."""

import contextlib
import json

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxff import Molecule, gaff, md, save, units
from jaxff.analysis.spectra import internal_velocities, peak_shifts, spectrum
from jaxff.cli import main
from jaxff.errors import InputError

MASSES = np.array([12.0, 1.0, 16.0])


def noisy_lines(wavenumbers, n, dt, seed, lifetime=np.inf, replicas=1):
    """Velocities (replicas, F, 3, 3) of damped oscillators driven by noise, one atom each.

    An autoregression of complex amplitudes: its spectrum is a Lorentzian at each wavenumber.
    """
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    omega = 2 * np.pi * np.asarray(wavenumbers) / units.WAVENUMBER_PER_FS
    pole = np.exp((1j * omega - 1.0 / lifetime) * dt)
    kicks = rng.normal(size=(replicas, n, len(omega), 3, 2)) @ [1.0, 1j]
    kicks *= np.sqrt(1.0 - np.abs(pole) ** 2)[:, None] if np.isfinite(lifetime) else 0.0
    kicks[:, 0] = rng.normal(size=(replicas, len(omega), 3, 2)) @ [1.0, 1j]
    out = np.stack([lfilter([1], [1, -p], kicks[:, :, a], axis=1) for a, p in enumerate(pole)], 2)
    return out.real


def harmonic_wavenumbers(potential, R, masses):
    """Wavenumbers (3N,) cm⁻¹ of the mass-weighted Hessian at a minimum R (N, 3) Å."""
    hessian = np.asarray(jax.hessian(potential)(R)).reshape(R.size, R.size)
    scale = np.repeat(np.sqrt(masses), 3)
    values = np.linalg.eigvalsh(hessian / np.outer(scale, scale))
    return np.sqrt(np.abs(values)) / units.TIME / (2 * np.pi) * units.WAVENUMBER_PER_FS


def test_peaks_of_a_harmonic_molecule_are_its_normal_modes(tmp_path, capsys):
    water = Molecule.from_smiles("O")
    potential = gaff(water, charges="gasteiger")
    found = md.minimize(potential, water, descent=md.Descent(tolerance=1e-7))
    modes = harmonic_wavenumbers(potential, found.positions, water.masses)[-3:]
    save(tmp_path / "model.npz", potential)
    water.with_positions(found.positions).to_ase().write(tmp_path / "start.xyz", format="extxyz")
    # At 1 K anharmonicity is gone; 1 fs makes the error of the time step large: 44 cm⁻¹.
    simulate = "md model.npz start.xyz --ensemble nve --temperature 1,1,1.5,1.5 --replicas 4 "
    simulate = (simulate + "--dt 1 --steps 10000 --record-every 4").split()
    run(tmp_path, *simulate, "-o", "run")
    run(tmp_path, "spectrum", "run", "--resolution", "5", "-o", "out", "--json", "out.json")
    told = json.loads((tmp_path / "out.json").read_text())
    assert list(told["spectra"]) == ["run, 1 K", "run, 1.5 K"]
    for one in told["spectra"].values():
        np.testing.assert_allclose([p["wavenumber"] for p in one["peaks"]], modes, atol=0.6)
    assert np.abs([row["shifts"][1] for row in told["shifts"]]).max() < 0.5
    assert (tmp_path / "out" / "spectrum.png").stat().st_size > 10_000
    assert len((tmp_path / "out" / "peaks.csv").read_text().splitlines()) == 7

    both = [md.read_trajectory(tmp_path / "run" / f"trajectory-{r}.extxyz") for r in (0, 1)]
    of = {"positions": [frames["positions"] for frames in both], "resolution": 5.0}
    velocities = np.array([frames["velocities"] for frames in both])
    corrected = spectrum(velocities, water.masses, 4.0, step=1.0, **of)
    with np.load(tmp_path / "out" / "spectra.npz") as file:
        np.testing.assert_allclose(file["density_0"], corrected.density)
    uncorrected = spectrum(velocities, water.masses, 4.0, **of)
    raw = [peak.wavenumber for peak in uncorrected.peaks]
    seen = 2.0 * np.arcsin(np.pi * modes / units.WAVENUMBER_PER_FS)  # ω = 2/dt sin(ω' dt/2)
    np.testing.assert_allclose(raw, seen * units.WAVENUMBER_PER_FS / (2 * np.pi), atol=0.6)
    assert raw[-1] - corrected.peaks[-1].wavenumber > 40.0
    for one in (corrected, uncorrected):
        assert np.trapezoid(one.density, one.wavenumbers) == pytest.approx(1.0, abs=0.02)

    capsys.readouterr()
    run(tmp_path, "spectrum", "run", "--skip", "9800", "-o", "short")
    short = capsys.readouterr().out
    # 51 frames: 0.204 ps, 1/T = 163 cm⁻¹; segments of 12 frames.
    assert "trajectory of 0.204 ps cannot separate lines less than 164 cm⁻¹ apart" in short
    assert "separates 695 cm⁻¹, from 4 blocks" in short
    assert "for 5 cm⁻¹ and 4 blocks, run `jaxff md` for 26.7 ps with 2 replicas" in short
    run(tmp_path, "spectrum", "run", "--resolution", "40", "-o", "coarse")
    assert "warning" not in capsys.readouterr().out
    simulate[-1] = "8"
    run(tmp_path, *simulate, "-o", "rare")
    assert fails(tmp_path, capsys, "rare").endswith("with --record-every 4 or less")
    assert "contains no restart.npz" in fails(tmp_path, capsys, "out")
    assert "no such folder" in fails(tmp_path, capsys, "nowhere")
    assert "(got 2501)" in fails(tmp_path, capsys, "run", "--resolution", "0.1")


def run(folder, *arguments, expected=0):
    with contextlib.chdir(folder):
        assert main(list(arguments)) == expected


def fails(folder, capsys, *arguments) -> str:
    run(folder, "spectrum", *arguments, "-o", "no", expected=1)
    return capsys.readouterr().err.strip()


def test_errors_are_the_scatter_of_repeated_runs():
    truth, dt = (500.0, 1500.0, 3000.0), 4.0
    runs = [
        spectrum(noisy_lines(truth, 6000, dt, seed, 1000.0, 4), MASSES, dt, resolution=8.0)
        for seed in range(40)
    ]
    positions = np.array([[p.wavenumber for p in run.peaks] for run in runs])
    assert positions.shape == (40, 3)
    claimed = np.mean([[p.error**2 for p in run.peaks] for run in runs], axis=0) ** 0.5
    np.testing.assert_allclose(positions.std(axis=0, ddof=1), claimed, rtol=0.4)
    np.testing.assert_allclose(positions.mean(axis=0), truth, atol=4 * claimed.max() / 40**0.5)
    heights = np.array([run.density for run in runs])
    top = heights.mean(axis=0) > 0.1 * heights.mean(axis=0).max()
    claimed = np.mean([run.error**2 for run in runs], axis=0) ** 0.5
    ratio = heights.std(axis=0, ddof=1)[top] / claimed[top]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.15)
    assert runs[0].n_blocks == 8


def test_shifts_are_those_put_in():
    dt, lines = 4.0, np.array([500.0, 1500.0, 3000.0])
    moved = lines + np.array([3.0, -12.0, 0.0])
    pair = [
        spectrum(noisy_lines(w, 30_000, dt, k, 2000.0), MASSES, dt, resolution=4.0)
        for k, w in enumerate((lines, moved))
    ]
    rows = peak_shifts(pair)
    shifts, errors = (np.array([row[key][1] for row in rows]) for key in ("shifts", "errors"))
    assert (errors < 2.0).all()
    np.testing.assert_array_less(np.abs(shifts - (moved - lines)), 4.0 * errors + 0.2)
    assert [row["shifts"][0] for row in rows] == [0.0] * 3
    lost = peak_shifts(pair, within=6.0)[1]
    assert lost["peaks"][1] is None
    assert np.isnan(lost["shifts"][1])


def test_motion_as_a_whole_is_taken_off_and_nothing_else():
    rng = np.random.default_rng(0)
    # A chain of springs that stands still, against the same one moving and turning.
    R = np.array([[0.0, 0.0, 0.0], [1.2, 0.1, 0.0], [2.0, 1.1, 0.3]])
    t = np.arange(50.0)
    shape = 1e-6 * rng.normal(size=(3, 3))
    # The part of a random displacement that is no rigid motion, by mass.
    centred = R - MASSES @ R / MASSES.sum()
    rigid = [np.broadcast_to(e, (3, 3)) for e in np.eye(3)]
    rigid += [np.cross(e, centred) for e in np.eye(3)]
    root = np.sqrt(MASSES)[:, None]
    basis = np.linalg.qr(np.array([(root * x).ravel() for x in rigid]).T)[0]
    flat = (root * shape).ravel()
    shape = (flat - basis @ (basis.T @ flat)).reshape(3, 3) / root
    still = R + shape * np.sin(0.3 * t)[:, None, None]
    v_still = shape * 0.3 * np.cos(0.3 * t)[:, None, None]
    angle = 0.05 * t
    c, s, o, i = np.cos(angle), np.sin(angle), 0 * t, 0 * t + 1
    turn = np.array([[c, -s, o], [s, c, o], [o, o, i]]).transpose(2, 0, 1)
    moving = np.einsum("fcd,fnd->fnc", turn, still - R.mean(0)) + [0.1, 0.0, 0.2] * t[:, None, None]
    spin = np.cross([0.0, 0.0, 0.05], np.einsum("fcd,fnd->fnc", turn, still - R.mean(0)))
    v = np.einsum("fcd,fnd->fnc", turn, v_still) + spin + np.array([0.1, 0.0, 0.2])
    np.testing.assert_allclose(internal_velocities(moving, v, MASSES), v_still, atol=1e-11)
    line = np.array([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]])[None]
    stretch = np.array([[1.0, 0, 0], [0, 0, 0], [-0.75, 0, 0]])[None]
    spinning = stretch + np.cross([0.3, 0.2, 0.1], line)
    np.testing.assert_allclose(internal_velocities(line, spinning, MASSES), stretch, atol=1e-12)


def chain_modes(z, masses, stretches, bends):
    """Normal modes of atoms in line: wavenumbers (3N − 5,) cm⁻¹ and displacements (3N − 5, N, 3).

    Springs (kcal/mol/Å²) hold neighbours and springs (kcal/mol/rad²) hold angles: Wilson's GF.
    """
    n, root = len(z), np.sqrt(masses)
    along = np.diff(np.eye(n), axis=0)
    slopes = along / np.diff(z)[:, None]
    across = np.diff(slopes, axis=0)  # angle from straight = difference of the slopes
    found = []
    for B, k, axes in ((along, stretches, [2]), (across, bends, [0, 1])):
        hessian = np.einsum("ki,k,kj->ij", B, k, B) / np.outer(root, root)
        values, vectors = np.linalg.eigh(hessian)
        for value, vector in list(zip(values, vectors.T, strict=True))[n - len(B) :]:
            for axis in axes:
                omega = np.sqrt(value) / units.TIME
                found.append((omega, np.outer(vector / root, np.eye(3)[axis])))
    found.sort(key=lambda pair: pair[0])
    omega, shapes = (np.array(x) for x in zip(*found, strict=True))
    return omega / (2 * np.pi) * units.WAVENUMBER_PER_FS, shapes


@pytest.mark.parametrize("turning", [False, True])
@pytest.mark.parametrize(
    ("z", "masses", "stretches", "bends"),
    [
        ([0.0, 1.065, 2.218], [1.008, 12.011, 14.007], [840.0, 2600.0], [37.0]),
        ([-1.66, -0.6, 0.6, 1.66], [1.008, 12.011, 12.011, 1.008], [850, 2250, 850], [35.0, 35.0]),
        ([0.0, 0.74], [1.008, 1.008], [830.0], []),
    ],
)  # fmt: skip
def test_linear_molecules_keep_their_bends(z, masses, stretches, bends, turning):
    rng = np.random.default_rng(0)
    z, masses = np.array(z), np.array(masses)
    modes, shapes = chain_modes(z, masses, np.array(stretches), np.array(bends))
    assert len(modes) == 3 * len(z) - 5
    dt, replicas, n = 2.0, 4, 8000
    t, omega = dt * np.arange(n), 2 * np.pi * modes / units.WAVENUMBER_PER_FS
    phase = rng.uniform(0, 2 * np.pi, (replicas, 1, len(modes))) + np.outer(t, omega)
    size = np.sqrt(2 * 0.0019872 * 200.0) / units.TIME  # 200 K in each mode
    R = np.einsum("rtk,kna->rtna", size / omega * np.sin(phase), shapes)
    R += (z - masses @ z / masses.sum())[:, None] * [0.0, 0.0, 1.0]
    v = np.einsum("rtk,kna->rtna", size * np.cos(phase), shapes)
    if turning:
        spin = 0.002 * np.array([0.8, -0.6, 0.0])  # rad/fs
        turns = Rotation.from_rotvec(np.outer(t, spin)).as_matrix()
        R, v = (np.einsum("tab,rtnb->rtna", turns, x) for x in (R, v))
        v = v + np.cross(spin, R) + 0.01
        R = R + 0.01 * t[:, None, None]
    found = spectrum(v, masses, dt, positions=R, resolution=5.0)
    lines = np.unique(modes.round(6))
    np.testing.assert_allclose([p.wavenumber for p in found.peaks], lines, atol=1.0)
    share = [
        found.density[np.abs(found.wavenumbers - line) < 40.0].sum() * found.resolution
        for line in lines
    ]
    expected = [np.isclose(modes, line).mean() for line in lines]
    np.testing.assert_allclose(share, expected, rtol=0.03)
    assert found.density[np.abs(found.wavenumbers[:, None] - lines).min(axis=1) > 100].max() < (
        1e-3 * found.density.max()
    )


@pytest.mark.parametrize(
    "R",
    [
        [[0.76, 0.59, 0.0], [0.0, 0.0, 0.0], [-0.76, 0.59, 0.0]],  # water
        [[-0.7, 0.7, 0.0], [0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [2.76, 0.0, 0.0]],  # HNCS
    ],
)  # fmt: skip
def test_bent_molecules_turn_about_every_axis(R):
    R = np.array(R)
    masses = np.array([1.008, 15.999, 1.008] if len(R) == 3 else [1.008, 14.007, 12.011, 32.06])
    R = R - masses @ R / masses.sum()
    spin = np.random.default_rng(0).normal(size=3)
    v = np.cross(spin, R)
    np.testing.assert_allclose(internal_velocities(R[None], v[None], masses), 0.0, atol=1e-12)


def test_bad_input_is_one_sentence():
    v = np.random.default_rng(0).normal(size=(100, 3, 3))
    bad = v.copy()
    bad[7, 1, 2] = np.nan
    for arguments, message in (
        ((v[0], MASSES, 1.0), "velocities must have shape"),
        ((v, MASSES, -1.0), "dt must be positive"),
        ((v, MASSES[:2], 1.0), r"masses must be .* shape .2,."),
        ((v, MASSES * [1, 1, -1], 1.0), "masses must be positive.*lowest mass -16"),
        ((v, MASSES * [1, np.nan, 1], 1.0), "positive"),
        ((bad, MASSES, 1.0), "velocities are not finite in frame 7"),
        ((0.0 * v, MASSES, 1.0), "all velocities are zero"),
    ):
        with pytest.raises(InputError, match=message):
            spectrum(*arguments)
    for options, message in (
        ({"step": 2.0}, "step must be at most dt, 1 fs"),
        ({"positions": v[:10]}, "positions must have the shape"),
        ({"positions": bad}, "positions are not finite in frame 7"),
        ({"resolution": 5.0}, r"a resolution of 5 cm⁻¹ needs 6671 frames of 1 fs"),
    ):
        with pytest.raises(InputError, match=message):
            spectrum(v, MASSES, 1.0, **options)
    with pytest.raises(InputError, match="does not vibrate"):
        spectrum(v[:, :1], MASSES[:1], 1.0, positions=v[:, :1])
    with pytest.raises(InputError, match="must have the same shape"):
        internal_velocities(v, v[:50], MASSES)
