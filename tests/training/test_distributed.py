"""Two processes on the CPU: one with the double batch, and killed they go on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import EventStore, load_model
from graphnet_icecube2nd.training.history import read_history
from graphnet_icecube2nd.training.recipe import DataConfig, Recipe, write_recipe
from graphnet_icecube2nd.training.run import train
from graphnet_icecube2nd.training.trainer import TrainerConfig


def command(recipe: Path, store: Path, out: Path, *further: str) -> list[str]:
    program = "from graphnet_icecube2nd.cli import main; main()"
    script = out.parent / "command.py"
    script.write_text(program)
    return [
        sys.executable, str(script), "train", "--recipe", str(recipe),
        "--data", str(store), "--out", str(out), "--accelerator", "cpu",
        "--devices", "2", "--strategy", "ddp", "--no-plot", *further,
    ]  # fmt: skip


def run_alone(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that starts a second process, whatever this one is a rank of."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_PORT")
    }
    return subprocess.run(
        arguments,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_are_one_with_the_double_batch(
    tiny: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    """Forty steps in two stages, the second with something frozen and an average."""
    pytest.importorskip("typer")
    first, second = (
        replace(stage, batch_size=8, accumulate_events=8, epochs=0.5)
        for stage in tiny.stages
    )
    stages = (first, replace(second, freeze=("embedding",)))
    data = DataConfig(num_sub_epochs=20, validation_fraction=0.3)
    double = replace(tiny, stages=stages, data=data)
    alone = train(double, simulated, tmp_path / "one", machine=quiet)
    # The decay is that of a micro-batch, of which there are now twice as many.
    halves = tuple(
        replace(stage, batch_size=4, ema_decay=stage.ema_decay**0.5) for stage in stages
    )
    write_recipe(replace(double, stages=halves), tmp_path / "half.yaml")
    out = tmp_path / "two"
    run = run_alone(
        command(tmp_path / "half.yaml", simulated.path, out, "--no-progress")
    )
    assert run.returncode == 0, run.stderr[-3000:]
    together = read_history(out / "metrics.csv")
    assert len(together) == len(alone.rows) == 20
    assert run.stdout.count("stage 0 of 2") == 1, "only the first process speaks"
    assert run.stdout.count("mean opening angle of the validation") == 1
    for ours, theirs in zip(together, alone.rows, strict=True):
        for name in ("step", "events", "pulses"):
            assert ours[name] == theirs[name], (ours, theirs)
        for name in ("train_loss", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
        # Predictions near zero turn by much for little.
        angles = ours["direction/opening_angle"], theirs["direction/opening_angle"]
        assert angles[0] == pytest.approx(angles[1], rel=1e-3)
    assert ours["raw_validation_loss"] != ours["validation_loss"]
    ours_last = load_model(out / "stage_1" / "last.safetensors").state_dict()
    theirs_last = load_model(tmp_path / "one" / "stage_1" / "last.safetensors")
    for name, weights in theirs_last.state_dict().items():
        torch.testing.assert_close(ours_last[name], weights, rtol=1e-3, atol=1e-4)


def test_several_tasks_on_two_processes(
    tiny: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    """As one process with the double batch; metrics are those of all events."""
    pytest.importorskip("typer")
    stage = replace(
        tiny.stages[0], batch_size=8, accumulate_events=8, epochs=0.25, ema=True
    )
    recipe = replace(
        tiny,
        stages=(stage,),
        data=DataConfig(num_sub_epochs=20, validation_fraction=0.3),
        tasks={"direction": {}, "energy": {}, "track": {"weight": 0.5}},
        weighting="learned",
    )
    alone = train(recipe, simulated, tmp_path / "one", machine=quiet)
    half = replace(stage, batch_size=4, ema_decay=stage.ema_decay**0.5)
    write_recipe(replace(recipe, stages=(half,)), tmp_path / "half.yaml")
    out = tmp_path / "two"
    run = run_alone(
        command(tmp_path / "half.yaml", simulated.path, out, "--no-progress")
    )
    assert run.returncode == 0, run.stderr[-3000:]
    together = read_history(out / "metrics.csv")
    assert len(together) == len(alone.rows) == 5
    for ours, theirs in zip(together, alone.rows, strict=True):
        for name in theirs:
            if name.split("/")[-1] in ("loss", "log10_error", "inside_68", "auc"):
                assert ours[name] == pytest.approx(theirs[name], rel=2e-3, abs=2e-3)


KILLED = """
import os, signal, sys
from graphnet_icecube2nd.training import module, run
from graphnet_icecube2nd.training.trainer import TrainerConfig

recipe, store, out, count = sys.argv[1:]
step, left = module.TrainingModule.optimizer_step, [int(count)]

def killed(self, *args, **kwargs):
    left[0] -= 1
    if not left[0]:  # on each of the two
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)

if __name__ == "__main__":
    module.TrainingModule.optimizer_step = killed
    machine = TrainerConfig(accelerator="cpu", devices=2, strategy="ddp",
                      progress=False,
                      plot=False, checkpoint_steps=2)
    run.train(recipe, store, out, machine=machine, resume=True)
"""


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_to_the_bit(
    tiny: Recipe, simulated: EventStore, tmp_path: Path
) -> None:
    """Once within each of the two stages; several micro-batches make a step."""
    stages = tuple(replace(stage, batch_size=8) for stage in tiny.stages)
    write_recipe(replace(tiny, stages=stages), tmp_path / "recipe.yaml")
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")

    def run(out: str, kill_at: int) -> subprocess.CompletedProcess[str]:
        arguments = (tmp_path / "recipe.yaml", simulated.path, tmp_path / out, kill_at)
        return run_alone([sys.executable, str(script), *map(str, arguments)])

    calm = run("calm", 0)
    assert calm.returncode == 0, calm.stderr[-3000:]
    for kill_at, stage in ((4, 0), (12, 1)):
        assert run("cut", kill_at).returncode != 0
        folder = tmp_path / "cut" / f"stage_{stage}"
        assert (folder / "resume.ckpt").is_file()
        assert not (folder / "finished.json").exists()
    again = run("cut", 0)
    assert again.returncode == 0, again.stderr[-3000:]
    for file in ("stage_0/last.safetensors", "stage_1/last.safetensors"):
        ours, theirs = (
            load_model(tmp_path / out / file).state_dict() for out in ("cut", "calm")
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), file
    rows = [
        [{k: v for k, v in row.items() if k not in ("seconds", "memory_mb")}
         for row in read_history(tmp_path / out / "metrics.csv")]
        for out in ("cut", "calm")
    ]  # fmt: skip
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4
