"""`jaxff md` spreads replicas over the cores."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("replicas", "devices"), [(8, 4), (6, 1), (4, 1), (None, 1)])
def test_each_core_is_a_device_where_that_leaves_it_as_many_replicas(replicas, devices):
    code = (
        "import os; os.cpu_count = lambda: 4;"
        "from jaxff.commands.md import _spread_over_cores;"
        f"_spread_over_cores({replicas}); import jax; print(jax.device_count());"
        "_spread_over_cores(16); print(jax.device_count())"  # JAX is at work: nothing changes
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(devices)] * 2
