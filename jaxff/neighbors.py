"""Neighbour lists: all pairs of atoms within a distance, in a periodic box or without one.

Positions are never wrapped; the search uses wrapped copies of them.  A list contains the pairs
within the cutoff and a skin, and remains complete while atoms and box change little.  Its pairs are
sorted into rows: `ROW` consecutive pairs have the same first atom, which makes sums over them fast.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxff import geometry
from jaxff.cell import widths
from jaxff.errors import InputError

Array = jax.Array

ROW = 16  # pairs with the same first atom, one after another
SLACK = 1.1  # capacity of a new list, relative to its number of pairs
_ROUNDING = 1e-3  # Å, larger than the rounding errors of distances in float32
_TILE = 2**24  # pairs of atoms whose distances are computed at once
_FEW = 2**19  # pairs of atoms for which NumPy is faster than a compilation


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["pairs", "positions", "box", "builds", "growths"],
    meta_fields=["cutoff", "skin"],
)
@dataclass(frozen=True, eq=False)
class NeighborList:
    """All pairs of atoms within a cutoff and a skin; a JAX pytree.

    Attributes:
        pairs: (2, P) atom indices, each pair once, in rows of `ROW` pairs with the same first atom.
            Pairs whose second index is the number of atoms are padding.
        positions: (N, 3) Å, for which the list was made.
        box: (3, 3) Å, lattice vectors as rows, or None.
        builds: () number of searches so far.
        growths: () number of times that the list was enlarged; compiled functions that receive it
            are compiled again each time.
        cutoff: Å.
        skin: Å.
    """

    pairs: Array
    positions: Array
    box: Array | None
    builds: Any
    growths: Any
    cutoff: float
    skin: float

    @classmethod
    def of(cls, R, box=None, *, cutoff: float, skin: float = 1.0) -> NeighborList:
        """Find the pairs of a geometry.

        Args:
            R: (N, 3) Å; atoms may be outside the box.
            box: (3, 3) Å, lattice vectors as rows, or None.
            cutoff: Å.
            skin: Å; a larger skin makes a longer list, which is valid for more steps.

        Raises:
            InputError: the cutoff exceeds half of the smallest width of the box, or a number is not
                finite.
        """
        if not 0.0 <= skin <= cutoff or cutoff == 0.0:
            raise InputError(
                "a neighbour list needs a positive cutoff and a skin from 0 to the cutoff, in Å "
                f"(got {cutoff} and {skin})"
            )
        rows = _rows(R, box, cutoff, skin)
        return cls(
            _padded(rows, _capacity(rows.shape[1]), len(R)),
            jnp.asarray(R),
            None if box is None else jnp.asarray(box),
            np.array(1),
            np.array(0),
            float(cutoff),
            float(skin),
        )

    @property
    def idx(self) -> Array:
        """The pairs (2, P)."""
        return self.pairs

    @property
    def capacity(self) -> int:
        """Number of pairs P, including padding."""
        return self.pairs.shape[-1]

    @property
    def row(self) -> int:
        """Number of consecutive pairs with the same first atom."""
        return ROW

    def stale(self, R: Array, box: Array | None = None) -> Array:
        """Whether the list may lack a pair within the cutoff, (); works in compiled code.

        Write the change of the geometry as r' = r F + u with F = box0⁻¹ box.  The vector of a pair
        is d = d0 F + u_j − u_i for every image, so that |d0| ≤ ‖F⁻¹‖ (cutoff + 2 max |u|).  A
        constant shift of all u has no effect.  The list is also stale if the box has become too
        small for the cutoff.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å, or None.
        """
        if (box is None) != (self.box is None):
            raise InputError("the neighbour list and this call must both have a box, or neither")
        if box is None or self.box is None:
            shifts, norm, small = R - self.positions, 1.0, False
        else:
            inverse, change = geometry.inverse(box), box - self.box
            back = jnp.abs(jnp.eye(3, dtype=change.dtype) - inverse @ change)  # F⁻¹
            norm = jnp.sqrt(back.sum(axis=0).max() * back.sum(axis=1).max())
            shifts = R - self.positions - self.positions @ geometry.inverse(self.box) @ change
            small = self.cutoff > (0.5 + 1e-6) / jnp.linalg.norm(inverse, axis=0).max()
        shifts -= shifts.mean(axis=0)
        longest = jnp.sqrt((shifts**2).sum(axis=1).max(initial=0.0))
        # NaN must count as stale.
        valid = norm * (self.cutoff + 2.0 * longest) <= self.cutoff + self.skin + 0.1 * _ROUNDING
        return ~valid | small

    def check(self, R: Array, box: Array | None, cutoff: float) -> None:
        """Check that the list contains all pairs within a cutoff.

        In transformed and compiled code, it is not checked whether the list is stale.

        Args:
            R: (N, 3) Å.
            box: (3, 3) Å, or None.
            cutoff: Å.

        Raises:
            InputError: the list has a smaller cutoff, is of other atoms, or is stale.
        """
        count = self.positions.shape[-2]
        if cutoff > self.cutoff:
            fault = f"has the cutoff {self.cutoff:g} Å, but the potential needs {cutoff:g} Å"
        elif len(R) != count:
            fault = f"is of {count} atoms, but there are {len(R)}"
        elif any(isinstance(x, Tracer) for x in (R, box, *jax.tree.leaves(self))):
            return
        elif bool(_stale(self, R, box)):
            fault = "may lack pairs, because the atoms or the box have changed too much"
        else:
            return
        raise InputError(f"the neighbour list {fault}; use potential.neighbors(R, box)")

    def update(self, R, box=None) -> NeighborList:
        """The list itself, or a new list if it is stale; outside compiled code only.

        The arguments and errors are those of `of`.
        """
        same = len(R) == len(self.positions) and (box is None) == (self.box is None)
        if same and not bool(_stale(self, jnp.asarray(R), box)):
            return self
        return self.rebuilt(R, box)

    def rebuilt(self, R, box=None) -> NeighborList:
        """A new list with at least the capacity of this one; see `update`."""
        rows = _rows(R, box, self.cutoff, self.skin)
        grows = rows.shape[1] > self.capacity
        return replace(
            self,
            pairs=_padded(rows, _capacity(rows.shape[1]) if grows else self.capacity, len(R)),
            positions=jnp.asarray(R),
            box=None if box is None else jnp.asarray(box),
            builds=self.builds + 1,
            growths=self.growths + int(grows),
        )

    def grown(self, capacity: int) -> NeighborList:
        """The list with padding up to a larger capacity."""
        return replace(self, pairs=_padded(np.asarray(self.pairs), capacity, len(self.positions)))


_stale = jax.jit(NeighborList.stale)


def check_box(box, cutoff: float) -> np.ndarray:
    """Check a box and return it as a NumPy array (3, 3) Å.

    Args:
        box: (3, 3) Å, lattice vectors as rows.
        cutoff: Å.

    Raises:
        InputError: the box is singular or too small for the cutoff.
    """
    box = np.asarray(box, float)
    if box.shape != (3, 3) or not np.isfinite(box).all() or abs(np.linalg.det(box)) < 1e-6:
        raise InputError(
            f"box is {box.tolist()}; give three independent lattice vectors as rows, in Å"
        )
    half = 0.5 * widths(box).min()
    if cutoff > half * (1.0 + 1e-6):
        raise InputError(
            f"the cutoff {cutoff:g} Å exceeds half of the smallest width of the box, {half:.4g} Å; "
            "use a smaller cutoff or a larger box"
        )
    return box


def _capacity(pairs: int) -> int:
    """Number of pairs (P) of a new list, a multiple of `ROW`."""
    rows = int(SLACK * pairs / ROW) + 1
    step = 1024 if rows > 1024 else 8
    return ROW * step * -(-rows // step)


def _padded(rows: np.ndarray, capacity: int, n_atoms: int) -> Array:
    padding = np.full((2, capacity - rows.shape[1]), n_atoms, np.int32)
    return jnp.asarray(np.concatenate([rows, padding], axis=1))


def _rows(R, box, cutoff: float, skin: float) -> np.ndarray:
    """Find all pairs and sort them into rows, (2, P); for the arguments see `NeighborList.of`."""
    R = np.asarray(R, float)
    if not np.isfinite(R).all():
        raise InputError("positions are not finite, so that neighbours cannot be found")
    reach = cutoff + skin + _ROUNDING
    if box is None:
        # A box so large that no pair interacts with an image.
        low, high = (R.min(axis=0), R.max(axis=0)) if len(R) else (np.zeros(3), np.zeros(3))
        R, box = R - low, np.diag(high - low + 2.0 * reach)
    else:
        box = check_box(box, cutoff)
    reach += 1e-6 * np.abs(box).sum()
    fractions = R @ np.linalg.inv(box)
    fractions -= np.floor(fractions)
    cells = np.floor(widths(box) / reach).astype(int)
    # Fewer than three cells would meet the same neighbour twice.  Many tiny cells are useless.
    cells = np.where(cells < 3, 1, np.minimum(cells, max(3, int(np.cbrt(len(R))))))
    own, others, span = _groups(fractions, cells) if cells.prod() > 1 else _ring(len(R))
    if not len(R):
        return np.zeros((2, 0), np.int32)
    points = np.concatenate([fractions @ box, np.full((1, 3), np.nan)]).astype(np.float32)
    images = _images(box, reach)
    lattice = [np.asarray(value, np.float32) for value in (box, np.linalg.inv(box), images)]
    size = own.shape[1] * others.shape[1]
    few = len(own) * size * len(images) < _FEW
    near = partial(_near, np) if few else _compiled_near
    at_once, parts = max(1, min(len(own), _TILE // size)), []
    for begin in range(0, len(own), at_once):
        used = min(at_once, len(own) - begin)
        some = np.minimum(np.arange(begin, begin + at_once), len(own) - 1)  # one shape for all
        ends = points[own[some]], points[others[some]]
        flags = near(*ends, lattice, np.float32(reach), np.int32(span))
        parts.append(
            _in_rows(np.asarray(flags)[:used], own[some[:used]], others[some[:used]], len(R))
        )
    return np.concatenate(parts, axis=1)


def _ring(n_atoms: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Groups of atoms, and the atoms among which their neighbours are sought, without cells.

    The atoms form a ring of an odd number of places.  Each atom meets those of the next half of the
    ring, so that each pair meets once.

    Returns:
        Atoms (C, n) and candidates (C, m), with N as padding, and the largest distance in the ring.
        Candidate k is k places after the first atom of its group.
    """
    ring = n_atoms | 1
    size, span = min(64, ring), ring // 2
    begins = np.arange(0, ring, size)[:, None]
    own = begins + np.arange(size)
    others = (begins + np.arange(span + size)) % ring
    return np.minimum(own, n_atoms), np.minimum(others, n_atoms), span


def _groups(fractions: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The atoms of each cell, and those of the cell itself and of half of its neighbours.

    The other half of the neighbours meets the cell as its neighbour.

    Args:
        fractions: (N, 3) fractional coordinates in [0, 1].
        cells: (3,) numbers of cells along the lattice vectors: 1, or at least 3.

    Returns:
        The arrays of `_ring`; the candidates begin with the atoms of the cell.
    """
    n_atoms, n_cells = len(fractions), int(cells.prod())
    place = np.minimum((fractions * cells).astype(int), cells - 1)
    cell = np.asarray(np.ravel_multi_index(tuple(place.T), tuple(cells)))
    counts = np.bincount(cell, minlength=n_cells)
    members = np.full((n_cells, _rounded(int(counts.max()))), n_atoms, np.int32)
    order = np.argsort(cell, kind="stable")
    starts = np.cumsum(counts) - counts
    members[cell[order], np.arange(n_atoms) - starts[cell[order]]] = order
    steps = [(0,) if n == 1 else (-1, 0, 1) for n in cells]
    offsets = np.array([o for o in itertools.product(*steps) if o >= (0, 0, 0)])
    occupied = np.flatnonzero(counts)
    around = (np.argwhere(np.ones(tuple(cells)))[occupied, None] + offsets) % cells
    around = np.asarray(np.ravel_multi_index(tuple(np.moveaxis(around, -1, 0)), tuple(cells)))
    others = members[around].reshape(len(occupied), -1)
    return members[occupied], others, others.shape[1]


def _rounded(count: int) -> int:
    """A number from `count` upwards, one of few, so that there are few compilations."""
    step = max(8, 2 ** (count.bit_length() - 4))
    return max(step * -(-count // step), step)


def _near(xp, centers, others, lattice, reach, span):
    """Whether pairs (C, n, m) of the points (C, n, 3) and (C, m, 3) Å are within `reach`.

    Point k of the second array must be from 1 to `span` places after that of the first.  The array
    functions are those of `xp`, NumPy or jax.numpy.  `lattice` contains the box, its inverse and
    the result of `_images`.
    """
    box, inverse, images = lattice
    d = [others[:, None, :, k] - centers[:, :, None, k] for k in range(3)]
    turns = [xp.round(sum(d[a] * inverse[a, k] for a in range(3))) for k in range(3)]
    d = [d[k] - sum(turns[a] * box[a, k] for a in range(3)) for k in range(3)]

    def within(shift):
        return sum((d[k] + shift[k]) ** 2 for k in range(3)) <= reach**2

    near = within(images[0])
    for image in images[1:]:
        near |= within(image)
    places = xp.arange(others.shape[1]) - xp.arange(centers.shape[1])[:, None]
    return near & (places > 0) & (places <= span)


_compiled_near = jax.jit(partial(_near, jnp))


def _images(box: np.ndarray, reach: float) -> np.ndarray:
    """Translations (K, 3) Å of the nearest image by rounding that may be nearer to an atom.

    Rounded fractional coordinates give the nearest image up to half of the width of the box, and in
    a rectangular box always.
    """
    rectangular = np.allclose(box, np.diag(np.diag(box)), atol=1e-9)
    if rectangular or reach <= 0.5 * widths(box).min():
        return np.zeros((1, 3))
    turns = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    return turns[np.argsort(abs(turns).sum(axis=1), kind="stable")] @ box


def _in_rows(near, own, others, n_atoms: int) -> np.ndarray:
    """Sort pairs into rows (2, P) of `ROW` pairs with the same first atom.

    Args:
        near: (C, n, m) flags.
        own, others: (C, n) and (C, m) atom indices.
        n_atoms: index of padding.
    """
    n, m = own.shape[1], others.shape[1]
    flat = np.flatnonzero(near)
    counts = np.diff(np.searchsorted(flat, m * np.arange(own.size + 1)))
    rows = -(-counts // ROW)
    out = np.full((2, ROW * int(rows.sum())), n_atoms, np.int32)
    out[0] = np.repeat(own.ravel(), ROW * rows)
    lines = np.arange(own.size)
    # From the place in `near` to the place in `others`, and from the pair to its place in a row.
    to_other = np.repeat((lines // n - lines) * m, counts)
    to_place = np.repeat(ROW * (np.cumsum(rows) - rows) - np.cumsum(counts) + counts, counts)
    out[1, to_place + np.arange(len(flat))] = others.ravel().take(flat + to_other)
    return out
