"""What `compare-data` sees of DOMs that are 5% more efficient.

    python benchmarks/bench_compare_data.py --out benchmarks/results

Two simulations are compared, one with more efficient DOMs, and two halves of the first
one, which must look alike.
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

from graphnet_icecube2nd import simulate
from graphnet_icecube2nd.evaluation.data_comparison import (
    ComparedEvents,
    DataComparison,
    compare_data,
)
from graphnet_icecube2nd.simulation import SimulationConfig

EFFICIENCY = 1.05
SEEDS = (1, 2)


def half(events: ComparedEvents, first: bool) -> ComparedEvents:
    """Return one half of a set of events."""
    row = np.arange(len(events.weight_B)) % 2 == (0 if first else 1)
    return replace(
        events,
        name=f"half {1 if first else 2}",
        columns={name: values[row] for name, values in events.columns.items()},
        weight_B=events.weight_B[row],
    )


def figures(name: str, found: DataComparison) -> dict[str, Any]:
    """Return the main figures of a comparison."""
    worst = found.rows[0]
    assert found.auc is not None
    return {
        "compared": name,
        "events": [len(one.weight_B) for one in found.sets],
        "largest_difference": worst["quantity"],
        "p_value": worst["p_value"],
        "quantities": len(found.rows),
        "auc": dict(zip(("value", "low", "high"), found.auc, strict=True)),
    }


def measure(num_events: int, workers: int | None) -> dict[str, Any]:
    """Simulate and compare."""
    config = SimulationConfig()
    changed = replace(config, dom_efficiency=EFFICIENCY)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("nominal", "efficient")]
        for path, seed, some in zip(paths, SEEDS, (config, changed), strict=True):
            simulate(
                path, num_events=num_events, seed=seed, config=some, workers=workers
            )
        begun = time.perf_counter()
        nominal, efficient = map(ComparedEvents.load, paths)
        found = compare_data(nominal, efficient)
        seconds = time.perf_counter() - begun
    halves = compare_data(half(nominal, True), half(nominal, False))
    return {
        "context": context.describe(
            seeds=" and ".join(map(str, SEEDS)), dom_efficiency=EFFICIENCY
        ),
        "rows": [
            figures("nominal and 5% more efficient DOMs", found),
            figures("two halves of the nominal one", halves),
        ],
        "seconds": round(seconds, 1),
    }


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "# Comparing simulations",
        "",
        context.table(result["context"]),
        "",
        "The p-value is that of the largest difference, one of several quantities. "
        "AUC: area under the ROC curve of the classifier, with its 95% interval. "
        f"Reading and comparing the two simulations took {result['seconds']:.0f} s.",
        "",
        "| compared | events | largest difference | p-value | AUC |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        events = " and ".join(f"{number:,}" for number in row["events"])
        value, low, high = (f"{v:.4f}" for v in row["auc"].values())
        lines.append(
            f"| {row['compared']} | {events} | {row['largest_difference']} of "
            f"{row['quantities']} | {row['p_value']:.1e} | {value} ({low} to {high}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000, help="of each set")
    parser.add_argument("--workers", type=int, help="processes; default: one per core")
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.events, arguments.workers = 1000, 1
    result = measure(arguments.events, arguments.workers)
    context.write(arguments.out, "compare_data", as_text(result), result)


if __name__ == "__main__":
    main()
