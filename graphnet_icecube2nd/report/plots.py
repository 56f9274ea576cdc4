"""What all pictures share: matplotlib on request, without a screen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.files import write_whole


def new_figure(width: float, height: float) -> Any:
    """Return a matplotlib figure of so many inches, which needs no screen.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib: pip install graphnet-icecube2nd[plots]"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write a figure whole or not at all; the ending says the format.

    Raises:
        ValueError: The ending is of no format that matplotlib writes.
        OSError: It cannot be written.
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
