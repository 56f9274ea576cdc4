"""The page of an event: whole, needing nothing, safe with any name; its scripts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from graphnet_icecube2nd import EventStore, EventTable
from graphnet_icecube2nd.report.event.page import (
    SCRIPTS,
    event_page,
    event_payload,
    write_event_page,
)
from graphnet_icecube2nd.report.event.view import lit_doms, read_event

HOSTILE = "</script><script>alert(1)</script> {{scripts}} & \u2028 'é' <!--"
DATA = files("graphnet_icecube2nd.report.event") / "data"


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text in scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def run_script(scripts: tuple[str, ...], code: str, values: Any = None) -> Any:
    """What code prints as JSON after some of our scripts, in Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to run the page's scripts")
    text = "\n".join((DATA / name).read_text("utf-8") for name in scripts)
    given = json.dumps(values)
    done = subprocess.run(
        [node, "-"],
        input=f"{text}\nconst given = {given};\nconsole.log(JSON.stringify({code}));",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_needs_nothing_else(simulated: EventStore) -> None:
    page = event_page(simulated, 0)
    assert "http" not in page.replace("http-equiv", "")
    reader = read(page)
    for tag, attributes in reader.tags:
        assert not {"src", "href", "srcset", "data"} & set(attributes), tag
        assert tag not in ("link", "iframe", "img", "object", "base")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import\(|innerHTML", page)
    policy = next(a["content"] for t, a in reader.tags if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "{{" not in page


def test_the_payload_is_in_the_page(simulated: EventStore) -> None:
    reader = read(event_page(simulated, 3, with_auxiliary=True))
    assert len(reader.scripts) == 2
    found = json.loads(reader.scripts[0])
    assert found == event_payload(simulated, 3, with_auxiliary=True)
    assert not found["only_hlc"]


def test_hostile_names_stay_names(simulated: EventStore) -> None:
    event = [int(simulated.whole_event_column("event_id")[0])]
    table = EventTable.from_vectors(HOSTILE, event, [[0.0, 0.0, 1.0]])
    page = event_page(simulated, 0, [table])
    reader = read(page)
    assert len(reader.scripts) == 2
    arrow = json.loads(reader.scripts[0])["arrows"][-1]
    assert arrow["name"] == HOSTILE
    assert page.count("</script>") == 2
    assert page.count('"use strict"') == 1


def test_it_is_written_whole(simulated: EventStore, tmp_path: Path) -> None:
    path = tmp_path / "made" / "event.html"
    write_event_page(path, simulated, 0)
    assert path.read_text("utf-8") == event_page(simulated, 0)
    with pytest.raises(ValueError, match="got 999"):
        write_event_page(path, simulated, 999)
    assert [p.name for p in path.parent.iterdir()] == ["event.html"]


def test_scripts_find_what_they_look_for() -> None:
    text = (DATA / "event_page.html").read_text("utf-8")
    ids = set(re.findall(r'id="(\w+)"', text))
    for name in SCRIPTS:
        script = (DATA / name).read_text("utf-8")
        asked = set(re.findall(r'(?:find|view)\("(\w+)"', script))
        assert asked <= ids, name


def test_scripts_are_javascript(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to check the page's scripts")
    path = tmp_path / "all.js"
    path.write_text("\n".join((DATA / n).read_text("utf-8") for n in SCRIPTS))
    done = subprocess.run(
        [node, "--check", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("with_auxiliary", [False, True])
def test_what_doms_saw(with_auxiliary: bool, simulated: EventStore) -> None:
    """The script's sums over DOMs are those of the picture."""
    payload = event_payload(simulated, 5)
    _, pulses = read_event(simulated, 5)
    doms, _ = lit_doms(simulated, pulses, with_auxiliary)
    num = len(payload["places"]["x"])
    flag = json.dumps(with_auxiliary)
    code = f"seenBy(given, {num}, {flag}, Infinity)"
    seen = run_script(("event_scene.js",), code, payload["pulses"])
    lit = np.flatnonzero(seen["count"])
    row = np.argsort(doms.dom_T)
    order = lit[np.argsort(np.array(payload["places"]["dom"])[lit])]
    assert (np.array(payload["places"]["dom"])[order] == doms.dom_T[row]).all()
    first, charge = (np.array(seen[name], float)[order] for name in ("first", "charge"))
    np.testing.assert_allclose(first, doms.time_T[row], atol=0.051)
    np.testing.assert_allclose(charge, doms.charge_T[row], atol=0.01)
    # In the middle of the event it has seen what came until then.
    middle = float(np.median(payload["pulses"]["time"]))
    code = f"seenBy(given, {num}, {flag}, {middle}).count.reduce((a, b) => a + b)"
    kept = (pulses.time_T <= middle + 0.05) & (pulses.hlc_T | with_auxiliary)
    assert run_script(("event_scene.js",), code, payload["pulses"]) == kept.sum()
    assert 0 < kept.sum() < len(kept)


def test_cones_are_as_wide_as_they_say() -> None:
    arrow = {"flight": [0.6, 0.0, 0.8], "through": [1, 2, 3], "begin": -50}
    for radius in (0.0, 20.0, 120.0):
        rim = run_script(
            ("event_scene.js",), "coneRim(given)", {**arrow, "radius_50": radius}
        )
        away = np.array(rim) - [1, 2, 3]
        np.testing.assert_allclose(np.linalg.norm(away, axis=1), 50.0)
        # On the side it comes from, each at the radius from the axis.
        cosine = away @ [-0.6, 0.0, -0.8] / 50
        np.testing.assert_allclose(cosine, np.cos(np.radians(radius)), atol=1e-12)


def test_where_the_particle_is() -> None:
    arrow = {
        "flight": [0, 0, -1],
        "through": [1, 2, 3],
        "time": 1000,
        "vertex_time": 900,
        "is_vertex": False,
    }
    code = "[800, 900, 2000].map((t) => particleAt(given, t))"
    before, vertex, after = run_script(("event_scene.js",), code, arrow)
    assert (before["is_born"], vertex["is_born"]) == (False, True)
    assert vertex["place"] == pytest.approx([1, 2, 3 + 29.9792458])
    assert after["place"] == pytest.approx([1, 2, 3 - 299.792458])
    cascade = {**arrow, "vertex_time": 1000, "is_vertex": True}
    before, vertex, after = run_script(("event_scene.js",), code, cascade)
    assert before["place"] == pytest.approx([1, 2, 3 + 59.9584916])
    assert after["stays"]
    assert after["place"] == [1, 2, 3]


def test_red_is_early_and_blue_late() -> None:
    code = "[-5, 0, 10, 20, 99].map((t) => timeColour(t, [0, 20]))"
    colours = run_script(("event_scene.js",), code)
    levels = [[int(n) for n in re.findall(r"\d+", c)] for c in colours]
    assert levels[0] == levels[1]
    assert levels[3] == levels[4]
    assert levels[1][0] > 2 * levels[1][2]
    assert levels[3][2] > 2 * levels[3][0]
    assert max(levels[2]) == levels[2][1]  # green between them


def test_the_view_is_to_scale() -> None:
    """From above x goes right and y up; zooming keeps a pixel where it is."""
    code = """(() => {
      const camera = new Camera([-100, -100, -50], [100, 100, 50]);
      camera.size = [400, 300];
      camera.look(-90, 90);
      const at = (place) => camera.projection()(place).slice(0, 2);
      const before = [at([0, 0, 0]), at([100, 0, 7]), at([0, 100, 0]), camera.scale];
      const pixel = at([30, 40, 0]);
      camera.zoomBy(3, ...pixel);
      return [before, pixel, at([30, 40, 0]), camera.scale];
    })()"""
    before, pixel, after, scale = run_script(("event_scene.js",), code)
    assert before[0] == [200, 150]
    assert before[1] == pytest.approx([200 + 100 * before[3], 150])
    assert before[2] == pytest.approx([200, 150 - 100 * before[3]])
    # All of the detector is in view, and not much more: 200 m in 300 pixels.
    assert 0.8 * 300 < 200 * before[3] < 300
    assert after == pytest.approx(pixel)
    assert scale == pytest.approx(3 * before[3])
