"""How much memory there is, and how much this process holds."""

from __future__ import annotations

import os
import resource
import sys

import jax


def resident() -> int:
    """Bytes of main memory this process holds now (0 where the system does not tell)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def peak() -> int:
    """The most bytes of main memory this process has held."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest * (1 if sys.platform == "darwin" else 1024)


def capacity() -> int | None:
    """Bytes of the memory that arrays live in (None where nobody tells)."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def held() -> int:
    """Bytes already in use of that memory."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_in_use", 0)
    return resident()
