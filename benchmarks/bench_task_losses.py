"""Losses of the tasks, each trained on the same simulated events.

    python benchmarks/bench_task_losses.py --out benchmarks/results  # 8 minutes
    python benchmarks/bench_task_losses.py --toy                       # seconds

For each likelihood a small model learns energy and vertex, and for each loss of classes
another one the topology: with the true labels, and with 10% of the labels changed to
another class at random. All models have the same initial weights and see the same
batches. The second half of the test events calibrates widths and probabilities; the
figures are of the first half, with its true labels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import context
import numpy as np
import torch

from graphnet_icecube2nd import EventStore, PackedBatch, build_model, simulate
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.tasks.label import TOPOLOGIES
from graphnet_icecube2nd.tasks.losses import CLASS_LOSSES, LIKELIHOODS

LABELS = ("energy", "vertex", "topology")
SIZES = {"dim": 64, "dim_base": 16, "depth": 2, "head_size": 16, "depth_rel": 1}
MAX_PULSES, BATCH, WRONG = 64, 32, 0.1
LEARNING_RATE = 2e-3
FIGURES = {
    "energy": ("log10 error", "inside 68%", "pulls beyond 3"),
    "vertex": ("distance, m", "inside 68%", "pulls beyond 3"),
    "topology": ("accuracy", "balanced accuracy", "cross-entropy", "Brier score"),
}


def batches_of(store: EventStore, rows: np.ndarray, seed: int) -> list[PackedBatch]:
    """Return events as batches, in a random order."""
    reader = EventReader(store, max_pulses=MAX_PULSES, truth=LABELS, seed=seed)
    order = np.random.default_rng(seed).permutation(rows)
    groups = [order[i : i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]
    return list(reader.batches(groups))


def with_wrong_labels(batches: list[PackedBatch]) -> list[PackedBatch]:
    """Return the batches with another topology for a tenth of the events."""
    generator = torch.Generator().manual_seed(7)
    changed = []
    for batch in batches:
        assert batch.truth is not None
        true_B = batch.truth["topology"]
        step_B = torch.randint(1, len(TOPOLOGIES), true_B.shape, generator=generator)
        moved_B = torch.rand(true_B.shape, generator=generator) < WRONG
        other_B = (true_B + step_B * moved_B) % len(TOPOLOGIES)
        changed.append(replace(batch, truth={**batch.truth, "topology": other_B}))
    return changed


def trained(tasks: dict[str, Any], batches: list[PackedBatch], epochs: int) -> Model:
    """Train a model in one cycle of the learning rate."""
    torch.manual_seed(0)
    model = build_model("t_sim", tasks=tasks, **SIZES).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=epochs * len(batches), pct_start=0.1
    )
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(batches))
        for number in order:
            batch = batches[number]
            optimiser.zero_grad()
            loss = model.loss(model.outputs(batch), batch.truth)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def judged(model: Model, batches: list[PackedBatch]) -> dict[str, dict[str, float]]:
    """Return the figures of each task on the first half of the batches."""
    outputs = [model.outputs(batch) for batch in batches]
    figures = {}
    for name, task in model.task_map.items():
        output = torch.cat([one[name] for one in outputs]).double()
        target = torch.cat([task.target(batch.truth) for batch in batches]).double()
        known = target.isfinite().reshape(len(target), -1).all(dim=1)
        output, target = output[known], target[known]
        half = len(output) // 2
        fitted = task.calibrate(output[half:].numpy(), target[half:].numpy())
        output, target = output[:half], target[:half].numpy()
        columns = {
            column: value.numpy()
            for column, value in task.predict_calibrated(output, fitted).items()
        }
        if name == "topology":
            values = classes(columns, target)
        else:
            values = widths(name, columns, target)
        figures[name] = dict(zip(FIGURES[name], values, strict=True))
    return figures


def widths(
    name: str, columns: dict[str, np.ndarray], target: np.ndarray
) -> list[float]:
    """Return error, coverage and share of large pulls of an energy or a vertex."""
    if name == "energy":
        error = np.abs(np.log10(columns["energy"]) - target)
        pull, size = error / columns["energy_log10_sigma"], error
    else:
        place = np.stack([columns[f"vertex_{axis}"] for axis in "xyz"], axis=1)
        pull = np.abs(place - target[:, :3]) / columns["vertex_sigma"][:, None]
        size = np.linalg.norm(place - target[:, :3], axis=1)
    return [float(np.median(size)), float((pull <= 1).mean()), float((pull > 3).mean())]


def classes(columns: dict[str, np.ndarray], target: np.ndarray) -> list[float]:
    """Return accuracy, its mean over classes, cross-entropy and Brier score."""
    p = np.stack([columns[f"p_{name}"] for name in TOPOLOGIES], axis=1)
    true = target.astype(int)
    right = p.argmax(axis=1) == true
    balanced = np.mean([right[true == one].mean() for one in np.unique(true)])
    is_true = true[:, None] == np.arange(len(TOPOLOGIES))
    entropy = -np.log(np.maximum(p[is_true], 1e-12)).mean()
    brier = ((p - is_true) ** 2).sum(axis=1).mean()
    return [float(right.mean()), float(balanced), float(entropy), float(brier)]


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = ["# Losses of the tasks", "", context.table(result["context"]), ""]
    lines += [
        "Energy and vertex of one model for each likelihood; topology of one model for "
        "each loss. Errors and distances are medians. 'inside 68%' is the share of "
        "true values in the predicted 68% interval (68% is right), 'pulls beyond 3' "
        "the share of errors above three predicted widths (0.3% for a normal "
        "distribution). Everything is calibrated on other events.",
        "",
    ]
    for task, names in FIGURES.items():
        lines += [f"## {task.capitalize()}", "", f"| loss | {' | '.join(names)} |"]
        lines.append("|---" * (len(names) + 1) + "|")
        for row in result["rows"]:
            if task in row["figures"]:
                values = row["figures"][task]
                cells = " | ".join(f"{values[name]:.3f}" for name in names)
                lines.append(f"| {row['loss']} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    parser.add_argument("--events", type=int, default=9000)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    num_events, epochs = arguments.events, arguments.epochs
    if arguments.toy:
        num_events, epochs = 2400, 1
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "store", num_events=num_events, seed=11)
        store = EventStore(Path(folder) / "store")
        border = num_events * 2 // 3
        train = batches_of(store, np.arange(border), 0)
        test = batches_of(store, np.arange(border, num_events), 1)
    runs: list[tuple[str, dict[str, Any], list[PackedBatch]]] = [
        (name, {task: {"likelihood": name} for task in ("energy", "vertex")}, train)
        for name in LIKELIHOODS
    ]
    wrong = with_wrong_labels(train)
    for events, what in ((train, ""), (wrong, ", 10% wrong labels")):
        for name in CLASS_LOSSES:
            runs.append((f"{name}{what}", {"topology": {"loss": name}}, events))
    rows = []
    for name, tasks, events in runs:
        model = trained(tasks, events, epochs)
        rows.append({"loss": name, "figures": judged(model, test)})
        print(f"{time.perf_counter() - begun:.0f} s: {name}", flush=True)
    result = {
        "context": context.describe(
            model=f"t_sim {SIZES}",
            events=num_events,
            training_events=border,
            epochs=epochs,
            max_pulses=MAX_PULSES,
            threads=torch.get_num_threads(),
            seconds=round(time.perf_counter() - begun),
        ),
        "rows": rows,
    }
    context.write(arguments.out, "task_losses", as_text(result), result)


if __name__ == "__main__":
    main()
