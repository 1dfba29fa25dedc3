"""Timing of candidates that run alternately, so that other programs slow all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def alternate(candidates: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Return the median seconds per call of each candidate over `rounds`, after a warm-up."""
    for run in candidates.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}
