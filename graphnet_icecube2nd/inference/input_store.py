"""The event store of an input: the input itself, or a temporary conversion of files."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graphnet_icecube2nd.files import holds_json, write_json
from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.preparation import prepare

LOGGER = logging.getLogger(__name__)

# Options of reading files: arguments of `prepare`; its `format` is `input_format` here,
# because the `format` of a reconstruction is that of the results.
READING = (
    "input_format",
    "detector",
    "pulse_map",
    "columns",
    "clock",
    "pulses_table",
    "truth_table",
    "offsets_table",
    "event_column",
    "keep",
    "batches",
    "which",
    "duplicates",
    "event_list",
    "photons",
    "drop_bad_pulses",
    "triggered_hits",
    "geometry",
    "ice",
    "workers",
)


@contextmanager
def input_store(
    events: str | os.PathLike[str] | EventStore,
    out: str | os.PathLike[str] | None,
    reading: Mapping[str, Any],
) -> Iterator[EventStore]:
    """Yield the store of the events to reconstruct; files are converted to one.

    The conversion is beside the results `out`, for which the caller has the lock
    (`only_writer`), and is removed at the end. After an error it stays, and the next
    call with the same files and options uses it. Truth is not read, except for the
    events of a named `truth_table`. An event with a bad pulse gets no pulses, and the
    reason in its `pulse_fault`.

    Args:
        events: A store or its path, or the path of files that `prepare` reads.
        out: The file of results; None converts to a temporary folder.
        reading: Options of reading files by name, see `READING` and `given_options`.

    Raises:
        FileNotFoundError: The input does not exist.
        ValueError: Options are given with a store, or `prepare` refuses the files.
    """
    given = given_options(reading)
    is_store = isinstance(events, EventStore) or (Path(events) / MANIFEST).is_file()
    if is_store and given:
        raise ValueError(
            f"{events.path if isinstance(events, EventStore) else events} is a store: "
            f"{', '.join(given)} can be given only with files. Leave out these options"
        )
    if isinstance(events, EventStore):
        yield events
    elif is_store:
        yield EventStore(events)
    elif not Path(events).exists():
        raise FileNotFoundError(f"{events} does not exist")
    elif out is None:
        with TemporaryDirectory() as folder:
            yield _converted(Path(events), Path(folder) / "store", given, None)
    else:
        out = Path(out)
        store = out.with_name(f".{out.name}.store")
        note = out.with_name(f".{out.name}.store.json")
        plan = _plan(Path(events), given)
        if not holds_json(note, plan):
            shutil.rmtree(store, ignore_errors=True)
        yield _converted(Path(events), store, given, lambda _: write_json(note, plan))
        shutil.rmtree(store, ignore_errors=True)
        note.unlink(missing_ok=True)


def given_options(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of reading that are given: neither None nor False."""
    return {n: v for n, v in reading.items() if v is not None and v is not False}


def _plan(events: Path, given: Mapping[str, Any]) -> list[Any]:
    """Return everything that a conversion depends on, as JSON values."""
    files = [events]
    if events.is_dir():  # without hidden files of this call, if `out` is in the folder
        files = [
            f
            for f in sorted(events.rglob("*"))
            if "/." not in f"/{f.relative_to(events)}"
        ]
    seen = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return [{name: str(value) for name, value in given.items()}, *seen]


def _converted(
    events: Path,
    store: Path,
    given: Mapping[str, Any],
    on_source: Callable[[Any], None] | None,
) -> EventStore:
    """Return the store of files, which may exist from an earlier call."""
    if not (store / MANIFEST).is_file():
        print_notices()
        LOGGER.info(f"reading {events} ...")
        options = dict(given)
        report = prepare(
            events,
            store,
            format=options.pop("input_format", None),
            with_truth="truth_table" in given,
            mark_bad_events="drop_bad_pulses" not in given,
            on_source=on_source,
            **options,
        )
        for text in report.notes:
            LOGGER.info(f"  {text}")
    return EventStore(store)
