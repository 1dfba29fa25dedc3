"""Time, memory and errors of a training of sGDML, compared with the `sgdml` package.

    python benchmarks/gdml_training.py --sgdml-python PATH DATA.npz [-n 1000] [--solver iterative]

Both programs train on the same frames with one σ, alternately in separate processes; times include
compilation, and errors are those of other frames. `--sgdml-memory` determines whether the package
uses its analytic or its iterative solver. Limits: the dense solver does n³/3 operations,
n = (3N − 6) M; an iteration does 8 P M² D for the product and 4 n m for the preconditioner, which
reads 16 n m bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKER = Path(__file__).with_name("gdml_training_worker.py")
FIGURES = ("symmetries_s", "assembly_s", "training_s", "peak_gb", "force_mae", "force_rmse")


def ours(train: str, model: str, sigma: float, solver: str, max_memory: float | None) -> dict:
    """Train with jaxff in this process, and return times, memory and errors."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from jaxff import gdml, memory
    from jaxff.dataset import Dataset

    data = Dataset.load(train)
    seconds: dict[str, float] = {}
    running = [None, 0.0]

    def progress(phase, fraction):
        now = time.perf_counter()
        if running[0] is not None:
            seconds[running[0]] = seconds.get(running[0], 0.0) + now - running[1]
        running[:] = phase, now

    began = time.perf_counter()
    run = gdml.Run(memory=max_memory, progress=progress)
    trained = gdml.train(data, sigma=sigma, solver=gdml.Solver(solver), run=run)
    total = time.perf_counter() - began
    gdml.save(model, trained)
    return {
        "symmetries_s": seconds["symmetries"],
        "assembly_s": seconds.get("assembling", float("nan")),
        "training_s": total,
        "peak_gb": memory.peak() / 1e9,
        "phases": seconds,
    }


def matmul_rate() -> float:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    a = jnp.ones((4000, 4000))
    product = jax.jit(jnp.matmul)
    rates = []
    for _ in range(4):
        began = time.perf_counter()
        product(a, a).block_until_ready()
        rates.append(2 * 4000**3 / (time.perf_counter() - began) / 1e9)
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--sgdml-python", help="Python with sgdml 1.0.3 (default: only jaxff)")
    parser.add_argument("--sgdml-memory", type=int, default=64, help="its memory limit, GB")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--sigma", type=float, default=20.0)
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--max-memory", type=float)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ours", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        train, model = arguments.ours
        result = ours(train, model, arguments.sigma, arguments.solver, arguments.max_memory)
        print(json.dumps(result))
        return

    import jax

    jax.config.update("jax_enable_x64", True)
    from jaxff import evaluate, gdml
    from jaxff.console import plain_table
    from jaxff.dataset import Dataset

    data = Dataset.load(arguments.data)
    split = data.split(arguments.n, 0, min(2000, len(data) - arguments.n), stratify=True)
    print(f"{matmul_rate():.0f} GFLOP/s float64 matmul")
    found: dict[str, list[dict]] = {"jaxff": [], "sgdml": []}
    with tempfile.TemporaryDirectory() as folder:
        train, model = (str(Path(folder, name)) for name in ("train.npz", "model.npz"))
        split.train.save(train)
        own = [sys.executable, __file__, "x", "--ours", train, model, "--solver", arguments.solver]
        own += ["--sigma", str(arguments.sigma)]
        if arguments.max_memory:
            own += ["--max-memory", str(arguments.max_memory)]
        commands = {"jaxff": own}
        if arguments.sgdml_python:
            options = [train, model, str(arguments.sigma), str(arguments.sgdml_memory)]
            commands["sgdml"] = [arguments.sgdml_python, str(WORKER), *options]
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode:
                    raise SystemExit(f"{name} failed:\n{run.stderr[-3000:]}")
                result = json.loads(run.stdout.strip().splitlines()[-1])
                result |= evaluate(gdml.load(model), split.test)
                print(name, json.dumps(result), flush=True)
                found[name].append(result)
    rows = [
        [name, *(statistics.median(r.get(key, float("nan")) for r in runs) for key in FIGURES)]
        for name, runs in found.items()
        if runs
    ]
    print(plain_table(["", *FIGURES], rows))


if __name__ == "__main__":
    main()
