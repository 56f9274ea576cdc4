"""The store behind an input: itself, or one made of files beside the results."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import MANIFEST, write_json
from graphnet_icecube2nd.store.preparation import prepare

LOGGER = logging.getLogger(__name__)


class InputStore:
    """A store of events to reconstruct, made of files where they are none.

    Files are converted once, beside the results, without their truth. A conversion
    that an earlier call has left is taken if it is of the very same files and options.

    Args:
        events: A store, or what `prepare` reads.
        out: The file of results, beside which the conversion lies.
        **options: Of `prepare`; None is as if it were not given.

    Raises:
        FileNotFoundError: There is no such input.
        ValueError: Options with a store, which has its own; and as `prepare`.
    """

    def __init__(
        self,
        events: str | os.PathLike[str],
        out: str | os.PathLike[str],
        **options: Any,
    ) -> None:
        events, out = Path(events), Path(out)
        given = {name: value for name, value in options.items() if value is not None}
        self._note = out.with_name(f".{out.name}.store.json")
        self.is_made = not (events / MANIFEST).is_file()
        if not self.is_made:
            if given:
                raise ValueError(
                    f"{events} is a store; {', '.join(given)} can be chosen only for "
                    "files that are read"
                )
            self.path = events
            return
        if not events.exists():
            raise FileNotFoundError(f"there is no {events}")
        self.path = out.with_name(f".{out.name}.store")
        files = [events] if events.is_file() else sorted(events.rglob("*"))
        seen = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
        plan = [{name: str(value) for name, value in given.items()}, *seen]
        if not self._is_of(plan):
            shutil.rmtree(self.path, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._note, plan)
        if not (self.path / MANIFEST).is_file():
            print_notices()
            LOGGER.info(f"reading {events} ...")
            report = prepare(events, self.path, with_truth=False, **given)
            for text in report.notes:
                LOGGER.info(f"  {text}")

    def open(self) -> EventStore:
        """Return the store."""
        return EventStore(self.path)

    def remove(self) -> None:
        """Remove the store where it was made here; a user's store stays."""
        if self.is_made:
            shutil.rmtree(self.path, ignore_errors=True)
            self._note.unlink(missing_ok=True)

    def _is_of(self, plan: list[Any]) -> bool:
        if not self._note.is_file():
            return False
        left: Any = json.loads(self._note.read_text(encoding="utf-8"))
        return bool(left == plan)
