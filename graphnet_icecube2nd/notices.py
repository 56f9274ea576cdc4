"""Progress and notices of long work, through `logging`.

Notices are printed unless the user's program has set up logging.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PACKAGE = "graphnet_icecube2nd"
Progress = Callable[[int, int], None]  # called with new events and pulses


class _Printer(logging.Handler):
    """Prints to the current standard output, such as a notebook's cell."""

    always = False

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers and not self.always:
            return  # the user's program has set up logging since
        is_warning = record.levelno >= logging.WARNING
        stream = sys.stderr if is_warning else sys.stdout
        print(self.format(record), file=stream, flush=True)


def print_notices(always: bool = False) -> None:
    """Print the package's notices, unless the user's program has set up logging.

    Args:
        always: Whether to print even if logging is set up, as commands do.
    """
    logger = logging.getLogger(PACKAGE)
    for handler in logger.handlers:
        if isinstance(handler, _Printer):
            handler.always = handler.always or always
            return
    if always or not (logger.handlers or logging.getLogger().handlers):
        printer = _Printer()
        printer.always = always
        logger.addHandler(printer)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


@contextmanager
def only_from(name: str, least: int = logging.WARNING) -> Iterator[None]:
    """Suppress messages of a logger below a level, by default below warnings."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(least)
    try:
        yield
    finally:
        logger.setLevel(level)
