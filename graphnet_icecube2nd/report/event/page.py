"""One event as a page: an HTML file to turn, zoom and play, which needs no network.

`data/event_page.html` with the scripts beside it and the event as JSON in it: what is
shown is theirs, what the numbers are is `event_payload`'s.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from graphnet_icecube2nd.files import write_whole
from graphnet_icecube2nd.report.event.payload import event_payload
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.store.event_store import EventStore

SCRIPTS = ("event_scene.js", "event_page.js", "event_controls.js")


def write_event_page(
    path: str | os.PathLike[str],
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> None:
    """Write `event_page` whole or not at all.

    Raises:
        ValueError: As `event_page`.
        OSError: It cannot be written.
    """
    text = event_page(store, number, tables, with_auxiliary=with_auxiliary)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def event_page(
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> str:
    """Return an event of a store as an HTML page that needs nothing else.

    Args:
        store: The store.
        number: The event's place in it.
        tables: Reconstructed directions; those that have the event are drawn, each
            with the cone that holds half of the probability: the table's `radius_50`,
            else that of its kappa.
        with_auxiliary: Begin with pulses that are not HLC shown, too; the page has a
            switch for them.

    Raises:
        ValueError: No such event, or one without pulses; a radius that is not from 0
            to pi.
    """
    payload = event_payload(store, number, tables, with_auxiliary=with_auxiliary)
    # A name that holds `</script>` must stay a name: no `<` gets into the page.
    data = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")
    folder = files("graphnet_icecube2nd.report.event") / "data"
    parts = {
        "title": html.escape(f"{payload['title']}, {payload['subtitle']}"),
        "payload": data,
        "scripts": "\n".join((folder / n).read_text("utf-8") for n in SCRIPTS),
    }
    template = (folder / "event_page.html").read_text("utf-8")
    # In one pass, so that what was put in is not looked through for places again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
