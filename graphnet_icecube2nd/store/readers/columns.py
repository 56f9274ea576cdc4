"""Selection of the files, tables and columns to read, with rules for all formats.

In every format a table has a name and columns with types.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.conventions import TIME, X, Y, Z
from graphnet_icecube2nd.detector.pulse_map import (
    NAMED_PULSE_MAPS,
    PMT_DIRECTIONS,
    UNNAMED,
    PulseMap,
)
from graphnet_icecube2nd.store.readers.tables import (
    JoinedTable,
    Table,
    is_number,
    no_values,
)
from graphnet_icecube2nd.tasks.catalogue import are_results

EVENT_COLUMNS = ("event_id", "event_no")  # names of Kaggle and of GraphNeT

KEEP_ALL = "all"  # replaces the names of columns to keep

# Options of `prepare`, for messages.
_PULSES = "--pulses-table (pulses_table=...)"
_TRUTH = "--truth-table (truth_table=...)"
_EVENT = "--event-column (event_column=...)"
NO_TRUTH = "--without-truth (with_truth=False)"
ANGLES = (
    "--column azimuth=YOUR_COLUMN --column zenith=YOUR_COLUMN (columns={'zenith': ...})"
)
_MEANING = (
    "--column x=... --column y=... --column z=... --column time=... (columns={...}), "
    "and --detector icecube86 (detector='icecube86') if they are of IceCube-86"
)
OF_FRAMES = (
    "rename the columns of the frame to those of a pulse map (dom_x, dom_y, dom_z, "
    "dom_time, ... of 'icecube86'), or use pulse_map=PulseMap.icecube86(x=..., "
    "time=..., hlc=None, ...)"
)

# Pulse maps with the columns by which they are recognised, and changes of the pulse
# map; special ones come first.
_SIGNS: tuple[tuple[str, set[str], dict[str, Any]], ...] = (
    ("kaggle", {"sensor_id", "time", "charge", "auxiliary"}, {}),
    ("upgrade", {"dom_x", "dom_y", "dom_z", "dom_time", "pmt_dir_x"}, {}),
    ("icecube86", {"dom_x", "dom_y", "dom_z", "dom_time"}, {}),
    (
        "prometheus",  # pulses, such as NuBench's, not single photons
        {"sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t", "charge"},
        {"charge": "charge"},
    ),
    ("prometheus", {"sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t"}, {}),
    ("km3net", {"x", "y", "z", "t", "tot"}, {}),
    (
        "km3net",  # files of GraphNeT's converter
        {"pos_x", "pos_y", "pos_z", "t", "tot", *PMT_DIRECTIONS[1]},
        {
            "x": "pos_x",
            "y": "pos_y",
            "z": "pos_z",
            "extra": ("tot", *PMT_DIRECTIONS[1]),
            "extra_scale": (255.0, 1.0, 1.0, 1.0),
        },
    ),
)
# Other names of the truth's azimuth and zenith, by pulse map.
KM3NET_ANGLES = ("true_azimuth", "true_zenith")  # files of GraphNeT's converter
_OTHER_ANGLES = {
    "prometheus": ("initial_state_azimuth", "initial_state_zenith"),
    "km3net": KM3NET_ANGLES,
}

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Options of the user on tables and columns; None means recognised.

    Args:
        pulses: Table of pulses, or several tables to join event by event.
        truth: Table or files of truth; False reads no truth.
        pulse_map: Meaning of the columns.
        columns: Columns that differ from those of the pulse map, by quantity; None for
            no column.
        event_column: Column of the event numbers, which joins pulses and truth.
        keep: Further pulse columns to keep.
    """

    pulses: str | Sequence[str] | None = None
    truth: Any = None
    pulse_map: PulseMap | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    event_column: str | None = None
    keep: Sequence[str] = ()

    @property
    def pulse_tables(self) -> tuple[str, ...]:
        """Tables of pulses that the user names."""
        given = self.pulses
        return (given,) if isinstance(given, str) else tuple(given or ())

    def read_as(
        self,
        columns: Collection[str],
        recognise: Callable[[Collection[str]], PulseMap | None] | None = None,
    ) -> PulseMap | None:
        """Return the pulse map of the user, or the recognised one, or None."""
        found, given = (recognise or recognise_pulse_map)(columns), self.pulse_map
        if given is not None:
            # Files of a named pulse map may have columns of another variant of it.
            if found is not None and found.name == given.name in NAMED_PULSE_MAPS:
                usual = replace(PulseMap.by_name(given.name), labels=given.labels)
                if given == usual and _missing(given, columns):
                    given = replace(found, labels=given.labels)
            found = given
        if not self.columns:
            return found
        if found is None and {TIME, X, Y, Z} <= {*self.columns}:
            places = {name: self.columns[name] for name in (TIME, X, Y, Z)}
            found = PulseMap(name=UNNAMED, **places)  # type: ignore[arg-type]
        return found and found.with_columns(self.columns)


def list_files(
    paths: PathLike | Sequence[PathLike], endings: Sequence[str]
) -> list[Path]:
    """Return the files that the user gives, and those in given folders.

    Raises:
        ValueError: There is no file, or one is given twice.
        FileNotFoundError: A path does not exist.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise ValueError("give at least one file")
    files: list[Path] = []
    for path in map(Path, several):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in endings)
        if not inside:
            raise ValueError(f"{path} has no file that ends in {' or '.join(endings)}")
        files += inside
    places = [path.resolve() for path in files]
    counts = Counter(places)
    for path, place in zip(files, places, strict=True):
        if counts[place] > 1:
            raise ValueError(f"{path} is given twice; give it once")
    return files


def numbered_files(folder: Path, stem: str) -> dict[int, Path]:
    """Return the files `STEM_N.parquet` of a folder by N; the folder may be missing."""
    pattern = re.compile(rf"{re.escape(stem)}_(\d+)\.parquet")
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := pattern.fullmatch(path.name):
            number = int(match[1])
            if number in files:
                raise ValueError(
                    f"{files[number]} and {path.name} have the same number {number}. "
                    "Remove or rename one of them"
                )
            files[number] = path
    return dict(sorted(files.items()))


def recognise_pulse_map(columns: Collection[str]) -> PulseMap | None:
    """Return the named pulse map that fits the columns, or None."""
    for name, signs, changes in _SIGNS:
        if signs <= set(columns):
            return PulseMap.by_name(name, **changes)
    return None


def settle_pulse_map(
    columns: Collection[str],
    pulse_map: PulseMap | None,
    name: str,
    meaning: str = f"give their meaning: {_MEANING}",
) -> PulseMap:
    """Return the pulse map for a file: the user's, or the recognised one.

    Args:
        columns: Columns of the file.
        pulse_map: Pulse map of the user, or None.
        name: Name of the file for messages.
        meaning: Advice if no pulse map fits.

    Raises:
        ValueError: No pulse map fits, or a column that it needs is missing.
    """
    there = ", ".join(map(str, columns))
    settled = pulse_map or recognise_pulse_map(columns)
    if settled is None:
        nearest, signs, _ = min(_SIGNS, key=lambda sign: len(sign[1] - set(columns)))
        near, lost = "", sorted(signs - set(columns))
        if len(lost) <= 2:
            near = f"; {nearest!r} also needs {', '.join(lost)}"
        raise ValueError(
            f"{name}: no named pulse map fits its columns ({there}){near}. To read "
            f"them, {meaning}"
        )
    if missing := _missing(settled, columns):
        wanted, first = [settled.column(q) for q in missing], missing[0]
        hint = f". Give its name: --column {first}=..., or {first}=... of the pulse map"
        if first not in (X, Y, Z, TIME) and first not in settled.extra:
            without = settled.code_without(first)
            hint = f". For files without it: {without}, or --column {first}=none"
        raise ValueError(
            f"{name}: pulse map {settled.name!r} needs column {', '.join(wanted)}, "
            f"found only {there}{hint}"
        )
    return settled


def _missing(pulse_map: PulseMap, columns: Collection[str]) -> list[str]:
    """Return the quantities that the pulse map needs but the columns lack."""
    given = [q for column, q in pulse_map.columns().items() if column in columns]
    return list(pulse_map.missing(given))


def find_event_column(
    columns: Collection[str], wanted: str | None, name: str, like: str | None = None
) -> str:
    """Return the column of the event numbers.

    Args:
        columns: Columns of the table.
        wanted: Column named by the user, or None.
        name: Name of the table for messages.
        like: Preferred name, such as that of the pulses' table; the known names follow.

    Raises:
        ValueError: The table lacks the column.
    """
    candidates = [wanted] if wanted else [*([like] if like else []), *EVENT_COLUMNS]
    for column in candidates:
        if column in columns:
            return column
    raise ValueError(
        f"{name} has no column {' or '.join(map(repr, dict.fromkeys(candidates)))} of "
        f"event numbers; it has {', '.join(map(str, columns))}. Name it: {_EVENT}"
    )


def choose_columns(
    available: Mapping[str, Any] | Collection[str],
    pulse_map: PulseMap,
    keep: Sequence[str] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose pulse columns: those of the pulse map, then those to be kept.

    Args:
        available: Columns of the table, with Arrow types if known; then `all` keeps
            only numbers.
        pulse_map: Meaning of the columns.
        keep: Columns to keep, or `all`.

    Returns:
        The chosen columns, and those left out.

    Raises:
        ValueError: A column to keep is missing.
    """
    known = [column for column in pulse_map.columns() if column in available]
    others = [column for column in available if column not in known]
    kept = others
    if keep == KEEP_ALL and isinstance(available, Mapping):
        kept = [column for column in others if is_number(available[column])]
    elif keep != KEEP_ALL:
        names = [keep] if isinstance(keep, str) else keep
        for name in names:
            if name not in available:
                near = get_close_matches(name, available, n=1, cutoff=0.5)
                hint = f" (similar: {near[0]!r})" if near else ""
                raise ValueError(
                    f"there is no column {name!r} to keep{hint}. Choose from "
                    f"{', '.join(available)}"
                )
        kept = [column for column in others if column in names]
    left_out = tuple(column for column in others if column not in kept)
    return (*known, *kept), left_out


@dataclass(frozen=True, kw_only=True)
class FileTables:
    """Tables of a file, among which those of pulses and of truth are found.

    Args:
        tables: Tables by name.
        place: Name of the file for messages.
        wanted: Options of the user.
        keyed: Tables with one row per event, as far as known.
        recognise: Function that recognises a pulse map by columns.
    """

    tables: Mapping[str, Table]
    place: str
    wanted: Wanted
    keyed: Collection[str] = ()
    recognise: Callable[[Collection[str]], PulseMap | None] = recognise_pulse_map

    def find_pulses(self, *, several: bool = True) -> tuple[tuple[str, ...], PulseMap]:
        """Return the names of the tables of pulses, and the meaning of their columns.

        There are several only if the user names them and the format allows it.

        Raises:
            ValueError: Not exactly one table fits, or a named one is missing.
        """
        tables, place, wanted = self.tables, self.place, self.wanted
        maps = {n: wanted.read_as(t.types, self.recognise) for n, t in tables.items()}
        known = wanted.pulse_map
        if wanted.pulses is not None:
            names = wanted.pulse_tables
            fitting = [self._named(name, "pulses") for name in names]
            if not fitting or len({*fitting}) < len(fitting):
                raise ValueError(
                    f"{place}: each table of pulses must be named once, got {names}"
                )
            if len(fitting) > 1 and not several:
                raise ValueError(
                    f"{place}: files of this format need one table of pulses, got "
                    f"{', '.join(names)}. Name one"
                )
        else:
            fitting = [
                name
                for name, read_as in maps.items()
                if read_as and not (known and _missing(read_as, tables[name].types))
            ]
            if len(fitting) > 1:
                raise ValueError(
                    f"{place} has {len(fitting)} tables of pulses: "
                    f"{', '.join(fitting)}. Name one, or several to join: {_PULSES}"
                )
        if fitting:
            joined = join_tables([tables[name] for name in fitting])
            called = f"{place}, table {' and '.join(map(repr, fitting))}"
            pulse_map = wanted.read_as(joined.types, self.recognise)
            return tuple(fitting), settle_pulse_map(joined.types, pulse_map, called)
        what = "no named pulse map fits any of its tables"
        if known is not None:
            what = f"pulse map {known.name!r} fits none of its tables"
        raise ValueError(
            f"{place} has no table of pulses: {what} ({_with_columns(tables)}). Name "
            f"the table and the meaning of its columns: {_PULSES}, {_MEANING}"
        )

    def find_truth(self, pulse_map: PulseMap) -> str | None:
        """Return the name of the table of truth, or None if no truth is read.

        A table of results is truth only if the user names it.

        Raises:
            ValueError: Not exactly one table fits, or the named one is missing.
        """
        wanted = self.wanted.truth
        if wanted is False:
            return None
        if isinstance(wanted, str):
            return self._named(wanted, "truth")
        if wanted is not None:
            raise ValueError(
                f"truth must be the name of a table, False or None, got {wanted!r}"
            )
        others = {n: t for n, t in self.tables.items() if not are_results(t.types)}
        settled = settle_labels(pulse_map, [table.types for table in others.values()])
        fitting = [name for name, table in others.items() if has_angles(table, settled)]
        if len(fitting) == 1:
            return fitting[0]
        words = " and ".join(map(repr, angle_columns(pulse_map)))
        if fitting:
            raise ValueError(
                f"{self.place} has {len(fitting)} tables of truth, with columns "
                f"{words}: {', '.join(fitting)}. Name one: {_TRUTH}"
            )
        there = _with_columns(others) or "no other table"
        if results := [name for name in self.tables if name not in others]:
            there += f"; results are not used as truth: {', '.join(results)}"
        raise ValueError(
            f"{self.place} has no table of truth, with one row per event and columns "
            f"{words}; it has {there}. Name the table: {_TRUTH}, name the columns: "
            f"{ANGLES}, or leave truth out: {NO_TRUTH}"
        )

    def find_both(self) -> ChosenTables:
        """Return the tables of pulses and truth that an event column joins.

        Raises:
            ValueError: The tables are missing or ambiguous.
        """
        tables, wanted, event = self.tables, self.wanted, self.wanted.event_column
        with_event = {name: t for name, t in tables.items() if event in t.types}
        if not with_event:
            raise ValueError(
                f"{self.place} has no table with event column {event!r}; it has "
                f"{_with_columns(tables) or 'no table at all'}. Name the column: "
                f"{_EVENT}"
            )
        for name, table in tables.items():
            if name not in with_event and name in (*wanted.pulse_tables, wanted.truth):
                raise ValueError(
                    f"{self.place}, table {name!r} has no event column {event!r}; it "
                    f"has {', '.join(table.types)}. Name the column: {_EVENT}"
                )
        one_row = {name: t for name, t in with_event.items() if name in self.keyed}
        many = {name: t for name, t in with_event.items() if name not in one_row}
        among = self if wanted.pulses else replace(self, tables=many)
        names, pulse_map = among.find_pulses()
        settled = settle_labels(pulse_map, [table.types for table in one_row.values()])
        others = tables if wanted.truth else with_event
        if wanted.truth is None and any(
            has_angles(table, settled) and not are_results(table.types)
            for table in one_row.values()
        ):
            others = one_row
        others = {name: table for name, table in others.items() if name not in names}
        truth = replace(self, tables=others).find_truth(pulse_map)
        return ChosenTables(
            place=self.place,
            pulses=join_tables([tables[name] for name in names], pulse_map),
            truth=tables[truth] if truth else None,
            pulse_map=pulse_map,
            names=(*names, *([truth] if truth else [])),
        )

    def _named(self, name: str, argument: str) -> str:
        if name not in self.tables:
            raise ValueError(
                f"{self.place} has no table {name!r} for {argument}; it has "
                f"{', '.join(self.tables) or 'none'}"
            )
        return name


@dataclass(frozen=True, kw_only=True)
class ChosenTables:
    """Tables of a file that are read."""

    place: str  # name of the file for messages
    pulses: Table
    truth: Table | None
    pulse_map: PulseMap
    names: tuple[str, ...] = ()  # of all tables


def join_tables(tables: Sequence[Table], pulse_map: PulseMap | None = None) -> Table:
    """Return tables of pulses of the same events as one table."""
    if len(tables) == 1:
        return tables[0]
    return JoinedTable(tables=tuple(tables), time=pulse_map.time if pulse_map else "")


def same_pulse_map(files: Sequence[ChosenTables]) -> PulseMap:
    """Return the pulse map of all files; ValueError if two differ."""
    first = files[0]
    for file in files:
        if file.pulse_map != first.pulse_map:
            raise ValueError(
                f"{first.place} fits pulse map {first.pulse_map.name!r}, but "
                f"{file.place} fits {file.pulse_map.name!r}. Prepare them separately"
            )
    return first.pulse_map


def settle_labels(pulse_map: PulseMap, tables: Sequence[Collection[str]]) -> PulseMap:
    """Return a pulse map with the names of the angles in these tables."""
    other, labels = _OTHER_ANGLES.get(pulse_map.name), pulse_map.labels
    usual = pulse_map.name in NAMED_PULSE_MAPS
    if other is None or not usual or labels.azimuth in {c for t in tables for c in t}:
        return pulse_map
    own = PulseMap.by_name(pulse_map.name).labels
    if (own.azimuth, own.zenith) != (labels.azimuth, labels.zenith):
        return pulse_map
    if not any({*other} <= {*columns} for columns in tables):
        return pulse_map
    return pulse_map.with_columns({"azimuth": other[0], "zenith": other[1]})


def angle_columns(pulse_map: PulseMap) -> tuple[str, str]:
    """Return the columns of the truth's azimuth and zenith."""
    return pulse_map.labels.azimuth, pulse_map.labels.zenith


def has_angles(table: Table, pulse_map: PulseMap) -> bool:
    """Return whether a table has both angles."""
    return set(angle_columns(pulse_map)) <= set(table.types)


def check_tables(
    tables: Sequence[Table],
    columns: Sequence[str],
    pulse_map: PulseMap | None = None,
    key: str | None = None,
) -> None:
    """Check that tables can be read as one, before the conversion begins.

    Args:
        tables: The tables.
        columns: Columns to read.
        pulse_map: Meaning of the columns, for tables of pulses; their columns must be
            numbers.
        key: Event column; tables with one must have rows.

    Raises:
        ValueError: A column is missing or has another type, or a table is empty.
    """
    first = tables[0]
    known = pulse_map.columns() if pulse_map else {}
    for table in tables:
        for column in (key, *columns) if key else columns:
            if column not in table.types:
                raise ValueError(
                    f"{table.name} has no column {column!r}, which {first.name} has; "
                    f"it has {', '.join(table.types)}"
                )
            if pulse_map and not is_number(table.types[column]):
                raise ValueError(
                    f"{table.name}: column {column!r} must have numbers or booleans, "
                    f"found {table.types[column]}"
                )
        for column in columns:
            ours, theirs = (no_values(t.types[column]).dtype for t in (first, table))
            # The store has its own types for columns of the pulse map, but the time
            # origin is integer or float as in the file.
            same = ours == theirs or column in known
            if known.get(column) == TIME:
                same = (ours.kind == "f") == (theirs.kind == "f")
            if not same:
                raise ValueError(
                    f"column {column!r} must have one type, found {ours} in "
                    f"{first.name} and {theirs} in {table.name}"
                )
        if key and getattr(table, "num_rows", None) == 0:
            raise ValueError(f"{table.name} must have rows, found none")


def _with_columns(tables: Mapping[str, Table]) -> str:
    return "; ".join(
        f"{name}: {', '.join([*table.types][:8])}"
        f"{', ...' if len(table.types) > 8 else ''}"
        for name, table in tables.items()
    )
