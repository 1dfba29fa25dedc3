"""Spectra: lines at the normal modes, errors that are those seen, shifts that were put in."""

import contextlib
import json

import jax
import numpy as np
import pytest

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
    found = md.minimize(potential, water, tolerance=1e-7)
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
    simulate[-1] = "8"
    run(tmp_path, *simulate, "-o", "rare")
    assert fails(tmp_path, capsys, "rare").endswith("with --record-every 4 or less")
    assert "has no restart.npz" in fails(tmp_path, capsys, "out")
    assert "2501 frames" in fails(tmp_path, capsys, "run", "--resolution", "0.1")


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


def test_bad_input_is_one_sentence():
    v = np.zeros((100, 3, 3))
    for arguments, message in (
        ((v[0], MASSES, 1.0), "velocities have shape"),
        ((v, MASSES, -1.0), "dt is -1.0, it must be positive"),
        ((v, MASSES[:2], 1.0), "masses have shape"),
    ):
        with pytest.raises(InputError, match=message):
            spectrum(*arguments)
    with pytest.raises(InputError, match=r"100 frames of 1 fs cannot show 5 cm⁻¹: that takes 6671"):
        spectrum(v, MASSES, 1.0, resolution=5.0)
    with pytest.raises(InputError, match="do not fit"):
        internal_velocities(v, v[:50], MASSES)
