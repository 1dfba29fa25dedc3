"""Time of fits of force fields, and of steps of force matching compared with PyTorch.

    python benchmarks/fit.py MD17.npz [--torch-python PATH] [--form gaff morse class2 nn] [-n 1100]

Each form is fitted by least squares in new processes; times include compilation but not imports.
The test errors of the steps are computed in one more process, so that they do not affect the times.
Then, for GAFF, one step of the gradient method (energies, forces, gradient of the loss with respect
to all free parameters, Adam) runs alternately in jaxff and in PyTorch (in a separate Python
environment, see fit_worker.py). The limits are floating-point operations by the count of XLA, the
2 (3N + 1) M P² of Jᵀ J, and the rate of a matrix product.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from fit_torch import ENERGY_WEIGHT, LEARNING_RATE, problem
from timing import alternate
from worker import Worker

import jaxff
from jaxff.gaff import FORMS
from jaxff.learn import Gradient, aligned
from jaxff.parameters import FreeParameters

TEST, WITHIN, AGREEMENT, MATMUL = 2000, 0.01, 1e-8, 3000


def one_fit(data, split, form: str, validated: bool) -> dict:
    """Run one fit; `times` are the seconds from its begin to the end of each step."""
    times = []
    began = time.perf_counter()
    start = jaxff.gaff(data.molecule, form=form)
    ready = time.perf_counter() - began
    found = jaxff.fit(
        start,
        split.train,
        valid=split.test if validated else None,
        progress=lambda *_: times.append(time.perf_counter() - began),
    )
    total = time.perf_counter() - began
    losses = found.history["loss"].tolist()
    return {
        "ready": ready,
        "times": times[1 : 1 + len(losses)],
        "total": total,
        "losses": losses,
        "rmse": found.history["valid_force_rmse"].tolist() if validated else [],
        "parameters": sum(m.size for m in FreeParameters.of(start).no_moves().values()),
        "converged": bool(found.converged),
    }


def report_fit(form: str, arguments, n_atoms: int, matmul: float) -> None:
    command = [sys.executable, __file__, arguments.data, "-n", str(arguments.n), "--one", form]

    def child(*options: str) -> dict:
        own = [*command, *options, "--began", str(time.time())]
        done = subprocess.run(own, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{form} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    runs = [child() for _ in range(arguments.rounds)]
    checked = child("--validated")
    for run in runs:
        if not np.allclose(run["losses"], checked["losses"], rtol=1e-6):
            raise SystemExit(
                f"{form}: the runs differ, so that the test errors do not belong to the times"
            )
    rmse = np.array(checked["rmse"])
    far = np.flatnonzero(np.abs(rmse / rmse[-1] - 1.0) > WITHIN)
    reached = int(far[-1]) + 1 if len(far) else 0
    times = np.median([run["times"] for run in runs], axis=0)
    each = statistics.median(np.diff(times)) if len(times) > 1 else float("nan")
    imports, ready, total = (
        statistics.median(run[key] for run in runs) for key in ("imports", "ready", "total")
    )
    flops = 2.0 * arguments.n * (3 * n_atoms + 1) * checked["parameters"] ** 2
    print(
        f"{form}: test force RMSE {rmse[-1]:.4f} kcal/mol/Å, within {WITHIN:.0%} of it after "
        f"{times[reached]:.1f} s (step {reached + 1} of {len(times)}); {total:.1f} s in all"
        f"{'' if checked['converged'] else ', not converged'} (imports {imports:.1f} s more)\n"
        f"  parametrised after {ready:.2f} s, first step after {times[0]:.1f} s, then {each:.3f} s "
        f"a step; {checked['parameters']} parameters\n"
        f"  Jᵀ J: {flops / 1e9:.2f} GFLOP a step, at the matrix product's rate "
        f"{flops / matmul / each:.1%} of the step",
        flush=True,
    )


def report_steps(data, split, arguments, matmul: float) -> None:
    potential = jaxff.gaff(data.molecule)
    train = aligned(split.train, potential)
    free = FreeParameters.of(potential)
    optimizer = optax.adam(LEARNING_RATE)
    R, E, F = (jnp.asarray(x) for x in (train.positions, train.energies, train.forces))
    order = np.random.default_rng(0).permutation(len(train))
    moves = free.no_moves()

    def predicted(moves, R):
        return jax.vmap(potential.program.energy_and_forces, (None, 0))(free.params(moves), R)

    def objective(moves, R, E, F):
        energies, forces = predicted(moves, R)
        wrong = (energies - energies.mean()) - (E - E.mean())
        return jnp.mean((forces - F) ** 2) + ENERGY_WEIGHT * jnp.mean(wrong**2)

    def step(carry, frames):
        moves, state, R, E, F = carry
        value, gradient = jax.value_and_grad(objective)(moves, R[frames], E[frames], F[frames])
        updates, state = optimizer.update(gradient, state, moves)
        return (optax.apply_updates(moves, updates), state, R, E, F), value

    carry = (moves, optimizer.init(moves), R, E, F)
    epoch = jax.jit(lambda carry, order: jax.lax.scan(step, carry, order))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "problem.npz")
        np.savez(path, **problem(free, train, order))
        torch = Worker(arguments.torch_python, "fit_worker.py", path)
        there = torch.ask("check", "eager", 20)

    first = order[:20]
    energies, forces = jax.jit(predicted)(moves, R[first])
    gradient = jax.jit(jax.grad(objective))(moves, R[first], E[first], F[first])
    here = {"energies": energies, "forces": forces}
    here |= {f"{term}.{key}": value for (term, key), value in gradient.items()}
    wrong = {k: np.abs(x - np.array(there[k])).max(initial=0.0) for k, x in here.items()}
    largest = np.max(list(wrong.values()))  # NaN if any is
    print(
        f"largest difference of torch: energies {wrong['energies']:.1e}, forces "
        f"{wrong['forces']:.1e}, {largest:.1e} of these and all gradients"
    )
    if not largest < AGREEMENT:
        raise SystemExit("PyTorch and jaxff compute different values")

    modes = ("eager", "compiled") if arguments.compile else ("eager",)
    print("frames/s of energies, forces, gradient and Adam, one call per epoch")
    for batch in arguments.batches:
        steps = len(order) // batch
        frames = jnp.asarray(order[: steps * batch].reshape(steps, batch))
        cost = jax.jit(step).lower(carry, frames[0]).compile().cost_analysis()["flops"] / batch
        runs = {f"torch {mode}": lambda mode=mode: torch.ask("run", mode, batch) for mode in modes}
        answers = {name: run() for name, run in runs.items()}
        runs["jaxff"] = lambda: epoch(carry, frames)[1]
        last = float(runs["jaxff"]()[-1])
        for name, answer in answers.items():
            if not abs(last / answer["loss"] - 1.0) < 1e-6:
                raise SystemExit(
                    f"the last loss is {answer['loss']} with {name} and {last} with jaxff"
                )
        seconds = alternate(runs, 21)
        rate = {name: steps * batch / seconds[name] for name in runs}
        fitted = batch * steps / epoch_of_fit(potential, split.train, batch)
        print(
            f"batch of {batch}: jaxff {rate['jaxff']:,.0f} ({cost:,.0f} flops a frame, "
            f"{cost * rate['jaxff'] / matmul:.1%} of matmul's rate); "
            f"jaxff.fit, called step by step {fitted:,.0f}"
        )
        for name, answer in answers.items():
            print(
                f"  {name} {rate[name]:,.0f} ({answer['threads']} of {os.cpu_count()} threads, "
                f"first epoch {answer['first']:.1f} s): jaxff {rate['jaxff'] / rate[name]:.1f} ×",
                flush=True,
            )
    torch.close()


def epoch_of_fit(potential, train, batch: int) -> float:
    """Return the median seconds of an epoch of jaxff.fit with `Gradient`."""
    ends = []
    jaxff.fit(
        potential,
        train,
        method=Gradient(batch=batch, epochs=20),
        progress=lambda *_: ends.append(time.perf_counter()),
    )
    return statistics.median(np.diff(ends[1:21]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("-n", type=int, default=1100, help="training frames")
    parser.add_argument("--form", nargs="*", choices=FORMS, default=["gaff"], help="forms to fit")
    parser.add_argument("--rounds", type=int, default=3, help="timed fits of each form")
    parser.add_argument("--torch-python", help="Python with torch (default: no steps)")
    parser.add_argument("--compile", action="store_true", help="also use torch.compile")
    parser.add_argument("--batches", type=int, nargs="*", default=[20, 110, 1100])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--validated", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    imported = time.time()
    jax.config.update("jax_enable_x64", True)
    data = jaxff.Dataset.load(arguments.data)
    split = data.split(arguments.n, 0, TEST, stratify=True)
    if arguments.one:
        found = one_fit(data, split, arguments.one, arguments.validated)
        print(json.dumps(found | {"imports": imported - arguments.began}))
        return
    square = jnp.ones((MATMUL, MATMUL))
    product = jax.jit(jnp.matmul)
    matmul = 2.0 * MATMUL**3 / alternate({"": lambda: product(square, square)})[""]
    print(
        f"{data.name}, {arguments.n} frames; {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f}; float64 matmul {matmul / 1e9:.0f} GFLOP/s"
    )
    for form in arguments.form:
        report_fit(form, arguments, data.n_atoms, matmul)
    if arguments.torch_python:
        report_steps(data, split, arguments, matmul)


if __name__ == "__main__":
    main()
