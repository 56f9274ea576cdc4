"""One event as a page: an HTML file to turn, zoom and play, which needs no network.

`data/event_page.html` with the scripts beside it and the event as JSON in it: what is
shown is theirs, what the numbers are is `event_payload`'s.
Shape letters: T pulses, S DOMs, P places that saw light.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.files import write_text
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.report.event.view import (
    Arrow,
    energy_text,
    find_arrows,
    has_hlc,
    inside_box,
    known_truth,
    lit_doms,
    read_event,
    time_range,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.store.event_store import EventStore, EventView

Array = NDArray[np.float64]

SCRIPTS = ("event_scene.js", "event_page.js", "event_controls.js")
# What the truth's columns are measured in; others are shown as they are.
UNITS = {
    **dict.fromkeys(("position_x", "position_y", "position_z"), "m"),
    **dict.fromkeys(("vertex_time", "time_origin"), "ns"),
    "light": "p.e.",
}
ENERGIES = ("energy", "visible_energy")  # GeV
# Arrows reach so far beyond the detector, in units of its diagonal.
_MARGIN = 0.1


def write_event_page(
    path: str | os.PathLike[str],
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> None:
    """Write an event of a store as an HTML page that needs nothing else.

    Args:
        path: The file; it is written whole or not at all.
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
        OSError: It cannot be written.
    """
    page = event_page(store, number, tables, with_auxiliary=with_auxiliary)
    write_text(path, page)


def event_page(
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> str:
    """Return what `write_event_page` writes."""
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


def event_payload(
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> dict[str, Any]:
    """Return what the page knows, as plain values: m, ns, p.e., deg.

    `detector` has x, y, z, string and dom (from 1, down the table) of S DOMs, and
    `lines`, the two ends of each string; it is empty where the store does not know the
    detector. `places` has x, y, z of P places and their row in the detector, -1 for
    none; `pulses` are T in the order of time, with their place.
    """
    view, pulses = read_event(store, number)
    doms, only_hlc = lit_doms(store, pulses, with_auxiliary)
    arrows = find_arrows(store, view, tables, doms)
    place_P3, first_P, place_T = np.unique(
        pulses.position_T3, axis=0, return_index=True, return_inverse=True
    )
    dom_P = pulses.dom_T[first_P]
    if (dom_P < 0).any():
        dom_P = store.geometry.nearest_dom(torch.from_numpy(place_P3)).numpy()
    detector: dict[str, Any] = {"name": ""}
    detector |= {key: [] for key in ("lines", "x", "y", "z", "string", "dom")}
    outline_P3 = place_P3
    # Pulses beside the DOMs are of another detector, whose table the store lacks.
    if (dom_P >= 0).mean() > 0.5:
        detector = _detector(store)
        outline_P3 = np.concatenate([store.geometry.position_S3.numpy(), place_P3])
    else:
        dom_P = np.full(len(dom_P), -1)
    order_T = np.argsort(pulses.time_T, kind="stable")
    can_choose = has_hlc(store) and bool(pulses.hlc_T.any())
    bright, _ = lit_doms(store, pulses, False)
    return {
        "title": f"event {view.event_id}",
        "subtitle": ", ".join(known_truth(view)) or f"{view.truth['n_pulses']} pulses",
        "truth": _truth_rows(store, view, pulses),
        "detector": detector,
        "places": {**_axes(place_P3), "dom": dom_P.tolist()},
        "pulses": {
            "place": place_T.ravel()[order_T].tolist(),
            "time": np.round(pulses.time_T[order_T], 1).tolist(),
            "charge": np.round(pulses.charge_T[order_T], 3).tolist(),
            "hlc": pulses.hlc_T[order_T].astype(int).tolist(),
        },
        "can_choose_hlc": can_choose,
        "only_hlc": only_hlc,
        # The same with noise and without, so that a DOM keeps its colour.
        "time_range": [round(t, 1) for t in time_range(bright.time_T)],
        "arrows": _arrow_rows(arrows, outline_P3),
        "missing": _missing(view.event_id, tables),
    }


def _detector(store: EventStore) -> dict[str, Any]:
    geometry = store.geometry
    position_S3, string_S = geometry.position_S3.numpy(), geometry.string_S.numpy()
    dom_S = np.zeros(len(string_S), np.int64)
    lines = []
    for string in np.unique(string_S):
        rows = np.flatnonzero(string_S == string)
        dom_S[rows] = np.arange(1, len(rows) + 1)
        height = position_S3[rows, 2]
        lines.append([int(rows[height.argmin()]), int(rows[height.argmax()])])
    return {
        "name": geometry.name,
        **_axes(position_S3),
        "string": string_S.tolist(),
        "dom": dom_S.tolist(),
        "lines": lines,
    }


def _axes(place_P3: Array) -> dict[str, list[float]]:
    """Return places as columns, to the centimetre."""
    columns = np.round(place_P3, 2).T
    return {axis: values.tolist() for axis, values in zip("xyz", columns, strict=True)}


def _arrow_rows(arrows: Sequence[Arrow], outline_P3: Array) -> list[dict[str, Any]]:
    """Return arrows as plain values; angles in deg, ends in m along the flight."""
    low, high = outline_P3.min(axis=0), outline_P3.max(axis=0)
    margin = _MARGIN * float(np.linalg.norm(high - low)) + 10.0
    rows = []
    for arrow in arrows:
        begin, end = inside_box(arrow, low - margin, high + margin)
        row = vars(arrow) | {
            "flight": arrow.flight.tolist(),
            "through": arrow.through.tolist(),
            # A vertex may lie outside; its arrow goes through it all the same.
            "begin": min(begin, -margin),
            "end": max(end, margin),
        }
        for name in ("opening_angle", "radius_50"):
            row[name] = None if row[name] is None else math.degrees(row[name])
        rows.append(row)
    return rows


def _missing(event_id: int, tables: Sequence[EventTable]) -> list[list[str]]:
    """Return name and reason of the tables that have the event without a direction."""
    found = []
    for table in tables:
        row = np.flatnonzero(table.event_id == event_id)
        if len(row) and not table.is_ok[row[0]]:
            found.append([table.name, str(table.status_B[row[0]])])
    return found


def _truth_rows(
    store: EventStore, view: EventView, pulses: EventPulses
) -> list[list[str]]:
    """Return the table of the event: name and value with its unit."""
    num_doms = len(np.unique(pulses.position_T3, axis=0))
    rows = [["event_id", str(view.event_id)], ["pulses", str(len(pulses.time_T))]]
    if has_hlc(store):
        rows.append(["HLC pulses", str(int(pulses.hlc_T.sum()))])
    rows.append(["DOMs with pulses", str(num_doms)])
    rows.append(["charge", f"{pulses.charge_T.sum():.4g} p.e."])
    angles = (store.pulse_map.labels.zenith, store.pulse_map.labels.azimuth)
    for name, value in view.truth.items():
        if name in ("event_id", "n_pulses"):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            text = "not known"
        elif name in ENERGIES:
            text = energy_text(float(value))
        elif name in angles:
            of_flight = " (flight)" if store.pulse_map.labels.angles == "flight" else ""
            text = f"{math.degrees(value):.2f} deg{of_flight}"
        elif isinstance(value, float):
            text = f"{value:.6g} {UNITS.get(name, '')}".strip()
        else:
            text = str(value).replace("_", " ")
        rows.append([name.replace("_", " "), text])
    return rows
