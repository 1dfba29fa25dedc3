"""The Lennard-Jones fluid at constant pressure."""

import numpy as np
import pytest
from boxes import argon

from jaxff import InputError, md
from jaxff.potential import Potential
from jaxff.terms.periodic import periodic

SIGMA, EPSILON = 3.4, 0.238  # Å, kcal/mol


def lennard_jones(system, cutoff):
    n, none = system.n_atoms, np.zeros((0, 2), np.int32)
    fields = {
        "n_atoms": n, "lj_rows": np.zeros(n, np.int32), "charge_rows": np.zeros(n, np.int32),
        "exclusions": none, "pairs14": none, "rows14": np.zeros(0, np.int32), "overrides": none,
        "lj_labels": ("Ar",),
    }  # fmt: skip
    params = {
        "sigma": np.array([SIGMA]), "epsilon": np.array([EPSILON]), "charge": np.zeros(1),
        "coulomb_constant": np.float64(332.0), "lj14": np.zeros(0), "coulomb14": np.zeros(0),
    }  # fmt: skip
    return Potential.of("lj", periodic(fields, params, system.box, cutoff), params)


def test_boxes_that_shrink_below_the_cutoff_are_reported():
    system = argon(27, spacing=4.2)
    ensemble = md.NPT(temperature=100.0, pressure=20_000.0, dt=5.0, pressure_relaxation=200.0)
    message = r"at step \d+ the box is only .* Å wide, but the cutoff of 6 Å needs at least 12 Å"
    with pytest.raises(InputError, match=message):
        md.simulate(lennard_jones(system, 6.0), system, ensemble, steps=2000)
