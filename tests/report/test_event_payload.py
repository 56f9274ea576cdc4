"""What a page knows of an event, against the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, EventTable, simulate
from graphnet_icecube2nd.report.event import page as module
from graphnet_icecube2nd.report.event.page import event_payload
from graphnet_icecube2nd.report.event.view import COLOURS, read_event
from graphnet_icecube2nd.store.event_store import view_event


def number_of(store: EventStore, topology: str) -> int:
    fits = store.whole_event_column("topology") == topology
    return int(np.flatnonzero(fits & (store.whole_event_column("n_pulses") > 100))[0])


def columns(values: dict[str, Any]) -> np.ndarray:
    return np.stack([values[axis] for axis in "xyz"], axis=1)


def test_pulses_are_the_stores(simulated: EventStore) -> None:
    number = number_of(simulated, "cascade")
    view = view_event(simulated, number)
    payload = event_payload(simulated, number)
    pulses, places = payload["pulses"], payload["places"]
    order = np.argsort(view.pulses["time"], kind="stable")
    sensor = view.pulses["sensor_id"][order]
    np.testing.assert_allclose(pulses["time"], view.pulses["time"][order], atol=0.051)
    np.testing.assert_allclose(
        pulses["charge"], view.pulses["charge"][order], atol=6e-4
    )
    assert pulses["hlc"] == (view.pulses["auxiliary"][order] == 0).astype(int).tolist()
    where = columns(places)[pulses["place"]]
    expected = simulated.geometry.position_S3.numpy()[sensor]
    np.testing.assert_allclose(where, expected, atol=0.0051)
    assert (np.array(places["dom"])[pulses["place"]] == sensor).all()


def test_the_detector_has_strings_and_doms(simulated: EventStore) -> None:
    detector = event_payload(simulated, 0)["detector"]
    geometry = simulated.geometry
    np.testing.assert_allclose(columns(detector), geometry.position_S3, atol=0.0051)
    assert detector["string"] == geometry.string_S.tolist()
    assert detector["dom"][59:62] == [60, 1, 2]  # 60 DOMs a string
    assert len(detector["lines"]) == 86
    assert set(detector["lines"][0]) == {0, 59}
    assert detector["name"] == "icecube86"


def test_arrows_in_degrees(simulated: EventStore) -> None:
    number = number_of(simulated, "cascade")
    view = view_event(simulated, number)
    up = [[0.0, 0.0, 1.0]]
    event = [view.event_id]
    names = [f"n{i}" for i in range(len(COLOURS) + 1)]
    tables = [EventTable.from_vectors(n, event, up, [50.0]) for n in names]
    none = EventTable.from_vectors("none", event, np.zeros((1, 3)))
    tables[0] = tables[0].with_columns({"radius_50": np.array([0.5])})
    payload = event_payload(simulated, number, [*tables, none])
    truth, *others = payload["arrows"]
    assert [arrow["name"] for arrow in others] == names
    assert payload["missing"] == [["none", "length 0"]]
    colours = [arrow["colour"] for arrow in payload["arrows"]]
    assert colours == [None, *COLOURS, COLOURS[0]]
    vertex = [view.truth[f"position_{axis}"] for axis in "xyz"]
    np.testing.assert_allclose(truth["through"], vertex)
    assert truth["is_vertex"]
    assert truth["time"] == truth["vertex_time"] == view.truth["vertex_time"]
    assert others[0]["radius_50"] == pytest.approx(np.degrees(0.5))
    # cos r = 1 - ln 2 / kappa
    radius = np.degrees(np.arccos(1 - np.log(2) / 50))
    assert others[1]["radius_50"] == pytest.approx(radius)
    assert others[1]["opening_angle"] == pytest.approx(np.degrees(view.truth["zenith"]))
    # It flies down, from above the detector to below it.
    ends = [others[0]["through"][2] - others[0][end] for end in ("begin", "end")]
    height = simulated.geometry.position_S3[:, 2].numpy()
    assert ends[0] > height.max() + 100
    assert ends[1] < height.min() - 100


def test_an_arrow_goes_through_its_vertex(simulated: EventStore) -> None:
    """Through-going particles and cascades beside the detector begin outside."""
    for number in range(30):
        for arrow in event_payload(simulated, number)["arrows"]:
            assert arrow["begin"] < -100
            assert arrow["end"] > 100


def test_which_pulses_are_shown_first(simulated: EventStore) -> None:
    number = number_of(simulated, "cascade")
    few = event_payload(simulated, number)
    all_of_them = event_payload(simulated, number, with_auxiliary=True)
    assert few["only_hlc"]
    assert not all_of_them["only_hlc"]
    assert few["can_choose_hlc"]
    assert few["pulses"] == all_of_them["pulses"]
    # Noise does not change colours.
    assert few["time_range"] == all_of_them["time_range"]
    hlc = np.array(few["pulses"]["hlc"]) == 1
    assert few["time_range"][0] == np.array(few["pulses"]["time"])[hlc].min()


def test_the_table_of_the_event(simulated: EventStore) -> None:
    number = number_of(simulated, "cascade")
    view = view_event(simulated, number)
    payload = event_payload(simulated, number)
    rows = dict(payload["truth"])
    assert payload["title"] == f"event {view.event_id}"
    assert payload["subtitle"].startswith("cascade, ")
    assert rows["event_id"] == str(view.event_id)
    assert rows["pulses"] == str(view.truth["n_pulses"])
    assert rows["HLC pulses"] == str(int((view.pulses["auxiliary"] == 0).sum()))
    assert rows["DOMs with pulses"] == str(len(set(view.pulses["sensor_id"])))
    assert rows["zenith"] == f"{np.degrees(view.truth['zenith']):.2f} deg"
    assert rows["energy"] in payload["subtitle"]
    assert rows["position x"] == f"{view.truth['position_x']:.6g} m"
    assert rows["vertex time"] == f"{view.truth['vertex_time']:.6g} ns"
    assert rows["topology"] == "cascade"


def test_another_detector(tmp_path: Path) -> None:
    """Four strings of 18 DOMs, numbered along the string."""
    rows = [
        f"{18 * s + d},{80 * (s % 2)},{80 * (s // 2)},{150 - 17 * d},{11 + s}"
        for s in range(4)
        for d in range(18)
    ]
    (tmp_path / "doms.csv").write_text("\n".join(["sensor_id,x,y,z,string", *rows]))
    simulate(
        tmp_path / "store",
        num_events=8,
        seed=1,
        workers=1,
        geometry=tmp_path / "doms.csv",
    )
    store = EventStore(tmp_path / "store")
    number = int(store.whole_event_column("n_pulses").argmax())
    detector = event_payload(store, number)["detector"]
    assert len(detector["x"]) == 72
    assert set(detector["string"]) == {11, 12, 13, 14}
    assert detector["dom"][17:19] == [18, 1]
    assert sorted(detector["lines"][1]) == [18, 35]


def test_pulses_beside_the_doms(
    simulated: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that give places need not name DOMs; their detector may be unknown."""
    view, pulses = read_event(simulated, 0)

    def shown(shift: float) -> dict[str, Any]:
        moved = replace(
            pulses,
            position_T3=pulses.position_T3 + shift,
            dom_T=np.full(len(pulses.dom_T), -1),
        )
        monkeypatch.setattr(module, "read_event", lambda *_: (view, moved))
        return event_payload(simulated, 0)

    near = shown(0.01)
    assert set(near["places"]["dom"]) == set(pulses.dom_T)
    far = shown(5000.0)
    assert set(far["places"]["dom"]) == {-1}
    assert (near["words"]["module"], far["words"]["module"]) == ("DOM", "position")
    assert far["detector"]["x"] == far["detector"]["lines"] == []


def test_an_event_without_pulses(simulated: EventStore) -> None:
    number = np.flatnonzero(simulated.whole_event_column("n_pulses") == 0)
    if len(number):
        with pytest.raises(ValueError, match="has no pulses"):
            event_payload(simulated, int(number[0]))
    with pytest.raises(ValueError, match="got 256"):
        event_payload(simulated, 256)
