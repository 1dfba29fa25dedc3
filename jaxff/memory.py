"""Memory of the machine and of the current process."""

from __future__ import annotations

import os
import resource
import sys

import jax


def resident() -> int:
    """Bytes of main memory that the current process uses (0 if unknown)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def peak() -> int:
    """Largest number of bytes of main memory that the current process has used."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest * (1 if sys.platform == "darwin" else 1024)


def capacity() -> int | None:
    """Bytes of memory for JAX arrays: of the accelerator, or of the machine on a CPU.

    The result is None if the size is unknown.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def held() -> int:
    """Bytes in use of the memory that `capacity` describes (0 if unknown)."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_in_use", 0)
    return resident()
