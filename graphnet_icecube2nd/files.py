"""Files that appear whole or not at all; folders that one process at a time writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = ".lock"


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, which takes the file's name once it is on the disk.

    After a kill, a loss of power or an error the former file is there. The path, beside
    the file, is always the same, so that a kill leaves no heap of them.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text whole or not at all, line ends as they are; make its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextmanager
def write_whole_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the path's name if all went well.

    On an error it is removed, as is what a kill left of an earlier one. The path must
    not be there, or be an empty folder.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked_folder(folder: Path, what: str) -> Iterator[None]:
    """Keep a second process out of a folder, which is made; the lock dies with it.

    Raises ValueError if the folder of `what` (`a store`) is a file, or another process
    is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{folder} is a file; {what} is a folder") from None
    path = folder / LOCK_FILE
    while True:
        with open(path, "w", encoding="utf-8") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # no such lock on this system
                pass
            except BlockingIOError:
                raise ValueError(
                    f"{folder} is being written by another process"
                ) from None
            except OSError:  # a file system without locks
                pass
            try:
                is_removed = not os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                is_removed = True
            if is_removed:
                continue  # by its former owner, meanwhile
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
