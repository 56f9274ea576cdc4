"""Outliers: events with next to no light, and events of which a model is least sure.

A false trigger is found by a rule on HLC pulses and charge, or on pulses if nothing
else is known. Doubt is what a results table says of itself: the lowest kappas and the
widest widths. Both are listed; the events can be left out of an evaluation. Shape
letters: B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.evaluation.event_quantities import (
    HLC_CHARGE,
    N_HLC,
    TOTAL_CHARGE,
)
from graphnet_icecube2nd.evaluation.rows import Row
from graphnet_icecube2nd.results.event_table import KAPPA, EventTable
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.store.manifest import N_PULSES
from graphnet_icecube2nd.tasks.label import has_label
from graphnet_icecube2nd.tasks.section import Section

DOUBT = 0.01  # default share of the events of which a table is least sure
# A false trigger has fewer than this; the charge is that of HLC pulses, p.e.
FEWEST_PULSES = {N_HLC: 4.0, HLC_CHARGE: 2.0, TOTAL_CHARGE: 2.0, N_PULSES: 4.0}
UNITS = {HLC_CHARGE: " p.e.", TOTAL_CHARGE: " p.e."}
SIGMA = "_sigma"  # end of the names of widths
MOST_SHOWN = 100  # rows on the page; the table has all

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outliers:
    """Outliers among the events of a truth.

    Args:
        rows: Row for each event and reason: event_id, reason, quantity, value, table
            (empty for false triggers), and the opening angle, deg, if it is known.
        event_id: Event numbers of all outliers, each once, ascending.
        num_false: Number of false triggers.
        num_doubtful: Number of events of which a table is least sure.
        num_events: Number of events that were looked at.
        share: Share of the events for each kappa or width.
    """

    rows: Sequence[Row]
    event_id: NDArray[np.int64]
    num_false: int
    num_doubtful: int
    num_events: int
    share: float

    @property
    def text(self) -> str:
        """A sentence with the numbers of outliers."""
        return (
            f"{self.num_false:,} false triggers and {self.num_doubtful:,} doubtful "
            f"results among {self.num_events:,} events"
        )


def find_outliers(
    tables: Sequence[EventTable],
    truth: EventTruth,
    quantities: Mapping[str, Array] | None = None,
    share: float = DOUBT,
) -> Outliers:
    """Find false triggers and doubtful results among the events of a truth.

    Args:
        tables: Results tables.
        truth: Truth of events; those that are in no table are left out.
        quantities: Quantities of the truth's events, (B,) each, as `event_quantities`
            returns them; default: only the numbers of pulses, if they are known.
        share: Share of the events that are listed for each kappa (the lowest) and each
            width (the widest) of a table; 0: none.

    Raises:
        ValueError: The share is not from 0 to 1, exclusive.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of outliers must be 0 to 1, found {share:g}")
    seen_B = np.zeros(len(truth), bool)
    for table in tables:
        seen_B |= np.isin(truth.event_id, table.event_id)
    events = truth.of_events(truth.event_id[seen_B])
    known = {n: v[seen_B] for n, v in (quantities or {}).items()}
    if N_PULSES not in known and events.knows_pulses:
        known[N_PULSES] = events.n_pulses_B.astype(np.float64)
    rows = _false_triggers(events, known)
    false = {row["event_id"] for row in rows}
    for table in tables:
        rows += _doubtful(table, events, share)
    found = np.array(sorted({row["event_id"] for row in rows}), np.int64)
    return Outliers(
        rows=rows,
        event_id=found,
        num_false=len(false),
        num_doubtful=len({row["event_id"] for row in rows if row["table"]}),
        num_events=len(events),
        share=share,
    )


def _false_triggers(events: EventTruth, known: Mapping[str, Array]) -> list[Row]:
    """Return a row for each false trigger, with the first rule that it breaks."""
    rules = [N_HLC, HLC_CHARGE] if N_HLC in known else [N_PULSES, TOTAL_CHARGE]
    rows: dict[int, Row] = {}
    for name in (name for name in rules if name in known):
        for row in np.flatnonzero(known[name] < FEWEST_PULSES[name]):
            event, value = int(events.event_id[row]), float(known[name][row])
            least = f"{FEWEST_PULSES[name]:g}{UNITS.get(name, '')}"
            reason = f"false trigger: below {least}"
            rows.setdefault(event, _row(event, reason, name, value, ""))
    return list(rows.values())


def _doubtful(table: EventTable, events: EventTruth, share: float) -> list[Row]:
    """Return a row for each event with one of the lowest kappas or widest widths."""
    shared_B = np.isin(events.event_id, table.event_id)
    some = events.of_events(events.event_id[shared_B])
    mine = table.of_events(some.event_id)
    angle_B = np.full(len(some), np.nan)
    if table.has_direction and has_label(some.direction_B3).any():
        angle_B = np.degrees(some.angles(mine))
    rows = []
    names = [n for task in table.tasks for n in table.task_columns(task)]
    for name in (n for n in names if n == KAPPA or n.endswith(SIGMA)):
        value_B = mine.columns[name].astype(np.float64)
        doubt_B = np.where(np.isfinite(value_B), value_B, np.nan)
        doubt_B = -doubt_B if name == KAPPA else doubt_B
        good = np.flatnonzero(np.isfinite(doubt_B))
        worst = good[np.argsort(-doubt_B[good], kind="stable")]
        reason = "lowest kappa" if name == KAPPA else "widest width"
        for row in worst[: int(share * len(good))]:
            event = int(some.event_id[row])
            rows.append(
                _row(event, reason, name, float(value_B[row]), table.name)
                | {"opening_angle_deg": float(angle_B[row])}
            )
    return rows


def _row(event: int, reason: str, name: str, value: float, table: str) -> Row:
    row: Row = {"event_id": event, "table": table, "reason": reason}
    return row | {"quantity": name, "value": value, "opening_angle_deg": float("nan")}


def outlier_section(outliers: Outliers, left_out: bool) -> Section:
    """Return the section of the report; `left_out` says whether they are."""
    few, charge = FEWEST_PULSES[N_HLC], FEWEST_PULSES[HLC_CHARGE]
    return Section(
        task="outliers",
        table="outliers",
        title="Outliers",
        text=f"{outliers.text}. "
        + ("They are left out of all figures. " if left_out else "")
        + f"A false trigger has fewer than {few:g} HLC pulses, or HLC pulses of less "
        f"than {charge:g} p.e.; if HLC is not known, the same of all pulses. Doubtful "
        f"are the {outliers.share:.2%} of a table's events with the lowest kappa, and "
        "those with the widest predicted width of each task. The page lists the first "
        f"{MOST_SHOWN}, the table outliers.csv all.",
        rows=outliers.rows,
        most_shown=MOST_SHOWN,
    )
