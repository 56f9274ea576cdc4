"""Speed from a warm store to a trained batch, and to a table of directions.

    python benchmarks/bench_pipeline.py --out benchmarks/results

It compares a model's rate with batches in memory and with batches that
`EventDataModule` reads, selects and scales from a store, in turns. Rates count pulses,
because epochs differ in their events. `directions` also converts predictions to angles
and kappa, and writes them with their event ids as parquet.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import context
import torch
from bench_loading import write_kaggle

from graphnet_icecube2nd import (
    CombinedDirectionLoss,
    EventDataModule,
    PackedBatch,
    build_model,
    prepare,
)
from graphnet_icecube2nd.conventions import unit_vector_to_angles
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.training.optimisation import make_adamw


def train(model: DeepIce, batches: Iterable[PackedBatch], folder: Path) -> int:
    """Train on every batch; return the number of pulses."""
    optimiser = make_adamw(model.parameters(), learning_rate=1e-6)
    loss, num_pulses = CombinedDirectionLoss(), 0
    for batch in batches:
        optimiser.zero_grad()
        loss(model(batch), batch.truth["direction"]).backward()
        optimiser.step()
        num_pulses += len(batch.features)
    return num_pulses


@torch.no_grad()
def reconstruct(model: DeepIce, batches: Iterable[PackedBatch], folder: Path) -> int:
    """Write a table of directions; return the number of pulses."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts, num_pulses = [], 0
    for batch in batches:
        num_pulses += len(batch.features)
        prediction_B3 = model(batch)
        zenith, azimuth = unit_vector_to_angles(prediction_B3)
        kappa = prediction_B3.norm(dim=1)
        values = torch.stack((zenith, azimuth, kappa), 1).numpy()
        parts.append((batch.event_id.numpy(), values))
    columns: dict[str, Any] = {
        "event_id": pa.chunked_array([ids for ids, _ in parts]),
    }
    for place, name in enumerate(("zenith", "azimuth", "kappa")):
        columns[name] = pa.chunked_array([values[:, place] for _, values in parts])
    pq.write_table(pa.table(columns), folder / "directions.parquet")
    return num_pulses


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return rates with batches from memory and from the store, and their ratios."""
    num_events = 200 if arguments.toy else arguments.events
    write_kaggle(folder / "kaggle", 2, num_events)
    prepare(folder / "kaggle", folder / "store", workers=1)
    sizes = {"depth": 1} if arguments.toy else {}
    model = build_model(arguments.model, **sizes)
    data = EventDataModule(folder / "store", batch_size=32, num_sub_epochs=1)
    results: dict[str, Any] = {}
    for name, work, loader in (
        ("training", train, data.train_dataloader),
        ("directions", reconstruct, data.predict_dataloader),
    ):
        limit = 3 if arguments.toy else arguments.batches
        held = [batch for _, batch in zip(range(limit), loader(), strict=False)]
        work(model, held[:2], folder)  # warm
        rates: dict[str, list[float]] = {"memory": [], "store": []}
        for _ in range(arguments.rounds):
            for source in rates:
                start = time.perf_counter()
                if source == "memory":
                    done = work(model, held, folder)
                else:
                    read = (b for _, b in zip(range(limit), loader(), strict=False))
                    done = work(model, read, folder)
                rates[source].append(done / (time.perf_counter() - start))
        ratios = sorted(
            own / other
            for own, other in zip(rates["store"], rates["memory"], strict=True)
        )
        results[name] = {
            "pulses_per_s": {k: median(v) for k, v in rates.items()},
            "store_over_memory": [median(ratios), ratios[0], ratios[-1]],
        }
    return results


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| task | from memory, pulses/s | from a store | ratio |",
        "|---|---|---|---|",
    ]
    for name, result in results.items():
        rates, ratio = result["pulses_per_s"], result["store_over_memory"]
        lines.append(
            f"| {name} | {rates['memory']:,.0f} | {rates['store']:,.0f} | "
            f"{ratio[0]:.1%} ({ratio[1]:.1%}-{ratio[2]:.1%}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for pipeline.md and .json")
    parser.add_argument("--model", default="t_d32")
    parser.add_argument(
        "--events", type=int, default=20_000, help="events of each of two files"
    )
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(len(context.cores()))
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments, Path(folder))
    about = context.describe(
        model=arguments.model,
        batch_size=32,
        max_pulses=192,
        batches=arguments.batches,
        rounds=arguments.rounds,
        toy=arguments.toy,
    )
    text = f"# From a store\n\n{context.table(about)}\n\n{table(results)}\n"
    stored = {"context": about, "results": results}
    context.write(arguments.out, "pipeline", text, stored)


if __name__ == "__main__":
    main()
