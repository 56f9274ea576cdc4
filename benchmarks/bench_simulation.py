"""Speed of the simulation, and lengths of its events and the competition's.

    python benchmarks/bench_simulation.py --out benchmarks/results

One process on one core simulates blocks of events with `simulate_block`, as for stores
and streams. The result is the median and range over rounds. Quantiles of pulses per
event are compared with published ones of the competition's data.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # one core; set before numpy is imported

import context
import numpy as np

from graphnet_icecube2nd.simulation import (
    SimulationConfig,
)
from graphnet_icecube2nd.simulation.configuration import BLOCK_EVENTS, TOPOLOGIES
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.events import simulate_block

# Pulses per event of the competition's data: quartiles of all training events, the rest
# of its first batch.
PUBLISHED = {0.25: 48, 0.5: 63, 0.75: 89, 0.9: 144, 0.95: 219, 0.99: 1130}


def measure(blocks: int, rounds: int) -> dict[str, Any]:
    """Measure the simulation."""
    config, detector = SimulationConfig(), SimulatedDetector.icecube86()
    simulate_block(config, detector, 0, 0)  # creates the tables of the detector
    rates, lengths, topologies = [], [], []
    for turn in range(rounds):
        begun = time.perf_counter()
        for block in range(blocks):
            events = simulate_block(config, detector, 1 + turn, block)
            lengths.append(np.diff(events.offsets))
            topologies.append(events.truth["topology"])
        rates.append(blocks * BLOCK_EVENTS / (time.perf_counter() - begun))
    length, topology = np.concatenate(lengths), np.concatenate(topologies)
    quantiles = list(PUBLISHED)
    return {
        "context": context.describe(cores_used=1, events=len(length), rounds=rounds),
        "events_per_s": {"median": median(rates), "range": [min(rates), max(rates)]},
        "pulses": {
            name: np.quantile(length[chosen], quantiles).round().tolist()
            for name, chosen in (
                ("all", np.ones(len(length), bool)),
                *((name, topology == name) for name in TOPOLOGIES),
            )
            if chosen.any()
        },
        "mean": float(length.mean()),
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a page."""
    rate = result["events_per_s"]
    low, high = rate["range"]
    head = " | ".join(f"{quantile:.0%}" for quantile in PUBLISHED)
    lines = [
        "# Simulating events",
        "",
        context.table(result["context"]),
        "",
        f"{rate['median']:,.0f} events/s on one core ({low:,.0f} to {high:,.0f}), "
        f"{result['mean']:.0f} pulses an event on average.",
        "",
        f"| pulses per event | {head} |",
        "|---|" + "---|" * len(PUBLISHED),
        "| the competition's | " + " | ".join(map(str, PUBLISHED.values())) + " |",
    ]
    for name, values in result["pulses"].items():
        cells = " | ".join(f"{value:.0f}" for value in values)
        lines.append(f"| simulated, {name.replace('_', ' ')} | {cells} |")
    ratio = np.array(result["pulses"]["all"]) / np.array(list(PUBLISHED.values()))
    cells = " | ".join(f"{value:.2f}" for value in ratio)
    lines.append(f"| all, over the competition's | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--blocks", type=int, default=40, help="blocks of 256 events per round"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.blocks, arguments.rounds = 1, 1
    result = measure(arguments.blocks, arguments.rounds)
    context.write(arguments.out, "simulation", markdown(result), result)


if __name__ == "__main__":
    main()
