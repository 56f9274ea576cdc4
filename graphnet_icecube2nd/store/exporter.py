"""export: a store as files that others read, each format by its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.kaggle_writer import write_kaggle
from graphnet_icecube2nd.store.writers import (
    WriteReport,
    import_sqlite_utils,
    is_taken,
    write_graphnet_parquet,
    write_graphnet_sqlite,
)

# How a format is written, and the arguments it takes beside store and output.
FORMATS: dict[str, tuple[Callable[..., WriteReport], tuple[str, ...]]] = {
    "graphnet-sqlite": (write_graphnet_sqlite, ("pulses_table", "truth_table")),
    "graphnet-parquet": (write_graphnet_parquet, ("pulses_table", "truth_table")),
    "kaggle": (write_kaggle, ()),
}


def format_of(out: str | os.PathLike[str], format: str | None = None) -> str:
    """Return the format of an output, by its name where none is given.

    Raises:
        ValueError: Unknown format, or a name that says none.
    """
    suffix = Path(out).suffix
    if format is None:
        if suffix not in (".db", ""):
            raise ValueError(
                f"{out} ends in {suffix!r}: GraphNeT's SQLite files end in .db, and "
                "its parquet is a folder; or say the format (--format)"
            )
        return "graphnet-sqlite" if suffix == ".db" else "graphnet-parquet"
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}")
    return format


def check_output(out: str | os.PathLike[str], format: str) -> None:
    """See that an output can be written, before there is anything to be written.

    Raises:
        FileExistsError: It is there.
        ImportError: The format's library is missing.
    """
    if is_taken(Path(out)):
        raise FileExistsError(
            f"{out} is there already; remove it, or choose another name"
        )
    if format == "graphnet-sqlite":
        import_sqlite_utils()
    else:
        import_pyarrow()


def export(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str | None = None,
    **options: Any,
) -> WriteReport:
    """Write a store as files that others read.

    Args:
        store: Folder of the store.
        out: The file or folder, which must not be there.
        format: `graphnet-sqlite`, `graphnet-parquet` or `kaggle`; default: SQLite if
            `out` ends in .db, else GraphNeT's parquet.
        **options: As the format's writer: `pulses_table`, `truth_table`,
            `on_progress`.

    Raises:
        FileExistsError: The output is there.
        ValueError: Unknown format, or what the writer finds wrong.
        OSError: The disk is full.
        ImportError: The format's library is missing.
    """
    format = format_of(out, format)
    write, known = FORMATS[format]
    unknown = set(options) - {*known, "on_progress"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} means nothing for {format}")
    return write(store, out, **options)
