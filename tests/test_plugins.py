"""A task, a detector and a backbone defined here go the whole way, unedited."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphnet_icecube2nd import (
    Detector,
    EventStore,
    EventTable,
    PackedBatch,
    PulseMap,
    PulseReconstructor,
    Recipe,
    Task,
    build_detector,
    build_model,
    build_task,
    calibrate,
    evaluate,
    list_detectors,
    list_models,
    list_tasks,
    load_model,
    prepare,
    reconstruct,
    register_detector,
    register_model,
    register_task,
    save_model,
    simulate,
    train,
)
from graphnet_icecube2nd.detector import Scales
from graphnet_icecube2nd.inference import DomainError
from graphnet_icecube2nd.report import write_evaluation
from graphnet_icecube2nd.results import EventTruth
from graphnet_icecube2nd.tasks import Column
from graphnet_icecube2nd.tasks.task import TASKS
from graphnet_icecube2nd.training import DataConfig, Stage, TrainerConfig

pytest.importorskip("pyarrow")

NUM_EVENTS = 400


def ring_modules() -> dict[str, list[float]]:
    """Six strings of twelve modules on a circle of 60 m."""
    turns = [2 * np.pi * n / 6 for n in range(6)]
    rows = [(n + 1, 60 * np.cos(a), 60 * np.sin(a)) for n, a in enumerate(turns)]
    return {
        "string": [s for s, _, _ in rows for _ in range(12)],
        "x": [x for _, x, _ in rows for _ in range(12)],
        "y": [y for _, _, y in rows for _ in range(12)],
        "z": [12.0 * k - 66 for _ in rows for k in range(12)],
    }


@register_task
class LogPulses(Task):
    """log10 of the number of hits."""

    name = "log_pulses"
    truth = ("num_hits",)
    num_outputs = 1
    columns = (Column("log_pulses", unit="", description="log10 of the hits"),)

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        return truth["num_hits"].log10()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output[:, 0] - target).square()

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        return {"log_pulses": output[:, 0]}


@register_detector
def ring() -> Detector:
    return Detector(
        name="ring",
        pulses=PulseMap(
            name="ring",
            time="t",
            charge="q",
            time_reference="first_pulse",
            ice="none",
            extra=("dir_x", "dir_y", "dir_z"),
            extra_scale=(1.0, 1.0, 1.0),
        ),
        geometry=ring_modules(),
        medium="water",
        vectors=(("dir_x", "dir_y", "dir_z"),),
        scales=Scales(position=100.0, time=1000.0),
        site=None,
    )


class MeanPool(nn.Module):
    """The mean of a layer's answers to the pulses."""

    def __init__(self, dim: int = 24, num_features: int = 12) -> None:
        super().__init__()
        self.dim = dim
        self.layer = nn.Sequential(nn.Linear(num_features + 1, dim), nn.GELU())

    def forward(self, batch: PackedBatch) -> Tensor:
        lengths = batch.lengths
        counts_T = batch.n_pulses.float().log10().repeat_interleave(lengths)
        joined = torch.cat([batch.features, counts_T[:, None]], dim=1)
        latent_TD = self.layer(joined)
        return torch.segment_reduce(latent_TD, "mean", lengths=lengths)


@register_model
def mean_pool(**overrides: Any) -> nn.Module:
    return MeanPool(**overrides)


def ring_pulses(num_events: int = NUM_EVENTS, seed: int = 0) -> tuple[Any, Any]:
    """Hits of the ring's modules and the truth of the events, as files have them."""
    rng = np.random.default_rng(seed)
    modules = {name: np.array(values) for name, values in ring_modules().items()}
    counts = rng.integers(3, 60, num_events)
    event = np.repeat(np.arange(num_events), counts)
    hit = rng.integers(0, 72, len(event))
    looks = rng.standard_normal((len(event), 3))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    pulses = {
        "event_id": event,
        **{axis: modules[axis][hit] for axis in "xyz"},
        "t": 1e8 + rng.uniform(0, 900, len(event)),
        "q": rng.uniform(0.3, 3, len(event)),
        **dict(zip(("dir_x", "dir_y", "dir_z"), looks.T, strict=True)),
    }
    truth = {
        "event_id": np.arange(num_events),
        "num_hits": np.where(np.arange(num_events) % 10 == 9, np.nan, counts),
        "azimuth": rng.uniform(0, 2 * np.pi, num_events),
        "zenith": np.arccos(rng.uniform(-1, 1, num_events)),
        "energy": 10 ** (1 + counts / 20),
    }
    return pulses, truth


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("ring")
    pulses, truth = ring_pulses()
    pq.write_table(pa.table(pulses), folder / "hits.parquet")
    pq.write_table(pa.table(truth), folder / "truth.parquet")
    prepare(
        folder / "hits.parquet",
        folder / "store",
        truth=folder / "truth.parquet",
        detector="ring",
        workers=1,
    )
    return EventStore(folder / "store")


def recipe(**changes: Any) -> Recipe:
    stage = Stage(
        lr_max=1e-2,
        epochs=4.0,
        batch_size=16,
        max_pulses=48,
        accumulate_events=32,
        div_final=5,
    )
    values: dict[str, Any] = {
        "name": "toy",
        "model": "mean_pool",
        "tasks": {"log_pulses": {}, "energy": {"weight": 0.3}},
        "stages": (stage,),
        "data": DataConfig(num_sub_epochs=2, validation_fraction=0.4),
    }
    return Recipe(**{**values, **changes})


@pytest.fixture(scope="module")
def quiet() -> TrainerConfig:
    return TrainerConfig(
        accelerator="cpu", progress=False, plot=False, checkpoint_steps=1
    )


@pytest.fixture(scope="module")
def run(
    store: EventStore, quiet: TrainerConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    pytest.importorskip("pytorch_lightning")
    folder = tmp_path_factory.mktemp("run") / "run"
    train(recipe(), store, folder, machine=quiet)
    return folder


def test_names_are_listed_and_taken_once() -> None:
    assert "log_pulses" in list_tasks()
    assert "ring" in list_detectors()
    assert "mean_pool" in list_models()
    assert isinstance(build_task("log_pulses"), LogPulses)
    for register, mine in (
        (register_task, LogPulses),
        (register_detector, ring),
        (register_model, mean_pool),
    ):
        with pytest.raises(ValueError, match="already registered"):
            register(mine)
    assert build_detector("ring").scales.interval_speed == pytest.approx(3.0)


@pytest.fixture
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget after a test what it registers."""
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))


def task_class(**values: Any) -> type[Task]:
    """A task like `LogPulses` with some attributes replaced."""
    return type("Other", (LogPulses,), values)


@pytest.mark.usefixtures("own_tasks")
@pytest.mark.parametrize(
    "name", ["", "a.b", "a/b", "a b", "a,b", "keys", "training", "forward", "copy"]
)
def test_names_that_cannot_be_used_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r}.*another name"):
        register_task(task_class(name=name))
    assert name not in list_tasks()


@pytest.mark.parametrize("register", [register_model, register_detector])
def test_names_of_models_and_detectors_are_checked(register: Any) -> None:
    def function() -> None: ...

    function.__name__ = "a.b"
    with pytest.raises(ValueError, match=r"'a\.b'.*another name"):
        register(function)


@pytest.mark.usefixtures("own_tasks")
def test_a_task_that_needs_arguments_is_refused() -> None:
    class Needs(LogPulses):
        name = "needs"

        def __init__(self, depth: int) -> None:
            super().__init__()

    with pytest.raises(ValueError, match=r"'needs'.*'depth'.*default"):
        register_task(Needs)
    EventTable.from_columns({"event_id": [1], "energy": [10.0]}, "t")

    class Knows(Needs):
        name = "knows"

        def __init__(self, depth: int = 1, **options: Any) -> None:
            super().__init__(depth)

    register_task(Knows)
    assert build_task("knows", depth=3).describe() == {"depth": 3}


@pytest.mark.usefixtures("own_tasks")
def test_tasks_do_not_overwrite_columns() -> None:
    register_task(task_class(name="other", columns=(Column("mine"), Column("energy"))))
    build_model("mean_pool", tasks=["other"])
    with pytest.raises(ValueError, match=r"'energy' and 'other'.*column 'energy'"):
        build_model("mean_pool", tasks=["energy", "other"])
    for name in ("status", "calibrated", "event_id", "n_pulses"):
        register_task(task_class(name=f"of_{name}", columns=(Column(name),)))
        with pytest.raises(ValueError, match=f"'of_{name}' .*column '{name}'"):
            build_model("mean_pool", tasks=["direction", f"of_{name}"])


PLUGIN = """
from graphnet_icecube2nd import Task, build_task, list_tasks, register_task
from graphnet_icecube2nd.tasks import Column

def register():
    assert "energy" in list_tasks()
    values = {"name": "hits", "columns": (Column("hits"),)}
    register_task(type("Hits", (type(build_task("track")),), values))
    print("registered")
"""


def test_a_plugin_may_look_up_names_itself(tmp_path: Path) -> None:
    about = tmp_path / "plugin_of_hits-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: plugin-of-hits\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[graphnet_icecube2nd.plugins]\nhits = plugin_of_hits:register\n"
    )
    (tmp_path / "plugin_of_hits.py").write_text(PLUGIN)
    code = "import graphnet_icecube2nd as g; print('hits' in g.list_tasks())"
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["registered", "True"], done.stderr


def test_the_store_knows_its_detector(store: EventStore) -> None:
    detector = store.detector
    assert detector.name == detector.telescope == "ring"
    assert detector.medium == "water"
    assert detector.scales == Scales(position=100.0, time=1000.0)
    assert detector.vectors == (("dir_x", "dir_y", "dir_z"),)
    assert len(store.geometry) == 72


def test_simulation_of_the_detector(tmp_path: Path) -> None:
    out = simulate(tmp_path / "s", num_events=20, seed=3, detector="ring", workers=1)
    made = EventStore(out)
    assert made.detector.name == "ring"
    assert len(made.geometry) == 72
    table = reconstruct(made, build_model("mean_pool", num_features=9).eval()).table()
    assert len(table) == 20


def test_training_learns_and_remembers_its_input(run: Path, store: EventStore) -> None:
    rows = (run / "metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    column = header.index("log_pulses/loss")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert losses[-1] < losses[0]
    model = load_model(run / "model.safetensors")
    assert model.input_config is not None
    assert model.input_config.detector == "ring"
    assert model.input_config.max_pulses == 48
    assert model.input_config.ranges["n_pulses"][1] <= 60


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import test_plugins as toys
from graphnet_icecube2nd import EventStore, train
from graphnet_icecube2nd.training import TrainerConfig
machine = TrainerConfig(
    accelerator="cpu", progress=False, plot=False, checkpoint_steps=1
)
train(toys.recipe(), EventStore({store!r}), {out!r}, machine=machine, resume=True)
"""


def test_a_killed_run_ends_with_the_same_weights(
    run: Path, store: EventStore, quiet: TrainerConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code = KILLED.format(
        folder=str(Path(__file__).parent), store=str(store.path), out=str(out)
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    checkpoint = out / "stage_0" / "resume.ckpt"
    begun = time.monotonic()
    while not checkpoint.is_file() and process.poll() is None:
        assert time.monotonic() - begun < 300
        time.sleep(0.01)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train(recipe(), store, out, machine=quiet, resume=True)
    ours = load_model(out / "model.safetensors").state_dict()
    for name, expected in load_model(run / "model.safetensors").state_dict().items():
        assert torch.equal(ours[name], expected), name


def test_reconstruct_calibrate_evaluate(
    run: Path, store: EventStore, tmp_path: Path
) -> None:
    found = calibrate(run)
    assert set(found.file.calibrations) == {"energy"}  # the toy task has none
    assert any("log_pulses" in text for text in found.notices)
    found.file.save(run / "calibration.json")
    report = reconstruct(store, run, tmp_path / "r.parquet")
    columns = report.columns()
    assert set(columns) == {
        *("event_id", "log_pulses", "calibrated", "n_pulses", "status"),
        *("energy", "energy_log10_sigma", "energy_low_68", "energy_high_68"),
    }
    error = columns["log_pulses"] - np.log10(columns["n_pulses"])
    assert np.abs(error).mean() < 0.2
    table = report.table()
    assert set(table.tasks) == {"log_pulses", "energy"}
    assert len(EventTable.load(tmp_path / "r.parquet")) == NUM_EVENTS
    evaluation = evaluate([table], EventTruth.of(store))
    page = write_evaluation(evaluation, tmp_path / "report")
    assert "log_pulses" in page.read_text(encoding="utf-8")
    plain = json.loads((tmp_path / "report/tables/evaluation.json").read_text())
    assert "log_pulses" in plain
    assert plain["log_pulses"][0]["events"] == NUM_EVENTS * 9 // 10


def test_a_model_with_the_toy_task_is_saved_and_found(tmp_path: Path) -> None:
    model = build_model("mean_pool", tasks=["log_pulses", "direction"], detector="ring")
    save_model(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert list(again.task_map) == ["log_pulses", "direction"]
    assert again.input_config == model.input_config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_published_backbones_read_the_detector(store: EventStore) -> None:
    model = build_model(
        "t_d32",
        tasks=["direction", "log_pulses"],
        detector="ring",
        dim=16,
        dim_base=8,
        depth=1,
        head_size=8,
        depth_rel=1,
    ).eval()
    rows = reconstruct(store, model).columns()
    assert np.isfinite(rows["log_pulses"]).all()
    assert np.isfinite(rows["kappa"]).all()


def test_another_detector_is_refused(run: Path, simulated: EventStore) -> None:
    with pytest.raises(DomainError, match=r"'ring'.*'icecube86'.*unknown.detector"):
        reconstruct(simulated, run)
    pulses, _ = ring_pulses(3)
    ours = PulseReconstructor(run, "ring")
    border = np.append(0, np.cumsum(np.bincount(pulses["event_id"])))
    del pulses["event_id"]
    assert ours(pulses, border)["status"].tolist() == ["ok"] * 3
    with pytest.raises(DomainError, match="first_pulse"):
        PulseReconstructor(run, "kaggle")
