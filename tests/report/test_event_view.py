"""What pictures and pages share: lit DOMs, arrows, their radii."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, EventTable
from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.report.event.view import (
    Arrow,
    energy_text,
    find_arrows,
    inside_box,
    lit_doms,
    read_event,
    time_range,
)


def number_of(store: EventStore, topology: str) -> int:
    fits = store.whole_event_column("topology") == topology
    return int(np.flatnonzero(fits & (store.whole_event_column("n_pulses") > 100))[0])


def table(event_id: int, kappa: float = np.nan, name: str = "t") -> EventTable:
    """A source straight overhead."""
    return EventTable.from_vectors(name, [event_id], [[0.0, 0.0, 1.0]], [kappa])


def test_lit_doms(simulated: EventStore) -> None:
    view, pulses = read_event(simulated, number_of(simulated, "cascade"))
    sensor, hlc = view.pulses["sensor_id"], view.pulses["auxiliary"] == 0
    doms, only_hlc = lit_doms(simulated, pulses, False)
    assert only_hlc
    assert set(doms.dom_T) == set(sensor[hlc])
    assert doms.charge_T.sum() == pytest.approx(view.pulses["charge"][hlc].sum())
    doms, only_hlc = lit_doms(simulated, pulses, True)
    assert not only_hlc
    assert set(doms.dom_T) == set(sensor)
    # Where there is no HLC pulse, the others are what is to be seen.
    alone = pulses.keep(~pulses.hlc_T)
    doms, only_hlc = lit_doms(simulated, alone, False)
    assert not only_hlc
    assert set(doms.dom_T) == set(sensor[~hlc])


def test_the_true_arrow_of_a_track(simulated: EventStore) -> None:
    view, pulses = read_event(simulated, number_of(simulated, "through_going_track"))
    doms, _ = lit_doms(simulated, pulses, False)
    (arrow,) = find_arrows(simulated, view, (), doms)
    truth = view.truth
    zenith, azimuth = truth["zenith"], truth["azimuth"]
    origin = [np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth)]
    np.testing.assert_allclose(arrow.flight, [-origin[0], -origin[1], -np.cos(zenith)])
    vertex = np.array([truth[f"position_{axis}"] for axis in "xyz"])
    np.testing.assert_allclose(
        vertex + SPEED_OF_LIGHT * (arrow.time - truth["vertex_time"]) * arrow.flight,
        arrow.through,
    )
    # Nowhere on the line is the light nearer.
    centre = np.average(doms.position_T3, axis=0, weights=doms.charge_T)
    assert (centre - arrow.through) @ arrow.flight == pytest.approx(0.0, abs=1e-9)
    assert not arrow.is_vertex
    # Where pulses count from the first, so does the vertex.
    later = replace(view, truth={**truth, "time_origin": 9000.0})
    (moved,) = find_arrows(simulated, later, (), doms)
    assert moved.time == pytest.approx(arrow.time - 9000.0)
    assert moved.vertex_time == pytest.approx(truth["vertex_time"] - 9000.0)


def test_what_is_not_known_of_the_truth(simulated: EventStore) -> None:
    view, pulses = read_event(simulated, number_of(simulated, "cascade"))
    doms, _ = lit_doms(simulated, pulses, False)
    nowhere = replace(view, truth={**view.truth, "position_x": float("nan")})
    (arrow,) = find_arrows(simulated, nowhere, (), doms)
    assert arrow.time is None
    centre = np.average(doms.position_T3, axis=0, weights=doms.charge_T)
    np.testing.assert_allclose(arrow.through, centre)
    blind = replace(view, truth={**view.truth, "zenith": float("nan")})
    (other,) = find_arrows(simulated, blind, [table(view.event_id)], doms)
    assert not other.is_truth
    assert other.opening_angle is None


def test_reconstructed_arrows(simulated: EventStore) -> None:
    view, pulses = read_event(simulated, number_of(simulated, "cascade"))
    doms, _ = lit_doms(simulated, pulses, False)
    kappas = (100.0, np.nan, 100.0, 100.0)
    tables = [table(view.event_id, kappa) for kappa in kappas]
    # Of a calibration; where it does not know either, kappa speaks.
    for number, radius in ((2, 0.3), (3, np.nan)):
        given = {"radius_50": np.array([radius])}
        tables[number] = tables[number].with_columns(given)
    tables.append(table(10**6))
    found = find_arrows(simulated, view, tables, doms)
    assert [arrow.is_truth for arrow in found] == [True, False, False, False, False]
    np.testing.assert_allclose([a.flight for a in found[1:]], [[0, 0, -1]] * 4)
    # Zenith is the angle to a source overhead.
    for arrow in found[1:]:
        assert arrow.opening_angle == pytest.approx(view.truth["zenith"])
    # exp(-kappa (1 - cos r)) = 1/2.
    radius = np.arccos(1 - np.log(2) / 100)
    assert [arrow.radius_50 for arrow in found[1:]] == [
        pytest.approx(radius),
        None,
        0.3,
        pytest.approx(radius),
    ]
    assert [arrow.kappa for arrow in found[1:]] == [100.0, None, 100.0, 100.0]


def test_a_table_without_directions_has_answers(simulated: EventStore) -> None:
    view, pulses = read_event(simulated, number_of(simulated, "cascade"))
    doms, _ = lit_doms(simulated, pulses, False)
    given = table(view.event_id)
    plain = replace(given, columns={"energy": np.array([5.0])})
    lost = given.with_columns({"direction_is_valid": np.array([False])})
    tables = [plain, lost, replace(plain, status_B=np.array(["no pulses"]))]
    _, *found = find_arrows(simulated, view, tables, doms)
    assert [arrow.flight for arrow in found] == [None, None]
    assert [arrow.answers[0] for arrow in found] == ["no direction"] * 2
    assert found[0].answers[1:] == ("energy 5 GeV",)


@pytest.mark.parametrize("radius", [-0.1, 30.0])
def test_wrong_radii(radius: float, simulated: EventStore) -> None:
    view, pulses = read_event(simulated, 0)
    mine = table(view.event_id, name="mine")
    mine = mine.with_columns({"radius_50": np.array([radius])})
    with pytest.raises(
        ValueError, match=f"'mine'.*event 0 must be 0 to pi rad, found {radius:g}"
    ):
        find_arrows(simulated, view, [mine], pulses)


def test_where_a_line_crosses_a_box() -> None:
    low, high = np.array([0.0, 0.0, 0.0]), np.array([10.0, 10.0, 4.0])
    arrow = Arrow(
        name="a",
        is_truth=False,
        flight=np.array([0.6, 0.0, 0.8]),
        through=np.array([5.0, 5.0, 2.0]),
    )
    assert inside_box(arrow, low, high) == pytest.approx((-2.5, 2.5))
    beside = replace(arrow, through=np.array([5.0, 50.0, 2.0]))
    assert inside_box(beside, low, high) == pytest.approx((-7.348, 7.348), abs=1e-3)


def test_late_light_does_not_stretch_colours() -> None:
    assert time_range(np.append(np.arange(100.0), 1e5)) == (0.0, 95.0)
    assert time_range(np.array([7.0])) == (7.0, 17.0)


def test_energies() -> None:
    assert [energy_text(e) for e in (12.3, 4567.0, 2.5e6)] == [
        "12.3 GeV",
        "4.57 TeV",
        "2.5 PeV",
    ]
