"""The commands of event stores, as a user types them."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("typer")

from graphnet_icecube2nd.commands.options import parse_batches, parse_columns

Run = Callable[..., subprocess.CompletedProcess[str]]
LENGTHS = {1: [3, 250, 17], 2: [1, 64]}


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['icecube2nd', '--help']\n"
        "from graphnet_icecube2nd.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pandas', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("prepare", "inspect", "export"):
        assert command in done.stdout


def test_prepare_and_inspect(
    run: Run, tmp_path: Path, make_kaggle_folder: Callable[..., Path]
) -> None:
    make_kaggle_folder(tmp_path / "in", LENGTHS)
    done = run("prepare", "in", "out", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "out: 5 events, 335 pulses" in done.stdout
    assert "pulses per event: shortest 1" in done.stdout
    assert "all events and pulses" in done.stdout
    (meaning,) = re.findall("pulse map kaggle: .*convention origin.*", done.stdout)

    done = run("inspect", "out", "--event", 1003, "--pulses", 4, "--verify")
    assert done.returncode == 0, done.stderr
    for words in (
        "335 pulses",
        "sensor_id",
        "int16",
        "kaggle",
        "azimuth",
        "event_id 1003",
        meaning,
    ):
        assert words in " ".join(done.stdout.split())
    assert "and 246 more pulses" in done.stdout
    assert "every file is unchanged" in done.stdout


def test_clock_of_the_trigger(
    run: Run, tmp_path: Path, make_kaggle_folder: Callable[..., Path]
) -> None:
    make_kaggle_folder(tmp_path / "in", LENGTHS)
    done = run("prepare", "in", "out", "--workers", 1, "--clock", "first_triggered")
    assert done.returncode == 0, done.stderr
    assert "time reference first_triggered" in run("inspect", "out").stdout
    done = run("prepare", "in", "other", "--clock", "trigger")
    assert done.returncode == 1
    assert "'trigger'" in done.stderr
    assert not (tmp_path / "other").exists()


def test_names_with_brackets(run: Run, tmp_path: Path) -> None:
    """They are no markup; and whole numbers are shown in full."""
    pd = pytest.importorskip("pandas")
    from graphnet_icecube2nd.store import (
        prepare_frames,
    )

    pulses = {
        "event_id": [4, 4],
        "sensor_id": [7, 8],
        "time": [1e4, 1.1e4],
        "charge": [1.0, 2.0],
        "auxiliary": [0, 1],
        "clock[ns]": [1_700_000_000_123_456_789, 5],
        "[/odd]": [1, 2],
    }
    prepare_frames(pd.DataFrame(pulses), None, tmp_path / "out[/b]", keep="all")
    done = run("inspect", "out[/b]")
    assert done.returncode == 0, done.stderr
    for words in ("clock[ns]", "[/odd]", "1700000000123456789", "no truth is read"):
        assert words in done.stdout


def test_batches(
    run: Run, tmp_path: Path, make_kaggle_folder: Callable[..., Path]
) -> None:
    make_kaggle_folder(tmp_path / "in", LENGTHS)
    done = run("prepare", "in", "out", "--batches", "2", "--workers", 1)
    assert "out: 2 events, 65 pulses" in done.stdout
    (tmp_path / "in" / "train" / "batch_1.parquet").unlink()
    done = run("prepare", "in", "rest", "--workers", 1)
    assert done.returncode == 1
    assert "batch" in done.stderr
    assert "--batches" in done.stderr
    done = run("prepare", "in", "rest", "--batches", "present", "--workers", 1)
    assert "rest: 2 events, 65 pulses" in done.stdout


def test_export(
    run: Run, tmp_path: Path, make_kaggle_folder: Callable[..., Path]
) -> None:
    pytest.importorskip("sqlite_utils")
    make_kaggle_folder(tmp_path / "in", LENGTHS)
    run("prepare", "in", "out", "--workers", 1)
    done = run("export", "out", "events.db")
    assert done.returncode == 0, done.stderr
    assert "events.db: 5 events, 335 pulses" in done.stdout
    done = run("prepare", "events.db", "again", "--workers", 1)
    assert "again: 5 events, 335 pulses" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prepare", "nothing", "out"), "nothing does not exist"),
        (("prepare", "run.py", "out"), "run.py has an unknown format"),
        (("prepare", "run.py"), "then the folder"),
        (("inspect", "nothing"), "nothing does not exist"),
        (("inspect", "."), "manifest.json"),
        (("export", ".", "out.db"), "manifest.json"),
        (("prepare", ".", "out", "--format", "root"), "got 'root'"),
        (("prepare", ".", "out", "--batches", "x"), "like 1,2,5-9 or present"),
        (("prepare", ".", "out", "--pulse-map", "icecub"), "no pulse map 'icecub'"),
        (("export", ".", "out.sqlite"), "got out.sqlite"),
        (("sing",), "No such command 'sing'"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "run.py").touch()
    done = run(*arguments)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert words in " ".join(done.stderr.replace("│", " ").split())


def test_an_error_in_a_process_of_its_own(script: Run) -> None:
    """One line, or with --debug the trace."""
    done = script("inspect", "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "Traceback" in script("--debug", "inspect", "nothing").stderr


def test_parse_batches() -> None:
    assert parse_batches("1,2, 5-7") == [1, 2, 5, 6, 7]
    assert parse_batches("present") == "present"
    for text in ("", "a", "3-", "1,,2"):
        with pytest.raises(ValueError, match="batches must be like"):
            parse_batches(text)


def test_an_option_given_twice_is_refused(run: Run, tmp_path: Path) -> None:
    """The first would be lost in silence; options that may be repeated are lists."""
    done = run("prepare", "in", "out", "--event-column", "a", "--event-column", "b")
    assert done.returncode == 2
    assert "--event-column" in done.stderr
    assert "more than once" in done.stderr
    done = run("ensemble", "show", "x", "--help")
    assert done.returncode == 0, done.stderr
    done = run("skymap", "r.csv", "--out", "a.png", "--out", "b.png")
    assert done.returncode == 2
    assert "more than once" in done.stderr


def test_tables_and_columns_as_options(run: Run, tmp_path: Path) -> None:
    """What messages advise can be typed."""
    with sqlite3.connect(tmp_path / "a.db") as connection:
        for name in ("A", "B"):
            connection.execute(
                f"CREATE TABLE {name} (event_no, dom_x, dom_y, dom_z, dom_time, charge)"
            )
            connection.executemany(
                f"INSERT INTO {name} VALUES (?, 0, 0, 0, ?, 1)",
                [(event, 9e3 + event) for event in (1, 2, 3)],
            )
    words = ("prepare", "a.db", "st", "--workers", 1, "--without-truth")
    both = ("--pulses-table", "A", "--pulses-table", "B")
    done = run(*words, *both)
    assert done.returncode == 1
    assert "--column hlc=none" in done.stderr
    done = run(*words, *both, "--column", "hlc=none", "--column", "rde=none")
    assert done.returncode == 0, done.stderr
    assert "3 events, 6 pulses" in done.stdout
    assert "table 'A' and " in done.stdout
    with pytest.raises(ValueError, match="--column must be"):
        parse_columns(["hlc"])
    assert parse_columns(["x=a=b", "hlc=none"]) == {"x": "a=b", "hlc": None}
