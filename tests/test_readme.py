"""README's scripts run as they stand there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def python_blocks() -> dict[str, str]:
    """README's python scripts, by the heading they stand under."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks: dict[str, str] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        for block in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
            assert heading not in blocks, "one script a section"
            blocks[heading] = block
    return blocks


def run(heading: str) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(compile(python_blocks()[heading], f"README.md: {heading}", "exec"), namespace)
    return namespace


def test_readme_has_the_scripts_that_are_tested_here() -> None:
    assert list(python_blocks()) == [
        "With GraphNeT: one complete script",
        "Data at scale",
        "Simulated events",
        "Training",
        "Reconstruction",
        "Tasks, detectors, backbones",
        "Without GraphNeT",
        "The models",
    ]


def test_script_without_graphnet() -> None:
    names = run("Without GraphNeT")
    assert names["prediction"].shape == (2, 3)
    assert bool((names["kappa"] > 0).all())
    assert bool((names["zenith"] <= torch.pi).all())


def test_script_of_tasks_detectors_backbones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from graphnet_icecube2nd.detector.detector import DETECTORS
    from graphnet_icecube2nd.models.registry import MODELS
    from graphnet_icecube2nd.tasks.task import TASKS

    registries = (DETECTORS, MODELS, TASKS)
    before = [dict(registry._entries) for registry in registries]
    for registry in registries:  # other tests have such names as well
        for name in ("ring", "mean_pool", "log_pulses"):
            registry._entries.pop(name, None)
    try:
        run("Tasks, detectors, backbones")
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry._entries = entries
    assert "log_pulses" in capsys.readouterr().out


def test_script_of_data_at_scale(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_kaggle_folder: Callable[..., Path],
) -> None:
    pytest.importorskip("pyarrow")
    from graphnet_icecube2nd import prepare

    make_kaggle_folder(tmp_path / "kaggle", {1: [9, 30, 70, 7] * 20, 655: [20, 30]})
    prepare(tmp_path / "kaggle", tmp_path / "store", workers=1)
    monkeypatch.chdir(tmp_path)
    names = run("Data at scale")
    assert int(names["batch"].n_pulses.min()) >= 8


def test_script_of_simulated_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    names = run("Simulated events")
    assert len(names["table"]) == 500
    assert "| through going track | all |" in capsys.readouterr().out


def test_script_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pytorch_lightning")
    monkeypatch.chdir(tmp_path)
    names = run("Training")
    assert len(names["run"].rows) == 4
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "DeepIce" in capsys.readouterr().out


def test_commands_and_their_options_are_known() -> None:
    """Each option of README's command lines is one of the command's."""
    pytest.importorskip("typer")
    from typer.main import get_command

    from graphnet_icecube2nd.commands.app import app

    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^icecube2nd (.*)$", text, re.MULTILINE)
    assert len(lines) >= 25
    for line in lines:
        command = get_command(app)
        words = line.partition(" #")[0].split()
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        asked = {word for word in words if word.startswith("--")}
        assert asked <= known, (line, asked - known)


def test_script_of_competition_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = json.loads((ROOT / "tests" / "golden" / "s_gnn.json").read_text())
    state = {name: torch.zeros(shape) for name, shape in meta["state_dict"].items()}
    torch.save(state, tmp_path / "V22FT6_1.pth")
    monkeypatch.chdir(tmp_path)
    names = run("The models")
    assert names["pulse_map"].ice == "mirrored"


@pytest.mark.graphnet
def test_script_with_graphnet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(
        "graphnet.models",
        reason="GraphNeT is not installed; README.md says how to have it",
        exc_type=ImportError,
    )
    from graphnet.constants import EXAMPLE_DATA_DIR

    if not Path(EXAMPLE_DATA_DIR, "sqlite").is_dir():
        pytest.skip("this GraphNeT came without its example data")
    monkeypatch.chdir(tmp_path)
    names = run("With GraphNeT: one complete script")
    assert list(names["table"].columns) == [
        *("dir_x_pred", "dir_y_pred", "dir_z_pred", "direction_kappa"),
        "event_no",
    ]
    assert len(names["table"]) == 5
    assert (tmp_path / "model.yml").is_file()
    assert (tmp_path / "weights.pth").is_file()


def test_table_of_parameters_is_true() -> None:
    from graphnet_icecube2nd import build_model, list_models

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([\d,]+) \|", text, flags=re.MULTILINE)
    stated = {name: int(number.replace(",", "")) for name, number in rows}
    # Of any size, or registered by other tests.
    without = {"deepice", "deepice_gnn", "mean_pool"}
    own = [n for n in list_models() if n not in without]
    assert set(stated) <= set(own)
    assert {"b_d32", "b_gnn", "t_sim"} <= set(stated)
    with torch.device("meta"):
        counted = {
            name: sum(p.numel() for p in build_model(name).parameters())
            for name in stated
        }
    assert counted == stated


@pytest.mark.filterwarnings("ignore:.*(outside the range|not called calibrated)")
def test_script_of_reconstruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    names = run("Reconstruction")
    rows = names["rows"]
    assert isinstance(rows, dict)
    assert rows["event_id"].tolist() == [3, 5, 7]
    assert rows["status"].tolist() == ["ok", "no pulses", "ok"]
    assert (tmp_path / "directions.parquet").is_file()
