"""The console script, as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from graphnet_icecube2nd import build_model, cli, save_model

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(run_main: Run) -> Run:
    """`run(*arguments)`: what the console script does, in this process."""
    return partial(run_main, cli.main)


@pytest.fixture
def script(tmp_path: Path) -> Run:
    """`script(*arguments)`: the console script in a process of its own."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "graphnet_icecube2nd.cli", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The file of a small model."""
    torch.manual_seed(0)
    sizes = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
    save_model(build_model("t_sim", **sizes), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"
