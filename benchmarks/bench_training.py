"""Cost of the options of a training, and its memory over time.

    python benchmarks/bench_training.py --out benchmarks/results
    python benchmarks/bench_training.py --run runs/t_sim --out benchmarks/results

The first command trains the same recipe on the same simulated events with one option
changed at a time, each in its own process, in turns. It reports events/s of whole
sub-epochs after the first (which compiles and warms up), the duration of the first one,
and the peak of the process's anonymous memory. The second command reads events/s and
memory of each sub-epoch of a run, to show whether memory is constant.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import context

from graphnet_icecube2nd import (
    simulate,
    train,
)
from graphnet_icecube2nd.training import (
    TrainerConfig,
)
from graphnet_icecube2nd.training.history import read_history
from graphnet_icecube2nd.training.recipes import find_recipe

SWITCHES: dict[str, list[str]] = {
    "float32": [],
    "bfloat16": ["precision=bfloat16"],
    "activation checkpointing": ["model_kwargs.use_checkpoint=true"],
    "bfloat16, activation checkpointing": [
        "precision=bfloat16",
        "model_kwargs.use_checkpoint=true",
    ],
    "torch.compile": ["compile=true"],
    "average of the weights": ["stages.0.ema=true"],
}


def child(arguments: argparse.Namespace) -> None:
    """Train with one option, and print the measurements as JSON."""
    import torch

    torch.set_num_threads(len(context.cores()))
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], context.anonymous_memory())

    overrides = [
        f"model={arguments.model}",
        f"data.num_sub_epochs={arguments.sub_epochs}",
        "data.validation_fraction=0.01",
        "stages.0.accumulate_events=32",
        *SWITCHES[arguments.child],
    ]
    whole = find_recipe("s_d32")
    recipe = find_recipe(replace(whole, stages=whole.stages[:1]), overrides)
    before = context.anonymous_memory()
    threading.Thread(target=watch, daemon=True).start()
    logging.getLogger("graphnet_icecube2nd").setLevel(logging.WARNING)
    ends: list[tuple[float, int]] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train(
            recipe,
            arguments.store,
            Path(folder) / "run",
            machine=TrainerConfig(accelerator="cpu", progress=False, plot=False),
            on_row=lambda rows: ends.append((time.monotonic(), rows[-1]["events"])),
        )
    stop.set()
    rates = [
        (events - events_before) / (at - at_before)
        for (at_before, events_before), (at, events) in pairwise(ends)
    ]
    took = {
        "events_per_s": median(rates),
        "first_sub_epoch_s": ends[0][0] - begun,
        "peak_MB": (peak[0] - before) / 1e6,
    }
    print(json.dumps(took))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return rate and memory of each option, over rounds in turns."""
    store = folder / "store"
    simulate(store, num_events=arguments.events, seed=7)
    names = [name for name in SWITCHES if name not in arguments.leave_out]
    results: dict[str, Any] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            command = [
                sys.executable, __file__, "--child", name, "--store", str(store),
                "--model", arguments.model, "--sub-epochs", str(arguments.sub_epochs),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, results[name][-1], flush=True)
    return results


def switch_table(results: dict[str, Any]) -> str:
    """Return rates and memory as Markdown."""
    lines = [
        "| switch | events/s | over float32 | first sub-epoch, s | "
        "peak memory above the start, MB |",
        "|---|---|---|---|---|",
    ]
    base = median(r["events_per_s"] for r in results["float32"])
    for name, rounds in results.items():
        rates = [r["events_per_s"] for r in rounds]
        lines.append(
            f"| {name} | {median(rates):.1f} ({min(rates):.1f}-{max(rates):.1f}) | "
            f"x{median(rates) / base:.2f} | "
            f"{median(r['first_sub_epoch_s'] for r in rounds):.0f} | "
            f"{median(r['peak_MB'] for r in rounds):,.0f} |"
        )
    return "\n".join(lines)


SWITCHES_NOTE = """\
The optimiser steps every 32 events (recipes: 4096). Rates are those of whole sub-epochs
of a fourth of the events, including validation and checkpoint. The first sub-epoch
includes the compilation, which takes less time with torch's cache of an earlier call.
"""


def run_table(run: Path) -> str:
    """Return events/s and memory of each sub-epoch of a run as Markdown."""
    rows = read_history(run / "metrics.csv")
    lines = [
        "| stage | sub-epoch | hours | events/s | memory, MB | validation, deg |",
        "|---|---|---|---|---|---|",
    ]
    hours = seconds = events = 0.0
    stage = None
    for row in rows:
        if row["stage"] != stage:
            stage, seconds, events = row["stage"], 0.0, 0.0
        took = float(row["seconds"] or 0) - seconds
        hours += took / 3600
        rate = (float(row["events"] or 0) - events) / took
        seconds, events = float(row["seconds"] or 0), float(row["events"] or 0)
        memory = "-" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}"
        lines.append(
            f"| {stage} | {row['sub_epoch']} | {hours:.2f} | {rate:.0f} | {memory} | "
            f"{math.degrees(row['direction/opening_angle']):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    parser.add_argument("--run", type=Path, help="run to report instead")
    parser.add_argument("--model", default="s_d32")
    parser.add_argument("--events", type=int, default=768)
    parser.add_argument("--sub-epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--leave-out", action="append", default=[], choices=list(SWITCHES)
    )
    parser.add_argument("--child", choices=list(SWITCHES), help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.events, arguments.model, arguments.rounds = 300, "t_sim", 1
    if arguments.child:
        child(arguments)
        return
    if arguments.run:
        name, result = (
            "training_run",
            {"run": read_history(arguments.run / "metrics.csv")},
        )
        about = context.describe(run=arguments.run.name)
        title, text = "A run's own measurements", run_table(arguments.run)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(arguments, Path(folder))
        about = context.describe(
            model=arguments.model,
            events=arguments.events,
            batch_size=32,
            max_pulses=192,
            sub_epochs=arguments.sub_epochs,
            rounds=arguments.rounds,
            left_out=arguments.leave_out or "nothing",
            toy=arguments.toy,
        )
        name, title, text = "training", "Switches of a training", switch_table(result)
        text = f"{SWITCHES_NOTE}\n{text}"
    page = f"# {title}\n\n{context.table(about)}\n\n{text}\n"
    context.write(arguments.out, name, page, {"context": about, "results": result})


if __name__ == "__main__":
    main()
