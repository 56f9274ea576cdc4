"""Latency of a single event, from its pulses in memory to a direction.

    python benchmarks/bench_latency.py --out benchmarks/results

As for alerts, events come one after the other, without batches: numpy arrays of pulses
in, a row of results out, with checks of the pulses, features, and the calibration of
t_sim.simulated. Simulated events have the lengths of the competition's. Models take
turns within each round. t_sim.simulated answers with its eight tasks, models of random
weights with those of `--tasks`. t_sim is the same model with the direction only:

    python benchmarks/bench_latency.py --model t_sim.simulated --model t_sim
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import context
import numpy as np
import torch

from graphnet_icecube2nd import (
    EventStore,
    PulseReconstructor,
    build_model,
    simulate,
)
from graphnet_icecube2nd.inference import (
    InferenceConfig,
    load_bundle,
)

MODELS = ("t_sim.simulated", "t_sim", "t_d32", "s_d32", "s_gnn", "b_gnn")
SEED = 20230420


def events_of(store: EventStore, num_events: int) -> list[dict[str, Any]]:
    """Return events as columns of numpy arrays."""
    shard = store.shards[0]
    border = np.append(0, np.cumsum(store.lengths(0)))
    names = store.pulse_columns
    return [
        {
            name: np.array(shard.pulses.column(name)[border[n] : border[n + 1]])
            for name in names
        }
        for n in range(num_events)
    ]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reconstruct single events with each model."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "s", num_events=512, seed=SEED, workers=1)
        events = events_of(EventStore(Path(folder) / "s"), arguments.events)
    # The calibration of t_sim.simulated is valid for 192 pulses.
    calibration = "stored" if arguments.max_pulses == 192 else "none"
    ready, count = {}, {}
    for name in arguments.model or MODELS:
        for precision in ("float32", "bfloat16"):
            options = InferenceConfig(
                max_pulses=arguments.max_pulses, precision=precision
            )
            bundle = load_bundle(name) if "." in name else None
            model = bundle or build_model(name, tasks=arguments.tasks.split(",")).eval()
            count[name] = len((bundle.model if bundle else model).task_map)
            with warnings.catch_warnings():  # about a calibration in another precision
                warnings.simplefilter("ignore")
                ready[name, precision] = PulseReconstructor(
                    model, options=options, calibration=calibration
                )
    for reconstructor in ready.values():  # warm-up
        reconstructor(events[0])
    milliseconds: dict[tuple[str, str], list[float]] = {key: [] for key in ready}
    for event in events:
        for key, reconstructor in ready.items():
            begun = time.perf_counter()
            reconstructor(event)
            milliseconds[key].append(1e3 * (time.perf_counter() - begun))
    rows = []
    for (name, precision), spent in milliseconds.items():
        median, q90, q99 = np.quantile(spent, [0.5, 0.9, 0.99]).tolist()
        rows.append(
            {
                "model": name,
                "tasks": count[name],
                "precision": precision,
                "median_ms": round(median, 1),
                "q90_ms": round(q90, 1),
                "q99_ms": round(q99, 1),
            }
        )
    lengths = [len(event["time"]) for event in events]
    return {
        "context": context.describe(
            events=len(events),
            max_pulses=arguments.max_pulses,
            threads=torch.get_num_threads(),
            median_pulses=int(np.median(lengths)),
            longest=max(lengths),
            warm_up="one event",
        ),
        "rows": rows,
    }


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "# Latency of a single event",
        "",
        context.table(result["context"]),
        "",
        "Time from pulses in memory to a row of results, for single events, ms. "
        "Weights are random except for t_sim.simulated; this does not change the time.",
        "",
        "| model | tasks | precision | median | 90% | 99% |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['model']} | {r['tasks']} | {r['precision']} | {r['median_ms']} | "
        f"{r['q90_ms']} | {r['q99_ms']} |"
        for r in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--max-pulses", type=int, default=192)
    parser.add_argument("--model", action="append", help="models; default: six")
    parser.add_argument(
        "--tasks", default="direction", help="tasks of random weights, by commas"
    )
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.events, arguments.model = 3, ["t_sim.simulated"]
    result = measure(arguments)
    context.write(arguments.out, "latency", as_text(result), result)


if __name__ == "__main__":
    main()
