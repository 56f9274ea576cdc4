"""Pulses into features: against the published pipeline, and what is refused."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd import (
    FEATURE_NAMES,
    PackedBatch,
    PulseMap,
    build_detector,
)
from graphnet_icecube2nd.detector.detector import Detector
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.ice import IceModel
from graphnet_icecube2nd.detector.pulse_map import Scales
from graphnet_icecube2nd.events.features import (
    centre_positions,
    check_pulses,
    pulse_features,
)

Columns = dict[str, Any]
BARE = PulseMap(name="bare", ice="none")  # x, y, z and time


@pytest.fixture
def ice() -> IceModel:
    """IceCube's ice, as a model of its own that has not warned yet."""
    return replace(IceModel.icecube())


def make_offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def make_pulses(num_pulses: int = 6, seed: int = 0) -> Columns:
    """Pulses in DOMs of IceCube-86, as the competition's files have them."""
    rng = np.random.default_rng(seed)
    return {
        "sensor_id": rng.integers(0, 5160, num_pulses).astype(np.int16),
        "time": rng.integers(6_000, 20_000, num_pulses),
        "charge": rng.gamma(2, 0.6, num_pulses) + 0.025,
        "auxiliary": rng.random(num_pulses) < 0.7,
    }


def feature(features_TF: Tensor, name: str, names: tuple[str, ...]) -> list[float]:
    return features_TF[:, names.index(name)].tolist()


def column(features_TF: Tensor, name: str) -> list[float]:
    return feature(features_TF, name, FEATURE_NAMES)


class PublishedPipeline:
    """The published `IceCubeCache`, in plain numpy, from the competition's files."""

    def __init__(self, geometry: Path, ice: Path) -> None:
        table = np.loadtxt(geometry, delimiter=",", skiprows=1)
        self.position_S3 = (table[:, 1:].astype(np.float32) / 500).astype(np.float32)
        self.qe_S = np.zeros(len(table) + 1)
        for string in range(78, 86):
            # .loc includes both ends: DOM 12 to the first of the next string.
            self.qe_S[60 * string + 11 : 60 * string + 61] = 1
        depth, scattering, absorption = np.loadtxt(ice, skiprows=1).T
        self.z_N = (depth - 1950) / 500  # upside down: z points up, depth down
        self.ice_N2 = np.stack([self.robust(scattering), self.robust(absorption)], 1)

    @staticmethod
    def robust(length_N: NDArray[np.float64]) -> NDArray[np.float64]:
        low, median, high = np.quantile(length_N, [0.25, 0.5, 0.75])
        return np.asarray((length_N - median) / (high - low))

    def __call__(self, pulses: Columns) -> NDArray[np.float32]:
        position_T3 = self.position_S3[pulses["sensor_id"]]
        z_T = position_T3[:, 2]
        columns = [
            *position_T3.T,
            (np.asarray(pulses["time"]) - 1e4) / 3e4,
            np.log10(pulses["charge"]) / 3.0,
            np.asarray(pulses["auxiliary"]),
            self.qe_S[pulses["sensor_id"]],
            np.interp(z_T, self.z_N, self.ice_N2[:, 0]),
            np.interp(z_T, self.z_N, self.ice_N2[:, 1]),
        ]
        return np.stack(columns, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> PublishedPipeline:
    return PublishedPipeline(
        shared_dir / "data/kaggle_sample/sensor_geometry.csv",
        shared_dir / "data/graphnet/ice_transparency.txt",
    )


@pytest.mark.data
class TestPublishedPipeline:
    def test_real_events(self, shared_dir: Path, published: PublishedPipeline) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        path = shared_dir / "data/kaggle_sample/train/batch_1.parquet"
        table = parquet.read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        event_id, lengths = np.unique(columns["event_id"], return_counts=True)
        assert len(event_id) == 5
        offsets = make_offsets(lengths.tolist())
        found = pulse_features(
            columns,
            offsets,
            PulseMap.kaggle().as_published(),
            event_id=torch.from_numpy(event_id),
        )
        wanted = published(columns)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=2e-6)
        # And what a model takes is made of it.
        batch = PackedBatch(found, offsets, offsets.diff())
        assert batch.names == PulseMap.kaggle().feature_names

    def test_every_dom(self, published: PublishedPipeline, ice: IceModel) -> None:
        """All 5160 DOMs that lie within the mirrored table, which is all but a few."""
        pulses = make_pulses(5160)
        pulses["sensor_id"] = np.arange(5160)
        z_S = 500 * published.position_S3[:, 2]
        within = (z_S >= 1398.4 - 1950) & (z_S <= 2488.4 - 1950)
        assert within.sum() > 5000
        pulse_map = PulseMap.kaggle().as_published()
        pulses = {name: values[within] for name, values in pulses.items()}
        offsets = make_offsets([int(within.sum())])
        found = pulse_features(pulses, offsets, pulse_map, ice=ice)
        np.testing.assert_allclose(found, published(pulses), rtol=1e-6, atol=2e-6)

    def test_users_own_tables(
        self, shared_dir: Path, published: PublishedPipeline
    ) -> None:
        pulses = make_pulses(100)
        found = pulse_features(
            pulses,
            make_offsets([100]),
            PulseMap.kaggle().as_published(),
            geometry=DetectorGeometry.from_csv(
                shared_dir / "data/kaggle_sample/sensor_geometry.csv"
            ),
            ice=IceModel.from_file(shared_dir / "data/graphnet/ice_transparency.txt"),
        )
        np.testing.assert_allclose(found, published(pulses), rtol=1e-6, atol=2e-6)


@pytest.mark.data
class TestGraphnetDatabases:
    @staticmethod
    def read(
        shared_dir: Path, name: str, table: str, pulse_map: PulseMap
    ) -> tuple[Columns, Tensor]:
        folder = shared_dir / "data/graphnet/data/tests/sqlite"
        (path,) = folder.glob(f"{name}*/*.db")
        database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        names = list(pulse_map.columns())
        rows = database.execute(
            f"SELECT event_no, {', '.join(names)} FROM {table} ORDER BY event_no"
        ).fetchall()
        database.close()
        values = np.array(rows, dtype=np.float64)
        _, lengths = np.unique(values[:, 0], return_counts=True)
        columns = dict(zip(names, values[:, 1:].T, strict=True))
        return columns, make_offsets(lengths.tolist())

    def test_oscnext(self, shared_dir: Path) -> None:
        pulse_map = PulseMap.icecube86()
        columns, offsets = self.read(shared_dir, "oscNext", "SRTInIcePulses", pulse_map)
        found = pulse_features(columns, offsets, pulse_map)
        assert found.shape == (56, 9)
        assert len(PackedBatch(found, offsets, offsets.diff())) == 5
        assert column(found, "auxiliary") == (1 - columns["hlc"]).tolist()
        assert column(found, "qe") == (columns["rde"] > 1.1).astype(float).tolist()
        assert set(column(found, "qe")) == {0.0, 1.0}
        # The DOM within a metre has the efficiency that the file's own column says.
        without = replace(pulse_map, rde=None)
        assert torch.equal(pulse_features(columns, offsets, without), found)

    def test_upgrade(self, shared_dir: Path, ice: IceModel) -> None:
        pulse_map = PulseMap.upgrade()
        columns, offsets = self.read(
            shared_dir, "upgrade", "SplitInIcePulses", pulse_map
        )
        with pytest.warns(UserWarning, match="outside the ice table"):
            found = pulse_features(columns, offsets, pulse_map, ice=ice)
        assert found.shape == (625, 12)
        assert found.isfinite().all()
        names = pulse_map.feature_names
        assert feature(found, "pmt_dir_z", names) == pytest.approx(
            columns["pmt_dir_z"].tolist()
        )


class TestWays:
    """The same pulses told in different columns give the same features."""

    def test_sensor_id_or_place(self, ice: IceModel) -> None:
        pulses = make_pulses(500)
        offsets = make_offsets([300, 200])
        position = DetectorGeometry.icecube86().position_S3[
            pulses["sensor_id"].astype(int)
        ]
        place = dict(zip("xyz", position.T.numpy(), strict=True))
        by_id = PulseMap.kaggle()
        without_id = {k: v for k, v in pulses.items() if k != "sensor_id"}
        for pulse_map in (by_id, by_id.as_published()):
            wanted = pulse_features(pulses, offsets, pulse_map, ice=ice)
            for columns in ({**pulses, **place}, {**without_id, **place}):
                found = pulse_features(columns, offsets, pulse_map, ice=ice)
                assert torch.equal(found, wanted)

    def test_part_of_a_place(self) -> None:
        """Some coordinates beside a sensor_id: the DOM's, or a message, no crash."""
        pulses = make_pulses(5)
        wanted = pulse_features(pulses, make_offsets([5]), PulseMap.kaggle())
        position = DetectorGeometry.icecube86().position_S3
        for axes in ("x", "xy", "yz", "z"):
            some = {
                a: position[pulses["sensor_id"].astype(int), "xyz".index(a)]
                for a in axes
            }
            found = pulse_features(
                {**pulses, **some}, make_offsets([5]), PulseMap.kaggle()
            )
            assert torch.equal(found, wanted)

    def test_hlc_or_auxiliary(self) -> None:
        pulses = make_pulses(40)
        offsets = make_offsets([40])
        turned = {**pulses, "hlc": ~pulses["auxiliary"]}
        del turned["auxiliary"]
        pulse_map = PulseMap.kaggle(auxiliary=None, hlc="hlc")
        found = pulse_features(turned, offsets, pulse_map)
        assert torch.equal(found, pulse_features(pulses, offsets, PulseMap.kaggle()))
        assert column(found, "auxiliary") == pulses["auxiliary"].astype(float).tolist()

    def test_columns_are_not_written_to(self) -> None:
        """GraphNeT's IceMixNodes turns hlc in place; the next reader has it wrong."""
        pulses = {
            **{"dom_x": np.zeros(3), "dom_y": np.zeros(3), "dom_z": np.zeros(3)},
            **{"dom_time": np.array([1.0, 2, 3]), "charge": np.ones(3)},
            **{"hlc": torch.tensor([1.0, 0, 1]), "rde": np.full(3, 1.35)},
        }
        before = {name: values.tolist() for name, values in pulses.items()}
        pulse_map = PulseMap.icecube86(time_reference="first_pulse", ice="none")
        first = pulse_features(pulses, make_offsets([3]), pulse_map)
        assert torch.equal(pulse_features(pulses, make_offsets([3]), pulse_map), first)
        for name, values in pulses.items():
            assert values.tolist() == before[name], name

    @pytest.mark.parametrize(
        "kind",
        [np.asarray, torch.as_tensor, list, lambda v: np.asarray(v).astype(float)],
    )
    def test_kinds_of_columns(self, kind: Callable[[Any], Any]) -> None:
        pulses = make_pulses(7)
        offsets = make_offsets([7])
        wanted = pulse_features(pulses, offsets, PulseMap.kaggle())
        columns = {name: kind(values) for name, values in pulses.items()}
        assert torch.equal(pulse_features(columns, offsets, PulseMap.kaggle()), wanted)

    def test_pandas(self) -> None:
        pandas = pytest.importorskip("pandas")
        pulses = make_pulses(7)
        offsets = make_offsets([7])
        found = pulse_features(pandas.DataFrame(pulses), offsets, PulseMap.kaggle())
        assert torch.equal(found, pulse_features(pulses, offsets, PulseMap.kaggle()))

    def test_read_only_and_strided_columns(self) -> None:
        pulses = make_pulses(8)
        offsets = make_offsets([4])
        wanted = pulse_features(
            {name: values[::2].copy() for name, values in pulses.items()},
            *(offsets, PulseMap.kaggle()),
        )
        columns = {name: values[::2] for name, values in pulses.items()}
        for values in columns.values():
            values.flags.writeable = False
        assert torch.equal(pulse_features(columns, offsets, PulseMap.kaggle()), wanted)

    def test_surplus_columns_are_passed_over(self) -> None:
        pulses = make_pulses(4)
        offsets = make_offsets([4])
        more = {**pulses, "width": np.full(4, np.nan), "label": ["a"] * 4}
        found = pulse_features(more, offsets, PulseMap.kaggle())
        assert torch.equal(found, pulse_features(pulses, offsets, PulseMap.kaggle()))


class TestWhatIsMissing:
    def test_charge_counts_as_one(self) -> None:
        columns = {name: np.arange(3.0) for name in ("x", "y", "z", "time")}
        found = pulse_features(columns, make_offsets([3]), BARE)
        assert column(found, "charge") == [0.0] * 3  # log10 of 1
        assert column(found, "auxiliary") == [0.0] * 3

    def test_no_ice(self) -> None:
        columns = {name: np.arange(3.0) for name in ("x", "y", "z", "time")}
        found = pulse_features(columns, make_offsets([3]), BARE)
        for name in ("scattering", "absorption"):
            assert column(found, name) == [0.0] * 3

    def test_efficiency_of_the_nearest_dom(self) -> None:
        geometry = DetectorGeometry.icecube86()
        high = int((geometry.rde_S > 1.1).nonzero()[0])
        low = int((geometry.rde_S < 1.1).nonzero()[0])
        places = torch.stack(
            [
                geometry.position_S3[high],
                geometry.position_S3[high] + torch.tensor([0.5, -0.5, 0.5]),
                geometry.position_S3[high] + torch.tensor([0.0, 0.0, 1.2]),
                geometry.position_S3[low],
                torch.tensor([5e4, 0.0, 0.0]),
            ]
        )
        columns = {"x": places[:, 0], "y": places[:, 1], "z": places[:, 2]}
        columns["time"] = torch.zeros(5)
        found = pulse_features(columns, make_offsets([5]), BARE)
        assert column(found, "qe") == [1, 1, 0, 0, 0]
        # In a file whose centre lies elsewhere too.
        moved = replace(BARE, origin=(1000.0, -200.0, -2500.0))
        shift = {"x": 1000.0, "y": -200.0, "z": -2500.0, "time": 0.0}
        columns = {name: values + shift[name] for name, values in columns.items()}
        found = pulse_features(columns, make_offsets([5]), moved)
        assert column(found, "qe") == [1, 1, 0, 0, 0]

    def test_a_files_own_efficiency_counts_more(self) -> None:
        pulses = {**make_pulses(4), "rde": np.array([1.35, 1.0, 1.35, 1.0])}
        found = pulse_features(pulses, make_offsets([4]), PulseMap.kaggle(rde="rde"))
        assert column(found, "qe") == [1, 0, 1, 0]
        # But not for the published weights, which know DOM numbers only.
        published = PulseMap.kaggle(rde="rde").as_published()
        found = pulse_features(pulses, make_offsets([4]), published)
        flag = DetectorGeometry.icecube86().high_qe_flag("published")
        assert column(found, "qe") == flag[pulses["sensor_id"].astype(int)].tolist()

    def test_another_detector(self) -> None:
        geometry = DetectorGeometry(
            name="three",
            position_S3=torch.tensor([[0.0, 0, 0], [0, 0, 9], [9, 0, 0]]).double(),
            string_S=torch.tensor([1, 1, 2]),
            rde_S=torch.tensor([1.0, 1.35, 1.0], dtype=torch.float64),
        )
        pulse_map = PulseMap(
            name="three", x=None, y=None, z=None, sensor_id="pmt", ice="none"
        )
        columns = {"pmt": np.array([2, 1]), "time": np.zeros(2)}
        found = pulse_features(columns, make_offsets([2]), pulse_map, geometry=geometry)
        assert column(found, "x") == pytest.approx([9 / 500, 0])
        assert column(found, "z") == pytest.approx([0, 9 / 500])
        assert column(found, "qe") == [0, 1]
        # A place far from any DOM has no efficiency, not that of the first DOM.
        geometry = replace(geometry, rde_S=torch.full((3,), 1.35).double())
        at_places = {"x": np.array([0.0, 50]), **dict.fromkeys("yz", np.zeros(2))}
        at_places["time"] = np.zeros(2)
        found = pulse_features(at_places, make_offsets([2]), BARE, geometry=geometry)
        assert column(found, "qe") == [1, 0]
        columns["pmt"] = np.array([2, 3])
        with pytest.raises(ValueError, match=r"'pmt' is 3; it .* from 0 to 2"):
            pulse_features(columns, make_offsets([2]), pulse_map, geometry=geometry)


class TestExtraColumns:
    def test_scaled_and_last(self) -> None:
        pulse_map = PulseMap.kaggle(extra=("tot", "width"), extra_scale=(10.0, 1.0))
        pulses = make_pulses(3)
        pulses["width"], pulses["tot"] = np.arange(3.0), 30 + np.arange(3)
        found = pulse_features(pulses, make_offsets([3]), pulse_map)
        assert found.shape == (3, 11)
        names = pulse_map.feature_names
        assert names[9:] == ("tot", "width")
        assert feature(found, "tot", names) == pytest.approx([3.0, 3.1, 3.2])
        assert feature(found, "width", names) == [0, 1, 2]
        del pulses["tot"]
        with pytest.raises(ValueError, match="needs column tot"):
            pulse_features(pulses, make_offsets([3]), pulse_map)


class TestCentre:
    @given(shift=st.lists(st.floats(-900, 900), min_size=3, max_size=3))
    def test_a_shift_of_the_detector_changes_nothing(self, shift: list[float]) -> None:
        """The centre is that of the light; auxiliary pulses have none if others do."""
        pulse_map = PulseMap.icecube86(ice="none", rde=None, origin=(5.0, 0.0, -9.0))
        place = np.array([[0, 0, 0], [30, 60, -90], [200, 0, 0], [7, 8, 9]]) + shift
        columns = dict(zip(("dom_x", "dom_y", "dom_z"), place.T, strict=True))
        columns |= {"dom_time": np.full(4, 1e4), "charge": np.array([1, 2, 5.0, 3])}
        columns["hlc"] = np.array([1, 1, 0, 0])
        detector = Detector.from_pulse_map(pulse_map)
        plain = pulse_features(columns, make_offsets([3, 1]), detector)
        borders = make_offsets([3, 0, 1])
        found, centre_B3 = centre_positions(plain, borders, detector)
        wanted = np.array([[-20, -40, 60], [10, 20, -30], [180, -40, 60], [0, 0, 0]])
        assert found[:, :3] * 500 == pytest.approx(torch.tensor(wanted), abs=1e-3)
        assert torch.equal(found[:, 3:], plain[:, 3:])
        middle = torch.tensor([[20.0, 40, -60], [0, 0, 0], [7, 8, 9]])
        middle[[0, 2]] += torch.tensor(shift) - torch.tensor(pulse_map.origin)
        torch.testing.assert_close(centre_B3, middle, rtol=0, atol=1e-3)


class TestTimes:
    def test_first_pulse_of_each_event(self) -> None:
        """At 1e8 ns float32 counts in steps of 8 ns; differences keep their place."""
        pulse_map = replace(BARE, time_reference="first_pulse")
        after_first = np.array([7.0, 0.0, 1.0, 12_345.25, 0.0, 3.0, 0.5])
        start = np.repeat([1e8, 3e8 + 1, 5.0], [3, 2, 2])
        columns = {name: np.zeros(7) for name in "xyz"}
        columns["time"] = start + after_first
        found = pulse_features(columns, make_offsets([3, 2, 2]), pulse_map)
        wanted = after_first.copy()
        wanted[5:] -= 0.5
        assert column(found, "time") == pytest.approx((wanted / 3e4).tolist(), rel=1e-6)

    @given(
        shift=st.floats(-1e9, 1e9),
        noise=st.floats(0, 1e5),
        polarity=st.sampled_from(["hlc", "auxiliary", "trig"]),
    )
    def test_since_the_first_triggered_pulse(
        self, shift: float, noise: float, polarity: str
    ) -> None:
        """Neither a shift of the event nor noise before it changes other times."""
        flag = {"auxiliary" if polarity == "auxiliary" else "hlc": polarity}
        pulse_map = replace(BARE, time_reference="first_triggered", **flag)
        triggered = np.array([0, 0, 1, 0, 1, 0, 0]) * (3 if polarity == "trig" else 1)
        columns = {name: np.zeros(7) for name in "xyz"}
        columns[polarity] = triggered if flag.get("hlc") else 1 - triggered
        columns["time"] = shift + np.array([3 - noise, 5, 9, 20, 2, 7, 12])
        found = pulse_features(columns, make_offsets([5, 2]), pulse_map)
        wanted = np.array([3, 7, 18, 0, 0, 5]) / 3e4
        assert column(found, "time")[1:] == pytest.approx(wanted.tolist(), abs=1e-8)

    def test_whole_nanoseconds(self) -> None:
        pulse_map = replace(BARE, time_reference="first_pulse")
        columns = {name: np.zeros(3) for name in "xyz"}
        columns["time"] = np.array([2**52 + 1, 2**52, 2**52 + 31], dtype=np.int64)
        found = pulse_features(columns, make_offsets([3]), pulse_map)
        assert column(found, "time") == pytest.approx([1 / 3e4, 0, 31 / 3e4])

    def test_window(self) -> None:
        columns = {name: np.zeros(2) for name in "xyz"}
        columns["time"] = np.array([10_000.0, 40_000.0])
        assert column(pulse_features(columns, make_offsets([2]), BARE), "time") == [
            0,
            1,
        ]


class TestIce:
    @staticmethod
    def at_heights(z: list[float], ice: IceModel, profile: str = "correct") -> Tensor:
        columns = {"x": np.zeros(len(z)), "y": np.zeros(len(z)), "z": np.array(z)}
        columns["time"] = np.zeros(len(z))
        pulse_map = replace(BARE, ice=profile)
        return pulse_features(columns, make_offsets([len(z)]), pulse_map, ice=ice)

    def test_outside_the_table_is_clamped_with_one_warning(self, ice: IceModel) -> None:
        edges = [1948.07 - 1398.4, 1948.07 - 2488.4]
        with pytest.warns(UserWarning, match="outside the ice table") as caught:
            found = self.at_heights([700.0, 0.0, -700.0], ice)
        assert len(caught) == 1
        again = self.at_heights([700.0, *edges, -700.0], ice)  # warnings are errors
        assert torch.equal(again[0, 7:], again[1, 7:])
        assert torch.equal(again[3, 7:], again[2, 7:])
        assert torch.equal(found[0, 7:], again[0, 7:])

    def test_profiles_are_mirrored(self, ice: IceModel) -> None:
        """z of one is depth of the other, 1.93 m apart in their datum."""
        correct = self.at_heights([100.0, -350.0], ice)
        mirrored = self.at_heights([-101.93, 348.07], ice, "mirrored")
        torch.testing.assert_close(correct[:, 7:], mirrored[:, 7:], rtol=0, atol=1e-5)


def bad(name: str, value: object, at: int = 4) -> Columns:
    """Pulses of three events (2, 2, 2) with one value changed."""
    pulses = make_pulses(6)
    values = pulses[name].astype(np.result_type(pulses[name], np.asarray(value)))
    values[at] = value
    return {**pulses, name: values}


class TestTensorsOfAnyKind:
    """A number is a number, wherever the tensor comes from."""

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        columns = {**make_pulses(2), "charge": torch.ones(2, dtype=dtype)}
        found = pulse_features(columns, make_offsets([2]), PulseMap.kaggle())
        assert column(found, "charge") == [0, 0]

    def test_tensor_with_a_gradient(self) -> None:
        columns = {**make_pulses(2), "charge": torch.ones(2, requires_grad=True)}
        found = pulse_features(columns, make_offsets([2]), PulseMap.kaggle())
        assert column(found, "charge") == [0, 0]


class TestRefusals:
    """Column, event and allowed range stand in the message."""

    EVENT_ID = torch.tensor([24, 41, 59])

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (bad("charge", np.nan), "'charge' is nan; it must be finite"),
            (bad("charge", np.inf), "'charge' is inf; it must be finite"),
            (bad("time", -np.inf), "'time' is -inf; it must be finite"),
            (bad("charge", 0.0), "'charge' is 0; it must be above 0 p.e."),
            (bad("charge", -0.5), "'charge' is -0.5; it must be above 0 p.e."),
            (bad("auxiliary", 2), "'auxiliary' is 2; it must be 0 or 1"),
            (bad("auxiliary", 0.5), "'auxiliary' is 0.5; it must be 0 or 1"),
            (bad("sensor_id", -1), "'sensor_id' is -1; it must be a whole number"),
            (bad("sensor_id", 5160), "'sensor_id' is 5160; it must be a whole number"),
            (bad("sensor_id", 7.5), "'sensor_id' is 7.5; it must be a whole number"),
        ],
    )
    def test_values(self, columns: Columns, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            pulse_features(
                *(columns, make_offsets([2, 2, 2]), PulseMap.kaggle()),
                event_id=self.EVENT_ID,
            )
        assert "event 59, pulse 0:" in str(caught.value)
        assert "(1 of 6 pulses are not)" in str(caught.value)
        if "sensor_id" in message:
            assert "from 0 to 5159" in str(caught.value)

    def test_place_that_is_not_finite(self) -> None:
        columns = {name: np.zeros(3) for name in ("dom_x", "y", "z", "time")}
        columns["dom_x"][1] = np.nan
        pulse_map = replace(BARE, x="dom_x")
        with pytest.raises(
            ValueError, match="event 0 of the batch, pulse 1: column 'do"
        ):
            pulse_features(columns, make_offsets([3]), pulse_map)

    def test_flag_and_extra_that_are_not_finite(self) -> None:
        for name in ("hlc", "tot"):
            columns = {**make_pulses(2), "hlc": np.ones(2), "tot": np.ones(2)}
            columns[name][1] = np.nan
            pulse_map = PulseMap.kaggle(
                auxiliary=None, hlc="hlc", extra=("tot",), extra_scale=(1.0,)
            )
            with pytest.raises(ValueError, match=f"{name!r} is nan; it must be finite"):
                pulse_features(columns, make_offsets([2]), pulse_map)

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            (["1", "2"], "<U1"),
            (np.array([1, 2], dtype=object), "object"),
            (np.array([1 + 1j, 2]), "complex128"),
            (np.array(["2023-01-01"] * 2, dtype="datetime64[ns]"), "datetime64"),
        ],
    )
    def test_wrong_dtype(self, values: object, dtype: str) -> None:
        columns = {**make_pulses(2), "time": values}
        with pytest.raises(ValueError, match="'time' must be numbers") as caught:
            pulse_features(columns, make_offsets([2]), PulseMap.kaggle())
        assert dtype in str(caught.value)

    @pytest.mark.parametrize("shape", [(5,), (7,), (6, 1), ()])
    def test_wrong_shape(self, shape: tuple[int, ...]) -> None:
        columns = {**make_pulses(6), "charge": np.ones(shape)}
        message = f"'charge' has shape {shape}; there are 6 pulses"
        with pytest.raises(ValueError, match=re.escape(message)):
            pulse_features(columns, make_offsets([6]), PulseMap.kaggle())

    @pytest.mark.parametrize("name", ["time", "charge", "auxiliary"])
    def test_missing_column(self, name: str) -> None:
        columns = make_pulses(6)
        del columns[name]
        message = f"'kaggle' needs column {name}; "
        with pytest.raises(ValueError, match=message) as caught:
            pulse_features(columns, make_offsets([6]), PulseMap.kaggle())
        assert "sensor_id" in str(caught.value)

    def test_neither_place_nor_sensor_id(self) -> None:
        columns = make_pulses(6)
        del columns["sensor_id"]
        with pytest.raises(ValueError, match=r"needs column sensor_id .or x, y, z."):
            pulse_features(columns, make_offsets([6]), PulseMap.kaggle())

    def test_missing_columns_under_their_own_names(self) -> None:
        with pytest.raises(ValueError, match="needs column dom_time, hlc;"):
            pulse_features(
                {name: np.ones(2) for name in ("dom_x", "dom_y", "dom_z", "charge")},
                make_offsets([2]),
                PulseMap.icecube86(),  # without rde: it is looked up
            )

    def test_event_without_pulses(self) -> None:
        offsets = torch.tensor([0, 2, 2, 6])
        with pytest.raises(ValueError, match="event 41 has no pulses"):
            pulse_features(
                make_pulses(6), offsets, PulseMap.kaggle(), event_id=self.EVENT_ID
            )
        with pytest.raises(ValueError, match="event 1 of the batch has no pulses"):
            check_pulses(make_pulses(6), offsets, PulseMap.kaggle())

    def test_nothing_is_lost_or_written(self) -> None:
        columns = bad("charge", 0.0)
        before = {name: values.copy() for name, values in columns.items()}
        with pytest.raises(ValueError, match="charge"):
            pulse_features(columns, make_offsets([6]), PulseMap.kaggle())
        assert columns.keys() == before.keys()
        for name, values in columns.items():
            assert np.array_equal(values, before[name])

    def test_what_check_pulses_gives(self) -> None:
        raw = check_pulses(make_pulses(6), make_offsets([6]), PulseMap.kaggle())
        assert set(raw) == {"sensor_id", "time", "charge", "auxiliary"}
        assert {values.dtype for values in raw.values()} == {torch.float64}


def test_a_clock_since_1970_keeps_its_nanoseconds() -> None:
    """float64 counts 1.7e18 ns in steps of 256."""
    time = 1_700_000_000_000_000_000 + np.array([0, 100, 200, 5, 1005])
    columns = {"x": np.zeros(5), "y": np.zeros(5), "z": np.zeros(5), "time": time}
    pulse_map = PulseMap(name="clock", time_reference="first_pulse", ice="none")
    found = pulse_features(columns, make_offsets([3, 2]), pulse_map)
    torch.testing.assert_close(
        found[:, 3] * 3e4, torch.tensor([0.0, 100.0, 200.0, 0.0, 1000.0])
    )
    window = PulseMap(name="clock", ice="none")
    with pytest.raises(ValueError, match=r"'time' is 1\.7e\+18; .*first_pulse"):
        pulse_features(columns, make_offsets([3, 2]), window)


def test_offsets_that_are_none_are_refused() -> None:
    for offsets, message in (
        (torch.tensor([-1, 3, 5]), "from 0"),
        (torch.tensor([0.0, 5.0]), "int64"),
        (torch.tensor([5]), "at least one event"),
        (np.array([0, 5]), "must be a tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            pulse_features(make_pulses(5), offsets, PulseMap.kaggle())


def test_events_may_be_called_by_any_name() -> None:
    pulses = {**make_pulses(2), "charge": np.array([1.0, -1.0])}
    with pytest.raises(ValueError, match="event run1/e5, pulse 1: column 'charge'"):
        pulse_features(
            pulses, make_offsets([2]), PulseMap.kaggle(), event_id=["run1/e5"]
        )


@pytest.mark.parametrize("name", ["kaggle", "icecube86"])
def test_units_of_a_detector_change_its_places_only(name: str) -> None:
    """DOMs and ice are those of the places in m, whatever one unit of x is."""
    usual = build_detector(name)
    position_T3 = usual.modules_or_icecube86.position_S3[[7, 4800]].numpy()
    pulses: Columns = {
        "sensor_id": np.array([7, 4800]),
        "time": np.array([9e3, 1e4]),
        "charge": np.ones(2),
        "auxiliary": np.zeros(2, bool),
    }
    if name == "icecube86":
        pulses = dict(zip(("dom_x", "dom_y", "dom_z"), position_T3.T, strict=True))
        pulses |= {"dom_time": np.array([9e3, 1e4]), "charge": np.ones(2)}
        pulses |= {"hlc": np.ones(2, bool), "rde": np.array([1.0, 1.35])}
    offsets = torch.tensor([0, 2])
    scales = Scales(position=100.0)
    found = pulse_features(pulses, offsets, replace(usual, scales=scales))
    wanted = pulse_features(pulses, offsets, usual)
    wanted[:, :3] *= 5
    torch.testing.assert_close(found, wanted)
