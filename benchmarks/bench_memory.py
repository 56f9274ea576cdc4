"""Memory of the process of a training or a reconstruction, and its used part.

    python benchmarks/bench_memory.py --minutes 60 --out benchmarks/results
    python benchmarks/bench_memory.py --reconstruct --events 100000

It trains `t_sim` at L = 192 like its recipe's second stage, or reconstructs a store
with `t_sim.simulated`. Every few seconds it asks glibc (`mallinfo2`) for the used
memory, which would grow with a leak, and for the memory kept for later, and it reads
all anonymous memory of the process.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import context

from graphnet_icecube2nd import (
    reconstruct,
    simulate,
    train,
)
from graphnet_icecube2nd.memory import memory_mb
from graphnet_icecube2nd.training import (
    TrainerConfig,
)
from graphnet_icecube2nd.training.recipes import find_recipe

COLUMNS = ("seconds", "process_mb", "in_use_mb", "kept_mb")
NUM_ROWS = 12  # rows of the result, of equal duration


class MallInfo(ctypes.Structure):
    """Result of glibc's `mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def watch(path: Path, every: float) -> None:
    """Write a row at fixed intervals until the process ends."""
    ask = ctypes.CDLL("libc.so.6").mallinfo2
    ask.restype = MallInfo
    begun = time.monotonic()
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        while True:
            info = ask()
            in_use = (info.uordblks + info.hblkhd) / 1e6
            row = [time.monotonic() - begun, memory_mb(), in_use, info.fordblks / 1e6]
            writer.writerow([round(value or 0.0, 1) for value in row])
            file.flush()
            time.sleep(every)


def train_for(minutes: float, folder: Path, num_events: int) -> None:
    """Train until the time limit."""
    simulate(folder / "store", num_events=num_events, seed=20261206)
    recipe = find_recipe("t_sim")
    stage = replace(recipe.stages[1], epochs=1000.0)
    begun = time.monotonic()

    class Enough(Exception):
        pass

    def stop(_: Any) -> None:
        if time.monotonic() - begun > 60 * minutes:
            raise Enough

    with suppress(Enough):
        train(
            replace(recipe, name="memory", stages=(stage,)),
            folder / "store",
            folder / "run",
            machine=TrainerConfig(progress=False, devices=1),
            on_row=stop,
        )


def reconstruct_all(folder: Path, given: Path | None, num_events: int) -> int:
    """Reconstruct a store; return the number of its events."""
    store = given or folder / "store"
    if given is None:
        simulate(store, num_events=num_events, seed=20261207)
    found = reconstruct(store, "t_sim.simulated", folder / "directions.parquet")
    return sum(found.statuses.values())


def summary(path: Path) -> list[dict[str, float]]:
    """Return `NUM_ROWS` rows of equal duration."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    found = []
    window = rows[-1]["seconds"] / NUM_ROWS
    for number in range(NUM_ROWS):
        start = number * window
        some = [r for r in rows if start <= r["seconds"] < start + window]
        if some:
            found.append(
                {
                    "minutes": round(start / 60, 2),
                    "process_mb": round(mean(r["process_mb"] for r in some)),
                    "process_most_mb": round(max(r["process_mb"] for r in some)),
                    "in_use_mb": round(mean(r["in_use_mb"] for r in some)),
                    "in_use_least_mb": round(min(r["in_use_mb"] for r in some)),
                    "kept_mb": round(mean(r["kept_mb"] for r in some)),
                }
            )
    return found


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        f"# Memory of a {result['what']}",
        "",
        context.table(result["context"]),
        "",
        "Mean (and maximum) of the process's anonymous memory, mean (and minimum) of "
        "the used memory, and mean of the memory that the C library keeps, from each "
        "minute to the next row's. A leak would increase the used memory. The rest is "
        "fragmentation by batches of different sizes; a training releases it at each "
        "checkpoint.",
        "",
        "| from minute | process, MB | in use, MB | kept, MB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r['minutes']:.1f} | {r['process_mb']:,} ({r['process_most_mb']:,}) | "
        f"{r['in_use_mb']:,} ({r['in_use_least_mb']:,}) | {r['kept_mb']:,} |"
        for r in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument(
        "--reconstruct", action="store_true", help="measure a reconstruction"
    )
    parser.add_argument(
        "--store", type=Path, help="store to reconstruct; default: simulated"
    )
    parser.add_argument("--samples", type=Path, help="samples of an earlier call")
    parser.add_argument("--note", default="", help="text for the context")
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    every = 10.0
    if arguments.toy:
        arguments.minutes, arguments.events, every = 0.02, 2000, 0.2
    what = "reconstruction" if arguments.reconstruct else "training"
    settings: dict[str, Any] = {"note": arguments.note} if arguments.note else {}
    with tempfile.TemporaryDirectory() as folder:
        samples = arguments.samples or Path(folder) / "samples.csv"
        if arguments.samples is None:
            watcher = threading.Thread(target=watch, args=(samples, every), daemon=True)
            watcher.start()
            if arguments.reconstruct:
                settings["events"] = reconstruct_all(
                    Path(folder), arguments.store, arguments.events
                )
            else:
                train_for(arguments.minutes, Path(folder), arguments.events)
        rows = summary(samples)
    result = {"context": context.describe(**settings), "what": what, "rows": rows}
    name = "memory_reconstruction" if arguments.reconstruct else "memory"
    context.write(arguments.out, name, as_text(result), result)


if __name__ == "__main__":
    main()
