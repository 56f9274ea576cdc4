"""A short form of `fuzz.py`: whatever a file holds, its reader answers or refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_damaged_files() -> None:
    for library in ("h5py", "lmdb", "msgpack", "pyarrow", "pytorch_lightning", "yaml"):
        pytest.importorskip(library)
    tool = Path(__file__).with_name("fuzz.py")
    options = ("--mutations", "8", "--seconds", "3600")
    done = subprocess.run(
        [sys.executable, tool, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
