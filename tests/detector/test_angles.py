"""Which way angles point, on made tracks and on real files."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import reverse_angles, unit_vector_to_angles
from graphnet_icecube2nd.detector.angles import infer_angle_convention

Tracks = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def make_tracks(num_events: int = 40, seed: int = 0, jitter: float = 20.0) -> Tracks:
    """Straight tracks through the detector; angles say where they come from.

    Returns:
        Places, times, borders, zenith, azimuth, and where each track begins.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    flight = draw(num_events, 3)
    flight /= flight.norm(dim=1, keepdim=True)
    vertex = 100 * draw(num_events, 3)
    places, times, lengths = [], [], []
    for event in range(num_events):
        length = 3 + event % 10
        way = 300 * torch.rand(length, 1, generator=generator, dtype=torch.float64)
        places.append(vertex[event] + way * flight[event] + jitter * draw(length, 3))
        times.append(1e4 + way[:, 0] / 0.3 + 10 * draw(length))
        lengths.append(length)
    zenith, azimuth = unit_vector_to_angles(-flight)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return torch.cat(places), torch.cat(times), offsets, zenith, azimuth, vertex


@pytest.mark.parametrize("with_vertex", [True, False])
class TestMadeTracks:
    def test_origin(self, with_vertex: bool) -> None:
        *tracks, vertex = make_tracks()
        found = infer_angle_convention(*tracks, vertex if with_vertex else None)
        assert found.convention == "origin"
        assert found.mean_cosine < -0.9
        assert found.num_events == 40
        assert 0 < found.standard_error < 0.05

    def test_flight(self, with_vertex: bool) -> None:
        place, time, offsets, zenith, azimuth, vertex = make_tracks()
        zenith, azimuth = reverse_angles(zenith, azimuth)
        found = infer_angle_convention(
            *(place, time, offsets, zenith, azimuth),
            vertex_B3=vertex if with_vertex else None,
        )
        assert found.convention == "flight"
        assert found.mean_cosine > 0.9

    def test_angles_of_nothing(self, with_vertex: bool) -> None:
        place, time, offsets, zenith, _, vertex = make_tracks()
        turned = torch.roll(zenith, 7)
        azimuth = 2 * math.pi * torch.rand(len(zenith))
        found = infer_angle_convention(
            *(place, time, offsets, turned, azimuth),
            vertex_B3=vertex if with_vertex else None,
        )
        assert found.convention == "undecided"
        assert abs(found.mean_cosine) < 3 * found.standard_error

    def test_place_and_clock_do_not_matter(self, with_vertex: bool) -> None:
        place, time, offsets, zenith, azimuth, vertex = make_tracks()
        first = infer_angle_convention(
            *(place, time, offsets, zenith, azimuth), vertex if with_vertex else None
        )
        moved = infer_angle_convention(
            *(place + 1000, time + 1e8, offsets, zenith, azimuth),
            vertex + 1000 if with_vertex else None,
        )
        assert moved.convention == first.convention
        assert moved.mean_cosine == pytest.approx(first.mean_cosine, abs=1e-9)

    def test_float32(self, with_vertex: bool) -> None:
        place, time, offsets, *rest = make_tracks()
        zenith, azimuth, vertex = (tensor.float() for tensor in rest)
        found = infer_angle_convention(
            *(place.float(), time.float(), offsets, zenith, azimuth),
            vertex if with_vertex else None,
        )
        assert found.convention == "origin"


class TestWhichEventsCount:
    def test_few_hits_do_not(self) -> None:
        *tracks, _ = make_tracks(num_events=40)
        counted = [infer_angle_convention(*tracks, min_pulses=n) for n in (3, 8, 12)]
        assert [evidence.num_events for evidence in counted] == [40, 20, 4]

    def test_too_few_events(self) -> None:
        *tracks, _ = make_tracks(num_events=10)
        with pytest.raises(ValueError, match=r"1 events of 10 have 12 or more pulses"):
            infer_angle_convention(*tracks, min_pulses=12)
        with pytest.raises(ValueError, match=r"0 events of 10.*at least 2 are needed"):
            infer_angle_convention(*tracks, min_pulses=100)

    def test_hits_without_extent_say_nothing(self) -> None:
        """One DOM, or one time: no way in which the light spreads."""
        place, time, offsets, zenith, azimuth, _ = make_tracks(num_events=10)
        same_place = place.clone()
        same_place[: offsets[3]] = 0.0
        found = infer_angle_convention(same_place, time, offsets, zenith, azimuth)
        assert found.num_events == 7

    def test_exactly_sideways_is_undecided(self) -> None:
        """Mean 0 with error 0 speaks for neither."""
        place = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]).repeat(2, 1)
        time = torch.tensor([0.0, 1, 2]).repeat(2)
        found = infer_angle_convention(
            *(place, time, torch.tensor([0, 3, 6])),
            zenith_B=torch.zeros(2),
            azimuth_B=torch.zeros(2),
        )
        assert found.mean_cosine == 0.0
        assert found.convention == "undecided"


@pytest.mark.data
class TestRealFiles:
    """What infer_angle_convention found out about files that do not say it."""

    def test_graphnets_prometheus_example(self, shared_dir: Path) -> None:
        """Its injection angles point back to the origin, against Prometheus's own."""
        folder = shared_dir / "data/graphnet/data/examples/sqlite/prometheus"
        path = folder / "prometheus-events.db"
        with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as database:
            columns = "event_no, sensor_pos_x, sensor_pos_y, sensor_pos_z, t"
            hits = np.array(
                database.execute(
                    f"SELECT {columns} FROM total ORDER BY event_no"
                ).fetchall()
            )
            columns = ", ".join(
                f"injection_{name}"
                for name in ("zenith", "azimuth", *(f"position_{i}" for i in "xyz"))
            )
            truth = torch.tensor(
                database.execute(
                    f"SELECT {columns} FROM mc_truth ORDER BY event_no"
                ).fetchall(),
                dtype=torch.float64,
            )
        database.close()
        _, lengths = np.unique(hits[:, 0], return_counts=True)
        hits_T5 = torch.from_numpy(hits)
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        found = infer_angle_convention(
            *(hits_T5[:, 1:4], hits_T5[:, 4], offsets),
            *(truth[:, 0], truth[:, 1], truth[:, 2:]),
        )
        assert found.convention == "origin"
        assert found.num_events == 50
        assert found.mean_cosine == pytest.approx(-0.3214, abs=1e-3)
        assert found.standard_error == pytest.approx(0.0648, abs=1e-3)

    def test_prometheus_itself(self, shared_dir: Path) -> None:
        """A raw photon file: its angles are those of flight."""
        parquet = pytest.importorskip("pyarrow.parquet")
        name = "data/graphnet/data/tests/prometheus/22980001_photons.parquet"
        rows = parquet.read_table(shared_dir / name).to_pylist()
        place, time, lengths = [], [], []
        for row in rows:
            photons = row["photons"]
            axes = [photons[f"sensor_pos_{axis}"] for axis in "xyz"]
            place += list(zip(*axes, strict=True))
            time += photons["t"]
            lengths.append(len(photons["t"]))
        truth = torch.tensor(
            [
                [
                    row["mc_truth"][f"initial_state_{name}"]
                    for name in ("zenith", "azimuth", "x", "y", "z")
                ]
                for row in rows
            ],
            dtype=torch.float64,
        )
        found = infer_angle_convention(
            torch.tensor(place, dtype=torch.float64),
            torch.tensor(time, dtype=torch.float64),
            torch.tensor([0, *lengths]).cumsum(0),
            *(truth[:, 0], truth[:, 1], truth[:, 2:]),
        )
        assert found.convention == "flight"
        assert found.num_events == 8  # of 10; two have under three hits
        assert found.mean_cosine == pytest.approx(0.6969, abs=1e-3)
