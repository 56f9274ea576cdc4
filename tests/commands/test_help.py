"""Help of the commands: the way, examples that can be run, completion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from graphnet_icecube2nd.commands import app

MAIN = typer.main.get_command(app)


def _leaves(group, names=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, (*names, name))
        else:
            yield (*names, name), command


LEAVES = dict(_leaves(MAIN))


@pytest.mark.parametrize("names", LEAVES, ids=" ".join)
def test_every_command_has_examples_whose_arguments_and_options_exist(names):
    heading, *examples = (LEAVES[names].epilog or "").splitlines()
    assert heading.startswith("Example")
    assert examples
    for example in examples:
        program, *words = shlex.split(example.partition(">")[0])
        assert program == "icecube2nd"
        assert tuple(words[: len(names)]) == names
        LEAVES[names].make_context(example, words[len(names) :])  # parses, runs not


def test_the_program_alone_shows_the_way():
    text = CliRunner().invoke(app, []).output
    places = [
        text.find(f"icecube2nd {step} ")
        for step in ("simulate", "train", "reconstruct", "evaluate")
    ]
    assert -1 < places[0] < places[1] < places[2] < places[3]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("icecube2nd recon", "reconstruct"),
        ("icecube2nd train --recipe t_", "t_sim"),
        ("icecube2nd train --tasks energy,", "energy,direction"),
        ("icecube2nd reconstruct store --model t_", "t_sim.simulated"),
        ("icecube2nd prepare --detector icecube", "icecube86"),
    ],
)
def test_a_shell_completes_commands_and_names(line, expected):
    asked = {
        "_ICECUBE2ND_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "graphnet_icecube2nd.cli"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert expected in done.stdout.split(), done.stderr
