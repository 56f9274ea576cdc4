"""Tasks of the core in GraphNeT: trained, written, predicted, alone and mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip(
    "graphnet.models",
    reason="GraphNeT is not installed; README.md says how to have it",
    exc_type=ImportError,
)
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.graphnet

import torch
from graphnet.data.dataset import SQLiteDataset
from graphnet.models import Model, StandardModel
from graphnet.models.task.reconstruction import (
    DirectionReconstructionWithKappa,
    EnergyReconstruction,
    InelasticityReconstruction,
)
from graphnet.training.labels import Label
from graphnet.training.loss_functions import LogCoshLoss
from torch import Tensor, nn
from torch.utils.data import DataLoader

import graphnet_icecube2nd.graphnet_adapter as icecube2nd
from graphnet_icecube2nd import EventStore, build_model, simulate
from graphnet_icecube2nd.detector.detector import Detector, register_detector
from graphnet_icecube2nd.detector.pulse_map import PulseMap, Scales
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.graphnet_adapter import results
from graphnet_icecube2nd.graphnet_adapter.prediction import answers_of
from graphnet_icecube2nd.graphnet_adapter.tasks import graphnet_name
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.predictor import predict_events as core_events
from graphnet_icecube2nd.models.model import mean_loss
from graphnet_icecube2nd.models.registry import register_model
from graphnet_icecube2nd.tasks.catalogue import build_task
from graphnet_icecube2nd.tasks.task import Column, Task, register_task
from graphnet_icecube2nd.tasks.width import WidthCalibration

SIZES = {"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1}
TASKS = ("direction", "energy", "track")
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


@register_detector
def toy_ring() -> Detector:
    angle_S = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return Detector(
        name="toy_ring",
        pulses=PulseMap(
            name="toy_ring",
            time="t",
            charge="pe",
            extra=("look",),
            extra_scale=(2.0,),
            time_reference="first_pulse",
            ice="none",
        ),
        geometry={
            "x": 50 * np.cos(angle_S),
            "y": 50 * np.sin(angle_S),
            "z": np.zeros(12),
        },
        medium="water",
        scales=Scales(position=100.0, time=1000.0, charge_decades=2.0),
    )


@register_task
class ToyPulses(Task):
    """The number of pulses."""

    name: ClassVar[str] = "toy_pulses"
    truth: ClassVar[tuple[str, ...]] = ("num_toys",)
    num_outputs: ClassVar[int] = 1
    columns: ClassVar[tuple[Column, ...]] = (Column("toy_pulses"),)

    def target(self, truth: Any) -> Tensor:
        return truth["num_toys"].float().log10()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target).square()

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        return {"toy_pulses": 10 ** output[:, 0]}


class ToyMean(nn.Module):
    """The mean of the pulses of each event, by name."""

    def __init__(self, dim: int, read: tuple[str, ...]) -> None:
        super().__init__()
        self.dim, self.read = dim, read
        self.layer = nn.Linear(len(read) + 1, dim)

    def forward(self, batch: PackedBatch) -> Tensor:
        chosen = [batch.names.index(name) for name in self.read]
        mean_BF = torch.segment_reduce(
            batch.features[:, chosen], "mean", lengths=batch.lengths
        )
        size_B1 = batch.n_pulses[:, None].log10().float()
        return self.layer(torch.cat([mean_BF, size_B1], dim=1)).tanh()


@register_model
def toy_mean(dim: int = 16, read: Any = ("x", "time", "charge", "look")) -> nn.Module:
    return ToyMean(dim, tuple(read))


def make_model(*tasks: Any, **options: Any) -> StandardModel:
    torch.manual_seed(0)
    backbone = icecube2nd.ModelBackbone("t_sim", model_kwargs=dict(SIZES))
    pulses = icecube2nd.PackedPulses(icecube2nd.PulseMapDetector("kaggle"), seed=0)
    made = [
        icecube2nd.TaskHead(task, backbone.nb_outputs)
        if isinstance(task, str)
        else task(backbone.nb_outputs)
        for task in tasks or TASKS
    ]
    return StandardModel(
        data_representation=pulses, backbone=backbone, tasks=made, **options
    )


def direction_of_graphnet(dim: int) -> Any:
    return DirectionReconstructionWithKappa(
        hidden_size=dim,
        target_labels="direction",
        loss_function=icecube2nd.ExactVonMisesFisher3DLoss(),
    )


def energy_of_graphnet(dim: int) -> Any:
    return EnergyReconstruction(hidden_size=dim, loss_function=LogCoshLoss())


def fit(model: StandardModel, data: Any, epochs: int = 2) -> None:
    model.fit(
        data.train_dataloader(),
        data.val_dataloader(),
        max_epochs=epochs,
        distribution_strategy="auto",
        callbacks=[],
        **QUIET,
    )


def make_data(store: EventStore, **options: Any) -> Any:
    options = {"batch_size": 32, "num_sub_epochs": 2, "truth": TASKS, **options}
    return icecube2nd.StoreDataModule(store, **options)


def losses_of(model: StandardModel, batch: Any) -> list[Tensor]:
    with torch.no_grad():
        return [
            task.compute_loss(answer, batch)
            for task, answer in zip(model._tasks, model(batch), strict=True)
        ]


class TestSeveralTasks:
    def test_train_write_and_predict(
        self, simulated: EventStore, tmp_path: Path
    ) -> None:
        model = make_model(optimizer_kwargs={"lr": 3e-3})
        data = make_data(simulated)
        batch = next(iter(data.val_dataloader()))
        before = losses_of(model, batch)
        fit(model, data)
        after = losses_of(model.eval(), batch)
        assert sum(after) < sum(before)
        assert sum(a < b for a, b in zip(after, before, strict=True)) >= 2

        model.save_config(str(tmp_path / "model.yml"))
        model.save_state_dict(str(tmp_path / "weights.pth"))
        again = Model.from_config(str(tmp_path / "model.yml"), trust=True)
        again.load_state_dict(str(tmp_path / "weights.pth"))
        found = [
            icecube2nd.predict_events(m, data.predict_dataloader()).columns()
            for m in (model, again)
        ]
        for name, values in found[0].items():
            assert np.array_equal(found[1][name], values), name

        # The core with the same weights.
        weights = tmp_path / "weights.pth"
        core = build_model("t_sim", tasks=TASKS, weights=weights, **SIZES)
        for task in model._tasks:
            ours = core.task_map[task.task.name].state_dict()
            assert all(
                torch.equal(ours[n], v) for n, v in task.task.state_dict().items()
            )
        expected = core_events(core, simulated).to_columns()
        assert set(found[0]) - set(expected) == {"calibrated"}
        assert found[0]["event_id"].tolist() == expected["event_id"].tolist()
        for name in ("energy", "energy_low_68", "p_track", "kappa", "radius_90"):
            np.testing.assert_allclose(found[0][name], expected[name], rtol=2e-4)
        np.testing.assert_allclose(
            found[0]["direction_z"], expected["direction_z"], atol=1e-5
        )

        # GraphNeT's own way, under GraphNeT's names.
        frame = model.predict_as_dataframe(
            data.predict_dataloader(),
            additional_attributes=["event_no"],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        for ours, theirs in (
            *(("energy", "energy_pred"), ("p_track", "target_pred")),
            *(("direction_x", "dir_x_pred"), ("kappa", "direction_kappa")),
            ("energy_log10_sigma", "energy_log10_sigma_pred"),
        ):
            assert graphnet_name(ours) == theirs
            np.testing.assert_allclose(frame[theirs], found[0][ours], rtol=1e-4)

    def test_loss_is_that_of_the_core(self, simulated: EventStore) -> None:
        """Weighted, and without the events that have no label."""
        model = make_model()
        batch = next(iter(make_data(simulated).val_dataloader()))
        num_events = len(batch.energy)
        batch.energy[0], batch.energy[1] = torch.nan, -1.0
        batch.track[2] = torch.nan
        batch.weight = torch.rand(num_events, 1)
        core = dict(zip(("direction", "energy", "track"), model._tasks, strict=True))
        outputs = dict(zip(core, model(batch), strict=True))
        truth = {name: batch[name] for name in core}
        for name, head in core.items():
            head._loss_weight = "weight"
            loss = head.compute_loss(outputs[name], batch)
            weight_B = batch.weight.reshape(-1)
            assert torch.equal(
                loss, mean_loss(head.task, outputs[name], truth, weight_B)
            )
            assert loss.dim() == 0
            assert bool(loss.isfinite())
        # As GraphNeT's datasets give labels: a column each; -1 for a track not known.
        energy = core["energy"].compute_loss(outputs["energy"], batch)
        rows = {
            **truth,
            "energy": batch.energy[:, None].double(),
            "weight": batch.weight,
        }
        assert torch.equal(core["energy"].compute_loss(outputs["energy"], rows), energy)
        track = core["track"].compute_loss(outputs["track"], batch)
        rows = {"track": truth["track"].nan_to_num(-1).long(), "weight": batch.weight}
        assert torch.equal(core["track"].compute_loss(outputs["track"], rows), track)

    def test_weights_of_events_count(self, simulated: EventStore) -> None:
        """In GraphNeT's own losses (B,) times (B, 1) makes them count for nothing."""
        model = make_model("energy")
        batch = next(iter(make_data(simulated).val_dataloader()))
        (output,) = model(batch)
        (head,) = model._tasks
        head._loss_weight = "weight"
        batch.weight = torch.zeros(len(output), 1)
        batch.weight[3] = len(output)
        output = output.detach()
        loss = head.compute_loss(output, batch)
        target = head.task.target({"energy": batch.energy})
        assert float(loss) == pytest.approx(float(head.task.loss(output, target)[3]))

    def test_no_labels_at_all(self, simulated: EventStore) -> None:
        model = make_model("energy")
        batch = next(iter(make_data(simulated).val_dataloader()))
        batch.energy[:] = torch.nan
        loss = model.compute_loss(model(batch), [batch])
        assert float(loss.detach()) == 0
        loss.backward()
        gradients = [p.grad for p in model._tasks.parameters()]
        assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)

    def test_weight_of_a_task(self, simulated: EventStore) -> None:
        model = make_model("energy")
        batch = next(iter(make_data(simulated).val_dataloader()))
        heavy = icecube2nd.TaskHead("energy", 32, weight=2.5)
        heavy.load_state_dict(model._tasks[0].state_dict())
        (light,) = losses_of(model, batch)
        (output,) = model(batch)
        weighted = float(heavy.compute_loss(output.detach(), batch))
        assert weighted == pytest.approx(2.5 * float(light))

    def test_wrong_arguments(self) -> None:
        with pytest.raises(ValueError, match="no task named 'energie'"):
            icecube2nd.TaskHead("energie", 8)
        with pytest.raises(ValueError, match=r"likelihood .*'normal'"):
            icecube2nd.TaskHead("energy", 8, options={"likelihood": "normal"})
        with pytest.raises(ValueError, match="prediction_labels must have 4"):
            icecube2nd.TaskHead("energy", 8, prediction_labels=["e"])


class TestMixed:
    def test_all_tasks_have_their_columns(
        self, simulated: EventStore, tmp_path: Path
    ) -> None:
        """Of the core's and of GraphNeT's, also after training."""

        def inelasticity(dim: int) -> Any:
            return InelasticityReconstruction(
                hidden_size=dim,
                target_labels="track",
                prediction_labels="my_y",
                loss_function=LogCoshLoss(),
            )

        model = make_model(
            direction_of_graphnet, "track", energy_of_graphnet, inelasticity
        )
        names = [answer.name for answer in answers_of(model)]
        assert names == ["direction", "track", "energy", "my_y"]
        data = make_data(simulated)
        fit(model, data, epochs=1)
        loader = data.predict_dataloader
        rows = icecube2nd.predict_events(model, loader()).columns()
        assert list(rows)[-6:] == [
            *("p_track", "energy", "my_y", "calibrated", "n_pulses", "status")
        ]
        frame = model.predict_as_dataframe(
            loader(),
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        for ours, theirs in (
            *(("direction_x", "dir_x_pred"), ("p_track", "target_pred")),
            *(("energy", "energy_pred"), ("my_y", "my_y")),
        ):
            np.testing.assert_allclose(rows[ours], frame[theirs], rtol=1e-4, atol=1e-6)
        written = icecube2nd.predict_events(model, loader(), tmp_path / "r.parquet")
        table = written.table()
        assert set(table.tasks) >= {"direction", "track", "energy"}
        for name, values in rows.items():
            np.testing.assert_array_equal(written.columns()[name], values)

    @pytest.mark.parametrize("out", [None, "r.csv"])
    def test_one_task_that_fails(
        self,
        simulated: EventStore,
        out: str | None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(results, "WINDOW", 64)
        model = make_model("direction", "track", energy_of_graphnet)
        seen = []

        def spoil(task: Any, inputs: Any, output: Tensor) -> Tensor:
            seen.append(len(output))
            output = output.clone()
            if len(seen) == 7:  # in a later part of the file
                output[4] = torch.nan
            return output

        model._tasks[2].register_forward_hook(spoil)
        found = icecube2nd.predict_events(
            model,
            make_data(simulated).predict_dataloader(),
            None if out is None else tmp_path / out,
        )
        rows = found.columns()
        assert found.statuses == {"ok": 256}
        assert [n for n in rows if n.endswith("_is_valid")] == ["energy_is_valid"]
        failed = np.flatnonzero(~rows["energy_is_valid"].astype(bool))
        assert failed.tolist() == [6 * 32 + 4]
        assert np.isnan(rows["energy"][failed]).all()
        assert np.isfinite(rows["p_track"]).all()

    def test_calibrations_by_task(self, simulated: EventStore) -> None:
        model = make_model("energy", "track", direction_of_graphnet)
        loader = make_data(simulated).predict_dataloader
        plain = icecube2nd.predict_events(model, loader()).columns()
        calibration = WidthCalibration(
            values=(3.0,), shifts=(0.0,), factors=(2.0,), num_events=500
        )
        found = icecube2nd.predict_events(
            model, loader(), calibration={"energy": calibration}
        )
        rows = found.columns()
        assert found.num_calibrated == 256
        assert rows["calibrated"].all()
        assert not plain["calibrated"].any()
        np.testing.assert_allclose(
            rows["energy_log10_sigma"], 2 * plain["energy_log10_sigma"]
        )
        np.testing.assert_array_equal(rows["p_track"], plain["p_track"])
        mixed = make_model("track", energy_of_graphnet)
        with pytest.raises(ValueError, match=r"task energy.*; it has track"):
            icecube2nd.predict_events(
                mixed, loader(), calibration={"energy": calibration}
            )

    def test_a_direction_is_demanded(self, simulated: EventStore) -> None:
        model = make_model("energy", "track")
        loader = make_data(simulated).predict_dataloader
        assert icecube2nd.predict_events(model, loader()).statuses == {"ok": 256}
        with pytest.raises(ValueError, match="TaskHead: energy_pred"):
            icecube2nd.predict_directions(model, loader())
        with pytest.raises(ValueError, match="energy, track"):
            icecube2nd.predict_events(model, loader(), "submission.csv")

    def test_flight(self, simulated: EventStore) -> None:
        loader = make_data(simulated).predict_dataloader
        for task in ("direction", direction_of_graphnet):
            model = make_model(task, "energy")
            origin, flight = (
                icecube2nd.predict_events(model, loader(), angles=angles).columns()
                for angles in ("origin", "flight")
            )
            np.testing.assert_allclose(origin["direction_y"], -flight["direction_y"])
            np.testing.assert_allclose(origin["kappa"], flight["kappa"])


class TestPlugins:
    """Defined in this file, used as the package's own."""

    def event(self, num_pulses: int, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        angle_T = rng.integers(0, 12, num_pulses) * np.pi / 6
        return np.stack(
            [
                50 * np.cos(angle_T),
                50 * np.sin(angle_T),
                np.zeros(num_pulses),
                1e8 + np.sort(rng.uniform(0, 3000, num_pulses)),
                rng.gamma(2.0, 0.6, num_pulses) + 0.05,
                rng.uniform(-1, 1, num_pulses),
            ],
            axis=1,
        )

    @pytest.mark.parametrize(
        ("backbone", "kwargs"), [("toy_mean", {"dim": 8}), ("t_sim", SIZES)]
    )
    def test_go_through_graphnet(
        self, backbone: str, kwargs: Any, tmp_path: Path
    ) -> None:
        names = ["x", "y", "z", "t", "pe", "look"]
        pulses = icecube2nd.PackedPulses(icecube2nd.PulseMapDetector("toy_ring"))
        label = icecube2nd.TaskLabel("num_toys")
        lengths = np.random.default_rng(0).integers(1, 60, 64)
        graphs = [
            pulses(
                self.event(length, seed),
                names,
                [{"event_no": np.array([seed]), "num_toys": np.array([length])}],
                custom_label_functions={"num_toys": label},
            )
            for seed, length in enumerate(lengths.tolist())
        ]
        first = self.event(int(lengths[0]), 0)
        np.testing.assert_allclose(graphs[0].x[:, 0], first[:, 0] / 100, atol=1e-6)
        np.testing.assert_allclose(
            graphs[0].x[:, 3], (first[:, 3] - first[0, 3]) / 1000, atol=1e-6
        )
        np.testing.assert_allclose(graphs[0].x[:, -1], first[:, 5] / 2, atol=1e-6)
        np.testing.assert_allclose(graphs[0].x[:, 4], np.log10(first[:, 4]) / 2, 1e-5)
        assert float(graphs[3].num_toys) == lengths[3]

        def loader() -> Any:
            return DataLoader(graphs, 16, collate_fn=icecube2nd.collate_events)

        model_backbone = icecube2nd.ModelBackbone(backbone, "toy_ring", dict(kwargs))
        model = StandardModel(
            data_representation=pulses,
            backbone=model_backbone,
            tasks=[icecube2nd.TaskHead("toy_pulses", model_backbone.nb_outputs)],
            optimizer_kwargs={"lr": 1e-2},
        )
        batch = icecube2nd.collate_events(graphs)
        (before,) = losses_of(model, batch)
        model.fit(
            loader(),
            loader(),
            max_epochs=3,
            callbacks=[],
            distribution_strategy="auto",
            **QUIET,
        )
        (after,) = losses_of(model.eval(), batch)
        assert after < before
        model.save_config(str(tmp_path / "m.yml"))
        model.save_state_dict(str(tmp_path / "m.pth"))
        again = Model.from_config(str(tmp_path / "m.yml"), trust=True)
        again.load_state_dict(str(tmp_path / "m.pth"))
        rows, copied = (
            icecube2nd.predict_events(m, loader()).columns() for m in (model, again)
        )
        assert np.array_equal(rows["toy_pulses"], copied["toy_pulses"])
        assert rows["n_pulses"].tolist() == lengths.tolist()
        assert (rows["status"] == "ok").all()
        assert again.prediction_labels == ["toy_pulses_pred"]

    def test_unknown_names(self) -> None:
        with pytest.raises(ValueError, match=r"no model named 'toy_meen'.*toy_mean"):
            icecube2nd.ModelBackbone("toy_meen")
        with pytest.raises(ValueError, match="no detector named 'toy_rang'"):
            icecube2nd.ModelBackbone("toy_mean", "toy_rang")

    def test_scales_of_a_registered_detector(self) -> None:
        """A backbone is built for them, and the representation uses them."""
        backbone = icecube2nd.ModelBackbone("t_sim", "toy_ring", dict(SIZES))
        assert backbone.model.config.extra_features == ("look",)
        assert backbone.model.config.interval_speed == pytest.approx(3.0)
        own = icecube2nd.DeepIceBackbone(
            **SIZES, extra_features=["look"], interval_speed=3.0, extra_waves=[2.0]
        )
        assert own.model.config.interval_speed == 3.0
        assert own.model.config.extra_waves == (2.0,)


class TestEmptyEvents:
    def test_have_a_row(self) -> None:
        model = make_model("energy", direction_of_graphnet)
        names = ["x", "y", "z", "time", "charge", "auxiliary"]
        rng = np.random.default_rng(0)

        def event(num_pulses: int, number: int) -> Any:
            values = rng.uniform(0, 1, (num_pulses, 6))
            values += np.array([0, 0, 0, 1e4, 0.1, 0])
            values[:, 5] = 0
            truth = [{"event_no": np.array([number])}]
            return model._data_representation(values, names, truth)

        lengths = [0, 3, 0, 1, 5, 0, 0, 0, 0, 4]
        graphs = [event(length, 7 + i) for i, length in enumerate(lengths)]
        loader = DataLoader(graphs, 3, collate_fn=icecube2nd.collate_events)
        found = icecube2nd.predict_events(model, loader)
        assert found.statuses == {"no pulses": 6, "ok": 4}
        rows = found.columns()
        assert rows["event_id"].tolist() == list(range(7, 17))
        assert rows["n_pulses"].tolist() == lengths
        full = np.array(lengths) > 0
        for name in ("energy", "direction_x", "radius_50"):
            assert np.isfinite(rows[name]).tolist() == full.tolist()
        assert (rows["status"][~full] == "no pulses").all()
        assert not [name for name in rows if name.endswith("_is_valid")]
        only = [g for g, length in zip(graphs, lengths, strict=True) if length]
        alone = icecube2nd.predict_events(
            model, DataLoader(only, 2, collate_fn=icecube2nd.collate_events)
        ).columns()
        np.testing.assert_allclose(rows["energy"][full], alone["energy"], rtol=1e-5)

        nothing = [graphs[0], graphs[2]]
        found = icecube2nd.predict_events(
            model, DataLoader(nothing, 2, collate_fn=icecube2nd.collate_events)
        )
        assert found.statuses == {"no pulses": 2}
        with pytest.raises(ValueError, match="no pulses"):  # in training
            model.train()(icecube2nd.collate_events(graphs))


class TestLabels:
    def test_of_graphnets_dataset(self, tmp_path: Path) -> None:
        simulate(tmp_path / "e.db", num_events=6, seed=21, format="graphnet", workers=1)
        simulate(tmp_path / "store", num_events=6, seed=21, workers=1)
        store = EventStore(tmp_path / "store")
        detector = icecube2nd.PulseMapDetector("kaggle")
        columns = ["x", "y", "z", "time", "charge", "auxiliary"]
        truth = ["azimuth", "zenith", "energy"]
        pulses = icecube2nd.PackedPulses(detector, input_feature_names=columns)
        arguments: dict[str, Any] = {
            "pulsemaps": "pulses",
            "features": columns,
            "data_representation": pulses,
        }
        theirs = SQLiteDataset(
            path=str(tmp_path / "e.db"),
            truth=truth,
            labels=detector.task_labels("direction", "energy"),
            **arguments,
        )
        ours = icecube2nd.StoreDataset(
            path=str(store.path),
            truth=[*TASKS, "light"],
            **arguments,
        )
        batch = next(
            iter(
                icecube2nd.StoreDataModule(
                    store, truth=TASKS, batch_size=6
                ).predict_dataloader()
            )
        )
        for number in range(6):
            for name in TASKS:
                label = batch[name][number : number + 1]
                torch.testing.assert_close(ours[number][name], label)
                if name != "track":
                    found = theirs[number][name].float()
                    torch.testing.assert_close(found, label, rtol=1e-5, atol=1e-6)
        assert "light" in ours[0]
        collated = icecube2nd.collate_events([ours[n] for n in range(6)])
        assert collated.direction.shape == (6, 3)
        assert collated.energy.shape == (6,)
        (loss,) = losses_of(make_model("energy"), collated)
        (expected,) = losses_of(make_model("energy"), batch)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)

    def test_of_pid_and_interaction(self) -> None:
        label = icecube2nd.TaskLabel("track")
        assert isinstance(label, Label)
        assert label.key == "track"
        data = {"pid": torch.tensor([-14, 14, 12]), "track": torch.tensor([-1, -1, -1])}
        data["interaction_type"] = torch.tensor([1, 2, 1])
        assert label(data).tolist() == [1.0, 0.0, 0.0]
        with pytest.raises(ValueError, match=r"'track': it needs topology or pid and"):
            label({"pid": torch.tensor([14])})
        energy = icecube2nd.TaskLabel("energy", key="e")({"energy": torch.tensor(-1.0)})
        assert energy.isnan().tolist() == [True]

    def test_store_without_a_label(self, simulated: EventStore) -> None:
        with pytest.raises(ValueError, match="has no event column 'nothing'"):
            make_data(simulated, truth=("nothing",))


class TestOrderOfRows:
    """Which pulses of a long event are kept follows from the pulses alone."""

    names: ClassVar[list[str]] = ["x", "y", "z", "t", "pe", "look"]

    def tied(self) -> Any:
        event = TestPlugins().event(400, seed=3)
        event[:, 3] = 1e8 + np.round((event[:, 3] - 1e8) / 100) * 100
        event[::3, 4] = 1.0
        return event[np.argsort(event[:, 3], kind="stable")]

    def test_does_not_matter(self) -> None:
        event, shuffle = self.tied(), np.random.default_rng(1).permutation(400)
        assert len(np.unique(event[:, 3])) < 40
        detector = icecube2nd.PulseMapDetector("toy_ring")
        for selection in ("uniform", "first"):
            pulses = icecube2nd.PackedPulses(
                detector, max_pulses=50, selection=selection, seed=4
            )
            kept = pulses(event.copy(), self.names).x
            assert torch.equal(pulses(event[shuffle], self.names).x, kept)
            nodes = icecube2nd.DeepIcePulses(
                self.names,
                pulse_map="toy_ring",
                max_pulses=50,
                selection=selection,
                seed=4,
            )
            event[:, 3] -= event[:, 3].min()
            x = torch.tensor(event, dtype=torch.float32)
            scaled = detector(x.clone(), self.names)
            first = nodes(scaled)
            assert torch.equal(nodes(scaled[torch.from_numpy(shuffle)]), first)
            assert torch.equal(first, kept)

    def test_task_options_reach_the_columns(self) -> None:
        head = icecube2nd.TaskHead("direction", 8, options={"contours": [0.68]})
        assert head.default_prediction_labels[-1] == "radius_68_pred"
        made = build_task("direction", contours=[0.68])
        assert len(head.default_prediction_labels) == len(
            made.predict(torch.ones(1, 3))
        )


class TestVertex:
    """A task that needs the first light of the events."""

    def make_model(
        self, first_light: bool = True, positions: str = "detector"
    ) -> StandardModel:
        torch.manual_seed(0)
        backbone = icecube2nd.ModelBackbone(
            "t_sim", model_kwargs=dict(SIZES), first_light=first_light
        )
        heads = [
            icecube2nd.TaskHead(task, backbone.nb_outputs)
            for task in ("direction", "vertex")
        ]
        pulses = icecube2nd.PackedPulses(
            icecube2nd.PulseMapDetector("kaggle"), seed=0, positions=positions
        )
        return StandardModel(data_representation=pulses, backbone=backbone, tasks=heads)

    @pytest.mark.parametrize("positions", ["detector", "charge_centre"])
    def test_as_in_the_core(
        self, simulated: EventStore, tmp_path: Path, positions: str
    ) -> None:
        model = self.make_model(positions=positions)
        options = {"truth": ("direction", "vertex"), "positions": positions}
        data = make_data(simulated, **options)
        batch = next(iter(data.val_dataloader()))
        before = sum(losses_of(model, batch))
        fit(model, data, epochs=1)
        assert sum(losses_of(model.eval(), batch)) < before
        model.save_state_dict(str(tmp_path / "weights.pth"))
        core = build_model(
            "t_sim", tasks=("direction", "vertex"), weights=tmp_path / "weights.pth",
            **SIZES,
        )  # fmt: skip
        reading = InferenceConfig(positions=positions)
        expected = core_events(core, simulated, options=reading).to_columns()
        found = icecube2nd.predict_events(model, data.predict_dataloader()).columns()
        # Files of GraphNeT, with one graph an event.
        dataset = icecube2nd.StoreDataset(
            str(simulated.path), "pulses",
            features=["sensor_id", "time", "charge", "auxiliary"],
            truth=["event_id", "vertex"], index_column="event_id",
            data_representation=model._data_representation,
        )  # fmt: skip
        loader = DataLoader(
            dataset, batch_size=64, collate_fn=icecube2nd.collate_events
        )
        graphs = icecube2nd.predict_events(
            model, loader, event_column="event_id"
        ).columns()
        row = np.argsort(graphs["event_id"])
        expected_row = np.argsort(expected["event_id"])
        assert graphs["event_id"][row].tolist() == sorted(expected["event_id"])
        for name in ("vertex_x", "vertex_z", "vertex_time", "vertex_sigma"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=0.1)
            short = np.asarray(expected["n_pulses"])[expected_row] <= 192
            np.testing.assert_allclose(
                graphs[name][row][short],
                expected[name][expected_row][short],
                rtol=1e-4,
                atol=0.1,
            )
        assert graphnet_name("vertex_x") == "position_x_pred"

    def test_a_backbone_without_it(self, simulated: EventStore) -> None:
        data = make_data(simulated, truth=("direction", "vertex"))
        with pytest.raises(ValueError, match="first_light=True"):
            self.make_model(first_light=False)(next(iter(data.val_dataloader())))

    @pytest.mark.parametrize("clock", ["first_pulse", "first_triggered"])
    def test_a_running_clock(self, clock: str) -> None:
        """Labels of GraphNeT's datasets count from the pulse that times count from."""
        pulse_map = PulseMap(name="sea", hlc="trig", time_reference=clock, ice="none")
        detector = icecube2nd.PulseMapDetector(pulse_map)
        pulses = icecube2nd.PackedPulses(detector)
        names = list(pulse_map.columns())
        rows = np.tile([1.0, 2.0, 3.0], (2, 1))
        time = np.array([1e8 + 70.0, 1e8 + 50.0])
        values = {"x": rows[:, 0], "y": rows[:, 1], "z": rows[:, 2], "time": time}
        values["trig"] = np.array([6.0, 0.0])
        given = np.stack([values.get(name, np.ones(2)) for name in names], axis=1)
        truth = {"event_no": 1, "interaction_time": 1e8, "position_x": 5.0}
        truth |= {"position_y": 6.0, "position_z": 7.0}
        graph = pulses(
            given,
            names,
            [truth],
            custom_label_functions={"vertex": icecube2nd.TaskLabel("vertex")},
        )
        zero = 70.0 if clock == "first_triggered" else 50.0
        assert graph.vertex.tolist() == [[5.0, 6.0, 7.0, -zero, 1.0]]
        scaled = detector(torch.from_numpy(given), names)
        for time_T in (scaled[:, names.index("time")], graph.x[:, 3]):
            assert (time_T * 3e4).tolist() == pytest.approx([70 - zero, 50 - zero])
        given[:, names.index("trig")] = 0
        if clock == "first_triggered":
            with pytest.warns(UserWarning, match="no pulse with the trigger flag"):
                graph = pulses(given, names, [truth])
        assert (graph.x[:, 3] * 3e4).tolist() == pytest.approx([20, 0])
