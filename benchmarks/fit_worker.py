"""Terms of GAFF and steps of force matching in PyTorch; fit.py starts this script.

    TORCH_PYTHON fit_worker.py PROBLEM.npz

Energies are vectorised over frames, forces come from autograd with create_graph=True, and the
gradient from autograd of the loss. Each request is a line "check eager BATCH" or "run MODE BATCH".
Each answer is a line of JSON with energies, forces and gradient at the initial parameters, or with
the last loss of one pass through the frames with Adam. MODE is eager, or compiled: torch.compile of
the graph of a whole step, traced by make_fx. The first request of a mode and batch size tries one
thread and all cores, and keeps the faster.
"""

import json
import os
import statistics
import sys
import time

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.linalg import cross

torch.set_default_dtype(torch.float64)
torch.set_num_threads(os.cpu_count())


def dot(a, b):
    return (a * b).sum(-1)


def root(square):
    """Return the square root, or 0 with a zero gradient for ε = 0 (some hydrogens)."""
    positive = square > 0.0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


class Gaff:
    """Return energies (B,) kcal/mol of R (B, N, 3) Å after scaled moves (P,)."""

    def __init__(self, problem):
        self.p = p = {key: torch.from_numpy(np.asarray(value)) for key, value in problem.items()}
        self.start = {key[6:]: value for key, value in p.items() if key.startswith("value:")}
        self.scale = {key[6:]: value for key, value in p.items() if key.startswith("scale:")}
        self.sizes = [self.start[key].numel() for key in self.scale]
        self.pairs = torch.cat([p["pairs"], p["pairs14"]])
        normal = torch.ones(len(p["pairs"]))
        self.factors = {
            kind: torch.cat([normal, self.start[f"nonbonded.{kind}14"][p["rows14"]]])
            for kind in ("lj", "coulomb")
        }

    def points(self, R, atoms):
        count, k = atoms.shape
        return R.index_select(1, atoms.T.reshape(-1)).view(len(R), k, count, 3).unbind(1)

    def split(self, moves):
        return dict(zip(self.scale, moves.split(self.sizes), strict=True))

    def energy(self, moves, R):
        p, start = self.p, self.start
        v = start | {key: start[key] + self.scale[key] * x for key, x in self.split(moves).items()}

        a, b = self.points(R, p["bond.atoms"])
        rows = p["bond.rows"]
        bonds = v["bond.k"][rows] * ((b - a).norm(dim=-1) - v["bond.length"][rows]) ** 2

        a, b, c = self.points(R, p["angle.atoms"])
        rows, left, right = p["angle.rows"], a - b, c - b
        theta = torch.atan2(cross(left, right).norm(dim=-1), dot(left, right))
        angles = v["angle.k"][rows] * (theta - v["angle.angle"][rows]) ** 2

        # Torsions and impropers together: each Fourier term reads a quadruple and a row.
        a, b, c, d = self.points(R, p["fourier.atoms"])
        b1, b2, b3 = b - a, c - b, d - c
        m, n = cross(b1, b2), cross(b2, b3)
        phi = torch.atan2(b2.norm(dim=-1) * dot(b1, n), dot(m, n))
        k, phase = (
            torch.cat([v[f"torsion.{column}"], v[f"improper.{column}"]])[p["fourier.rows"]]
            for column in ("k", "phase")
        )
        multiple = p["fourier.n"] * phi.index_select(1, p["fourier.quadruples"])
        fourier = k * (1.0 + torch.cos(multiple - phase))

        a, b = self.points(R, self.pairs)
        i, j = p["lj_rows"][self.pairs].T
        sigma, epsilon = v["nonbonded.sigma"], v["nonbonded.epsilon"]
        sigma6 = (0.5 * (sigma[i] + sigma[j])) ** 6
        c6 = 4.0 * self.factors["lj"] * root(epsilon[i] * epsilon[j]) * sigma6
        i, j = p["charge_rows"][self.pairs].T
        charge = v["nonbonded.charge"]
        qq = v["nonbonded.coulomb_constant"] * self.factors["coulomb"] * charge[i] * charge[j]
        inverse = torch.rsqrt(((b - a) ** 2).sum(-1))
        inverse6 = (inverse * inverse) ** 3
        nonbonded = c6 * (sigma6 * inverse6 - 1.0) * inverse6 + qq * inverse
        return bonds.sum(-1) + angles.sum(-1) + fourier.sum(-1) + nonbonded.sum(-1)

    def energy_and_forces(self, moves, R):
        R = R.detach().requires_grad_(True)
        energies = self.energy(moves, R)
        return energies, -torch.autograd.grad(energies.sum(), R, create_graph=True)[0]

    def gradient(self, moves, R, E, F):
        """Return mean |ΔF|² + w mean ΔE² (after the mean offset), and its gradient (P,)."""
        moves = moves.detach().requires_grad_(True)
        energies, forces = self.energy_and_forces(moves, R)
        wrong = (energies - energies.mean()) - (E - E.mean())
        loss = ((forces - F) ** 2).mean() + self.p["energy_weight"] * (wrong**2).mean()
        return loss.detach(), torch.autograd.grad(loss, moves)[0]

    def step(self, moves, first, second, count, frames):
        """Take one step of Adam with the frames `frames`."""
        loss, gradient = self.gradient(moves, *(self.p[key][frames] for key in "REF"))
        count = count + 1.0
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = torch.sqrt(second / (1.0 - 0.999**count)) + 1e-8
        moves = moves - self.p["learning_rate"] * first / (1.0 - 0.9**count) / root
        return moves, first, second, count, loss


def seconds(run):
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main(path):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of torch out of the answers
    potential = Gaff(np.load(path))
    order = potential.p["order"]
    zero = torch.zeros(sum(potential.sizes))
    start = (
        zero,
        zero.clone(),
        zero.clone(),
        torch.zeros(()),
    )  # separate tensors, as make_fx needs
    chosen = {}

    def check(_, batch):
        R, E, F = (potential.p[key][order[:batch]] for key in "REF")
        energies, forces = potential.energy_and_forces(zero, R)
        found = {"energies": energies, "forces": forces}
        found |= potential.split(potential.gradient(zero, R, E, F)[1])
        return {key: value.tolist() for key, value in found.items()}

    def epoch(step, batch):
        state = start
        for frames in order[: len(order) // batch * batch].view(-1, batch):
            *state, loss = step(*state, frames)
        return loss.item()

    def fastest(mode, batch):
        tried = []
        for count in {1, os.cpu_count()}:
            torch.set_num_threads(count)
            step = potential.step
            if mode == "compiled":
                step = torch.compile(
                    make_fx(lambda *own: potential.step(*own))(*start, order[:batch])
                )
            first = seconds(lambda: epoch(step, batch))
            taken = statistics.median(seconds(lambda: epoch(step, batch)) for _ in range(7))
            tried.append((taken, count, first, step))
        return min(tried, key=lambda one: one[0])[1:]

    def run(mode, batch):
        if (mode, batch) not in chosen:
            chosen[mode, batch] = fastest(mode, batch)
        threads, first, step = chosen[mode, batch]
        torch.set_num_threads(threads)
        return {
            "loss": epoch(step, batch),
            "torch": torch.__version__,
            "threads": threads,
            "first": first,
        }

    for line in sys.stdin:
        command, mode, batch = line.split()
        answer = {"check": check, "run": run}[command](mode, int(batch))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
