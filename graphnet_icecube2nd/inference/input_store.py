"""The store behind an input: itself, or one made of files beside the results."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.files import holds_json, write_json
from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import MANIFEST
from graphnet_icecube2nd.store.preparation import prepare

LOGGER = logging.getLogger(__name__)


@contextmanager
def input_store(
    events: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any
) -> Iterator[EventStore]:
    """Give the store of events to reconstruct, made of files where they are none.

    Files are converted once, beside the results `out`, without their truth, with the
    options of `prepare` that are not None. At the end the conversion is removed. After
    an error it stays: the next call takes it for the very same files and options.

    Raises:
        FileNotFoundError: There is no such input.
        ValueError: Options with a store, which has its own; and as `prepare`.
    """
    events, out = Path(events), Path(out)
    given = {name: value for name, value in options.items() if value is not None}
    if (events / MANIFEST).is_file():
        if given:
            raise ValueError(
                f"{events} is a store; {', '.join(given)} can be chosen only for files "
                "that are read"
            )
        yield EventStore(events)
        return
    if not events.exists():
        raise FileNotFoundError(f"there is no {events}")
    store = out.with_name(f".{out.name}.store")
    note = out.with_name(f".{out.name}.store.json")
    files = [events] if events.is_file() else sorted(events.rglob("*"))
    seen = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    plan = [{name: str(value) for name, value in given.items()}, *seen]
    if not holds_json(note, plan):
        shutil.rmtree(store, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, plan)
    if not (store / MANIFEST).is_file():
        print_notices()
        LOGGER.info(f"reading {events} ...")
        report = prepare(events, store, with_truth=False, **given)
        for text in report.notes:
            LOGGER.info(f"  {text}")
    yield EventStore(store)
    shutil.rmtree(store, ignore_errors=True)
    note.unlink(missing_ok=True)
