"""Files that are whole or not there: kills, links, two writers, full disks, JSON."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from graphnet_icecube2nd.config import load_yaml
from graphnet_icecube2nd.files import (
    check_new,
    foreign_entries,
    holds_json,
    locked_folder,
    read_json,
    write_json,
    write_text,
    write_whole,
    write_whole_folder,
)


def test_who_reads_the_former_file_reads_it_to_the_end(tmp_path: Path) -> None:
    """The new one takes its name; it is not written over it."""
    path = tmp_path / "a.txt"
    write_text(path, "former" * 9)
    with open(path, encoding="utf-8") as former:
        write_text(path, "new")
        assert former.read() == "former" * 9
    assert path.read_text() == "new"


def test_an_error_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")
    makers: list[AbstractContextManager[Path]]
    makers = [write_whole(path), write_whole_folder(tmp_path / "f")]
    for maker in makers:
        with suppress(RuntimeError), maker as temporary:
            (temporary / "x" if temporary.is_dir() else temporary).write_text("half")
            raise RuntimeError
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_links_planted_beside_an_output_harm_nobody(tmp_path: Path) -> None:
    """Neither the names of old releases nor that of the lock are written through."""
    victim = tmp_path / "thesis.tex"
    victim.write_text("years of work")
    (tmp_path / ".a.csv.tmp").symlink_to(victim)
    write_text(tmp_path / "a.csv", "1")
    (tmp_path / ".b.csv.lock").symlink_to(victim)
    with pytest.raises(OSError, match=r"\.b\.csv\.lock"):
        write_text(tmp_path / "b.csv", "1")
    (tmp_path / ".c.csv.lock").hardlink_to(victim)
    write_text(tmp_path / "c.csv", "1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".lock").symlink_to(victim)
    with (
        pytest.raises(OSError, match=r"\.lock"),
        locked_folder(tmp_path / "folder", "a store"),
    ):
        pass
    assert victim.read_text() == "years of work"


def test_an_output_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    for target in (tmp_path / "scratch" / "a.csv", tmp_path / "scratch" / "new.csv"):
        link = tmp_path / f"link to {target.name}"
        link.symlink_to(target)
        write_text(link, "1")
        assert link.is_symlink()
        assert target.read_text() == "1"
    assert sorted(os.listdir(tmp_path / "scratch")) == ["a.csv", "new.csv"]


@pytest.mark.parametrize("name", ["folder", "pipe"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=f"{name} is .*choose another name"):
        write_text(tmp_path / name, "1")


def test_new_outputs_must_be_new(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "1")
    (tmp_path / "f").mkdir()
    check_new(tmp_path / "f")
    with write_whole_folder(tmp_path / "f") as folder:
        (folder / "x").touch()
    makers: list[AbstractContextManager[Path]]
    makers = [write_whole(tmp_path / "a", new=True), write_whole_folder(tmp_path / "f")]
    for maker in makers:
        with pytest.raises(FileExistsError, match="is there already"), maker:
            pass


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start a process that writes `a` (or the folder `f`) until it is told to end."""
    processes = []

    def start(call: str) -> subprocess.Popen[bytes]:
        code = (
            "import sys; from pathlib import Path\n"
            "from graphnet_icecube2nd.files import *\n"
            f"with {call} as path:\n"
            "    (path / 'x' if path.is_dir() else path).write_text('other')\n"
            "    print('at it', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tmp_path,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"at it\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_writer_waits(
    tmp_path: Path, other: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    process = other("write_whole('a')")
    waiting = threading.Thread(target=write_text, args=(tmp_path / "a", "ours"))
    waiting.start()
    time.sleep(0.2)
    assert waiting.is_alive()
    assert not (tmp_path / "a").exists()
    process.communicate()
    waiting.join()
    assert (tmp_path / "a").read_text() == "ours"
    assert os.listdir(tmp_path) == ["a"]


def test_a_second_writer_of_something_new_is_refused(
    tmp_path: Path, other: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    processes = other("write_whole('a', new=True)"), other("write_whole_folder('f')")
    for maker in (
        write_whole(tmp_path / "a", new=True),
        write_whole_folder(tmp_path / "f"),
    ):
        with pytest.raises(ValueError, match="written by another process"), maker:
            pass
    for process in processes:
        process.communicate()
    assert (tmp_path / "a").read_text() == (tmp_path / "f" / "x").read_text() == "other"


def test_what_a_killed_writer_left_is_removed(
    tmp_path: Path, other: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    for call in ("write_whole('a')", "write_whole_folder('f')"):
        process = other(call)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(os.listdir(tmp_path)) == 4  # two locks, two things half-written
    assert foreign_entries(tmp_path) == []
    # Of another output, whose name begins like this one's.
    (tmp_path / ".a.b.0123456789abcdef.tmp").touch()
    write_text(tmp_path / "a", "ours")
    with write_whole_folder(tmp_path / "f"):
        pass
    left = [".a.b.0123456789abcdef.tmp", "a", "f"]
    assert sorted(os.listdir(tmp_path)) == left


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_checkpoint(path: Path) -> None:
    trainer = pytest.importorskip("graphnet_icecube2nd.training.trainer")
    trainer.WholeCheckpointIO().save_checkpoint({"a": torch.zeros(100_000)}, path)


def write_parquet(path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with write_whole(path) as temporary:
        pq.write_table(
            pa.table({"a": np.random.default_rng(0).random(100_000)}), temporary
        )


def write_weights(path: Path) -> None:
    with write_whole(path) as temporary:
        save_file({"a": torch.zeros(100_000)}, temporary)


def write_sqlite(path: Path) -> None:
    with write_whole(path) as temporary:
        connection = sqlite3.connect(temporary)
        connection.execute("PRAGMA max_page_count = 10")
        connection.execute("CREATE TABLE t (a)")
        try:
            connection.executemany("INSERT INTO t VALUES (?)", [("x" * 999,)] * 999)
        finally:
            connection.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "x" * 400_000),
        write_checkpoint,
        write_parquet,
        write_weights,
        write_sqlite,
    ],
)
def test_full_disk(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """Whatever the library calls it; the former file stays and nothing else."""
    path = tmp_path / "out"
    path.write_text("before")
    with full_disk(100_000), pytest.raises(OSError, match=f"no space left .*{path}: "):
        write(path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["out"]


def test_sqlite_that_cannot_write_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.db cannot be written: no such table"):  # noqa: SIM117
        with write_whole(tmp_path / "a.db") as path:
            sqlite3.connect(path).execute("INSERT INTO t VALUES (1)")


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"null", b'{"a": \xff}', DEEP.encode()]
)
def test_json_of_another_form(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged: .*JSON"):
        read_json(path)
    assert not holds_json(path, {})


def test_json_comes_back(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": [1, 2.5, None], "µ": {"b": (True,)}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == json.loads(json.dumps(content))
    assert holds_json(tmp_path / "a.json", content)


@pytest.mark.parametrize("text", [DEEP, "a: 2020-13-45", "a: [", "\0"])
def test_yaml_of_another_form(text: str) -> None:
    pytest.importorskip("yaml")
    with pytest.raises(ValueError, match=r"a\.yaml .*YAML"):
        load_yaml(text, "a.yaml")
