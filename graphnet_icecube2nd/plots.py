"""Parts that all plots share: matplotlib on request, without a screen; table styles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.lazy import import_extra

# Colours that colour-blind readers can tell apart (Okabe and Ito, 2008,
# jfly.uni-koeln.de/color); lines and markers differ too, for print without colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class TableStyle(NamedTuple):
    """Style of a table in plots: matplotlib's colour, line style and marker."""

    colour: str
    line: Any
    marker: str

    @classmethod
    def numbered(cls, number: int) -> TableStyle:
        """Return the style of a table by its number, from 0."""
        number %= len(COLOURS)  # as many as lines and markers
        return cls(COLOURS[number], LINES[number], MARKERS[number])


def new_figure(width: float, height: float) -> Any:
    """Return a matplotlib figure of this size [inch]; it needs no screen."""
    figure = import_extra("matplotlib.figure", "plots need", "plots")
    return figure.Figure(figsize=(width, height), layout="constrained")


def plain_log(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers: 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def decades_only(axis: Any) -> None:
    """Label a logarithmic axis at the decades only."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10))
    axis.set_minor_formatter(NullFormatter())


def save_figure(figure: Any, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write a figure completely or not at all; the ending of its name is the format.

    Raises:
        ValueError: Matplotlib cannot write this format.
        OSError: The file cannot be written.
    """
    path = Path(path)
    known = figure.canvas.get_supported_filetypes()
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in known:
        raise ValueError(
            f"{path}: pictures end in one of {', '.join(sorted(known))}; got {suffix!r}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=suffix)
