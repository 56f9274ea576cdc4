"""An evaluation, by numbers worked out by hand and by other formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventTable
from graphnet_icecube2nd.evaluation.coverage import (
    GIVEN,
    PULL_EDGES,
    CalibrationView,
    calibrated_pull_density,
    calibration_sections,
)
from graphnet_icecube2nd.evaluation.metrics import EvaluatedTable, evaluate
from graphnet_icecube2nd.evaluation.resolution import (
    ENERGY,
    PULSES,
    TOPOLOGY,
    ZENITH,
    binned,
    energy_by_topology,
)
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.statistics import quantile_intervals
from graphnet_icecube2nd.tasks.direction.calibration import kappa_to_radius


def off_by(
    angle_B: np.ndarray,
    name: str = "mine",
    kappa: Any = None,
    ids: Any = None,
    **more: Any,
) -> EventTable:
    """Directions so far from straight up."""
    num = len(angle_B)
    return EventTable.of_directions(
        name=name,
        event_id=np.arange(num) if ids is None else ids,
        direction_B3=np.stack(
            [np.sin(angle_B), np.zeros(num), np.cos(angle_B)], axis=1
        ),
        kappa_B=np.full(num, np.nan) if kappa is None else kappa,
        status_B=np.full(num, "ok"),
        **more,
    )


def upwards(num: int, **columns: Any) -> EventTruth:
    zeros = np.zeros(num)
    return EventTruth.from_columns(
        {"event_id": np.arange(num), "azimuth": zeros, "zenith": zeros} | columns, "t"
    )


def test_the_summary_by_hand() -> None:
    angle = np.linspace(0.01, 1.0, 100)
    found = evaluate([off_by(angle), off_by(angle + 0.1, "worse")], upwards(100))
    mine, worse = found.summaries
    assert (mine.table, mine.events, mine.failed) == ("mine", 100, 0)
    assert mine.mean.value == pytest.approx(angle.mean())
    assert mine.median.value == pytest.approx(np.median(angle))
    assert mine.q90.value == pytest.approx(np.quantile(angle, 0.9))
    assert mine.mean.low < mine.mean.value < mine.mean.high
    half = (mine.mean.high - mine.mean.low) / 2
    assert half == pytest.approx(1.96 * angle.std() / 10, rel=0.1)
    assert mine.difference.value == mine.difference.low == mine.difference.high == 0
    # Paired: all events are worse by the same, so that is known exactly.
    assert worse.difference.low == pytest.approx(0.1)
    assert worse.difference.high == pytest.approx(0.1)
    assert np.isnan(mine.pull)
    assert np.isnan(mine.inside_50)


def test_an_event_without_direction_counts_as_a_guess() -> None:
    table = off_by(np.full(100, 0.2))
    table.direction_B3[3] = np.nan
    table.status_B[3] = "no"
    (row,) = evaluate([table], upwards(100)).summaries
    assert row.failed == 1
    assert row.mean.value == pytest.approx((99 * 0.2 + np.pi / 2) / 100)


def test_only_what_all_tables_have_is_judged() -> None:
    few = off_by(np.full(30, 0.1), "few", ids=np.arange(50, 80))
    all_of_them = off_by(np.arange(100) / 100)
    found = evaluate([all_of_them, few], upwards(100))
    assert found.left_out == 70
    assert found.summaries[0].mean.value == pytest.approx(
        np.mean(np.arange(50, 80)) / 100
    )
    with pytest.raises(ValueError, match=r"'few' has no event that the truth and the"):
        evaluate([all_of_them, off_by(np.ones(3), "few", ids=np.arange(3) + 1000)],
                 upwards(100))  # fmt: skip
    with pytest.raises(ValueError, match="different names"):
        evaluate([all_of_them, all_of_them], upwards(100))
    with pytest.raises(ValueError, match="different names"):
        evaluate([], upwards(100))


def test_events_without_a_true_direction_are_left_out_and_counted() -> None:
    zenith = np.zeros(100)
    zenith[[7, 8]] = np.nan, -1.0
    truth = upwards(100, zenith=zenith)
    angle = np.full(100, 0.2)
    angle[7] = 3.0  # counts for nothing
    found = evaluate([off_by(angle), off_by(angle, "other")], truth, resamples=20)
    assert found.summaries[0].events == len(found.truth) == 98
    assert found.summaries[0].mean.value == pytest.approx(0.2)
    assert (found.left_out, set(found.unknown.values())) == (0, {0})
    (note,) = found.notes
    assert "2 of 100" in note
    assert "azimuth, zenith" in note
    nothing = upwards(100, zenith=np.full(100, np.nan))
    with pytest.raises(ValueError, match=r"none of 100 events.*zenith"):
        evaluate([off_by(angle)], nothing)
    other = EventTruth.from_columns({"event_id": np.arange(100), "x": angle}, "t")
    with pytest.raises(ValueError, match=r"azimuth and zenith; .* event_id, x"):
        evaluate([off_by(angle)], other)


def test_directions_that_point_the_other_way_are_spoken_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    angle = np.linspace(0.1, 1.0, 100)
    turned = off_by(np.pi - angle, "turned")
    found = evaluate([off_by(angle), turned], upwards(100), resamples=20)
    (note,) = found.notes
    for word in ("'turned'", "100%", "--result-angles flight", "--truth-angles"):
        assert word in note
    assert note in caplog.text
    guesses = np.arccos(np.linspace(-1, 1, 100))
    assert not evaluate([off_by(guesses)], upwards(100), resamples=20).notes


def test_quantile_intervals_are_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    value = rng.gamma(2.0, size=400)
    found = quantile_intervals(value, [0.5, 0.9], resamples=20_000)
    drawn = rng.choice(value, (4000, 400))
    for (low, high), share in zip(found, (0.5, 0.9), strict=True):
        direct = np.quantile(np.quantile(drawn, share, axis=1), [0.025, 0.975])
        assert [low, high] == pytest.approx(direct.tolist(), rel=0.05)
    other = quantile_intervals(value, [0.5], level=0.5)
    assert found[0, 0] < other[0, 0] < other[0, 1] < found[0, 1]


def test_bins_hold_their_events() -> None:
    num = 400
    rng = np.random.default_rng(1)
    energy = 10 ** rng.uniform(2, 4, num)
    truth = EventTruth.from_columns(
        {
            "event_id": np.arange(num),
            "azimuth": np.zeros(num),
            "zenith": np.arccos(rng.uniform(-1, 1, num)),
            "energy": energy,
            "n_pulses": rng.integers(1, 100, num),
            "topology": np.where(energy > 1000, "through_going_track", "cascade"),
        },
        "t",
    )
    table = EventTable.of_directions(
        name="mine",
        event_id=np.arange(num),
        direction_B3=truth.direction_B3,
        kappa_B=np.full(num, 10.0),
        status_B=np.full(num, "ok"),
    )
    found = evaluate([table], truth, resamples=20)
    value = {ENERGY: energy, ZENITH: truth.direction_B3[:, 2], PULSES: truth.n_pulses_B}
    for quantity, value_B in value.items():
        rows = binned(found, quantity)
        assert len(rows) > 3
        for row in rows:
            inside = (value_B >= row["low"]) & (value_B < row["high"])
            assert row["events"] == inside.sum() >= 20
    kinds = binned(found, TOPOLOGY)
    assert [(r["bin"], r["events"]) for r in kinds] == [
        ("cascade", (energy <= 1000).sum()),
        ("through going track", (energy > 1000).sum()),
    ]
    apart = energy_by_topology(found)
    assert len({row["low"] for row in apart}) == len(apart) == 4
    for row in apart:
        inside = (energy >= row["low"]) & (energy < row["high"])
        assert row["topology"] == (
            "cascade" if row["high"] < 1001 else "through going track"
        )
        assert row["events"] == inside.sum()
    with pytest.raises(ValueError, match="quantity must be one of"):
        binned(found, "colour")
    bare = evaluate([table], upwards(num), resamples=20)
    for quantity in (ENERGY, PULSES, TOPOLOGY):
        assert binned(bare, quantity) == []
    assert energy_by_topology(bare) == []


def test_topologies_are_told_apart_at_one_energy() -> None:
    num = 200
    is_track = np.arange(num) % 4 == 0
    truth = upwards(
        num,
        energy=np.full(num, 500.0),
        topology=np.where(is_track, "track", "cascade"),
    )
    tables = [off_by(np.where(is_track, 0.1, 0.9)), off_by(np.full(num, 0.5), "flat")]
    rows = energy_by_topology(evaluate(tables, truth, resamples=20))
    assert [(r["topology"], r["table"], r["events"], r["mean_rad"]) for r in rows] == [
        ("cascade", "mine", 150, pytest.approx(0.9)),
        ("cascade", "flat", 150, pytest.approx(0.5)),
        ("track", "mine", 50, pytest.approx(0.1)),
        ("track", "flat", 50, pytest.approx(0.5)),
    ]


def test_numbers_of_pulses_are_the_truths_or_the_first_tables_that_has_them() -> None:
    num = 100
    angle, ids = np.full(num, 0.2), np.arange(num)[::-1]
    counted = off_by(angle, "counted", ids=ids, n_pulses_B=1000 + ids)
    found = evaluate([off_by(angle), counted], upwards(num), resamples=20)
    assert found.truth.n_pulses_B.tolist() == list(range(1000, 1000 + num))
    own = upwards(num, n_pulses=np.arange(num))
    found = evaluate([counted], own, resamples=20)
    assert found.truth.n_pulses_B.tolist() == list(range(num))
    # They go through columns, and a joined table's gaps are no numbers.
    columns = counted.to_columns()
    assert (EventTable.from_columns(columns, "again").n_pulses_B == 1000 + ids).all()
    columns["n_pulses"] = np.where(ids == 3, np.nan, 1000.0)
    assert EventTable.from_columns(columns, "again").n_pulses_B is None
    with pytest.raises(ValueError, match="n_pulses_B must have shape"):
        off_by(angle, n_pulses_B=np.arange(3))


def thrown(num: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    kappa = 10 ** rng.uniform(1.5, 4, num)
    angle = kappa_to_radius(kappa, rng.uniform(0.001, 0.999, num)).numpy()
    return angle, factor * kappa


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_calibration_of_thrown_directions(factor: float) -> None:
    angle, kappa = thrown(20_000, factor)
    found = evaluate([off_by(angle, kappa=kappa)], upwards(20_000), resamples=50)
    view = CalibrationView(found.tables[0])
    assert set(view.ways) == {"as given", "temperature", "isotonic"}
    for row in [row for way in view.ways for row in view.coverage(way)]:
        # 1 - (1 - level) ** factor: the Rayleigh law at another scale
        is_given = row["way"] == GIVEN
        expected = 1 - (1 - row["level"]) ** (1 / factor) if is_given else row["level"]
        assert row["held"] == pytest.approx(expected, abs=0.015)
        error = np.sqrt(row["held"] * (1 - row["held"]) / 20_000)
        assert row["error"] == pytest.approx(error)
    for seen in [row for way in view.ways for row in view.expected(way)]:
        ratio = seen["observed_deg"] / seen["expected_deg"]
        wanted = np.sqrt(factor) if seen["way"] == GIVEN else 1.0
        assert ratio == pytest.approx(wanted, rel=0.06)
        assert seen["low_deg"] < seen["observed_deg"] < seen["high_deg"]
    (row,) = found.summaries
    assert row.pull == pytest.approx(1.1774 * np.sqrt(factor), rel=0.02)
    assert row.inside_50 == pytest.approx(1 - 0.5 ** (1 / factor), abs=0.012)
    density = view.pull_density("isotonic")
    expected = calibrated_pull_density(view.ways["isotonic"].kappa)
    assert np.abs(density - expected).max() < 0.05


def test_pulls_of_calibrated_kappas() -> None:
    middle = (PULL_EDGES[1:] + PULL_EDGES[:-1]) / 2
    rayleigh = middle * np.exp(-(middle**2) / 2)
    found = calibrated_pull_density(np.full(7, 1e4))
    np.testing.assert_allclose(found, rayleigh, atol=2e-3)
    # A kappa of 0.01 is a guess: uniform in the cosine, no farther than pi.
    found = calibrated_pull_density(np.full(7, 0.01))
    edge_angle = PULL_EDGES[:4] / np.sqrt(0.01)
    uniform = -np.diff(np.cos(edge_angle)) / 2 / np.diff(PULL_EDGES[:4])
    np.testing.assert_allclose(found[:3], uniform, rtol=0.02)
    assert found[4:].sum() == 0
    # Thrown from their own kappas, small ones too.
    rng = np.random.default_rng(2)
    kappa = 10 ** rng.uniform(-1, 3, 40_000)
    angle = kappa_to_radius(kappa, rng.uniform(0, 1, 40_000)).numpy()
    thrown_density, _ = np.histogram(angle * np.sqrt(kappa), PULL_EDGES)
    density = thrown_density / 40_000 / np.diff(PULL_EDGES)
    np.testing.assert_allclose(calibrated_pull_density(kappa), density, atol=0.03)


def test_coverage_of_all_contours_that_a_calibrated_table_has() -> None:
    angle, kappa = thrown(2000, 5.0)
    levels = (0.1, 0.3, 0.68, 0.995)
    radii = {
        f"radius_{100 * level:g}": np.full(2000, np.quantile(angle, level))
        for level in levels
    }
    found = evaluate(
        [off_by(angle, kappa=kappa, radii=radii)], upwards(2000), resamples=50
    )
    rows = CalibrationView(found.tables[0]).coverage(GIVEN)
    assert [row["level"] for row in rows] == list(levels)
    for row in rows:
        assert row["held"] == pytest.approx(row["level"], abs=0.001)


def test_coverage_in_bins_of_the_reconstructed_zenith() -> None:
    """Kappas are right for half of the reconstructed directions, too large for half."""
    angle, kappa = thrown(4000, 1.0)
    table = off_by(angle, kappa=kappa)
    is_down_B = np.arange(4000) % 2 == 0
    turned = np.where(is_down_B[:, None], -1.0, 1.0)
    # Some point upwards, some downwards, truth and result together.
    table = table.with_columns(
        {
            **{
                f"direction_{axis}": (table.direction_B3 * turned)[:, number]
                for number, axis in enumerate("xyz")
            },
            "kappa": np.where(is_down_B, 9 * kappa, kappa),
        }
    )
    truth = upwards(4000)
    truth = replace(truth, direction_B3=truth.direction_B3 * turned)
    found = evaluate([table], truth, resamples=50)
    (section,) = (
        s for s in calibration_sections(found) if s.table == "coverage_by_bin"
    )
    held = {row["bin"]: row for row in section.rows}
    assert {row["quantity"] for row in section.rows} == {"cos zenith"}
    assert held["0.8 to 1.0"]["inside_50"] == pytest.approx(0.5, abs=0.05)
    assert held["0.8 to 1.0"]["median_pull"] == pytest.approx(1.18, abs=0.1)
    wrong = held["-1.0 to -0.8"]
    assert wrong["inside_50"] == pytest.approx(1 - 0.5 ** (1 / 9), abs=0.03)
    assert wrong["inside_50_low"] < wrong["inside_50"] < wrong["inside_50_high"]


def test_a_tables_own_radii_are_what_is_judged() -> None:
    angle, kappa = thrown(2000, 5.0)
    radii = {"radius_50": np.full(2000, np.quantile(angle, 0.3))}
    found = evaluate(
        [off_by(angle, kappa=kappa, radii=radii)], upwards(2000), resamples=50
    )
    assert found.summaries[0].inside_50 == pytest.approx(0.3, abs=0.001)
    given = CalibrationView(found.tables[0]).ways[GIVEN]
    assert (given.median == radii["radius_50"]).all()


def test_too_few_kappas_for_a_calibration() -> None:
    angle, kappa = thrown(90, 1.0)
    found = evaluate([off_by(angle, kappa=kappa)], upwards(90), resamples=50)
    assert CalibrationView(found.tables[0]).ways == {}
    angle, kappa = thrown(150, 1.0)
    found = evaluate([off_by(angle, kappa=kappa)], upwards(150), resamples=50)
    assert set(CalibrationView(found.tables[0]).ways) == {GIVEN}


def test_kappas_without_weight_have_no_coverage() -> None:
    num = 400
    kappa = np.where(np.arange(num) < num // 2, 5.0, np.nan)
    table = EventTable.from_vectors("t", np.arange(num), [[0.0, 0.0, 1.0]] * num, kappa)
    evaluated = EvaluatedTable(
        table=table, angle_B=np.full(num, 0.1), given_weight_B=np.isnan(kappa) * 1.0
    )
    assert CalibrationView(evaluated).ways == {}
