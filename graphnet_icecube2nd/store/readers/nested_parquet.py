"""Nested parquet files: one row an event, its pulses as lists in a struct.

GraphNeT's older extractions and Prometheus write such files. Shape letters: T pulses,
B events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.readers.arrow_values import ids_of, naming_damage
from graphnet_icecube2nd.store.readers.columns import Keep, choose_columns
from graphnet_icecube2nd.store.readers.flat_parquet import parquet_files
from graphnet_icecube2nd.store.readers.nested_schema import (
    NestedSchema,
    choose_pulses,
    choose_truth,
    event_columns,
)
from graphnet_icecube2nd.store.readers.nested_values import (
    child_of,
    list_values,
    scalar_values,
)
from graphnet_icecube2nd.store.readers.rows import open_parquet
from graphnet_icecube2nd.store.readers.source import (
    EventChunk,
    Part,
    Source,
    chunk_borders,
    file_fingerprint,
)
from graphnet_icecube2nd.store.readers.truth_columns import choose_truth_columns
from graphnet_icecube2nd.store.readers.truth_rows import check_finite

EVENTS_AT_ONCE, BYTES_AT_ONCE = 1024, 2**26  # at most, as the file counts bytes

PathLike = str | os.PathLike[str]


def nested_source(
    path: PathLike | Sequence[PathLike],
    *,
    pulses: str | None = None,
    truth: str | bool | None = None,
    pulse_map: PulseMap | None = None,
    event_column: str | None = None,
    keep: Keep = (),
) -> Source:
    """Open parquet files with one row an event.

    Args:
        path: File or files of the same columns, or folders of such.
        pulses: The struct of the pulses' lists; default: the one that fits.
        truth: The struct of the truth; default: the one that has the angles. False
            does without.
        pulse_map: What the lists mean; default: recognised by their names.
        event_column: The event key, beside the structs or in one of them; default
            `event_id` or `event_no`, and the number of the row where there is none.
        keep: Further lists of the pulses to keep, or `all`.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is damaged, empty or not of this kind; or none or several
            structs fit.
    """
    files = parquet_files(path)
    schema = NestedSchema.of(files[0])
    pulses, pulse_map = choose_pulses(schema, pulses, pulse_map)
    truth, pulse_map = choose_truth(schema, truth, pulses, pulse_map)
    keys = event_columns(schema, pulses, truth, event_column)
    key_names = {column for _, column in keys}
    lists = [c for c in schema.lists(pulses) if c not in key_names]
    taken, left_out = choose_columns(lists, pulse_map, keep)
    notes: list[str] = []
    scalars: tuple[str, ...] = ()
    if truth is not None:
        place = f"{schema.name}, {truth}"
        scalars, truth_left_out, said = choose_truth_columns(
            schema.structs[truth], pulse_map, place, key_names
        )
        left_out = (*left_out, *truth_left_out)
        notes.extend(said)
    if not keys:
        notes.append(
            f"{schema.name} has no event_id: events are numbered by their row, from 0"
        )
    parts = []
    first_id = 0
    for file in files:
        other = NestedSchema.of(file)
        other.check_like(schema, [(pulses, c) for c in taken])
        other.check_like(schema, [(truth or "", c) for c in scalars])
        other.check_like(schema, keys)
        part = NestedPart(
            name=str(file),
            path=file,
            pulses=pulses,
            columns=taken,
            truth=truth,
            truth_columns=scalars,
            angles=(pulse_map.labels.azimuth, pulse_map.labels.zenith),
            keys=keys,
            first_id=first_id,
        )
        parts.append(part)
        first_id += other.num_rows
    return Source(
        kind="nested-parquet",
        pulse_map=pulse_map,
        parts=parts,
        pulse_columns=taken,
        left_out=left_out,
        notes=tuple(notes),
    )


@dataclass(kw_only=True, eq=False)
class NestedPart(Part):
    """A nested parquet file.

    Args:
        name: What messages call it.
        path: The file.
        pulses: The struct of the pulses.
        columns: Its lists to read.
        truth: The struct of the truth, or None.
        truth_columns: Its columns to read.
        angles: Those of them that must be finite.
        keys: Where event_ids are, as struct (`` beside the structs) and column; all
            must agree. Without any, rows are counted.
        first_id: Number of the first row then.
    """

    name: str
    path: Path
    pulses: str
    columns: tuple[str, ...]
    truth: str | None
    truth_columns: tuple[str, ...]
    angles: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    first_id: int

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        return {
            **file_fingerprint(self.path),
            "pulses": [self.pulses, *self.columns],
            "truth": [self.truth, *self.truth_columns],
            "keys": [list(key) for key in self.keys],
            "first_id": self.first_id,
        }

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the file, in chunks of at most `max_pulses` pulses or one event.

        Raises:
            ValueError: The file is damaged, or contradicts itself; names the row.
        """
        for row, batch in self._batches():
            struct = child_of(batch, self.pulses, self.name, row)
            columns, offsets = list_values(struct, self.columns, self.name, row)
            event_id = self._event_id(batch, row)
            truth: dict[str, NDArray[Any]] = {}
            if self.truth is not None:
                struct = child_of(batch, self.truth, self.name, row)
                for column in self.truth_columns:
                    angle = column in self.angles
                    values = scalar_values(
                        struct, column, self.name, row, nan=not angle
                    )
                    if angle:
                        check_finite(values, column, self.name, row)
                    truth[column] = values
            for events in chunk_borders(offsets, max_pulses):
                borders = offsets[events.start : events.stop + 1]
                inside = slice(int(borders[0]), int(borders[-1]))
                yield EventChunk(
                    columns={name: values[inside] for name, values in columns.items()},
                    offsets=borders - borders[0],
                    event_id=event_id[events],
                    truth={name: values[events] for name, values in truth.items()},
                )

    def _batches(self) -> Iterator[tuple[int, Any]]:
        """Yield record batches of what is needed, each with the row it begins at."""
        paths = [f"{self.pulses}.{column}" for column in self.columns]
        paths += [f"{self.truth}.{column}" for column in self.truth_columns]
        paths += [f"{struct}.{column}".lstrip(".") for struct, column in self.keys]
        with open_parquet(self.path, self.name) as file, naming_damage(self.name):
            row = 0
            for batch in file.iter_batches(
                _rows_at_once(file.metadata), columns=paths, use_threads=False
            ):
                yield row, batch
                row += len(batch)

    def _event_id(self, batch: Any, row: int) -> NDArray[np.int64]:
        if not self.keys:
            first = self.first_id + row
            return np.arange(first, first + len(batch), dtype=np.int64)
        found = []
        for struct, column in self.keys:
            table = child_of(batch, struct, self.name, row) if struct else batch
            array = table.field(column) if struct else table.column(column)
            found.append(ids_of(array, column, self.name, row))
        for (struct, column), ids in zip(self.keys[1:], found[1:], strict=True):
            if len(wrong := np.flatnonzero(ids != found[0])):
                other = ".".join(filter(None, self.keys[0]))
                raise ValueError(
                    f"{self.name}, row {row + wrong[0]}: {other} is "
                    f"{found[0][wrong[0]]}, but {struct}.{column} is {ids[wrong[0]]}"
                )
        return found[0]


def _rows_at_once(metadata: Any) -> int:
    """Return how many events to read at once: fewer where they are large."""
    groups = range(metadata.num_row_groups)
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in groups)
    fitting = BYTES_AT_ONCE * metadata.num_rows // max(num_bytes, 1)
    return int(min(max(fitting, 1), EVENTS_AT_ONCE))
