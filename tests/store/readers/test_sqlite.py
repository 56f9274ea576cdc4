"""GraphNeT's SQLite files into a store, and what is said of those that cannot be."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphnet_icecube2nd.detector.pulse_map import PulseMap
from graphnet_icecube2nd.events.events import TIE_BREAKERS
from graphnet_icecube2nd.store.conversion import convert
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.readers.source import EventChunk, Source
from graphnet_icecube2nd.store.readers.sqlite import sqlite_source

pytest.importorskip("pyarrow")

PULSES = ("dom_x", "dom_y", "dom_z", "dom_time", "charge", "hlc", "rde")
KEPT = ("width", "pmt_number", "event_no")
TRUTH = ("event_no", "azimuth", "zenith", "energy", "pid", "kind")
Rows = list[tuple[Any, ...]]


def pulse_rows(event: int, num_pulses: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng([seed, event + 2**41])
    return [
        (
            *np.round(rng.uniform(-500, 500, 3), 2).tolist(),
            10_000.0 + 10 * row,
            float(rng.gamma(2.0, 0.6) + 0.05),
            int(rng.random() < 0.4),
            float(rng.choice([1.0, 1.35])),
            float(rng.random()),
            int(rng.integers(0, 24)),
            event,
        )
        for row in range(num_pulses)
    ]


def truth_row(event: int) -> tuple[Any, ...]:
    return (event, 0.1 + event % 6, 0.2 + event % 2, 10.0 * event, 14, "genie")


def create(
    connection: sqlite3.Connection,
    name: str,
    columns: Sequence[str],
    rows: Rows,
    key: str | None = None,
) -> None:
    """A table as GraphNeT declares it: of no type, but for the key."""
    declared = [
        f"{c} INTEGER PRIMARY KEY NOT NULL" if c == key else f"{c}" for c in columns
    ]
    connection.execute(f"CREATE TABLE {name} ({', '.join(declared)})")
    places = ", ".join("?" for _ in columns)
    connection.executemany(f"INSERT INTO {name} VALUES ({places})", rows)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    def make(
        lengths: dict[int, int],
        *,
        name: str = "events.db",
        truth: Rows | None = None,
        pulses: Rows | None = None,
        index: bool = True,
    ) -> Path:
        path = tmp_path / name
        if pulses is None:
            pulses = [row for item in lengths.items() for row in pulse_rows(*item)]
        if truth is None:
            truth = [truth_row(event) for event in lengths]
        connection = sqlite3.connect(path)
        with connection:
            create(connection, "pulses", (*PULSES, *KEPT), pulses)
            create(connection, "truth", TRUTH, truth, key="event_no")
            if index:
                connection.execute("CREATE INDEX event_no_pulses ON pulses (event_no)")
        connection.close()
        return path

    return make


def change(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return path


def chunks_of(source: Source, max_pulses: int = 2**20) -> list[EventChunk]:
    return [chunk for part in source.parts for chunk in part.chunks(max_pulses)]


def joined(source: Source, max_pulses: int = 2**20) -> dict[str, Any]:
    """All events of a source: event_id, lengths, and columns by name."""
    chunks = chunks_of(source, max_pulses)
    return {
        "event_id": np.concatenate([c.event_id for c in chunks]),
        "lengths": np.concatenate([np.diff(c.offsets) for c in chunks]),
        "pulses": {
            name: np.concatenate([c.columns[name] for c in chunks])
            for name in source.pulse_columns
        },
        "truth": {
            name: np.concatenate([c.truth[name] for c in chunks])
            for name in chunks[0].truth
        },
    }


def test_a_graphnet_file(make_file: Callable[..., Path]) -> None:
    source = sqlite_source(make_file({7: 2, 3: 1, 5: 4}))
    assert source.kind == "graphnet-sqlite"
    assert source.pulse_map == PulseMap.icecube86()
    assert source.pulse_columns == PULSES
    assert source.left_out == ("width", "pmt_number")
    assert source.notes == ()
    (part,) = source.parts
    assert part.name.endswith("events.db")
    found = joined(source)
    assert found["event_id"].tolist() == [3, 5, 7]
    assert found["lengths"].tolist() == [1, 4, 2]
    rows = pulse_rows(3, 1) + pulse_rows(5, 4) + pulse_rows(7, 2)
    for column, values in zip(PULSES, zip(*rows, strict=True), strict=False):
        np.testing.assert_array_equal(found["pulses"][column], values)
        assert found["pulses"][column].dtype == np.float64
    assert found["truth"].keys() == set(TRUTH) - {"event_no"}
    assert found["truth"]["energy"].tolist() == [30.0, 50.0, 70.0]
    assert found["truth"]["pid"].dtype == np.int64
    assert found["truth"]["kind"].tolist() == ["genie"] * 3


def test_keep_and_types_over_the_whole_table(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2, 2: 2})
    source = sqlite_source(path, keep="all")
    assert source.pulse_columns == (*PULSES, "width", "pmt_number")
    found = joined(source)
    assert found["pulses"]["pmt_number"].dtype == np.int64
    change(path, "UPDATE pulses SET pmt_number = 0.5 WHERE event_no = 2")
    change(path, "UPDATE truth SET pid = 0.5 WHERE event_no = 2")
    source = sqlite_source(path, keep=("pmt_number",), events_per_part=1)
    assert source.pulse_columns == (*PULSES, "pmt_number")
    assert source.left_out == ("width",)
    for part in source.parts:
        for chunk in part.chunks(100):
            assert chunk.columns["pmt_number"].dtype == np.float64
            assert chunk.truth["pid"].dtype == np.float64


def test_pulses_in_the_order_they_were_written(make_file: Callable[..., Path]) -> None:
    rows = pulse_rows(1, 3) + pulse_rows(2, 3)
    shuffled = [rows[i] for i in (4, 0, 2, 5, 1, 3)]
    for index in (True, False):
        path = make_file({1: 3, 2: 3}, pulses=shuffled, index=index, name=f"{index}.db")
        times = joined(sqlite_source(path))["pulses"]["dom_time"]
        expected = [rows[i][3] for i in (0, 2, 1, 4, 5, 3)]
        assert times.tolist() == expected


def test_truth_without_pulses_is_an_event(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2, 2: 0, 4: 1, 9: 0})
    source = sqlite_source(path)
    (chunk,) = chunks_of(source)
    assert chunk.event_id.tolist() == [1, 2, 4, 9]
    assert np.diff(chunk.offsets).tolist() == [2, 0, 1, 0]
    assert "2 events (2, 9)" in chunk.notes[0]
    assert "0 pulses" in chunk.notes[0]


def test_pulses_without_truth(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2, 3: 1, 5: 1, 8: 2})
    change(path, "DELETE FROM truth WHERE event_no IN (1, 8)")
    with pytest.raises(ValueError, match=r"2 events \(1, 8\).*truth=False"):
        chunks_of(sqlite_source(path))
    # also where the range of a part begins or ends with them
    with pytest.raises(ValueError, match=r"lacks event 1.*truth=False"):
        chunks_of(sqlite_source(path, events_per_part=1))
    source = sqlite_source(path, truth=False, events_per_part=3)
    found = joined(source)
    assert found["event_id"].tolist() == [1, 3, 5, 8]
    assert found["truth"] == {}
    assert len(source.parts) == 2


@given(
    lengths=st.dictionaries(
        st.integers(-(2**40), 2**40), st.integers(0, 6), min_size=1, max_size=12
    ),
    events_per_part=st.integers(1, 5),
    max_pulses=st.integers(1, 9),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_parts_and_chunks_change_nothing(
    make_file: Callable[..., Path],
    lengths: dict[int, int],
    events_per_part: int,
    max_pulses: int,
) -> None:
    path = make_file(lengths, name="hypothesis.db")
    whole = joined(sqlite_source(path, keep="all"))
    source = sqlite_source(path, keep="all", events_per_part=events_per_part)
    assert len(source.parts) == -(-len(lengths) // events_per_part)
    cut = joined(source, max_pulses)
    for chunk in chunks_of(source, max_pulses):
        assert chunk.offsets[-1] <= max_pulses or len(chunk.event_id) == 1
    path.unlink()
    assert whole["event_id"].tolist() == sorted(lengths)
    assert whole["lengths"].tolist() == [lengths[e] for e in sorted(lengths)]
    for kind in ("pulses", "truth"):
        for name, values in whole[kind].items():
            np.testing.assert_array_equal(values, cut[kind][name])
    np.testing.assert_array_equal(whole["event_id"], cut["event_id"])
    np.testing.assert_array_equal(whole["lengths"], cut["lengths"])


def test_names_of_parts(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2, 2: 1, 3: 1})
    parts = sqlite_source(path, events_per_part=2).parts
    names = [part.name for part in parts]
    assert names == [f"{path} (part 1 of 2)", f"{path} (part 2 of 2)"]
    assert parts[0].fingerprint() != parts[1].fingerprint()


@pytest.mark.slow
def test_conversion_in_processes(
    make_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_file({event: event % 4 for event in range(12)})
    source = sqlite_source(path, events_per_part=4, keep="all")
    manifest = convert(source, tmp_path / "store", workers=2)
    assert (manifest.num_events, manifest.num_empty) == (12, 3)
    store = EventStore(tmp_path / "store")
    ids = [shard.events.column("event_id") for shard in store.shards]
    assert np.concatenate(ids).tolist() == list(range(12))
    assert store.shards[0].events.column("kind")[0] == "genie"


def test_several_files(make_file: Callable[..., Path], tmp_path: Path) -> None:
    a = make_file({1: 2, 2: 1}, name="a.db")
    b = make_file({2: 3, 7: 0}, name="b.db")
    for paths in ([b, a], [str(b), a]):
        found = joined(sqlite_source(paths))
        assert found["event_id"].tolist() == [2, 7, 1, 2]
    for paths in (tmp_path, [tmp_path]):
        assert joined(sqlite_source(paths))["event_id"].tolist() == [1, 2, 2, 7]
    with pytest.raises(ValueError, match=r"event 2 is in.*a\.db.*b\.db"):
        convert(sqlite_source(tmp_path), tmp_path / "store", workers=1)
    source = sqlite_source([a, b], duplicates="renumber", events_per_part=1)
    found = joined(source)
    assert found["event_id"].tolist() == [0, 1, 2, 3]
    assert found["truth"]["event_no"].tolist() == [1, 2, 2, 7]
    assert found["truth"]["source_file"].tolist() == [0, 0, 1, 1]
    assert f"source_file 1 is {b}" in source.notes
    manifest = convert(source, tmp_path / "store2", workers=1)
    assert manifest.num_events == 4
    # without truth the numbers are kept all the same
    found = joined(sqlite_source([a, b], duplicates="renumber", truth=False))
    assert found["event_id"].tolist() == [0, 1, 2]
    assert found["truth"]["event_no"].tolist() == [1, 2, 2]


def test_files_that_do_not_agree(make_file: Callable[..., Path]) -> None:
    a = make_file({1: 2}, name="a.db")
    b = make_file({2: 2}, name="b.db")
    change(b, "ALTER TABLE truth ADD COLUMN more DEFAULT 1")
    with pytest.raises(ValueError, match=r"a\.db.* no column 'more', which .*b\.db"):
        sqlite_source([a, b])
    b = change(make_file({2: 2}, name="c.db"), "ALTER TABLE pulses DROP COLUMN width")
    with pytest.raises(
        ValueError, match=r"c\.db, table 'pulses' has no column 'width'"
    ):
        sqlite_source([a, b], keep="all")
    assert len(sqlite_source([a, b]).parts) == 2
    # one type for all files
    d = make_file({4: 1}, name="d.db")
    change(d, "UPDATE pulses SET pmt_number = 0.5")
    for chunk in chunks_of(sqlite_source([a, d], keep="all")):
        assert chunk.columns["pmt_number"].dtype == np.float64
    change(d, "UPDATE truth SET energy = 'much'")
    with pytest.raises(
        ValueError, match=r"d\.db, table 'truth': column 'energy' .*text"
    ):
        sqlite_source([a, d])
    with pytest.raises(ValueError, match="at least one file"):
        sqlite_source([])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE pulses SET dom_x = 'left' WHERE event_no = 2",
            "table 'pulses', event 2: column 'dom_x' must have only double",
        ),
        (
            "UPDATE truth SET zenith = 9e999 WHERE event_no = 2",
            "table 'truth', event 2: angle 'zenith' must be finite, found inf",
        ),
        (
            "UPDATE truth SET pid = NULL WHERE event_no = 2",
            "table 'truth', event 2: column 'pid' must not be null",
        ),
        (
            "UPDATE truth SET kind = NULL WHERE event_no = 2",
            "table 'truth', event 2: column 'kind' must not be null",
        ),
        (
            "UPDATE truth SET pid = 'muon' WHERE event_no = 2",
            "table 'truth': column 'pid' must have only numbers or only",
        ),
        (
            "UPDATE truth SET kind = x'00' WHERE event_no = 2",
            "table 'truth': column 'kind' must have only numbers or only",
        ),
        (
            "UPDATE pulses SET event_no = NULL WHERE event_no = 2",
            "table 'pulses': event column 'event_no' must have integers, found NULL",
        ),
        (
            "UPDATE pulses SET event_no = 2.5 WHERE event_no = 2",
            "table 'pulses': event column 'event_no' must have integers, found 2.5",
        ),
        (
            "UPDATE pulses SET event_no = 'two' WHERE event_no = 2",
            "table 'pulses': event column 'event_no' must have integers, found 'two'",
        ),
    ],
)
def test_values_that_cannot_be(
    make_file: Callable[..., Path], statement: str, message: str
) -> None:
    path = change(make_file({1: 2, 2: 3, 3: 1}), statement)
    with pytest.raises(ValueError, match=str(path)) as caught:
        chunks_of(sqlite_source(path))
    assert message in str(caught.value)


def test_null_is_nan(make_file: Callable[..., Path]) -> None:
    """SQLite keeps NaN as NULL."""
    path = make_file({1: 2, 2: 3})
    change(path, "UPDATE truth SET energy = NULL WHERE event_no = 2")
    change(path, "UPDATE pulses SET charge = NULL WHERE event_no = 2")
    (chunk,) = chunks_of(sqlite_source(path))
    assert np.isnan(chunk.columns["charge"]).tolist() == [False] * 2 + [True] * 3
    np.testing.assert_array_equal(chunk.truth["energy"], [10.0, np.nan])
    assert "'energy' is null or NaN in 1 of 2 rows" in chunk.notes[0]


def test_types_that_change_late(make_file: Callable[..., Path]) -> None:
    """A column's type is not that of its first rows."""
    path = make_file({1: 70_000, 2: 5})
    change(path, "UPDATE pulses SET charge = 1, rde = 1 WHERE event_no = 1")
    change(path, "UPDATE pulses SET charge = 0.5, dom_x = 3 WHERE event_no = 2")
    source = sqlite_source(path, keep="all")
    found = joined(source)["pulses"]
    assert found["charge"].tolist() == [1.0] * 70_000 + [0.5] * 5
    assert found["dom_x"].tolist()[-5:] == [3.0] * 5
    assert found["charge"].dtype == found["rde"].dtype == np.float64
    # the file changes once its types are known
    change(path, "UPDATE pulses SET pmt_number = 0.5 WHERE event_no = 2")
    with pytest.raises(ValueError, match=r"event 2: column 'pmt_number' .* 0\.5"):
        chunks_of(source)
    change(path, "UPDATE pulses SET charge = x'00' WHERE event_no = 2")
    with pytest.raises(ValueError, match=r"event 2: column 'charge' .* b'.x00'"):
        chunks_of(sqlite_source(path))


def test_a_view_is_a_table(make_file: Callable[..., Path]) -> None:
    path = change(
        make_file({1: 3, 2: 2, 3: 1}),
        "CREATE VIEW clean AS SELECT * FROM pulses WHERE event_no < 3 AND dom_time > "
        "10000",
        "CREATE VIEW labels AS SELECT event_no, azimuth, zenith FROM truth",
    )
    # it is another's rows, so it is read only if it is named
    assert joined(sqlite_source(path))["lengths"].tolist() == [3, 2, 1]
    source = sqlite_source(path, pulses="clean", truth="labels")
    found = joined(source)
    assert found["lengths"].tolist() == [2, 1, 0]
    assert found["pulses"]["dom_time"].tolist() == [10_010.0, 10_020.0, 10_010.0]
    assert found["truth"].keys() == {"azimuth", "zenith"}
    change(path, "CREATE VIEW broken AS SELECT event_no, lost FROM pulses")
    assert joined(sqlite_source(path))["lengths"].tolist() == [3, 2, 1]


def test_text_among_the_pulses(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2})
    change(path, "UPDATE pulses SET width = 'wide'")
    source = sqlite_source(path, keep="all")
    assert "width" not in source.pulse_columns
    assert source.left_out == ("width",)
    assert "'width' is left out" in source.notes[0]
    with pytest.raises(ValueError, match=r"column 'width' .*string"):
        sqlite_source(path, keep=("width",))


def test_event_numbers_stored_as_reals(make_file: Callable[..., Path]) -> None:
    rows = [(*row[:-1], float(row[-1])) for e in (1, 2) for row in pulse_rows(e, 2)]
    (chunk,) = chunks_of(sqlite_source(make_file({1: 2, 2: 2}, pulses=rows)))
    assert chunk.event_id.tolist() == [1, 2]
    assert chunk.event_id.dtype == np.int64


def test_a_clock_of_integers_stays_one(tmp_path: Path) -> None:
    """Where times are made relative, integers are, before they are rounded."""
    path = tmp_path / "clock.db"
    start = 1_700_000_000_000_000_001
    connection = sqlite3.connect(path)
    with connection:
        columns = ("sensor_pos_x", "sensor_pos_y", "sensor_pos_z", "t", "event_no")
        rows: Rows = [(0.0, 1.0, 2.0, start + 7 * i, 4) for i in range(3)]
        create(connection, "total", columns, rows)
        truth = ("event_no", "injection_azimuth", "injection_zenith")
        create(connection, "mc_truth", truth, [(4, 1.0, 2.0)], key="event_no")
    connection.close()
    source = sqlite_source(path)
    assert source.pulse_map.name == "prometheus"
    (chunk,) = chunks_of(source)
    assert chunk.columns["t"].tolist() == [start, start + 7, start + 14]
    assert "no index on 'event_no'" in source.notes[0]
    assert "CREATE INDEX event_no_total" in source.notes[0]


def test_which_table(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2})
    change(
        path,
        "CREATE TABLE cleaned AS SELECT * FROM pulses",
        "CREATE TABLE retro (event_no INTEGER PRIMARY KEY, weight)",
        "CREATE TABLE other (a)",
    )
    with pytest.raises(ValueError, match="2 tables of pulses: pulses, cleaned"):
        sqlite_source(path)
    assert len(chunks_of(sqlite_source(path, pulses="cleaned"))) == 1
    with pytest.raises(ValueError, match=r"no table 'palses'.*pulses, truth, cleaned"):
        sqlite_source(path, pulses="palses")
    with pytest.raises(ValueError, match="no table 'trith' for truth"):
        sqlite_source(path, pulses="cleaned", truth="trith")
    with pytest.raises(ValueError, match="table 'other' has no event column"):
        sqlite_source(path, pulses="other")
    (chunk,) = chunks_of(
        sqlite_source(
            change(path, "INSERT INTO retro VALUES (1, 2.5)"),
            pulses="cleaned",
            truth="retro",
        )
    )
    assert chunk.truth["weight"].tolist() == [2.5]
    change(
        path,
        "CREATE TABLE more (event_no INTEGER PRIMARY KEY, azimuth, zenith)",
    )
    with pytest.raises(ValueError, match=r"2 tables of truth.*: truth, more"):
        sqlite_source(path, pulses="cleaned")
    change(path, "DROP TABLE more", "DROP TABLE truth")
    with pytest.raises(ValueError, match=r"no table of truth.*retro: event_no, weight"):
        sqlite_source(path, pulses="cleaned")
    change(path, "CREATE TABLE half AS SELECT event_no, 1.0 AS azimuth FROM cleaned")
    advice = r"half: event_no, azimuth.*--column zenith=\w+ .*--without-truth"
    with pytest.raises(ValueError, match=advice):
        sqlite_source(path, pulses="cleaned")
    change(path, "DROP TABLE half")
    with pytest.raises(
        ValueError, match=r"with event column 'event_id'.*event_column="
    ):
        sqlite_source(path, event_column="event_id")
    change(path, "DROP TABLE pulses", "DROP TABLE cleaned")
    with pytest.raises(ValueError, match="no table of pulses: no named pulse map fits"):
        sqlite_source(path)
    with pytest.raises(ValueError, match="name of a table"):
        sqlite_source(make_file({1: 2}, name="b.db"), truth=True)


def test_truth_without_a_key(make_file: Callable[..., Path]) -> None:
    """As pandas writes it; a table with the key goes first."""
    path = make_file({1: 2, 2: 1})
    change(path, "CREATE TABLE labels AS SELECT * FROM truth")
    (part,) = sqlite_source(path).parts
    assert part.fingerprint()["truth"]["tables"][0]["table"] == "truth"
    change(path, "DROP TABLE truth")
    (part,) = sqlite_source(path).parts
    assert part.fingerprint()["truth"]["tables"][0]["table"] == "labels"


def test_a_pulse_map_of_ones_own(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2})
    change(path, "ALTER TABLE pulses RENAME COLUMN dom_time TO hit_time")
    with pytest.raises(ValueError, match="no named pulse map"):
        sqlite_source(path, pulses="pulses")
    own = PulseMap.icecube86(name="own", time="hit_time", charge=None)
    source = sqlite_source(path, pulse_map=own)
    assert source.pulse_map == own
    assert "charge" in source.left_out
    with pytest.raises(ValueError, match="'icecube86' fits none of its tables"):
        sqlite_source(path, pulse_map=PulseMap.icecube86())
    with pytest.raises(ValueError, match="'icecube86' needs column dom_time"):
        sqlite_source(path, pulses="pulses", pulse_map=PulseMap.icecube86())


def test_truth_that_names_an_event_twice(make_file: Callable[..., Path]) -> None:
    path = change(
        make_file({1: 2, 2: 1}),
        "CREATE TABLE double AS SELECT * FROM truth",
        "INSERT INTO double SELECT * FROM truth WHERE event_no = 2",
    )
    with pytest.raises(
        ValueError, match=r"'double', row 2: .* event 2 is also in row 1"
    ):
        chunks_of(sqlite_source(path, truth="double"))


def test_columns_that_are_the_stores_own(make_file: Callable[..., Path]) -> None:
    path = change(make_file({1: 2}), "ALTER TABLE truth ADD COLUMN n_pulses DEFAULT 9")
    source = sqlite_source(path)
    (chunk,) = chunks_of(source)
    assert "n_pulses" not in chunk.truth
    assert "'n_pulses' is left out" in source.notes[0]


def test_renumbering_needs_its_names(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2})
    change(path, "ALTER TABLE truth ADD COLUMN source_file DEFAULT 0")
    with pytest.raises(ValueError, match="already has a column 'source_file'"):
        sqlite_source(path, duplicates="renumber")
    with pytest.raises(ValueError, match="duplicates must be one of error, renumber"):
        sqlite_source(path, duplicates="drop")
    with pytest.raises(ValueError, match="events_per_part must be 1 or more"):
        sqlite_source(path, events_per_part=0)


def test_other_names_and_a_table_without_rowid(tmp_path: Path) -> None:
    path = tmp_path / "odd name ?#%.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            'CREATE TABLE "my ""pulses""" (event_id, n, dom_x, dom_y, dom_z, dom_time, '
            "charge, hlc, rde, PRIMARY KEY (event_id, n)) WITHOUT ROWID"
        )
        rows = [(4, n, 0.0, 0.0, 0.0, 100.0 - n, 1.0, 1, 1.0) for n in (2, 0, 1)]
        connection.executemany(
            'INSERT INTO "my ""pulses""" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)', rows
        )
        columns = ("event_id", "azimuth", "zenith")
        create(connection, "labels", columns, [(4, 1.0, 2.0)], key="event_id")
    connection.close()
    source = sqlite_source(path, event_column="event_id")
    (chunk,) = chunks_of(source)
    assert chunk.event_id.tolist() == [4]
    assert chunk.columns["dom_time"].tolist() == [100.0, 99.0, 98.0]
    assert source.notes == ()
    found = joined(sqlite_source(path, event_column="event_id", duplicates="renumber"))
    assert found["truth"]["event_no"].tolist() == [4]


def test_files_that_are_none(make_file: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.db"):
        sqlite_source(tmp_path / "nothing.db")
    with pytest.raises(ValueError, match=r"no file that ends in \.db"):
        sqlite_source(tmp_path)
    path = make_file({event: 40 for event in range(60)})
    content = path.read_bytes()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(ValueError, match=r"damaged\.db cannot be read as SQLite"):
        chunks_of(sqlite_source(damaged))
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(ValueError, match=r"empty\.db has no table.*no table at all"):
        sqlite_source(empty)


def test_the_file_is_not_written_to(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2, 2: 3}, index=False)
    path.chmod(0o444)
    before = path.read_bytes(), path.stat().st_mtime_ns
    chunks_of(sqlite_source(path, keep="all"))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_with_a_write_ahead_log(make_file: Callable[..., Path]) -> None:
    path = make_file({1: 2})
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute("UPDATE pulses SET charge = 7")
    # what the log holds is read, and seen in the fingerprint
    source = sqlite_source(path)
    before = source.parts[0].fingerprint()
    assert chunks_of(source)[0].columns["charge"].tolist() == [7.0, 7.0]
    with connection:
        connection.execute("UPDATE pulses SET charge = 8")
    assert source.parts[0].fingerprint() != before
    connection.close()  # and the log is gone
    assert chunks_of(sqlite_source(path))[0].columns["charge"].tolist() == [8.0, 8.0]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_without_events(make_file: Callable[..., Path], tmp_path: Path) -> None:
    source = sqlite_source(make_file({}))
    assert chunks_of(source) == []
    with pytest.raises(ValueError, match="at least one event"):
        convert(source, tmp_path / "store", workers=1)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "pulses", "truth", "num_events"),
    [
        ("oscNext", "SRTInIcePulses", "truth", 5),
        ("upgrade", "SplitInIcePulses", "truth", 5),
        ("prometheus", "total", "mc_truth", 50),
    ],
)
def test_real_files(
    shared_dir: Path,
    tmp_path: Path,
    name: str,
    pulses: str,
    truth: str,
    num_events: int,
) -> None:
    folder = shared_dir / "data" / "graphnet" / "data"
    (path,) = [file for file in folder.rglob("*.db") if name in file.name]
    pulse_map = PulseMap.prometheus(angles="origin") if name == "prometheus" else None
    source = sqlite_source(path, pulse_map=pulse_map, keep="all", events_per_part=7)
    assert source.left_out == ()
    manifest = convert(source, tmp_path / "store", workers=1)
    assert manifest.num_events == num_events
    store = EventStore(tmp_path / "store")
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    known = source.pulse_map.columns()
    by = {quantity: column for column, quantity in known.items()}
    settled = ("time", *reversed(TIE_BREAKERS))
    order = [by[q] for q in settled if by.get(q) in source.pulse_columns]
    for shard in store.shards:
        events, stored = shard.events, shard.pulses
        for index, event in enumerate(events.column("event_id").tolist()):
            (row,) = connection.execute(
                f"SELECT * FROM {truth} WHERE event_no = ?", [event]
            )
            for column in store.truth_columns:
                assert events.column(column)[index] == row[column], column
            rows = connection.execute(
                f"SELECT * FROM {pulses} WHERE event_no = ? ORDER BY rowid", [event]
            ).fetchall()
            # The order of the store: time, then what a pulse is.
            rows.sort(key=lambda row: tuple(row[column] for column in order))
            first = events.column("first_pulse")[index]
            inside = slice(first, first + events.column("n_pulses")[index])
            for column in source.pulse_columns:
                expected = np.array([row[column] for row in rows])
                found = stored.column(column)[inside]
                if column == source.pulse_map.time and "time_origin" in events.names:
                    expected = expected - expected.min()
                if column in known:
                    expected = expected.astype(found.dtype)
                np.testing.assert_array_equal(found, expected)
    connection.close()
