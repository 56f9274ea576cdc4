"""Memory of a process that runs for hours: its size and its release.

Batches differ in size, so the C library's heap fragments: torch holds the same amount,
but the process grows (measured: benchmarks/results/training_run.md).
"""

from __future__ import annotations

import ctypes
from pathlib import Path


def memory_mb() -> float | None:
    """Return this process's memory without mapped files, MB; None outside Linux."""
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


def give_back_memory() -> bool:
    """Release memory that the C library keeps; return False if it is not glibc."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    return True
