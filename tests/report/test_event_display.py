"""The event display: what is drawn where, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from graphnet_icecube2nd import EventStore, EventTable, simulate
from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT
from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
from graphnet_icecube2nd.plots import new_figure, save_figure
from graphnet_icecube2nd.report.event.display import draw_event
from graphnet_icecube2nd.report.event.page import event_page, event_payload
from graphnet_icecube2nd.report.event.view import find_modules, read_event
from graphnet_icecube2nd.store.event_store import view_event


def find(store: EventStore, topology: str, pulses: int = 100) -> int:
    lengths = np.asarray(store.lengths(0))
    fits = (store.event_column("topology", 0) == topology) & (lengths > pulses)
    return int(np.flatnonzero(fits)[0])


def axes_of(figure: Any) -> tuple[Any, Any, Any]:
    space, times, colours = figure.axes[:3]
    return space, times, colours


def test_axes_have_names_and_units(simulated: EventStore) -> None:
    number = find(simulated, "through_going_track")
    space, times, colours = axes_of(draw_event(simulated, number))
    assert space.get_xlabel() == "x [m]"
    assert space.get_ylabel() == "y [m]"
    assert space.get_zlabel() == "z [m]"
    assert times.get_xlabel() == "time in the readout window [ns]"
    assert times.get_ylabel() == "z [m]"
    assert colours.get_ylabel() == "time of the first pulse of a DOM [ns]"
    labels = [text.get_text() for text in space.get_legend().get_texts()]
    assert labels == ["truth, flight", "1 p.e.", "10 p.e.", "100 p.e."]


@pytest.fixture(scope="module")
def orca(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    """Events in six strings of KM3NeT/ORCA."""
    path = tmp_path_factory.mktemp("orca") / "store"
    simulate(path, num_events=24, seed=2, workers=1, detector="orca6")
    return EventStore(path)


def test_another_detector_has_its_own_strings_and_words(orca: EventStore) -> None:
    number = int(orca.whole_event_column("n_pulses").argmax())
    figure = draw_event(orca, number)
    space, _, colours = axes_of(figure)
    assert colours.get_ylabel() == "time of the first pulse of a module [ns]"
    assert " modules with " in figure.get_suptitle()
    strings = [line for line in space.lines if line.get_color() == "0.85"]
    assert len(strings) == 6
    # The strings are 54 m wide and 160 m high.
    assert 54 < np.ptp(space.get_xlim()) < 80
    assert 160 < np.ptp(space.get_zlim()) < 190
    payload = event_payload(orca, number)
    assert len(payload["detector"]["lines"]) == 6
    assert "modules with pulses" in dict(payload["truth"])
    assert "first pulse of a module" in event_page(orca, number)
    assert (
        "DOM"
        not in figure.get_suptitle() + event_page(orca, number).split("<script")[0]
    )


def test_pmts_of_a_module_are_one_dot(orca: EventStore) -> None:
    """Pulses have the positions of their PMTs, 0.2 m from the centre of the module."""
    number = int(orca.whole_event_column("n_pulses").argmax())
    _, pulses = read_event(orca, number)
    found = find_modules(orca, pulses)
    assert (found.dom_T >= 0).all()
    modules_T3 = orca.geometry.position_S3.numpy()[found.dom_T]
    away_T = np.linalg.norm(pulses.position_T3 - modules_T3, axis=1)
    np.testing.assert_allclose(away_T, 0.2, atol=1e-3)
    np.testing.assert_allclose(found.position_T3, modules_T3, atol=0.21)
    assert len(np.unique(pulses.position_T3.round(3), axis=0)) > len(
        np.unique(found.dom_T)
    )
    assert len(found.first_of_doms().dom_T) == len(np.unique(found.dom_T))
    away = find_modules(orca, replace(pulses, position_T3=pulses.position_T3 + 900.0))
    assert (away.dom_T == -1).all()
    same = find_modules(orca, found)
    assert (same.position_T3 == found.position_T3).all()


def test_dots_are_doms_at_their_first_pulse(simulated: EventStore) -> None:
    number = find(simulated, "cascade")
    view = view_event(simulated, number)
    keep = view.pulses["auxiliary"] == 0
    doms = view.pulses["sensor_id"][keep]
    figure = draw_event(simulated, number)
    _, times, _ = axes_of(figure)
    dots = times.collections[0].get_offsets()
    expected = sorted(
        (
            float(view.pulses["time"][keep][doms == dom].min()),
            float(simulated.geometry.position_S3[int(dom), 2]),
        )
        for dom in np.unique(doms)
    )
    np.testing.assert_allclose(sorted(map(tuple, dots)), expected, atol=1e-2)
    # Colour is time.
    np.testing.assert_allclose(times.collections[0].get_array(), dots[:, 0], atol=1e-2)
    # A dot of more charge is larger.
    charge = {
        float(view.pulses["time"][keep][doms == dom].min()): float(
            view.pulses["charge"][keep][doms == dom].sum()
        )
        for dom in np.unique(doms)
    }
    assert len(charge) == len(dots)  # no two at the same time
    sizes = times.collections[0].get_sizes()
    nearest = [min(charge, key=lambda t: abs(t - time)) for time in dots[:, 0]]
    order = np.argsort([charge[time] for time in nearest])
    assert (np.diff(sizes[order]) >= -1e-4).all()
    more = draw_event(simulated, number, with_auxiliary=True)
    assert len(axes_of(more)[1].collections[0].get_offsets()) > len(dots)
    assert f"{len(dots)} DOMs with HLC pulses" in figure.get_suptitle()


def test_time_runs_along_the_track(simulated: EventStore) -> None:
    """The true particle is a line of the speed of light; pulses lie behind it."""
    number = find(simulated, "through_going_track", 150)
    truth = view_event(simulated, number).truth
    _, times, _ = axes_of(draw_event(simulated, number))
    when, height = times.lines[0].get_data()
    slope = (height[1] - height[0]) / (when[1] - when[0])
    assert slope == pytest.approx(-np.cos(truth["zenith"]) * SPEED_OF_LIGHT)
    passes = truth["position_z"] + slope * (when[0] - truth["vertex_time"])
    assert height[0] == pytest.approx(passes)


def test_a_cascade_is_a_star_at_its_vertex(simulated: EventStore) -> None:
    number = find(simulated, "cascade")
    truth = view_event(simulated, number).truth
    space, times, _ = axes_of(draw_event(simulated, number))
    when, height = times.lines[0].get_data()
    assert times.lines[0].get_label() == "true vertex"
    assert (float(when[0]), float(height[0])) == pytest.approx(
        (truth["vertex_time"], truth["position_z"])
    )
    low, high = times.get_xlim()
    assert low < truth["vertex_time"] < high
    star = space.lines[-1].get_data_3d()
    expected = [truth[f"position_{axis}"] for axis in "xyz"]
    np.testing.assert_allclose([float(axis[0]) for axis in star], expected)


def test_arrows_of_tables(simulated: EventStore) -> None:
    number = find(simulated, "starting_track")
    line = line_fit_events(simulated)
    nothing = EventTable.from_vectors("none", [number], np.zeros((1, 3)))
    other = EventTable.from_vectors("other", [10**6], np.ones((1, 3)))
    figure = draw_event(simulated, number, [line, nothing, other])
    space, _, _ = axes_of(figure)
    labels = [text.get_text() for text in space.get_legend().get_texts()]
    assert labels[:3] == ["truth, flight", "line fit, flight", "1 p.e."]
    strings = len(simulated.geometry.string_S.unique())
    arrow = space.lines[strings + 1].get_data_3d()
    step = np.array([axis[1] - axis[0] for axis in arrow])
    step /= np.linalg.norm(step)
    np.testing.assert_allclose(step, -line.direction_B3[number], atol=1e-9)


def test_data_without_simulation_are_drawn_too(
    make_store: Callable[..., EventStore],
) -> None:
    store = make_store({1: [40, 3]})
    space, times, _ = axes_of(draw_event(store, 0))
    assert not times.lines  # when the particle was where is not known
    assert len(space.get_legend().get_texts()) == 4


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_pictures_are_written_whole(
    ending: str, simulated: EventStore, tmp_path: Path
) -> None:
    path = tmp_path / "made" / f"event.{ending}"
    save_figure(draw_event(simulated, 0), path)
    assert path.stat().st_size > 5000
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_unknown_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pictures end in one of .*png"):
        save_figure(new_figure(2, 2), tmp_path / "event.doc")
    assert not list(tmp_path.iterdir())


def test_all_answers_are_drawn_with_their_widths(simulated: EventStore) -> None:
    number = find(simulated, "cascade")
    fit = line_fit_events(simulated, np.array([number]))
    answers = {
        **{"vertex_x": 10.0, "vertex_y": -20.0, "vertex_z": 930.0},
        **{"vertex_sigma": 14.0, "vertex_time": 9950.0, "vertex_time_sigma": 45.0},
        **{"energy": 2e4, "energy_low_68": 1.3e4, "energy_high_68": 3.1e4},
        **{"p_cascade": 0.83, "p_neutrino": 0.99},
        **{"inelasticity": 0.4, "inelasticity_sigma": 0.12},
    }
    others: dict[str, Any] = {name: np.array([v]) for name, v in answers.items()}
    others["topology"] = np.array(["cascade"])
    table = EventTable.of_directions(
        name="net",
        event_id=fit.event_id,
        direction_B3=fit.direction_B3,
        kappa_B=np.array([200.0]),
        status_B=np.array(["ok"]),
        radii={"radius_50": np.array([0.08]), "radius_90": np.array([0.17])},
        others=others,
    )
    figure = draw_event(simulated, number, [table])
    texts = " ".join(text.get_text() for text in figure.axes[-1].texts)
    for text in (
        "50% within 4.6 deg, 90% within 9.7 deg",
        "energy 20 TeV (68%: 13 TeV to 31 TeV)",
        "vertex 10, -20, 930 ± 14 m",
        "vertex time 9950 ± 45 ns",
        "cascade (83%)",
        "neutrino: 99%",
        "inelasticity 0.40 ± 0.12",
    ):
        assert text in " ".join(texts.split())
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert "net, vertex" in labels
    assert figure.axes[1].get_ylim()[1] > 930.0 + 14.0
    (row,) = [a for a in event_payload(simulated, number, [table])["arrows"][1:]]
    assert row["vertex"] == [10.0, -20.0, 930.0]
    assert row["vertex_sigma"] == 14.0
    assert "cascade (83%)" in row["answers"]
    # A table of directions has the direction only.
    (plain,) = event_payload(simulated, number, [fit])["arrows"][1:]
    assert plain["vertex"] is None
    assert len(plain["answers"]) == 1


def test_a_model_of_energy_and_vertex_is_drawn(simulated: EventStore) -> None:
    """Without a direction there are a star, words, and all else of the event."""
    number = find(simulated, "cascade")
    place = {"vertex_x": 1.0, "vertex_y": 2.0, "vertex_z": 3.0, "vertex_sigma": 9.0}
    columns = {name: np.array([v]) for name, v in {**place, "energy": 2e4}.items()}
    event_id = simulated.whole_event_column("event_id")[number : number + 1]
    table = EventTable.from_columns({"event_id": event_id, **columns}, "net")
    figure = draw_event(simulated, number, [table])
    (text,) = [text.get_text() for text in figure.axes[-1].texts]
    assert text.startswith("net: no direction; energy 20 TeV")
    space, _, _ = axes_of(figure)
    labels = [text.get_text() for text in space.get_legend().get_texts()]
    assert labels[:2] == ["truth, flight", "1 p.e."]
    stars = [line for line in space.lines if line.get_marker() == "*"]
    assert [float(axis[0]) for axis in stars[-1].get_data_3d()] == [1.0, 2.0, 3.0]
    payload = event_payload(simulated, number, [table])
    (row,) = payload["arrows"][1:]
    assert row["flight"] is None
    assert row["vertex"] == [1.0, 2.0, 3.0]
    assert payload["missing"] == []
    assert "no direction" in event_page(simulated, number, [table])
