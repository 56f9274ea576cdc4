"""Nested parquet files: one row an event, its pulses as lists in a struct.

GraphNeT's older extractions and Prometheus write such files. Shape letters: T pulses,
B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.arrow_values import (
    check_finite,
    check_no_null,
    ids_of,
    is_list,
    is_number,
    naming_damage,
    plain,
    plain_type,
    values_of,
)
from graphnet_icecube2nd.store.readers.columns import (
    EVENT_COLUMNS,
    Columns,
    Keep,
    PathLike,
    angle_columns,
    check_tables,
    choose_columns,
    choose_pulses,
    choose_truth,
    choose_truth_columns,
    has_angles,
    list_files,
)
from graphnet_icecube2nd.store.readers.rows import open_parquet
from graphnet_icecube2nd.store.readers.source import (
    PARQUET_SUFFIXES,
    EventChunk,
    Part,
    Source,
    chunk_borders,
    file_fingerprint,
)

EVENTS_AT_ONCE, BYTES_AT_ONCE = 1024, 2**26  # at most, as the file counts bytes
# What Prometheus itself calls the angles that GraphNeT calls injection_...
_RAW_ANGLES = {"azimuth": "initial_state_azimuth", "zenith": "initial_state_zenith"}


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
    files = list_files(path, PARQUET_SUFFIXES)
    structs, _ = _look_into(files[0])
    place = str(files[0])
    lists = [_lists_of(struct) for struct in structs[1:]]
    pulse_table, pulse_map = choose_pulses(
        [struct for struct in lists if struct.types],
        place=place,
        name=pulses,
        pulse_map=pulse_map,
    )
    pulses = pulse_table.name
    others = [struct for struct in structs[1:] if struct.name != pulses]
    candidates = [struct for struct in others if truth in (None, struct.name)]
    raw = replace(pulse_map, labels=replace(pulse_map.labels, **_RAW_ANGLES))
    if (
        pulse_map == PulseMap.prometheus()
        and not any(has_angles(struct, pulse_map) for struct in candidates)
        and any(has_angles(struct, raw) for struct in candidates)
    ):
        pulse_map = raw
    truth_table = choose_truth(others, place=place, name=truth, pulse_map=pulse_map)
    with_keys = [structs[0], *([truth_table] if truth_table else [])]
    with_keys += [struct for struct in structs if struct.name == pulses]
    keys = _event_columns(with_keys, event_column, place)
    key_names = {column for _, column in keys}
    available = [c for c in pulse_table.types if c not in key_names]
    taken, left_out = choose_columns(available, pulse_map, keep)
    notes: tuple[str, ...] = ()
    columns = [(pulses, column) for column in taken]
    scalars: tuple[str, ...] = ()
    if truth_table is not None:
        scalars, truth_left_out, notes = choose_truth_columns(
            truth_table.types, pulse_map, f"{place}, {truth_table.name}", key_names
        )
        left_out = (*left_out, *truth_left_out)
        columns += [(truth_table.name, column) for column in scalars]
    if not keys:
        notes += (f"{place} has no event_id: events are numbered by their row, from 0",)
    parts = []
    first_id = 0
    for file in files:
        others, num_rows = _look_into(file)
        tables = [_flat(structs, place), _flat(others, str(file))]
        check_tables(
            tables, [f"{struct}.{c}".lstrip(".") for struct, c in (*columns, *keys)]
        )
        part = NestedPart(
            name=str(file),
            path=file,
            pulses=pulses,
            columns=taken,
            truth=truth_table.name if truth_table else None,
            truth_columns=scalars,
            angles=angle_columns(pulse_map),
            keys=keys,
            first_id=first_id,
        )
        parts.append(part)
        first_id += num_rows
    return Source(
        kind="nested-parquet",
        pulse_map=pulse_map,
        parts=parts,
        pulse_columns=taken,
        left_out=left_out,
        notes=notes,
    )


@dataclass(kw_only=True, eq=False)
class NestedPart(Part):
    """A nested parquet file."""

    name: str  # for messages
    path: Path
    pulses: str  # the struct of the pulses
    columns: tuple[str, ...]  # its lists to read
    truth: str | None  # the struct of the truth, or None
    truth_columns: tuple[str, ...]  # its columns to read
    angles: tuple[str, ...]  # those of them that must be finite
    # Where event_ids are, as struct (`` beside the structs) and column; all must
    # agree. Without any, rows are counted.
    keys: tuple[tuple[str, str], ...]
    first_id: int  # number of the first row then

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON values that differ if what is read differs."""
        return {
            **file_fingerprint(self.path),
            "pulses": [self.pulses, *self.columns],
            "truth": [self.truth, *self.truth_columns],
            "keys": [list(key) for key in self.keys],
            "first_id": self.first_id,
        }

    def at(self, row: int) -> str:
        """Return what messages call a row."""
        return f"{self.name}, row {row}"

    def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
        """Read the file, in chunks of at most `max_pulses` pulses or one event.

        Raises:
            ValueError: The file is damaged, or contradicts itself; names the row.
        """
        for row, batch in self._batches():
            columns, offsets = self._lists(self._struct(batch, self.pulses, row), row)
            event_id = self._event_id(batch, row)
            truth: dict[str, NDArray[Any]] = {}
            if self.truth is not None:
                struct = self._struct(batch, self.truth, row)
                for column in self.truth_columns:
                    array = struct.field(column)
                    truth[column] = values_of(array, column, self, row, nan=True)
                    if column in self.angles:
                        check_finite(truth[column], column, self, row)
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

    def _struct(self, batch: Any, struct: str, row: int) -> Any:
        """Return a struct of a record batch, null in no row."""
        array = plain(batch.column(struct))
        check_no_null(array, struct, self, row)
        return array

    def _lists(
        self, struct: Any, row: int
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Return lists one after the other, (T,) by column, and borders (B + 1,)."""
        values: dict[str, NDArray[Any]] = {}
        offsets: NDArray[np.int64] = np.zeros(1, np.int64)
        for column in self.columns:
            array = plain(struct.field(column))
            check_no_null(array, column, self, row)
            own = array.offsets.to_numpy().astype(np.int64)
            flat = plain(array.values.slice(own[0], own[-1] - own[0]))
            own = own - own[0]
            if flat.null_count:
                pulse = np.asarray(flat.is_null()).argmax()
                event = row + int(np.searchsorted(own, pulse, side="right")) - 1
                raise ValueError(f"{self.at(event)}: the list {column!r} holds a null")
            if values and not np.array_equal(own, offsets):
                lengths, first = np.diff(own), np.diff(offsets)
                event = int((lengths != first).argmax())
                raise ValueError(
                    f"{self.at(row + event)}: the list {column!r} has "
                    f"{lengths[event]} values, but {self.columns[0]!r} has "
                    f"{first[event]}"
                )
            offsets = own
            values[column] = values_of(flat, column, self, 0)
        return values, offsets

    def _event_id(self, batch: Any, row: int) -> NDArray[np.int64]:
        if not self.keys:
            first = self.first_id + row
            return np.arange(first, first + len(batch), dtype=np.int64)
        found = []
        for struct, column in self.keys:
            array = (
                self._struct(batch, struct, row).field(column)
                if struct
                else batch.column(column)
            )
            found.append(ids_of(array, column, self, row))
        for (struct, column), ids in zip(self.keys[1:], found[1:], strict=True):
            if len(wrong := np.flatnonzero(ids != found[0])):
                other = ".".join(filter(None, self.keys[0]))
                raise ValueError(
                    f"{self.at(row + int(wrong[0]))}: {other} is "
                    f"{found[0][wrong[0]]}, but {struct}.{column} is {ids[wrong[0]]}"
                )
        return found[0]


def _lists_of(struct: Columns) -> Columns:
    """Return the columns of a struct that are lists of numbers."""
    lists = {
        column: kind
        for column, kind in struct.types.items()
        if is_list(kind) and is_number(plain_type(kind).value_type)
    }
    return Columns(name=struct.name, types=lists)


def _look_into(path: Path) -> tuple[list[Columns], int]:
    """Return what lies beside the structs of a file (unnamed), these, and its rows."""
    name, beside, structs = str(path), {}, []
    with open_parquet(path, name) as file, naming_damage(name):
        num_rows = file.metadata.num_rows
        for field in file.schema_arrow:
            kind = plain_type(field.type)
            if import_pyarrow().types.is_struct(kind):
                inner = {child.name: child.type for child in kind}
                structs.append(Columns(name=field.name, types=inner))
            else:
                beside[field.name] = kind
    if not structs:
        raise ValueError(
            f"{name} has no struct of lists, one row an event; there is "
            f"{', '.join(beside)}"
        )
    if not num_rows:
        raise ValueError(f"{name} is empty: it has no rows")
    return [Columns(name="", types=beside), *structs], num_rows


def _flat(structs: Sequence[Columns], name: str) -> Columns:
    """Return all columns of a file, `struct.column`, by the type of their values."""
    types = {
        f"{struct.name}.{column}".lstrip("."): plain_type(kind).value_type
        if is_list(kind)
        else kind
        for struct in structs
        for column, kind in struct.types.items()
    }
    return Columns(name=name, types=types)


def _event_columns(
    structs: Sequence[Columns], wanted: str | None, place: str
) -> tuple[tuple[str, str], ...]:
    """Return where event_ids are: pairs of struct, empty beside them, and column."""
    for column in (wanted,) if wanted else EVENT_COLUMNS:
        found = [
            (struct.name, column)
            for struct in structs
            if column in struct.types and not is_list(struct.types[column])
        ]
        if found:
            return tuple(found)
    if wanted:
        raise ValueError(f"{place} has no column {wanted!r} that names the event")
    return ()


def _rows_at_once(metadata: Any) -> int:
    """Return how many events to read at once: fewer where they are large."""
    groups = range(metadata.num_row_groups)
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in groups)
    fitting = BYTES_AT_ONCE * metadata.num_rows // max(num_bytes, 1)
    return int(min(max(fitting, 1), EVENTS_AT_ONCE))
