"""Exact and published von Mises-Fisher loss on simulated tracks.

    python benchmarks/bench_vmf_loss.py --out benchmarks/results

The published loss omits ln(kappa) above kappa 100. To show the effect, it finds the
kappa that minimises each loss for a given error, and trains two models from the same
weights with the same bright tracks in the same order, one with each loss. It writes
vmf_loss.md, .json and .png.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import context
import numpy as np
import torch

from graphnet_icecube2nd import (
    EventStore,
    Recipe,
    evaluate,
    reconstruct,
    simulate,
    train,
)
from graphnet_icecube2nd.evaluation.coverage import GIVEN, CalibrationView
from graphnet_icecube2nd.evaluation.metrics import Evaluation
from graphnet_icecube2nd.models.pretrained import FOLDER
from graphnet_icecube2nd.plots import TableStyle, new_figure, plain_log, save_figure
from graphnet_icecube2nd.results import (
    EventTruth,
)
from graphnet_icecube2nd.simulation.configuration import SimulationConfig
from graphnet_icecube2nd.tasks.direction.losses import von_mises_fisher_nll
from graphnet_icecube2nd.training import (
    DataConfig,
    Stage,
    TrainerConfig,
)

TRACKS = SimulationConfig(
    fractions={"through_going_track": 1.0}, energy_range=(3e3, 1e6), spectral_index=1.5
)
WAYS = ("exact", "published")
SEEDS = (20261203, 20261204)  # seeds of training and test
ANGLES_DEG = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


def best_kappa(angle: float, normalisation: str) -> float:
    """Return the kappa of minimum loss for an error in rad."""
    kappa = torch.logspace(-2, 7, 180_001, dtype=torch.float64)
    truth = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(len(kappa), 3)
    unit = torch.tensor([np.sin(angle), 0.0, np.cos(angle)], dtype=torch.float64)
    loss = von_mises_fisher_nll(
        kappa[:, None] * unit, truth, normalisation=normalisation
    )
    return float(kappa[int(loss.argmin())])


def train_with(normalisation: str, store: EventStore, out: Path, epochs: int) -> Path:
    """Train from the weights of the package with a loss, and return the run."""
    stage = Stage(
        lr_max=3e-4,
        pct_start=0.05,
        div_final=30.0,
        epochs=epochs,
        batch_size=64,
        accumulate_events=128,
        ema=True,
        ema_decay=0.99,
        normalisation=normalisation,
        weights=str(FOLDER / "t_sim.simulated.safetensors"),
    )
    recipe = Recipe(
        name=f"vmf_{normalisation}",
        model="t_sim",
        stages=(stage,),
        data=DataConfig(num_sub_epochs=1, validation_fraction=0.05),
    )
    machine = TrainerConfig(progress=False, devices=1)
    return train(recipe, store, out / normalisation, machine=machine).path


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[Evaluation, Any]:
    """Simulate, train with both losses, and reconstruct test events."""
    stores = []
    for seed, number in zip(SEEDS, (arguments.events, arguments.held_out), strict=True):
        if not (folder / str(seed) / "manifest.json").exists():
            simulate(folder / str(seed), config=TRACKS, num_events=number, seed=seed)
        stores.append(EventStore(folder / str(seed)))
    tables = []
    for way in WAYS:
        run = train_with(way, stores[0], folder, arguments.epochs)
        found = reconstruct(stores[1], run)
        tables.append(replace(found.table(), name=f"{way} loss"))
    evaluation = evaluate(tables, EventTruth.of(stores[1]))
    best = {way: [best_kappa(np.radians(a), way) for a in ANGLES_DEG] for way in WAYS}
    views = [CalibrationView(e) for e in evaluation.tables]
    expected = [row for v in views for way in v.ways for row in v.expected(way)]
    return evaluation, {
        "context": context.describe(
            training_tracks=arguments.events,
            test_tracks=arguments.held_out,
            epochs=arguments.epochs,
            seeds=SEEDS,
            tracks=TRACKS.to_dict(),
        ),
        "best_kappa": {"angle_deg": ANGLES_DEG, **best},
        "tables": [
            {
                "table": row.table,
                "mean_rad": row.mean.value,
                "median_deg": float(np.degrees(row.median.value)),
                "median_pull": row.pull,
                "inside_50": row.inside_50,
                "inside_90": row.inside_90,
                "largest_kappa": float(np.max(e.kappa)),
            }
            for row, e in zip(evaluation.summaries, evaluation.tables, strict=True)
        ],
        "expected": [
            {
                name: row[name]
                for name in ("table", "kappa", "expected_deg", "observed_deg")
            }
            for row in expected
            if row["way"] == GIVEN
        ],
    }


def draw(result: dict[str, Any]) -> Any:
    """Draw the best kappa of each loss, and the results of the two models."""
    figure = new_figure(10.0, 4.4)
    left, right = figure.subplots(1, 2)
    for number, way in enumerate(WAYS):
        look = TableStyle.numbered(number)
        style = {"color": look.colour, "ls": look.line, "marker": look.marker}
        best = result["best_kappa"]
        left.plot(best["angle_deg"], best[way], label=f"{way} loss", **style)
        rows = [r for r in result["expected"] if r["table"] == f"{way} loss"]
        right.plot(
            [r["expected_deg"] for r in rows],
            [r["observed_deg"] for r in rows],
            label=f"{way} loss",
            **style,
        )
    left.axhline(100, color="0.6", lw=0.8)
    left.set(xscale="log", yscale="log")
    left.set_xlabel("opening angle [deg]")
    left.set_ylabel("kappa of minimum loss")
    ends = [r[k] for r in result["expected"] for k in ("expected_deg", "observed_deg")]
    low, high = 0.8 * min(ends), 1.25 * max(ends)
    right.plot([low, high], [low, high], color="black", lw=0.8, label="calibrated")
    right.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    plain_log(left.xaxis)
    plain_log(right.xaxis)
    plain_log(right.yaxis)
    right.set_xlabel("median opening angle expected from kappa [deg]")
    right.set_ylabel("median opening angle [deg]")
    for axes in (left, right):
        axes.grid(color="0.9", lw=0.6)
        axes.legend(fontsize=8)
    return figure


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    best = result["best_kappa"]
    lines = [
        "# The exact and the published von Mises-Fisher loss",
        "",
        context.table(result["context"]),
        "",
        "Kappa of minimum loss for each error (both losses are alike up to kappa 100):",
        "",
        f"| angle, deg | {' | '.join(f'{a:g}' for a in best['angle_deg'])} |",
        f"|---|{'---|' * len(best['angle_deg'])}",
        *(f"| {w} | {' | '.join(f'{k:,.3g}' for k in best[w])} |" for w in WAYS),
        "",
        "Two models, trained from t_sim.simulated with the same tracks, on independent "
        "tracks with uncalibrated kappa:",
        "",
        "| | mean, rad | median, deg | median pull (correct: 1.18) | 50% contours hold "
        "| 90% hold | largest kappa |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['table']} | {r['mean_rad']:.4f} | {r['median_deg']:.2f} | "
        f"{r['median_pull']:.2f} | {r['inside_50']:.1%} | {r['inside_90']:.1%} | "
        f"{r['largest_kappa']:,.0f} |"
        for r in result["tables"]
    ]
    lines += ["", "![Best kappa, and expected against observed](vmf_loss.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--held-out", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.events, arguments.held_out = 300, 256
    with tempfile.TemporaryDirectory() as scratch:
        _, result = measure(arguments, Path(scratch))
    context.write(arguments.out, "vmf_loss", as_text(result), result)
    if arguments.out:
        save_figure(draw(result), arguments.out / "vmf_loss.png")


if __name__ == "__main__":
    main()
