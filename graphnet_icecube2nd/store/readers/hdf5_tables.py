"""The tables of an HDF5 file, and the rows of events in them.

A table is a compound dataset, or the one-dimensional datasets of one length in a
group. The rows of events are known from B + 1 borders, from first row and number, or
from first row and last row + 1. Shape letters: R rows, T pulses, B events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import HLC, SENSOR_ID
from graphnet_icecube2nd.detector.geometry import DOMS_PER_STRING
from graphnet_icecube2nd.lazy import import_extra
from graphnet_icecube2nd.store.arrow_table import import_pyarrow
from graphnet_icecube2nd.store.readers.tables import (
    BATCH_ROWS,
    LONG_TEXT,
    Runs,
    Table,
)

# Names of columns of the B + 1 borders, or of first rows and numbers of pulses.
KNOWN_OFFSETS: tuple[tuple[str, ...], ...] = (
    ("offsets",),
    ("event_offsets",),
    ("pulse_offsets",),
    ("first_pulse", "n_pulses"),
    ("first_pulse", "num_pulses"),
    ("first", "count"),
)
# Columns of the rows of events: first row, number of rows or last row + 1, and whether
# the event has pulses (icetray's frames without pulses have padding rows).
FIRST, COUNT, STOP, EXISTS = "<first>", "<count>", "<stop>", "<exists>"
# Columns that are computed from columns of icetray.
MADE_OF = {SENSOR_ID: ("string", "om"), HLC: ("flags",)}
STRINGS = 86
# Bit 0 of a pulse's flags: `LC = (1 << 0)` of PulseFlags in icetray's I3RecoPulse.h,
# which is hlc also in GraphNeT's feature extractor.
LC_FLAG = 1


def import_h5py() -> Any:
    """Return h5py; ImportError names the extra."""
    return import_extra("h5py", "HDF5 files need", "data")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; ValueError if it cannot be read."""
    h5py = import_h5py()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (KeyError, OSError, RuntimeError) as error:  # h5py has no own errors
        advice = "It may have another format, or be an incomplete copy"
        if "filter" in str(error) or "plugin" in str(error):
            advice = (
                "Its compression is unknown to h5py: set HDF5_PLUGIN_PATH to the "
                "plugins of hdf5plugin, or copy it with PyTables: ptrepack --complib "
                "zlib IN OUT"
            )
        raise ValueError(f"{path} cannot be read as HDF5: {error}. {advice}") from None


@dataclass(frozen=True, kw_only=True)
class H5Table(Table):
    """Columns of one length of a file, or a range of their rows."""

    for_threads = False  # HDF5 has one lock
    path: Path
    node: str  # its path in the file, without the first slash; `/` for the root
    # Arrow type of the columns of numbers or text, with one value per row.
    types: Mapping[str, Any]
    # Dataset of each column, its field if this is compound, and the place of row 0 in
    # it. Other columns are computed: see `MADE_OF`, or rows counted from `first_id`.
    places: Mapping[str, tuple[str, str, int]]
    rows: range
    others: tuple[str, ...] = ()  # columns of other types
    first_id: int = 0
    # For pulses without an event column: this column and the rows, for each event.
    events: H5Table | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the table for messages."""
        return f"{self.path}, table {self.node!r}"

    @property
    def num_rows(self) -> int | None:  # type: ignore[override]
        """Number of rows; None for pulses that may belong to no event."""
        return None if self.events else len(self.rows)

    def between(self, low: int, high: int) -> H5Table:
        """Return rows low to high - 1, or the pulses of these events."""
        if self.events is not None:
            return replace(self, events=self.events.between(low, high))
        return replace(self, rows=range(low, high))

    def only(self, columns: Mapping[str, str]) -> H5Table:
        """Return the table with some columns, by their new names."""
        types, places = (
            {name: of[column] for name, column in columns.items()}
            for of in (self.types, self.places)
        )
        return replace(self, types=types, places=places)

    def beside(self, table: H5Table) -> H5Table:
        """Return the table with the columns of another with the same rows."""
        types = {**table.types, **self.types, **table.types}
        # The other table may compute a column that this one has.
        kept = {c: place for c, place in self.places.items() if c not in table.types}
        places = {**kept, **table.places}
        return replace(self, types=types, places=places, first_id=table.first_id)

    def runs(self, column: str) -> Runs:
        """Return the rows of each event, in the order of the events.

        Raises:
            ValueError: Rows of events overlap or are outside the table.
        """
        if self.events is None:
            return super().runs(column)
        roles = [c for c in (FIRST, COUNT, STOP, EXISTS) if c in self.events.types]
        values = self.events.whole([column, *roles])
        ids = self.events.as_ids(values[column], column, 0)
        for role in roles:
            if values[role].dtype.kind not in "biu":
                raise ValueError(
                    f"{self.events.name}: the rows of pulses of events must be "
                    f"integers, found {values[role].dtype}"
                )
        of = {role: values[role].astype(np.int64) for role in roles}
        first, count = of[FIRST], of[COUNT] if COUNT in of else of[STOP] - of[FIRST]
        if EXISTS in of:
            first, count = (np.where(of[EXISTS] != 0, v, 0) for v in (first, count))
        full = count > 0
        # The sum of large numbers would overflow.
        outside = full & ((first < 0) | (first > len(self.rows) - count))
        rows, back = np.flatnonzero(full), np.zeros(len(first), bool)
        back[rows[1:]] = first[rows[1:]] < (first + count)[rows[:-1]]
        for bad, why in (
            (count < 0, "offsets must not decrease"),
            (outside, f"the table of pulses has {len(self.rows)} rows"),
            (back, "they overlap with those of the event before"),
        ):
            if bad.any():
                row = int(bad.argmax())
                raise ValueError(
                    f"{self.events.name}: the pulses of event "
                    f"{self.events.rows[row]} (counted from 0) are rows {first[row]} "
                    f"to {int(first[row]) + int(count[row])}, but {why}"
                )
        return ids, first, count

    def batches(
        self, columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield first row and record batch of these columns."""
        made = [column for column in columns if column not in self.places]
        stored = {*columns} - {*made} | {c for m in made for c in MADE_OF.get(m, ())}
        of_datasets: dict[tuple[str, int], dict[str, str]] = {}
        for column in stored:
            dataset, field, shift = self.places[column]
            of_datasets.setdefault((dataset, shift), {})[column] = field
        with opened(self.path) as file:
            for low in self.rows[max(start - self.rows.start, 0) :: BATCH_ROWS]:
                high = min(low + BATCH_ROWS, self.rows.stop)
                arrays: dict[str, NDArray[Any]] = {}
                for (dataset, shift), fields in of_datasets.items():
                    node, rows = file[dataset], slice(low + shift, high + shift)
                    if node.dtype.names:
                        node = node.fields([*{*fields.values()}])
                    values = node[rows]
                    for column, field in fields.items():
                        where = f"{self.name}, column {column!r}"
                        arrays[column] = _plain(
                            values[field] if field else values, where
                        )
                for column in made:
                    arrays[column] = self._made(column, arrays, range(low, high))
                yield low, import_pyarrow().record_batch(arrays)

    def _made(
        self, column: str, arrays: Mapping[str, NDArray[Any]], rows: range
    ) -> NDArray[Any]:
        """Return the values of a computed column, (R,)."""
        if column == HLC:
            return (arrays["flags"].astype(np.int64) & LC_FLAG).astype(np.uint8)
        if column != SENSOR_ID:
            return np.arange(rows.start, rows.stop) + self.first_id
        string_T, om_T = (arrays[c].astype(np.int64) for c in MADE_OF[column])
        known_T = (string_T >= 1) & (string_T <= STRINGS)
        known_T &= (om_T >= 1) & (om_T <= DOMS_PER_STRING)
        if not known_T.all():
            pulse = int(known_T.argmin())
            raise ValueError(
                f"{self.name}: string must be 1 to {STRINGS} and om 1 to "
                f"{DOMS_PER_STRING} for IceCube-86, found string {string_T[pulse]}, om "
                f"{om_T[pulse]}. Remove IceTop; for another detector, let hdfwriter "
                "also write x, y, z of the modules"
            )
        sensor_id_T: NDArray[np.int64] = DOMS_PER_STRING * (string_T - 1) + om_T - 1
        return sensor_id_T


def find_tables(path: Path) -> list[H5Table]:
    """Return the tables of a file, the shortest first.

    A group with datasets of several lengths gives several tables of one name.
    """
    # Types by node, length, and whether it is compound.
    found: dict[tuple[str, int, bool], dict[str, tuple[Any, str, str]]] = {}
    with opened(path) as file:
        for node, dataset in _datasets(file, ""):
            group, _, column = node.rpartition("/")
            dtype, num_rows = dataset.dtype, len(dataset)
            if dtype.names:
                fields = {name: (dtype[name], node, name) for name in dtype.names}
                found[node, num_rows, True] = fields
            else:
                columns = found.setdefault((group or "/", num_rows, False), {})
                columns[column] = dtype, node, ""
    tables = []
    for (node, num_rows, _), columns in found.items():
        types = {column: _type(dtype) for column, (dtype, *_) in columns.items()}
        table = H5Table(
            path=path,
            node=node,
            types={column: kind for column, kind in types.items() if kind},
            places={
                c: (dataset, field, 0) for c, (_, dataset, field) in columns.items()
            },
            rows=range(num_rows),
            others=tuple(column for column, kind in types.items() if not kind),
        )
        tables.append(table)
    return sorted(tables, key=lambda table: len(table.rows))


def _datasets(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield path and dataset of all datasets with one dimension."""
    h5py = import_h5py()
    for key in group:
        child = group.get(key)  # None if a link has no target
        if isinstance(child, h5py.Dataset) and child.ndim == 1:
            yield name + key, child
        # A soft link may lead back to its own group.
        is_below = isinstance(group.get(key, getlink=True), h5py.HardLink)
        if isinstance(child, h5py.Group) and is_below:
            yield from _datasets(child, f"{name}{key}/")


def _type(dtype: Any) -> Any:
    """Return the Arrow type of a column after `_plain`, or None if it has none."""
    pa = import_pyarrow()
    if import_h5py().check_string_dtype(dtype) is not None:
        size = dtype.itemsize  # long texts get a type that is left out with a note
        return pa.string() if size <= LONG_TEXT else pa.binary(size)
    if dtype.kind not in "biuf" or dtype.shape:
        return None
    return pa.from_numpy_dtype(_plain(np.empty(0, dtype), "").dtype)


def _plain(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return numbers in the machine's byte order, and text as Python strings."""
    if values.dtype.kind in "SO":
        texts = [
            v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)
            for v in values
        ]
        return np.array(texts, dtype=object)
    if values.dtype.itemsize > 8:  # Arrow has no long double
        return values.astype(np.float64)
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        # torch has few functions for unsigned integers
        if len(values) and int(values.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{name} must fit into int64, found {values.max()}")
        return values.astype(np.int64)
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def find_column(
    tables: Sequence[H5Table], reference: str, place: str
) -> tuple[H5Table, str]:
    """Return table and column of a path such as `events/first_pulse`."""
    parts = reference.strip("/").split("/")
    node, column = "/".join(parts[:-1]) or "/", parts[-1]
    for table in tables:
        if table.node == node and column in table.types:
            return table, column
    raise ValueError(
        f"{place} has no dataset or column {reference!r}; it has tables "
        f"{', '.join(sorted({table.node for table in tables})) or '(none)'}"
    )


def known_offsets(tables: Sequence[H5Table]) -> list[tuple[H5Table, tuple[str, ...]]]:
    """Return tables with columns of known names for the rows of events, and these."""
    return [
        (table, names)
        for table in tables
        for names in KNOWN_OFFSETS
        if {*names} <= {*table.types}
    ]


def hint_at_pandas(path: Path) -> str:
    """Return advice if a file was written by pandas with columns in blocks, or ""."""
    with opened(path) as file:
        nodes = filter(None, map(file.get, file))  # None if a link has no target
        if not any("pandas_type" in node.attrs for node in nodes):
            return ""
    return (
        ". It was written by pandas with columns in blocks, which cannot be read. "
        "Write it with to_hdf(..., format='table', data_columns=True) or to_parquet"
    )


def find_rows(
    tables: Sequence[H5Table], offsets: str | Sequence[str] | None, place: str
) -> tuple[H5Table, H5Table]:
    """Find the rows of the events, by `offsets` of the user or by known names.

    Args:
        tables: Tables of the file.
        offsets: Path of the borders, paths of first rows and numbers, or None.
        place: Name of the file for messages.

    Returns:
        Their table, and the rows with one row per event.

    Raises:
        ValueError: Not exactly one table has the rows, or a path is not valid.
    """
    if offsets is None:
        found = known_offsets(tables)
        if len(found) != 1:
            several = [f"{table.node}: {names[0]}" for table, names in found]
            raise ValueError(
                f"{place} must have one dataset with the rows of each event, found "
                f"{', '.join(several) or 'none'}. Name it: --offsets-table PATH "
                "(offsets_table='PATH' of the borders, or ('PATH of first rows', 'PATH "
                "of numbers of pulses')), or name the event column of the pulses: "
                "--event-column (event_column=...)"
            )
        ((table, columns),) = found
    else:
        paths = [offsets] if isinstance(offsets, str) else list(offsets)
        if len(paths) > 2 or (not isinstance(offsets, str) and len(paths) < 2):
            raise ValueError(f"offsets must be one path or two, got {paths}")
        named = [find_column(tables, path, place) for path in paths]
        table, columns = named[0][0], tuple(column for _, column in named)
        if any(other is not table for other, _ in named):
            raise ValueError(
                f"{place}: {paths[0]!r} and {paths[1]!r} must be columns of one table"
            )
    if len(columns) == 2:
        return table, table.only(dict(zip((FIRST, COUNT), columns, strict=True)))
    rows = table.only(dict.fromkeys((FIRST, STOP), columns[0]))
    dataset, field, _ = rows.places[FIRST]
    places = {**rows.places, STOP: (dataset, field, 1)}
    return table, replace(rows, places=places, rows=range(max(len(rows.rows) - 1, 0)))
