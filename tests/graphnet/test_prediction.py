"""Predictions of batches: worked out by hand for a model that adds up its pulses."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)
pytestmark = pytest.mark.graphnet

import torch
from graphnet.models import StandardModel
from graphnet.models.gnn.gnn import GNN
from graphnet.models.task.reconstruction import (
    DirectionReconstructionWithKappa,
    EnergyReconstruction,
)
from graphnet.training.loss_functions import LogCoshLoss
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

import graphnet_icecube2nd.graphnet_adapter as icecube2nd
from graphnet_icecube2nd.graphnet_adapter.prediction import (
    answers_of,
    evaluating,
    event_predictions,
)

# Sums of the pulses' x, y, z by event, and what the task makes of them.
SUMS = {7: (3.0, 0.0, 4.0), 3: (0.0, -2.0, 0.0), 12: (2.0, 2.0, -1.0)}
EXPECTED = {
    7: (0.6, 0.0, 0.8, 5.0),
    3: (0.0, -1.0, 0.0, 2.0),
    12: (2 / 3, 2 / 3, -1 / 3, 3.0),
}


class Sum(GNN):  # type: ignore[misc]
    """Adds up the pulses of each event."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.devices: list[str] = []

    def forward(self, data: Data) -> Any:
        self.devices.append(data.x.device.type)
        if data.x.is_meta:
            return torch.zeros(data.num_graphs, 3)
        sums = data.x.new_zeros(data.num_graphs, 3)
        return sums.index_add(0, data.batch, data.x)


class KappaFirst(DirectionReconstructionWithKappa):  # type: ignore[misc]
    default_prediction_labels: ClassVar = [
        *("direction_kappa", "dir_z_pred", "dir_x_pred", "dir_y_pred"),
    ]

    def _forward(self, x: Any) -> Any:
        return super()._forward(x)[:, [3, 2, 0, 1]]


LOSS = icecube2nd.ExactVonMisesFisher3DLoss()
HEAD = {"hidden_size": 3, "loss_function": LOSS, "disable_affine": True}
AFFINE = {"disable_affine": False}  # with weights of its own
LABELS = ["a", "b", "c", "d"]


def make_model(*tasks: Any) -> StandardModel:
    pulses = icecube2nd.PackedPulses(icecube2nd.KagglePulseMapDetector())
    chosen = list(tasks) or [DirectionReconstructionWithKappa(**HEAD)]
    return StandardModel(data_representation=pulses, backbone=Sum(), tasks=chosen)


def make_energy(**further: Any) -> Any:
    return EnergyReconstruction(hidden_size=3, loss_function=LogCoshLoss(), **further)


def make_batch(*events: int, **changes: Any) -> Batch:
    """Events of two pulses each, which add up to `SUMS`."""
    made = []
    for event in events:
        part = torch.tensor([0.5, -1.0, 0.25])
        data = Data(x=torch.stack([torch.tensor(SUMS[event]) - part, part]))
        data.event_no = torch.tensor([event], dtype=torch.float64)  # as GraphNeT's
        data.n_pulses = torch.tensor(10 * event, dtype=torch.int32)
        made.append(data)
    batch = Batch.from_data_list(made)
    for name, value in changes.items():
        if value is None:
            del batch[name]
        else:
            batch[name] = value
    return batch


def predict(model: StandardModel, loader: Any, **options: Any) -> dict[int, Any]:
    """Return number of pulses and prediction by event, in the order they came."""
    found = {}
    for part in event_predictions(model, loader, **options):
        for event, num, row in zip(
            part.event_id.tolist(), part.n_pulses.tolist(), rows_of(part), strict=True
        ):
            assert event not in found
            found[event] = (num, row)
    return found


def rows_of(part: Any) -> Any:
    """Return direction and kappa, (B, 4), of kappa * direction."""
    vector_B3 = part.outputs["direction"]
    assert vector_B3.shape == (len(part.event_id), 3)
    kappa_B1 = np.linalg.norm(vector_B3, axis=1, keepdims=True)
    unit_B3 = vector_B3 / np.where(kappa_B1 > 0, kappa_B1, 1)
    return np.concatenate([unit_B3, kappa_B1], axis=1)


def check(found: dict[int, Any], *order: int) -> None:
    assert list(found) == list(order)
    for event, (num, row) in found.items():
        assert num == 10 * event
        np.testing.assert_allclose(row, EXPECTED[event], rtol=1e-6, atol=1e-7)


def test_batches_and_lists_of_batches() -> None:
    model = make_model()
    check(predict(model, [make_batch(7, 3), make_batch(12)]), 7, 3, 12)
    check(predict(model, [[make_batch(12), make_batch(3, 7)]]), 12, 3, 7)
    check(predict(model, ((make_batch(12), make_batch(7)),)), 12, 7)
    check(predict(model, [[make_batch(12)], [], [make_batch(7)]]), 12, 7)
    assert predict(model, []) == {}


def test_dtypes() -> None:
    (part,) = event_predictions(make_model(), [make_batch(7, 3)])
    dtypes = [part.event_id.dtype, part.n_pulses.dtype, part.outputs["direction"].dtype]
    assert [str(dtype) for dtype in dtypes] == ["int64", "int64", "float64"]
    number = torch.tensor([2**60 + 1, 5])
    (part,) = event_predictions(make_model(), [make_batch(7, 3, event_no=number)])
    assert part.event_id.tolist() == [2**60 + 1, 5]


def test_another_event_column() -> None:
    batch = make_batch(7, 3, event_no=None, key=torch.tensor([3, 7]))
    (part,) = event_predictions(make_model(), [batch], "key")
    assert part.event_id.tolist() == [3, 7]
    with pytest.raises(
        ValueError, match=r"no 'event_no'; it has .*key, n_pulses.*event_column"
    ):
        predict(make_model(), [batch])


class TestTask:
    @pytest.mark.parametrize(
        "labels", [None, LABELS, ["direction_kappa", "dir_x_pred", "y", "z"]]
    )
    @pytest.mark.parametrize("kind", [DirectionReconstructionWithKappa, KappaFirst])
    def test_is_found_by_its_own_columns(self, kind: Any, labels: Any) -> None:
        task = kind(**HEAD, prediction_labels=labels)
        model = make_model(make_energy(), task)
        assert [a.name for a in answers_of(model)] == ["energy", "direction"]
        check(predict(model, [make_batch(7, 12, 3)]), 7, 12, 3)

    def test_is_found_by_the_columns_it_was_given(self) -> None:
        names = ["direction_z", "direction_y", "kappa", "direction_x"]

        class Own(DirectionReconstructionWithKappa):  # type: ignore[misc]
            default_prediction_labels: ClassVar = list("pqrs")

            def _forward(self, x: Any) -> Any:
                return super()._forward(x)[:, [2, 1, 3, 0]]

        model = make_model(Own(**HEAD, prediction_labels=names))
        check(predict(model, [make_batch(7, 12)]), 7, 12)

    def test_several(self) -> None:
        task = DirectionReconstructionWithKappa(**HEAD, prediction_labels=LABELS)
        with pytest.raises(ValueError, match=r"two tasks .* \(a, b, c, d\) and Kappa"):
            answers_of(make_model(task, KappaFirst(**HEAD)))
        with pytest.raises(
            ValueError, match=r"give 'energy': EnergyRec.*\(energy_pred"
        ):
            answers_of(make_model(make_energy(), make_energy()))
        other = make_energy(prediction_labels="second")
        names = [a.name for a in answers_of(make_model(make_energy(), other))]
        assert names == ["energy", "second"]
        with pytest.raises(TypeError, match="StandardModel of GraphNeT, got Sum"):
            answers_of(Sum())

    def test_other_tasks_keep_their_predictions(self) -> None:
        model = make_model(make_energy(), DirectionReconstructionWithKappa(**HEAD))
        batch = make_batch(7, 12)
        with evaluating(model):
            (part,) = event_predictions(model, [batch])
            energy = model(batch)[0].detach().double().numpy()
        np.testing.assert_array_equal(part.outputs["energy"], energy)
        assert list(part.outputs) == ["energy", "direction"]


class TestState:
    def test_evaluating_gives_each_part_back_its_state(self) -> None:
        model = make_model(DirectionReconstructionWithKappa(**HEAD), make_energy())
        model.train()
        model.backbone.eval()  # frozen
        model._tasks[1].inference()
        before = [module.training for module in model.modules()]
        assert len(set(before)) == 2

        def check_as_before() -> None:
            assert [module.training for module in model.modules()] == before
            assert [task._inference for task in model._tasks] == [False, True]

        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert [task._inference for task in model._tasks] == [True, True]
        check_as_before()
        with pytest.raises(ZeroDivisionError), evaluating(model):
            1 / 0  # noqa: B018
        check_as_before()

    def test_no_gradients_and_whoever_reads_on_has_them(self) -> None:
        model = make_model(DirectionReconstructionWithKappa(**{**HEAD, **AFFINE}))
        wants = []
        model._tasks[0].register_forward_hook(
            lambda task, inputs, output: wants.append(output.requires_grad)
        )
        for _ in event_predictions(model, [make_batch(7), make_batch(3)]):
            assert torch.is_grad_enabled()
        assert wants == [False, False]

    def test_batches_go_to_where_the_model_is(self) -> None:
        model = make_model()
        model.backbone.far = torch.nn.Parameter(torch.empty(1, device="meta"))
        assert list(predict(model, [make_batch(7, 3)])) == [7, 3]
        assert list(predict(model, [[make_batch(12)]])) == [12]
        assert model.backbone.devices == ["meta", "meta"]

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_gpu(self) -> None:
        model = make_model()
        model.backbone.far = torch.nn.Parameter(torch.empty(1, device="cuda"))
        check(predict(model, [make_batch(7, 3)]), 7, 3)
        assert model.backbone.devices == ["cuda"]


class TestWrongBatches:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_pulses": None}, r"no 'n_pulses'; it has batch, event_no, ptr, x$"),
            ({"event_no": torch.tensor([7])}, r"event_no.* 1 and 2"),
            ({"n_pulses": torch.ones(4)}, r"event_no.* 2 and 4"),
            ({"event_no": ["a", "b"]}, "event_no must be whole numbers, got <U1"),
            ({"event_no": torch.tensor([1.0, 2.5])}, r"whole numbers, got 2\.5"),
            ({"event_no": torch.tensor([1.0, float("nan")])}, "whole numbers, got nan"),
            # In float32 its neighbour is the same number.
            (
                {"event_no": torch.tensor([1.0, 2.0**24])},
                "exactly below 16777216",
            ),
        ],
    )
    def test_say_what_is_wrong(self, changes: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            predict(make_model(), [make_batch(7, 3, **changes)])

    def test_numbers_that_a_float_holds(self) -> None:
        batch = make_batch(7, 3, event_no=torch.tensor([1.0, 2.0**24 - 1]))
        (part,) = event_predictions(make_model(), [batch])
        assert part.event_id.tolist() == [1, 16777215]

    def test_a_task_of_pulses(self) -> None:
        model = make_model()
        model.backbone.forward = lambda data: data.x
        with pytest.raises(ValueError, match=r"found \(4, 4\)"):
            predict(model, [make_batch(7, 3)])

    @pytest.mark.parametrize("part", [slice(0, 3), 0])
    def test_fewer_columns_than_the_task_says(self, part: Any) -> None:
        model = make_model()
        model._tasks[0].register_forward_hook(lambda task, x, output: output[:, part])
        with pytest.raises(ValueError, match=r"found \((2, 3|2,)\)"):
            predict(model, [make_batch(7, 3)])

    def test_a_kappa_below_zero(self) -> None:
        minus = torch.tensor([1.0, 1.0, 1.0, -1.0])
        task = DirectionReconstructionWithKappa(
            **HEAD, transform_inference=lambda answer: answer * minus
        )
        model = make_model(task)
        with (
            evaluating(model),
            pytest.raises(
                ValueError, match="event 7: kappa must be 0 or more, found -5"
            ),
        ):
            predict(model, [make_batch(7)])

    def test_what_is_no_loader(self) -> None:
        class Events(Dataset[Any]):
            pass

        with pytest.raises(TypeError, match="got Events"):
            predict(make_model(), Events())
        with pytest.raises(TypeError, match="got dict"):
            predict(make_model(), [{"x": 1}])
        with pytest.raises(TypeError, match="got Tensor"):
            predict(make_model(), [[make_batch(7), torch.zeros(3)]])
