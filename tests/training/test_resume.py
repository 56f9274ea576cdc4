"""Killed anywhere and begun again, a run ends with the very same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from graphnet_icecube2nd import EventStore
from graphnet_icecube2nd.training import module, run, trainer
from graphnet_icecube2nd.training.recipe import Recipe, write_recipe
from graphnet_icecube2nd.training.run import train
from graphnet_icecube2nd.training.trainer import TrainerConfig, WholeCheckpointIO

Weights = Callable[[Path], dict[str, Any]]
# Where a run can be cut: before the call or after it.
PLACES = (
    (module.TrainingModule, "training_step", "before"),
    (module.TrainingModule, "optimizer_step", "after"),
    (module.TrainingModule, "validation_step", "before"),
    (trainer.torch, "save", "after"),  # written, not yet in its place
    (trainer, "save_model", "after"),
    (trainer, "write_history", "after"),
    (run, "write_json", "after"),
    (run, "load_weights", "after"),
)


class Cut(Exception):
    """Stands for a kill, within this process."""


def rows_but_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    of_the_process = ("seconds", "memory_mb")
    return [{k: v for k, v in row.items() if k not in of_the_process} for row in rows]


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`[number of places passed so far, the number to cut at]`."""
    state = [0, -1]

    def wrap(owner: Any, name: str, when: str) -> None:
        function = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = None
            if when == "after":
                result = function(*args, **kwargs)
            state[0] += 1
            if state[0] == state[1]:
                raise Cut(name)
            return result if when == "after" else function(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    for place in PLACES:
        wrap(*place)
    return state


def stop(rows: list[dict[str, Any]]) -> None:
    raise Cut("after a sub-epoch")


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [13, 17, 23])
def test_cut_again_and_again(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
    cuts: list[int],
    apart: int,
) -> None:
    """Each process lives for so many places: steps, validations, files, stages."""
    options: dict[str, Any] = {"machine": quiet, "resume": True}
    if apart == 17:  # a stage that ends early, for nothing gets better
        first = replace(tiny.stages[0], lr_max=1e-30, patience=2, epochs=3.0)
        tiny = replace(tiny, stages=(first, *tiny.stages[1:]))
    calm = train(tiny, simulated, tmp_path / "calm", **options)
    assert len(calm.rows) == (5 if apart == 17 else 4)
    expected = weights_of(calm.path)
    assert cuts[0] > 90
    num_cuts, again = 0, None
    while again is None:
        cuts[:] = 0, apart
        try:
            again = train(tiny, simulated, tmp_path / "cut", **options)
        except Cut:
            num_cuts += 1
            assert num_cuts < 100, "it does not get on"
    assert num_cuts >= 3
    ours = weights_of(again.path)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert rows_but_seconds(again.rows) == rows_but_seconds(calm.rows)


KILLED = """
import os, signal, sys
from graphnet_icecube2nd.training import module, run, trainer
from graphnet_icecube2nd.training.trainer import TrainerConfig

where, count, recipe, store, out = sys.argv[1:]
owner, name = {
    "step": (module.TrainingModule, "optimizer_step"),
    "validation": (module.TrainingModule, "validation_step"),
    "write": (trainer.torch, "save"),
    "finished": (run, "write_json"),
}[where]
function, left = getattr(owner, name), [int(count)]

def wrapped(*args, **kwargs):
    left[0] -= 1
    if not left[0] and where == "write":  # half a file
        args[1].write(b"half")
        args[1].flush()
    if not left[0] and where != "finished":
        os.kill(os.getpid(), signal.SIGKILL)
    result = function(*args, **kwargs)
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, wrapped)
machine = TrainerConfig(
    accelerator="cpu", progress=False, plot=False, checkpoint_steps=1
)
run.train(recipe, store, out, machine=machine, resume=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "count"),
    [("step", 7), ("validation", 6), ("write", 5), ("finished", 1)],
    ids=["in a sub-epoch", "in a validation", "in a checkpoint", "between stages"],
)
def test_really_killed(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
    where: str,
    count: int,
) -> None:
    calm = train(tiny, simulated, tmp_path / "calm", machine=quiet)
    write_recipe(tiny, tmp_path / "tiny.yaml")
    folder = tmp_path / "killed"
    threads = str(torch.get_num_threads())  # sums depend on their number
    arguments = [where, str(count), tmp_path / "tiny.yaml", simulated.path, folder]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (folder / "model.safetensors").exists()
    if where == "finished":
        assert (folder / "stage_0" / "finished.json").is_file()
        assert not (folder / "stage_1").exists()
    again = train(tiny, simulated, folder, machine=quiet, resume=True)
    ours, expected = weights_of(folder), weights_of(calm.path)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert rows_but_seconds(again.rows) == rows_but_seconds(calm.rows)


def test_random_states_go_on(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a training that draws, as with a dropout of somebody's model."""
    import random

    import numpy as np

    step, steps = module.TrainingModule.training_step, [0, -1]

    def drawn(self: Any, batch: Any, index: int) -> Any:
        steps[0] += 1
        if steps[0] == steps[1]:
            raise Cut("in a sub-epoch")
        loss = step(self, batch, index)
        numbers = (random.random(), np.random.rand(), float(torch.rand(())))  # noqa: NPY002
        return loss * (0.5 + sum(numbers))

    monkeypatch.setattr(module.TrainingModule, "training_step", drawn)

    def run(folder: str, seed: int, cut_at: int, resume: bool = False) -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        steps[:] = 0, cut_at
        train(tiny, simulated, tmp_path / folder, machine=quiet, resume=resume)

    run("calm", seed=1, cut_at=-1)
    with pytest.raises(Cut):
        run("cut", seed=1, cut_at=6)
    run("cut", seed=2, cut_at=-1, resume=True)
    assert same(weights_of(tmp_path / "cut"), weights_of(tmp_path / "calm"))
    run("other", seed=2, cut_at=-1)
    assert not same(weights_of(tmp_path / "other"), weights_of(tmp_path / "calm"))


def test_with_readers_and_in_bfloat16(
    tiny: Recipe,
    quiet: TrainerConfig,
    simulated: EventStore,
    tmp_path: Path,
    weights_of: Weights,
) -> None:
    """Processes that read ahead lose and change nothing, also over a cut."""
    recipe = replace(tiny, precision="bfloat16")
    readers = replace(quiet, num_workers=2)
    train(recipe, simulated, tmp_path / "calm", machine=quiet)
    with pytest.raises(Cut):
        train(
            recipe,
            simulated,
            tmp_path / "cut",
            machine=readers,
            on_row=stop,
        )
    train(recipe, simulated, tmp_path / "cut", machine=readers, resume=True)
    assert same(weights_of(tmp_path / "cut"), weights_of(tmp_path / "calm"))


def test_a_kill_before_the_recipe_was_written(
    tiny: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    short = replace(tiny, stages=tiny.stages[:1])
    for name in ("run.json", ".recipe.yaml.0123456789abcdef.tmp"):
        (tmp_path / name).touch()
    train(short, simulated, tmp_path, machine=quiet, resume=True)
    assert (tmp_path / "model.safetensors").is_file()


def test_lists_in_a_recipe_are_no_other_recipe(
    tiny: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
) -> None:
    stage = replace(tiny.stages[0], freeze=["embedding"], momenta=[0.9, 0.8, 0.9])
    recipe = replace(tiny, stages=[stage], data=replace(tiny.data, augmentations=[]))
    for resume in (False, True):
        run = train(
            recipe, simulated, tmp_path / "run", machine=quiet, resume=resume,
        )  # fmt: skip
    assert len(run.rows) == 2


class TestCheckpoints:
    def test_a_failed_write_leaves_the_former(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "resume.ckpt"
        writer = WholeCheckpointIO()
        writer.save_checkpoint({"a": torch.ones(2)}, path)

        def full(content: Any, where: Any) -> None:
            where.write(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space left"):
            writer.save_checkpoint({"a": torch.zeros(2)}, path)
        assert torch.equal(writer.load_checkpoint(path)["a"], torch.ones(2))
        assert [entry.name for entry in tmp_path.iterdir()] == ["resume.ckpt"]

    def test_a_flipped_bit_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "resume.ckpt"
        WholeCheckpointIO().save_checkpoint({"a": torch.ones(999)}, path)
        content = bytearray(path.read_bytes())
        content[content.index(b"\x80?\0\0\x80?")] ^= 1  # of a number
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"resume\.ckpt .*checksum.* Remove"):
            WholeCheckpointIO().load_checkpoint(path)

    def test_no_code_of_a_file_is_run(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {tmp_path}/harmed",)

        path = tmp_path / "resume.ckpt"
        torch.save({"state_dict": Harm()}, path)
        with pytest.raises(ValueError, match=r"(?i)code from a file is never run"):
            WholeCheckpointIO().load_checkpoint(path, weights_only=False)
        assert not (tmp_path / "harmed").exists()

    def test_two_processes_do_not_write_one_run(
        self, tiny: Recipe, quiet: TrainerConfig, simulated: EventStore, tmp_path: Path
    ) -> None:
        pytest.importorskip("fcntl")

        def meanwhile(rows: Any) -> None:
            with pytest.raises(ValueError, match="written by another process"):
                train(tiny, simulated, tmp_path, machine=quiet, resume=True)
            raise Cut

        with pytest.raises(Cut):
            train(
                tiny, simulated, tmp_path, machine=quiet, on_row=meanwhile,
            )  # fmt: skip

    def test_random_states_come_back(self) -> None:
        import random

        import numpy as np

        from graphnet_icecube2nd.training.module import (
            random_state,
            set_random_state,
        )

        def draw() -> tuple[float, float, float]:
            number = float(np.random.rand())  # noqa: NPY002
            return random.random(), number, float(torch.rand(()))

        state = random_state()
        first = draw()
        assert draw() != first
        set_random_state(state)
        assert draw() == first
