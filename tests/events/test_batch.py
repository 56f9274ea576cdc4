"""PackedBatch: what it holds, what it refuses, how it moves."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from graphnet_icecube2nd import FEATURE_NAMES, PackedBatch


def numbered(num_pulses: int) -> Tensor:
    """Features that tell where they stand; auxiliary is a flag."""
    features = torch.arange(9.0 * num_pulses).reshape(num_pulses, 9)
    features[:, FEATURE_NAMES.index("auxiliary")] = 1.0
    return features


def make(**changes: Any) -> PackedBatch:
    """Three events of 2, 1 and 3 pulses."""
    arguments: dict[str, Any] = {
        "features": numbered(6),
        "offsets": torch.tensor([0, 2, 3, 6]),
        "n_pulses": torch.tensor([2, 1, 500]),
    }
    return PackedBatch(**{**arguments, **changes})


def with_value(pulse: int, column: str, value: float) -> Tensor:
    features = torch.zeros(6, 9)
    features[pulse, FEATURE_NAMES.index(column)] = value
    return features


class TestContent:
    def test_length_and_columns(self) -> None:
        batch = make()
        assert len(batch) == 3
        assert batch.lengths.tolist() == [2, 1, 3]
        assert batch.names == FEATURE_NAMES
        assert batch.column("time").tolist() == [3, 12, 21, 30, 39, 48]
        columns = batch.columns(("absorption", "x"))
        assert columns[1].tolist() == [17, 9]

    def test_unknown_column(self) -> None:
        with pytest.raises(ValueError, match=r"no feature 'tot'.*x, y, z, time"):
            make().column("tot")
        with pytest.raises(ValueError, match="no feature 'rde'"):
            make().columns(["x", "rde"])

    def test_other_columns(self) -> None:
        batch = make(features=torch.zeros(6, 2), names=["time", "tot"])
        assert batch.names == ("time", "tot")
        assert batch.column("tot").shape == (6,)

    def test_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            make().features = torch.zeros(6, 9)  # type: ignore[misc]

    def test_from_events(self) -> None:
        batch = make()
        events = batch.features.split([2, 1, 3])
        again = PackedBatch.from_events(events)
        assert torch.equal(again.features, batch.features)
        assert torch.equal(again.offsets, batch.offsets)
        assert again.n_pulses.tolist() == [2, 1, 3]
        truth = {"direction": torch.eye(3)}
        full = PackedBatch.from_events(
            events,
            n_pulses=torch.tensor([9, 9, 9]),
            names=[f"f{i}" for i in range(9)],
            event_id=torch.tensor([4, 5, 6]),
            truth=truth,
        )
        assert full.n_pulses.tolist() == [9, 9, 9]
        assert full.names[8] == "f8"
        assert full.event_id is not None
        assert full.event_id.tolist() == [4, 5, 6]
        assert full.truth is truth


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"features": torch.zeros(6)}, r"floating point table.*shape \(6,\)"),
            (
                {"features": torch.zeros(6, 9, dtype=torch.int64)},
                r"floating point table.*torch\.int64",
            ),
            ({"features": torch.zeros(6, 8)}, "8 columns, names has 9: x, y"),
            ({"offsets": torch.tensor([0.0, 6.0])}, r"int64.*torch\.float32"),
            ({"offsets": torch.tensor([[0, 6]])}, r"int64.*shape \(1, 2\)"),
            ({"offsets": torch.tensor([0])}, "at least one event"),
            (
                {"offsets": torch.tensor([0, 2, 3, 6], dtype=torch.int32)},
                r"offsets.*torch\.int32",
            ),
            (
                {"n_pulses": torch.tensor([2.0, 1.0, 500.0])},
                r"n_pulses must be .*int64, got .*torch\.float32",
            ),
            (
                {"event_id": torch.tensor([1.0, 2.0, 3.0])},
                r"event_id must be .*int64, got .*torch\.float32",
            ),
            (
                {"n_pulses": torch.tensor([2, 1])},
                r"n_pulses .*3 events",
            ),
            (
                {"event_id": torch.tensor([7])},
                r"event_id .*3 events",
            ),
            (
                {"truth": {"zenith": torch.zeros(4)}},
                r"zenith .*3 events",
            ),
            ({"offsets": torch.tensor([0, 2, 3, 5])}, "from 0 to 6 pulses, got 0 to 5"),
            ({"offsets": torch.tensor([1, 2, 3, 6])}, "from 0 to 6 pulses, got 1 to 6"),
            ({"offsets": torch.tensor([0, 2, 2, 6])}, "event 1 of the batch has no"),
            ({"offsets": torch.tensor([0, 4, 3, 6])}, "must not decrease; event 1"),
            ({"offsets": [0, 2, 3, 6]}, "offsets must be a tensor, got list"),
            ({"names": ["x"] * 9}, "name .* twice"),
            (
                {"features": with_value(4, "auxiliary", 0.5)},
                "'auxiliary' is 0.5; .* 0 or 1",
            ),
            (
                {"n_pulses": torch.tensor([2, 1, 2])},
                "event 2 of the batch holds 3 pulses but n_pulses.*is 2",
            ),
            (
                {"features": with_value(2, "charge", float("nan"))},
                "event 1 of the batch: feature 'charge' is nan; it must be finite",
            ),
            (
                {"features": with_value(3, "x", float("-inf"))},
                "event 2 of the batch: feature 'x' is -inf",
            ),
        ],
    )
    def test_what_does_not_fit(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make(**changes)

    @pytest.mark.parametrize("shape", [(), (3, 1), (1, 3)])
    def test_n_pulses_of_another_shape(self, shape: tuple[int, ...]) -> None:
        n_pulses = torch.full(shape, 500)
        with pytest.raises(ValueError, match="n_pulses"):
            make(n_pulses=n_pulses)

    def test_truth_that_is_one_number(self) -> None:
        with pytest.raises(ValueError, match="energy"):
            make(truth={"energy": torch.tensor(3.0)})

    def test_events_are_called_by_their_id(self) -> None:
        event_id = torch.tensor([1001, 1002, 1003])
        with pytest.raises(ValueError, match="event 1003: feature 'time' is inf"):
            make(features=with_value(5, "time", float("inf")), event_id=event_id)
        with pytest.raises(ValueError, match="event 1002 has no pulses"):
            make(offsets=torch.tensor([0, 2, 2, 6]), event_id=event_id)
        with pytest.raises(ValueError, match="event 1001 holds 2"):
            make(n_pulses=torch.tensor([1, 1, 3]), event_id=event_id)

    def test_no_events(self) -> None:
        with pytest.raises(ValueError, match="at least one event"):
            PackedBatch.from_events([])

    def test_an_event_without_pulses(self) -> None:
        with pytest.raises(ValueError, match="event 1 of the batch has no pulses"):
            PackedBatch.from_events([torch.zeros(2, 9), torch.zeros(0, 9)])


class TestMoving:
    @staticmethod
    def full() -> PackedBatch:
        truth = {"direction": torch.eye(3), "energy": torch.ones(3)}
        return make(event_id=torch.tensor([7, 8, 9]), truth=truth)

    def test_to_a_device(self) -> None:
        batch = self.full()
        moved = batch.to("meta")
        assert len(moved) == 3
        assert moved.names == batch.names
        for name in ("features", "offsets", "n_pulses", "event_id"):
            assert getattr(moved, name).device.type == "meta", name
            assert getattr(batch, name).device.type == "cpu", name
        assert moved.truth is not None
        assert {t.device.type for t in moved.truth.values()} == {"meta"}
        assert batch.truth is not None
        assert {t.device.type for t in batch.truth.values()} == {"cpu"}

    def test_to_where_it_is(self) -> None:
        batch = make()
        moved = batch.to(torch.device("cpu"), non_blocking=True)
        assert torch.equal(moved.features, batch.features)
        assert moved.event_id is None
        assert moved.truth is None

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_gpu(self) -> None:
        batch = self.full()
        pinned = batch.pin_memory()
        assert pinned.features.is_pinned()
        assert pinned.truth is not None
        assert pinned.truth["energy"].is_pinned()
        back = pinned.to("cuda", non_blocking=True).to("cpu")
        assert torch.equal(back.features, batch.features)

    def test_pickle(self) -> None:
        batch = self.full()
        again = pickle.loads(pickle.dumps(batch))
        assert torch.equal(again.features, batch.features)
        assert torch.equal(again.truth["direction"], torch.eye(3))

    def test_replace_checks_again(self) -> None:
        with pytest.raises(ValueError, match="must be finite"):
            replace(make(), features=with_value(0, "z", float("nan")))

    def test_through_a_data_loader(self) -> None:
        """A loader of ready batches hands them on as they are."""
        batches = [make(), self.full()]
        loader = DataLoader(batches, batch_size=None)
        for found, wanted in zip(loader, batches, strict=True):
            assert isinstance(found, PackedBatch)
            assert torch.equal(found.features, wanted.features)
