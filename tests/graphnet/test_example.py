"""The example, as a user runs it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TRAIN = "01_train_deepice_graphnet.py"


RunExample = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_example(run_main: Callable[..., Any]) -> RunExample:
    """`run_example(script, *arguments)`, in this process."""

    def call(name: str, *arguments: object) -> Any:
        script = str(EXAMPLES / name)
        return run_main(lambda: runpy.run_path(script, None, "__main__"), *arguments)

    return call


def test_without_graphnet_it_says_how_to_get_it(tmp_path: Path) -> None:
    blocker = tmp_path / "blocked" / "graphnet"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("raise ImportError('blocked')")
    path = os.pathsep.join([str(tmp_path / "blocked"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / TRAIN)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "github.com/graphnet-team/graphnet" in output
    assert "make demo-graphnet GRAPHNET=" in output
    assert "blocked" in output
    assert "Traceback" not in output


@pytest.mark.graphnet
@pytest.mark.parametrize("fixture", ["database", "parquet_folder"])
def test_it_trains_and_reports_on_a_database(
    with_graphnet: None,
    fixture: str,
    run_example: RunExample,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    data = request.getfixturevalue(fixture)
    options = {
        "--data": data,
        "--columns": "icecube86",
        "--pulsemap": "pulses",
        "--truth-table": "truth",
        "--epochs": "1",
        "--out": "result",
    }
    done = run_example(TRAIN, *[word for pair in options.items() for word in pair])
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "2 test events" in output
    assert "mean opening angle" in output
    written = {path.name for path in (tmp_path / "result").iterdir()}
    assert {"model.yml", "dataset.yml", "weights.pth", "predictions.csv"} <= written
    table = (tmp_path / "result" / "predictions.csv").read_text().splitlines()
    assert len(table) == 3
    assert table[0].startswith("dir_x_pred,dir_y_pred,dir_z_pred,direction_kappa")
    assert "too few events" in output
    if fixture == "database":
        check_that_a_colleague_can_use_it(tmp_path / "result")


def check_that_a_colleague_can_use_it(folder: Path) -> None:
    import pandas
    import torch
    from graphnet.data.dataset import Dataset
    from graphnet.models import Model

    import graphnet_icecube2nd.graphnet_adapter as adapter

    datasets = Dataset.from_config(str(folder / "dataset.yml"))
    assert {name: len(part) for name, part in datasets.items()} == {
        "train": 8,
        "test": 2,
    }
    model = Model.from_config(str(folder / "model.yml"), trust=True)
    model.load_state_dict(str(folder / "weights.pth"))
    test = datasets["test"]
    with torch.no_grad():
        batch = adapter.collate_events([test[index] for index in range(len(test))])
        found = model.eval()(batch)[0]
    written = pandas.read_csv(folder / "predictions.csv").set_index("event_no")
    for event, prediction in zip(batch["event_no"].tolist(), found, strict=True):
        expected = torch.tensor(written.loc[event].to_numpy()[:4]).float()
        torch.testing.assert_close(prediction, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.graphnet
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "none.db"], "there is no none.db"),
        (["--data", "DB", "--pulsemap", "Nope"], "has no table Nope; it has"),
        (
            ["--data", "DB", "--columns", "prometheus"],
            "has no column sensor_pos_x, sensor_pos_y, sensor_pos_z, t; it has dom_x",
        ),
        (["--epoch", "1"], "unrecognized arguments: --epoch"),
        (["--epochs", "0"], "must be at least 1"),
        (["--simulate", "4"], "--simulate must be at least 5"),
    ],
)
def test_wrong_options_end_in_one_line(
    with_graphnet: None,
    options: list[str],
    message: str,
    database: str,
    run_example: RunExample,
    tmp_path: Path,
) -> None:
    words = [database if word == "DB" else word for word in options]
    done = run_example(TRAIN, *words)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert not (tmp_path / "none.db").exists()


@pytest.mark.graphnet
def test_a_recipe_in_graphnet(run_example: RunExample, tmp_path: Path) -> None:
    pytest.importorskip("graphnet.models", exc_type=ImportError)
    pytest.importorskip("pyarrow")
    small = "model_kwargs={dim: 32, dim_base: 8, depth: 1, head_size: 16, depth_rel: 1}"
    words = ["--simulate", "300", "--out", "result", "--set", small]
    words += [
        "--set",
        "data.validation_fraction=0.2",
        "--set",
        "data.num_sub_epochs=16",
    ]
    words += ["--set", "stages.0.epochs=0.125"]
    done = run_example("04_recipe_in_graphnet.py", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "validation events: mean opening angle" in done.stdout
    written = {path.name for path in (tmp_path / "result").iterdir()}
    assert {"recipe.yaml", "model.yml", "weights.pth", "predictions.csv"} <= written
    check_that_the_stage_comes_back(tmp_path / "result")


def check_that_the_stage_comes_back(folder: Path) -> None:
    """GraphNeT's configuration and weights give the predictions that are written."""
    import torch
    from graphnet.models import Model

    from graphnet_icecube2nd.graphnet_adapter.recipe import recipe_stage
    from graphnet_icecube2nd.training.optimisation import OneCycleScheduler

    model = Model.from_config(str(folder / "model.yml"), trust=True)
    model.load_state_dict(str(folder / "weights.pth"))
    optimisers = model.configure_optimizers()
    assert isinstance(optimisers["lr_scheduler"]["scheduler"], OneCycleScheduler)
    stage = recipe_stage(str(folder / "recipe.yaml"), str(folder / "store"))
    model.inference()
    model.eval()
    with torch.no_grad():
        found = {
            event: row
            for batch in stage.data.val_dataloader()
            for event, row in zip(
                batch["event_no"].tolist(), model(batch)[0], strict=True
            )
        }
    lines = (folder / "predictions.csv").read_text().splitlines()[1:]
    assert len(lines) == len(found) > 20
    for line in lines:
        event, *values = line.split(",")
        expected = torch.tensor([float(value) for value in values])
        torch.testing.assert_close(found[int(event)], expected, rtol=1e-4, atol=1e-5)
