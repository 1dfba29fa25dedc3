"""Section IV B: coupling of the two rotors of ethanol in the lowest normal modes."""

from __future__ import annotations

import numpy as np

from jaxff.analysis import Estimate, as_surface, normal_modes, relax, torsion_angles
from jaxff.analysis.modes import Modes
from jaxff.md import Descent
from jaxff.molecule import Molecule
from jaxff.paper.experiment import MOLECULES, Setting
from jaxff.paper.result import Result, Table
from jaxff.paper.verdicts import judged
from jaxff.reference import calculator

MOLECULE, HALF = "ethanol", "sGDML, half of the frames"
STEP = 1e-4  # Å, of the finite differences of torsions
DESCENT = Descent(tolerance=5e-3)
# The grid of density functionals makes forces noisy, so that smaller forces are not reached.
NOISY = Descent(tolerance=3e-2, max_steps=200)


def run(setting: Setting) -> Result:
    """Compare the shares of both rotors in the lowest modes by sGDML, GAFF and the reference."""
    name = setting.surface_set(MOLECULE)
    data, method = setting.dataset(name), setting.reference(name)
    torsions = rotors(data.molecule)
    start = trans_start(data.positions, torsions)
    surfaces = {"sGDML": setting.kernel(name)}
    if method is not None and not setting.small:
        surfaces["reference"] = calculator(method)
    surfaces |= {HALF: setting.kernel(name, half=True), "GAFF": setting.gaff(MOLECULE)}
    mixing, rows, notes = {}, [], []
    for title, surface in surfaces.items():
        setting.progress(f"normal modes of trans-ethanol by {title}", 0.0)
        surface = as_surface(surface, data.molecule)
        ends = relax(surface, start[None], descent=NOISY if title == "reference" else DESCENT)
        if not ends.converged[0]:
            notes.append(
                f"{title} is not in the table: its minimisation ended with a force of "
                f"{ends.max_force[0]:.2g} kcal/mol/Å."
            )
            continue
        # The next minimisation starts here: the reference needs few steps from sGDML's minimum.
        end = start = ends.positions[0]
        modes = normal_modes(surface, end, data.molecule.masses)
        shares = rotor_shares(modes, end, torsions, data.molecule.masses)[:2]
        mixing[title] = float(shares.min(axis=1).mean())
        for k, (hydroxyl, methyl) in enumerate(shares):
            rows.append([title, k + 1, round(float(modes.frequencies[k])), hydroxyl, methyl])
    # GAFF is the force field itself; the kernel deviates from its reference.
    others = [mixing[title] for title in (HALF, "reference") if title in mixing]
    error = max(abs(mixing["sGDML"] - other) for other in others)
    return Result(
        "Section IV B: normal modes of trans-ethanol",
        f"{data.theory}; sGDML trained at this level; {setting.charge_model}",
        [
            judged("gaff-decoupled", {"GAFF": Estimate(mixing["GAFF"], 0.0)}),
            judged("sgdml-coupled", {"sGDML": Estimate(mixing["sGDML"], error)}),
        ],
        [
            "The shares are those of the kinetic energy along the two torsions, scaled to a sum "
            "of one. The error of sGDML is the difference from sGDML trained on half of the "
            "frames. If a calculator has this level of theory, the difference from the reference "
            "method is also computed, and the larger one is used.",
            *notes,
        ],
        {"mixing": mixing},
        [
            Table(
                "The two lowest modes of trans-ethanol, and the share of each rotor",
                ["potential", "mode", "frequency, cm⁻¹", "hydroxyl rotor", "methyl rotor"],
                rows,
            )
        ],
    )


def rotors(molecule: Molecule) -> np.ndarray:
    """Return the torsions (2, 4) of the hydroxyl (C-C-O-H) and the methyl rotor (O-C-C-H)."""
    order = Molecule.from_smiles(MOLECULES[MOLECULE]).match(molecule)
    methyl, methylene, oxygen = order[:3].tolist()
    on = {atom: sorted(molecule.graph[atom]) for atom in (methyl, oxygen)}
    proton = next(a for a in on[oxygen] if a != methylene)
    hydrogen = next(a for a in on[methyl] if a != methylene)
    return np.array(
        [[methyl, methylene, oxygen, proton], [oxygen, methylene, methyl, hydrogen]], int
    )


def trans_start(positions: np.ndarray, torsions: np.ndarray) -> np.ndarray:
    """Return the frame (N, 3) Å that is nearest to the trans conformer.

    Args:
        positions: M frames (M, N, 3) Å.
        torsions: atoms (2, 4) of the torsions of the hydroxyl and the methyl rotor.
    """
    phi = np.asarray(torsion_angles(positions, torsions))
    # Trans for the hydroxyl group; staggered for the methyl group.
    return positions[np.argmin(np.cos(phi[:, 0]) + np.cos(3.0 * phi[:, 1]))]


def rotor_shares(
    modes: Modes, positions: np.ndarray, torsions: np.ndarray, masses: np.ndarray
) -> np.ndarray:
    """Compute the shares (F, T) of T torsions in F normal modes; each row sums to one.

    The share is that of the kinetic energy. A torsion φ with rate φ̇ has the kinetic energy
    φ̇²/(2 G), where G is the sum of |∂φ/∂r|²/m over the atoms with positions r and masses m
    (Wilson, Decius and Cross, Molecular Vibrations (1955), ch. 4).

    Args:
        modes: the normal modes.
        positions: (N, 3) Å.
        torsions: (T, 4) atoms.
        masses: (N,) amu.
    """
    n = len(positions)
    moves = STEP * np.eye(3 * n).reshape(3 * n, n, 3)
    ahead, behind = (
        np.asarray(torsion_angles(positions + sign * moves, torsions)) for sign in (1.0, -1.0)
    )
    turn = ahead - behind
    turn -= 2.0 * np.pi * np.round(turn / (2.0 * np.pi))
    slopes = (turn / (2.0 * STEP)).T.reshape(len(torsions), n, 3)
    inverse = np.sum(slopes**2 / masses[:, None], axis=(1, 2))
    rates = np.einsum("fnc,tnc->ft", modes.vectors, slopes)
    energies = rates**2 / inverse
    return energies / energies.sum(axis=1, keepdims=True)
