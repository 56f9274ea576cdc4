"""Memory of a process that runs for hours: how much it is, and what it can give back.

Batches differ in size, so the C library's heap ends up full of holes: what torch holds
stays the same, but the process grows (measured: benchmarks/results/training_run.md).
"""

from __future__ import annotations

import ctypes
from pathlib import Path


def memory_mb() -> float | None:
    """Return what this process holds that is no file's, MB; None off Linux."""
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


def give_back_memory() -> bool:
    """Hand memory that the C library keeps back; False where it cannot (not glibc)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    return True
