"""Files that are written completely or not at all, by one process at a time; JSON.

A writer holds the lock `.NAME.lock` beside its output (also `.NAME.work.lock` during
long work) and writes to a temporary file with a random name, `.NAME.(16 digits).tmp`.
Both are removed when it ends. If a writer is killed, the next writer of the same output
removes its leftovers.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]

LOCK_FILE = ".lock"  # in a locked folder
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_SPACE = "no space left while writing"
_DIGITS = 16


@contextmanager
def write_whole(path: PathLike, *, new: bool = False) -> Iterator[Path]:
    """Yield an empty file to write; it replaces the path once it is safely on disk.

    After a kill, a power failure or an error the old file is unchanged. A second
    process that writes the same file waits for the first. If the path is a link, the
    file it points to is replaced and the link stays.

    Args:
        path: Path of the file.
        new: Whether a file that exists, or that another process is writing, is refused.

    Raises:
        FileExistsError: `new` is set and the file exists.
        ValueError: The path is not a regular file, or another process is writing the
            new file.
        OSError: The disk is full, or SQLite cannot write; the message names the file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        what = "a folder" if target.is_dir() else "not a regular file"
        raise ValueError(f"{path} is {what}; choose another name for the file")
    with naming_full_disk(path), _locked_output(target, wait=not new):
        if new:
            check_new(path)
        temporary = _temporary(target)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: PathLike, text: str) -> None:
    """Write a text file completely or not at all, with its line ends and folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def copy_whole(source: PathLike, path: PathLike) -> None:
    """Copy the content of a file, completely or not at all."""
    with write_whole(path) as temporary:
        shutil.copyfile(source, temporary)


def write_json(path: PathLike, content: Any) -> None:
    """Write plain values as a JSON file, completely or not at all, with its folder."""
    write_text(path, _as_json(content))


def read_json(path: PathLike) -> dict[str, Any]:
    """Return the mapping in a JSON file; see `parse_json`."""
    return parse_json(Path(path).read_bytes(), os.fspath(path))


def parse_json(text: str | bytes, path: PathLike, what: str = "it") -> dict[str, Any]:
    """Return the mapping in a JSON text.

    Args:
        text: JSON text.
        path: File of the text, for the error message.
        what: Name of the text within the file, for the error message: `its metadata`.

    Raises:
        ValueError: The text is not a JSON object.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {what} is not JSON: {error}") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ValueError(f"{path} is damaged: {what} is not a JSON object but a {kind}")
    return values


def holds_json(path: PathLike, content: Any) -> bool:
    """Return whether a file exists and is what `write_json` writes for these values."""
    path = Path(path)
    return path.is_file() and path.read_bytes() == _as_json(content).encode()


@contextmanager
def write_whole_folder(path: PathLike) -> Iterator[Path]:
    """Yield an empty folder to write into; it is renamed to the path at the end.

    After an error it is removed. The path must not exist, or must be an empty folder.

    Raises:
        FileExistsError: The path exists and is not an empty folder.
        ValueError: Another process is writing the folder.
        OSError: The disk is full; the message names the folder.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming_full_disk(path), _locked_output(target, wait=False):
        check_new(path)
        temporary = _temporary(target)
        temporary.mkdir()
        try:
            yield temporary
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_new(path: PathLike) -> Path:
    """Return the path; FileExistsError if it exists and is not an empty folder."""
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f"{path} is there already; remove it, or choose another name"
        )
    return path


@contextmanager
def locked_folder(folder: Path, what: str) -> Iterator[None]:
    """Create a folder and keep it locked against other processes.

    A new folder that is empty at the end is removed.

    Raises ValueError if the folder is a file or another process works in it. `what`
    says in the message what the folder is: `a store`.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(
            f"{folder} is a file, but {what} is a folder; choose another path"
        )
    with _new_folder(folder), _locked(folder / LOCK_FILE, folder, wait=False):
        yield


@contextmanager
def only_writer(path: PathLike) -> Iterator[None]:
    """Keep a second process from an output, and from what lies beside it meanwhile.

    For work that goes on for long before it writes the output whole.

    Raises:
        ValueError: Another process is at work on the output.
    """
    target = Path(os.path.realpath(path))
    lock = target.with_name(f".{target.name}.work.lock")
    with _new_folder(target.parent), _locked(lock, target, wait=False):
        yield


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Create a folder; at the end remove it and its new parents if they are empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):  # not empty
                path.rmdir()


def foreign_entries(folder: Path, *ours: str) -> list[str]:
    """Return the names in a folder that are not `ours`, locks or leftovers."""
    names = (entry.name for entry in folder.iterdir() if entry.name not in ours)
    return sorted(name for name in names if not _is_left(name))


def remove_leftovers(folder: Path) -> None:
    """Remove leftovers of killed writers from a folder that nobody else writes to."""
    for entry in folder.iterdir():
        if _is_left(entry.name) and entry.name != LOCK_FILE:
            _remove(entry)


@contextmanager
def naming_full_disk(path: PathLike) -> Iterator[None]:
    """Turn any library's error at a full disk into an OSError that names the path."""
    try:
        yield
    except Exception as error:
        if NO_SPACE in str(error):  # it names a file within this folder
            raise
        if (number := _full_disk(error)) is not None:
            text = f"{NO_SPACE} {path}: free some space and run it again"
            raise OSError(number, text) from error
        if isinstance(error, sqlite3.OperationalError):
            raise OSError(errno.EIO, f"{path} cannot be written: {error}") from error
        raise


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=1)


def _full_disk(error: BaseException | None) -> int | None:
    """Return the errno of a full disk if that caused this error, else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error.errno
        if "disk is full" in str(error):  # SQLite
            return errno.ENOSPC
        found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors
        if found and int(found[1]) in FULL:
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(_DIGITS // 2)}.tmp")


def _is_left(name: str) -> bool:
    return name.startswith(".") and name.endswith((".tmp", ".tmp-journal", ".lock"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked_output(target: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of an output; remove the leftovers of a killed writer."""
    lock = target.with_name(f".{target.name}.lock")
    with _locked(lock, target, wait=wait) as was_killed:
        if was_killed:
            digits = "[0-9a-f]" * _DIGITS
            pattern = (
                f".{glob.escape(target.name)}.{digits}.tmp*"  # SQLite's journal too
            )
            for path in target.parent.glob(pattern):
                _remove(path)
        yield


@contextmanager
def _locked(lock: Path, what: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yield whether a killed process left it behind.

    The lock is released when the process ends for any reason. Links are not followed
    and nothing is written, so a file that somebody put there is not harmed.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        was_there = lock.exists()
        handle = os.open(lock, flags, 0o666)
        try:
            is_held = _lock(handle, what, wait)
            try:
                is_ours = os.path.samestat(os.fstat(handle), os.stat(lock))
            except FileNotFoundError:
                is_ours = False
            if not is_ours:
                continue  # its former owner has removed it in the meantime
            try:
                yield is_held and was_there
            finally:
                lock.unlink(missing_ok=True)
                if is_held:  # even if a child process still has the file open
                    fcntl.flock(handle, fcntl.LOCK_UN)
            return
        finally:
            os.close(handle)


def _lock(handle: int, what: Path, wait: bool) -> bool:
    """Lock an open file; return False if the file system has no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise ValueError(
            f"{what} is being written by another process; wait until it has ended"
        ) from None
    except OSError:
        return False
    return True
