"""Notices of long work are logged, and printed where nobody set up logging."""

from __future__ import annotations

import subprocess
import sys

import pytest

TELL = """
import logging, sys
import graphnet_icecube2nd
from graphnet_icecube2nd.notices import only_from, print_notices
package = logging.getLogger("graphnet_icecube2nd")
assert not package.handlers, "an import changes nothing"
{before}
for _ in range(2):
    print_notices({always})
logger = logging.getLogger("graphnet_icecube2nd.training.run")
logger.info("stage 0")
with only_from("graphnet_icecube2nd.training"):
    logger.info("of a trial")
    logger.warning("odd")
"""
ROOT = "logging.basicConfig(level='INFO', format='root: %(message)s')"


@pytest.mark.parametrize(
    ("before", "always", "out", "error"),
    [
        ("", False, "stage 0\n", "odd\n"),
        (ROOT, False, "", "root: stage 0\nroot: odd\n"),
        (ROOT, True, "stage 0\n", "odd\nroot: stage 0\nroot: odd\n"),
        ("package.addHandler(logging.NullHandler())", False, "", ""),
        ("package.setLevel('WARNING')", False, "", "odd\n"),
    ],
)
def test_printed_once_or_left_to_the_user(
    before: str, always: bool, out: str, error: str
) -> None:
    code = TELL.format(before=before, always=always)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == out
    assert sorted(done.stderr.split("\n")) == sorted(error.split("\n"))
