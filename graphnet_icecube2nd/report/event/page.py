"""One event as an interactive HTML page that needs no network.

The page is `data/event_page.html` with its scripts, and the event as JSON from
`event_payload`. Shape letters: T pulses, S DOMs, P positions with pulses.
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
from numpy.typing import NDArray

from graphnet_icecube2nd.files import write_text
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.report.event.view import (
    Arrow,
    Words,
    energy_text,
    find_arrows,
    find_modules,
    has_hlc,
    inside_box,
    known_truth,
    lit_doms,
    read_event,
    time_range,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import OK
from graphnet_icecube2nd.store.event_store import EventStore, EventView

Array = NDArray[np.float64]

SCRIPTS = ("event_scene.js", "event_page.js", "event_controls.js")
# Units of the truth's columns; other columns are shown without a unit.
UNITS = {
    **dict.fromkeys(("position_x", "position_y", "position_z"), "m"),
    **dict.fromkeys(("vertex_time", "time_origin"), "ns"),
    **dict.fromkeys(("weight_atmospheric", "weight_astrophysical"), "Hz"),
    "generation_weight": "GeV cm2 sr",
    "track_length": "m",
    "light": "p.e.",
}
ENERGIES = ("energy", "visible_energy", "energy_track", "energy_cascade")  # GeV
MUON_ANGLES = ("muon_zenith", "muon_azimuth")  # of the origin, rad
# Length of arrows beyond the detector, in units of its diagonal.
_MARGIN = 0.1


def write_event_page(
    path: str | os.PathLike[str],
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> None:
    """Write an event of a store as an HTML page that needs no other file.

    Args:
        path: File to write; a failed call leaves no partial file.
        store: Event store.
        number: Row of the event in the store.
        tables: Results; tables that have the event are drawn. A direction has its cone
            of 50% probability: the table's `radius_50`, or else the radius of its
            kappa.
        with_auxiliary: Show auxiliary pulses (not HLC) at first; the page has a switch
            for them.

    Raises:
        ValueError: The store has no such event, the event has no pulses, or a radius is
            not between 0 and pi.
        OSError: The file cannot be written.
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
    """Return the HTML that `write_event_page` writes."""
    payload = event_payload(store, number, tables, with_auxiliary=with_auxiliary)
    # Without any `<`, a name such as `</script>` cannot end the script.
    data = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")
    folder = files("graphnet_icecube2nd.report.event") / "data"
    parts = {
        "title": html.escape(f"{payload['title']}, {payload['subtitle']}"),
        "payload": data,
        "scripts": "\n".join((folder / n).read_text("utf-8") for n in SCRIPTS),
        "module": payload["words"]["module"],
        "noise": payload["words"]["noise"],
    }
    template = (folder / "event_page.html").read_text("utf-8")
    # One pass: inserted text is not searched for placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def event_payload(
    store: EventStore,
    number: int,
    tables: Sequence[EventTable] = (),
    *,
    with_auxiliary: bool = False,
) -> dict[str, Any]:
    """Return the data of the page as plain values in m, ns, p.e. and deg.

    `detector` has x, y, z, string and dom (counted from 1 in the order of the table) of
    S DOMs, and `lines`, the two ends of each string. It is empty if the store does not
    know the detector. `words` are those of `Words`. `places` has x, y, z of P positions
    and their row in the detector, or -1. `pulses` has the T pulses in the order of
    time, with their place.
    """
    view, pulses = read_event(store, number)
    pulses = find_modules(store, pulses)
    words = Words.of(store, pulses)
    doms, only_hlc = lit_doms(store, pulses, with_auxiliary)
    arrows = find_arrows(store, view, tables, doms)
    place_P3, first_P, place_T = np.unique(
        pulses.position_T3, axis=0, return_index=True, return_inverse=True
    )
    dom_P = pulses.dom_T[first_P]
    detector: dict[str, Any] = {"name": ""}
    detector |= {key: [] for key in ("lines", "x", "y", "z", "string", "dom")}
    outline_P3 = place_P3
    # Pulses away from all DOMs belong to a detector whose table the store lacks.
    if (dom_P >= 0).any():
        detector = _detector(store)
        outline_P3 = np.concatenate([store.geometry.position_S3.numpy(), place_P3])
    order_T = np.argsort(pulses.time_T, kind="stable")
    can_choose = has_hlc(store) and bool(pulses.hlc_T.any())
    bright, _ = lit_doms(store, pulses, False)
    return {
        "title": f"event {view.event_id}",
        "subtitle": ", ".join(known_truth(view)) or f"{view.truth['n_pulses']} pulses",
        "truth": _truth_rows(store, view, pulses, words),
        "words": vars(words),
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
        # The range is the same with and without noise, so that a DOM keeps its colour.
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
    """Return positions as columns, rounded to centimetres."""
    columns = np.round(place_P3, 2).T
    return {axis: values.tolist() for axis, values in zip("xyz", columns, strict=True)}


def _arrow_rows(arrows: Sequence[Arrow], outline_P3: Array) -> list[dict[str, Any]]:
    """Return arrows as plain values; angles in deg, ends in m along the flight."""
    low, high = outline_P3.min(axis=0), outline_P3.max(axis=0)
    margin = _MARGIN * float(np.linalg.norm(high - low)) + 10.0
    rows = []
    for arrow in arrows:
        row = vars(arrow) | {
            "through": arrow.through.tolist(),
            "answers": list(arrow.answers),
            "vertex": None if arrow.vertex is None else arrow.vertex.tolist(),
        }
        if arrow.flight is not None:
            begin, end = inside_box(arrow, low - margin, high + margin)
            row |= {
                "flight": arrow.flight.tolist(),
                # A vertex may lie outside the detector; its arrow passes through it.
                "begin": min(begin, -margin),
                "end": max(end, margin),
            }
        for name in ("opening_angle", "radius_50"):
            row[name] = None if row[name] is None else math.degrees(row[name])
        rows.append(row)
    return rows


def _missing(event_id: int, tables: Sequence[EventTable]) -> list[list[str]]:
    """Return name and reason of tables that have the event but no result for it."""
    rows = [(t, np.flatnonzero(t.event_id == event_id)) for t in tables]
    return [
        [table.name, str(table.status_B[row[0]])]
        for table, row in rows
        if len(row) and table.status_B[row[0]] != OK
    ]


def _truth_rows(
    store: EventStore, view: EventView, pulses: EventPulses, words: Words
) -> list[list[str]]:
    """Return the rows of the event's table: name, and value with its unit."""
    num_doms = len(np.unique(pulses.position_T3, axis=0))
    rows = [["event_id", str(view.event_id)], ["pulses", str(len(pulses.time_T))]]
    if has_hlc(store):
        rows.append([f"{words.flag} pulses", str(int(pulses.hlc_T.sum()))])
    rows.append([f"{words.module}s with pulses", str(num_doms)])
    if store.pulse_map.charge is not None:
        rows.append(["charge", words.amount(float(pulses.charge_T.sum()))])
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
        elif name in MUON_ANGLES:
            text = f"{math.degrees(value):.2f} deg"
        elif isinstance(value, float):
            text = f"{value:.6g} {UNITS.get(name, '')}".strip()
        else:
            text = str(value).replace("_", " ")
        rows.append([name.replace("_", " "), text])
    return rows
