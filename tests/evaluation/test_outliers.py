"""False triggers and doubtful results: found, listed, left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, EventTable, simulate
from graphnet_icecube2nd.evaluation.outliers import find_outliers
from graphnet_icecube2nd.results.truth import EventTruth

NUM = 200


def table(**columns: Any) -> EventTable:
    return EventTable.from_columns({"event_id": np.arange(NUM), **columns}, "mine")


def truth(**columns: Any) -> EventTruth:
    return EventTruth.from_columns({"event_id": np.arange(NUM), **columns}, "t")


def case() -> tuple[EventTable, EventTruth, dict[str, np.ndarray]]:
    """Event 7 has no HLC pulse, 8 little charge; 20 and 21 are doubtful."""
    zeros, ones = np.zeros(NUM), np.ones(NUM)
    kappa, width = np.linspace(10, 20, NUM), np.linspace(0.1, 0.2, NUM)
    kappa[20], width[21] = 0.1, 3.0
    mine = table(
        azimuth=zeros, zenith=ones, kappa=kappa, energy=ones, energy_log10_sigma=width
    )
    n_hlc, charge = np.full(NUM, 9.0), np.full(NUM, 30.0)
    n_hlc[7], charge[[7, 8]] = 0, [0.0, 1.5]
    known = truth(azimuth=zeros, zenith=ones + 0.1, energy=ones)
    return mine, known, {"n_hlc": n_hlc, "hlc_charge_pe": charge}


def test_a_rule_and_the_tables_own_doubt() -> None:
    mine, known, quantities = case()
    found = find_outliers([mine], known, quantities, share=0.01)
    assert (found.num_false, found.num_events) == (2, NUM)
    rows = {(row["event_id"], row["quantity"]): row for row in found.rows}
    assert (7, "n_hlc") in rows
    assert (8, "hlc_charge_pe") in rows
    assert (7, "hlc_charge_pe") not in rows  # one reason is enough
    # A hundredth of 200 events: two for each quantity, the most extreme first.
    doubtful = [row for row in found.rows if row["table"] == "mine"]
    assert [row["event_id"] for row in doubtful] == [20, 0, 21, NUM - 1]
    assert doubtful[0]["opening_angle_deg"] == pytest.approx(np.degrees(0.1))
    assert found.event_id.tolist() == [0, 7, 8, 20, 21, NUM - 1]
    only_rule = find_outliers([mine], known, quantities, share=0.0)
    assert only_rule.event_id.tolist() == [7, 8]
    with pytest.raises(ValueError, match="0 to 1, found 1"):
        find_outliers([mine], known, share=1.0)


def test_numbers_of_pulses_where_nothing_else_is_known() -> None:
    mine, known, _ = case()
    assert find_outliers([mine], known, share=0.0).num_false == 0
    counts = np.full(NUM, 30)
    counts[3] = 2
    known = truth(azimuth=np.zeros(NUM), zenith=np.ones(NUM), n_pulses=counts)
    assert find_outliers([mine], known, share=0.0).event_id.tolist() == [3]
    some = mine.of_events(np.arange(10, NUM))
    assert find_outliers([some], known, share=0.0).event_id.tolist() == []


def test_the_command_lists_them_and_leaves_them_out(
    tmp_path: Path,
    run_main: Callable[..., CompletedProcess[str]],
    blank_pictures: None,
) -> None:
    for module in ("typer", "matplotlib", "scipy"):
        pytest.importorskip(module)
    from graphnet_icecube2nd import cli

    simulate(tmp_path / "st", num_events=NUM, seed=3, workers=1)
    store = EventStore(tmp_path / "st")
    known = EventTruth.of(store)
    kappa = np.linspace(1, 50, NUM)
    directions = EventTable.of_directions(
        name="mine",
        event_id=known.event_id,
        direction_B3=known.direction_B3,
        kappa_B=kappa,
        status_B=np.full(NUM, "ok"),
    )
    directions.save(tmp_path / "r.parquet")
    words = ("evaluate", "r.parquet", "--truth", "st", "--resamples", 20, "--out")
    done = run_main(cli.main, *words, "a", "--outliers", 0.05)
    assert done.returncode == 0, done.stderr
    assert "10 doubtful results among 200 events" in done.stdout
    plain = json.loads((tmp_path / "a" / "tables" / "evaluation.json").read_text())
    assert plain["summary"][0]["events"] == NUM
    listed = {row["event_id"] for row in plain["outliers"]}
    assert listed >= set(known.event_id[:10].tolist())
    assert "Outliers" in (tmp_path / "a" / "report.html").read_text()
    done = run_main(cli.main, *words, "b", "--outliers", 0.05, "--leave-out-outliers")
    assert done.returncode == 0, done.stderr
    plain = json.loads((tmp_path / "b" / "tables" / "evaluation.json").read_text())
    assert plain["summary"][0]["events"] == NUM - len(listed)
    assert "left out" in done.stdout
    assert f"{len(listed)} events of r are not evaluated" in done.stdout
