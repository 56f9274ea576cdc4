"""Check of files against their SHA-256, once per machine.

A correct file gets a line in `.verified` of the store (or in the user's cache if the
store is read-only): checksum, size, times of the last change, inode. If a file changes,
its line differs and it is checked again. Each line is appended in one write, so several
processes can write at the same time.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from graphnet_icecube2nd.store.arrow_table import sha256_of
from graphnet_icecube2nd.store.manifest import MEND

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

MEMORY = ".verified"
TICK = 2.0  # s; within it, a file may change and keep its time of change


def verify(path: Path, sha256: str, store: Path, *, again: bool = False) -> None:
    """Check a file of a store against its checksum, unless this was done before.

    Several processes wait for the first of them.

    Args:
        path: The file.
        sha256: Expected checksum.
        store: Folder of the store, where the result is stored.
        again: Whether a file that was checked before is checked again.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged.
    """
    if not again and _is_known(_line(os.stat(path), sha256), store):
        return
    with open(path, "rb") as file:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        status, begun = os.stat(path), time.time()
        line = _line(status, sha256)
        if not again and _is_known(line, store):
            return
        found = sha256_of(path)
        if found != sha256:
            raise ValueError(
                f"{path} is damaged: its SHA-256 must be {sha256}, found {found} "
                f"({MEND})"
            )
        changed = max(status.st_mtime, status.st_ctime)
        if begun > changed + TICK and line == _line(os.stat(path), sha256):
            _remember(line, store)


def _line(status: os.stat_result, sha256: str) -> str:
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{sha256} {status.st_size} {times} {status.st_ino}"


def _is_known(line: str, store: Path) -> bool:
    for place in _places(store):
        with suppress(OSError, UnicodeDecodeError):
            if place.is_file() and line in place.read_text("ascii").splitlines():
                return True
    return False


def _remember(line: str, store: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    for place in _places(store):
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(place, flags, 0o666), "wb", buffering=0) as file:
                # The first line end closes a line that a full disk cut off.
                if file.write(f"\n{line}\n".encode()) > len(line):
                    return


def _places(store: Path) -> tuple[Path, Path]:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return store / MEMORY, Path(cache) / "graphnet_icecube2nd" / "verified"
