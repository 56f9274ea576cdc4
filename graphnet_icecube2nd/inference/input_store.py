"""The store behind an input: itself, or one made of files for the time being."""

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

# How files are read: what `prepare` calls its arguments, but for `format`, which is
# that of the results where events are reconstructed.
READING = (
    "input_format",
    "detector",
    "pulse_map",
    "columns",
    "pulses_table",
    "truth_table",
    "offsets_table",
    "event_column",
    "keep",
    "batches",
    "which",
    "duplicates",
    "drop_bad_pulses",
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
    """Give the store of events to reconstruct, made of files where they are none.

    Files are converted once, beside the results `out`, which the caller holds
    (`only_writer`). At the end the conversion is removed. After an error it stays: the
    next call takes it for the very same files and options. Truth is not read, but for
    the events of a `truth_table` that is named. An event with a bad pulse has no pulses
    there, and the reason in its `pulse_fault`.

    Args:
        events: A store or its path, or the path of what `prepare` reads.
        out: The file of results; None converts into a temporary folder.
        reading: Values by `READING`; what is None or False is not given.

    Raises:
        FileNotFoundError: There is no such input.
        ValueError: Options with a store, which has its own; and as `prepare`.
    """
    given = {n: v for n, v in reading.items() if v is not None and v is not False}
    is_store = isinstance(events, EventStore) or (Path(events) / MANIFEST).is_file()
    if is_store and given:
        raise ValueError(
            f"{events.path if isinstance(events, EventStore) else events} is a store, "
            f"which was read already: {', '.join(given)} can be chosen only for files "
            "that are read"
        )
    if isinstance(events, EventStore):
        yield events
    elif is_store:
        yield EventStore(events)
    elif not Path(events).exists():
        raise FileNotFoundError(f"there is no {events}")
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


def _plan(events: Path, given: Mapping[str, Any]) -> list[Any]:
    """Return all that a conversion depends on, as JSON has it."""
    files = [events]
    if events.is_dir():  # without what this call keeps there, if `out` lies within
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
    """Return the store of files, which an earlier call may have made."""
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
