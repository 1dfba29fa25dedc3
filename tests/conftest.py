"""Shared by all tests: float64, where the optional reference data lie, and a toy potential."""

import gc
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

# XLA reads this when it is imported; else it prints kilobytes for each program that it loads.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxff.potential import Column, Potential, Term

jax.config.update("jax_enable_x64", True)

# Most of the time goes into compiling programs that run once: XLA compiles four times as fast when
# it optimises little, and with less work when it does not split programs among threads.
# XLA_FLAGS="" gives the code that users run.  The last two flags may be gone in later releases,
# where an unknown one ends the process.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    if jax.__version_info__ < (0, 10):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
        os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
# The processes of the run share the cores: threads of quantum chemistry would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What one test has compiled the others need not: in one run, by all its processes.
CACHE = "JAX_COMPILATION_CACHE_DIR"
MINE = CACHE not in os.environ
if MINE:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="jaxff-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Tracing makes many small objects that live on: looking for garbage as often as Python does by
# default takes a seventh of the time.
gc.freeze()
gc.set_threshold(50_000, 20, 100)


# Each compiled program, of a single operation too, holds some nine memory maps, and Linux grants a
# process 65,530: beyond them the compiler dies of a segmentation fault.
MAPS = Path("/proc/self/maps")
MANY = 20_000


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forget the compiled programs of earlier files before they are too many."""
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True, scope="session")
def documented_results():
    """Hold the results of all commands against their schema."""
    import json

    import jsonschema

    from jaxff import cli
    from jaxff.commands.results import json_value, schema

    run = cli.run

    def checked(arguments):
        results = json.loads(json.dumps(json_value(run(arguments)), allow_nan=False))
        if arguments.command in cli.COMMANDS:
            jsonschema.validate(results, schema(arguments.command))
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "run", checked)
        yield


def pytest_unconfigure():
    if MINE:
        shutil.rmtree(os.environ.pop(CACHE), ignore_errors=True)


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """The reference data beside the checkout; tests that need them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("the reference data folder ../shared is absent")
    return SHARED


@dataclass(frozen=True, eq=False)
class Springs(Term):
    """Harmonic springs between pairs (P, 2) of atoms: E = Σ k/2 (r − length)²."""

    n_atoms: int
    pairs: np.ndarray

    kind = "toy springs"
    columns = {  # noqa: RUF012
        "k": Column("kcal/mol/Å²", 100.0, lower=0.0),
        "length": Column("Å", 0.1, lower=0.0),
    }

    def energies(self, params, R, space):
        i, j = self.pairs.T
        length = jnp.linalg.norm(R[i] - R[j], axis=-1)
        return {"spring": jnp.sum(0.5 * params["k"] * (length - params["length"]) ** 2)}


@pytest.fixture(scope="session")
def springs():
    """Makes a chain of `n` atoms joined by springs of constant `k`, kcal/mol/Å²."""

    def make(n: int, k: float = 300.0, length: float = 1.1, molecule=None) -> Potential:
        pairs = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
        params = {"k": np.full(n - 1, k), "length": np.full(n - 1, length)}
        return Potential.of("spring", Springs(n, pairs), params, molecule)

    return make
