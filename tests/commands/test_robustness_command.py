"""robustness, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")
pytest.importorskip("typer")

import typer
from typer.testing import CliRunner

from graphnet_icecube2nd import EventStore, load_model
from graphnet_icecube2nd.commands.evaluation import robustness
from graphnet_icecube2nd.evaluation import robustness as room
from graphnet_icecube2nd.files import only_writer
from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile, save_member
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.report.robustness import STEM

Call = Callable[..., Any]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call(*words)`: the command with three perturbations only."""
    every = room.default_perturbations

    def few(*arguments: Any) -> Sequence[Any]:
        return [p for p in every(*arguments) if p.strength in ("as stored", "30%")]

    monkeypatch.setattr(room, "default_perturbations", few)
    app = typer.Typer()
    app.command()(robustness)

    def run(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def test_a_model(
    call: Call, simulated: EventStore, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    words = ("--events", 20, "--max-pulses", 32, "--seed", 5, "--device", "cpu")
    done = call(simulated.path, "--model", weights, "--out", out, *words)
    assert done.exit_code == 0, done.output
    stored = json.loads((out / "robustness.json").read_text())
    context = stored["context"]
    assert (context["events"], context["seed"]) == (20, 5)
    assert context["options"]["max_pulses"] == 32
    assert context["model"] == str(weights)
    assert [row["group"] for row in stored["rows"]] == [
        *("baseline", "charge jitter of the pulse", "DOMs off")
    ]
    assert f"baseline {stored['rows'][0]['mean']:.4f} rad; worst: " in done.output
    assert str(out / "robustness.pdf") in done.output
    again = call(simulated.path, "--model", weights, "--out", tmp_path / "b", *words)
    assert again.exit_code == 0, again.output
    for name in ("robustness.csv", "robustness.json"):
        assert (out / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_ensemble(
    call: Call, simulated: EventStore, weights: Path, tmp_path: Path
) -> None:
    """Its own options are taken, but for those that are given."""
    folder = tmp_path / "two"
    folder.mkdir()
    model = load_model(weights)
    members = tuple(save_member(folder, name, model, 1.0, {}) for name in ("a", "b"))
    options = InferenceConfig(max_pulses=40, selection="first", seed=3)
    EnsembleFile(name="two", members=members, options=options).save(folder)
    out = tmp_path / "report"
    done = call(
        simulated.path, "--ensemble", folder, "--out", out, "--events", 8, "--seed", 4
    )
    assert done.exit_code == 0, done.output
    both = call(simulated.path, "--ensemble", folder, "--model", weights, "--out", out)
    assert "--model or --ensemble" in str(both.exception)
    used = json.loads((out / "robustness.json").read_text())["context"]["options"]
    assert (used["max_pulses"], used["selection"], used["seed"]) == (40, "first", 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--model or --ensemble"),
        (["--ensemble", "b"], "b must hold an ensemble.yaml"),
        (["--model", "nothing"], "no model 'nothing'"),
        (["--model", "t_sim.simulated", "--events", "257"], "events must be 1 to 256"),
        (["--model", "t_sim.simulated", "--max-pulses", "0"], "max_pulses must be 1"),
    ],
)
def test_wrong_words_say_what(
    call: Call, simulated: EventStore, tmp_path: Path, words: list[str], message: str
) -> None:
    done = call(simulated.path, "--out", tmp_path / "report", *words)
    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)
    assert not (tmp_path / "report").exists()


def test_a_second_one_is_refused_before_its_work(
    call: Call, simulated: EventStore, tmp_path: Path
) -> None:
    with only_writer(tmp_path / "report"):
        done = call(simulated.path, "--model", "nothing", "--out", tmp_path / "report")
    assert "report is being written by another process" in str(done.exception)


def test_the_command_is_named_for_its_files() -> None:
    assert robustness.__name__ == STEM
