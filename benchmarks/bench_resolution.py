"""Opening angles on a fixed set of simulated events, by topology and energy.

    python benchmarks/bench_resolution.py --out benchmarks/results
    python benchmarks/bench_resolution.py --model t_sim.simulated --model runs/mine
    python benchmarks/bench_resolution.py --store runs/test_set --table mine.parquet
    python benchmarks/bench_resolution.py --no-limit --events 20000 --train-minutes 10

The test set is 2000 events of seed 20230420, which no training uses. The line fit and
the limit are computed for these events. `--model` adds networks: weights of the
package, a run's folder, or a file. `--table` adds tables of directions of other
reconstructions (parquet or CSV with event_id and direction_x, _y, _z or azimuth and
zenith, and kappa); `--store` keeps the test set for them. `--train-minutes` trains
`t_sim` and, if installed, GraphNeT's DynEdge from scratch, each for this time, with the
same events, batches, loss, optimiser and schedule (`equal_time.py`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import context
import numpy as np

from graphnet_icecube2nd import (
    EventStore,
    EventTable,
    simulate,
)
from graphnet_icecube2nd.evaluation.resolution import (
    as_dicts,
    as_markdown,
    compare,
)
from graphnet_icecube2nd.inference.predictor import (
    predict_events,
)
from graphnet_icecube2nd.likelihood.limit import EFFORTS, limit_events
from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
from graphnet_icecube2nd.models.pretrained import find_model
from graphnet_icecube2nd.results.truth import EventTruth

SEED = 20230420
NOTES = """\
The limit knows the topology of each event, the line fit does not. The limit is the
maximum of the simulation's own likelihood, searched blindly and from the truth; in
{missed:.0%} of the events only the search from the truth found it. For bright events no
fit is better. For dim events the maximum of the likelihood does not minimise the mean
opening angle, but the posterior mean does, so a network can be better than the limit.
Pull is the median of opening angle times the root of kappa, 1.18 for a correct kappa.
The kappa of the limit is the curvature at the maximum and ignores other maxima. Events
without a direction count as pi / 2. The simulation is simplified: these values are no
statement on IceCube.
"""


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Simulate, reconstruct and compare."""
    if not (folder / "manifest.json").exists():
        simulate(folder, num_events=arguments.events, seed=SEED)
    store = EventStore(folder)
    events = np.arange(min(arguments.events, len(store)))
    begun = time.perf_counter()
    line = line_fit_events(store, events)
    line_seconds = time.perf_counter() - begun
    about: dict[str, Any] = {
        "events": len(events),
        "seed": SEED,
        "line_fit_ms_per_event": round(1e3 * line_seconds / len(events), 2),
    }
    tables, missed = [line], None
    if arguments.limit:
        begun = time.perf_counter()
        limit = limit_events(store, events, effort=arguments.effort)
        about["effort"] = arguments.effort
        about["limit_s_per_event"] = round(
            (time.perf_counter() - begun) / len(events), 2
        )
        tables.append(limit.table)
        missed = float(limit.from_truth_B.mean())
    for name in arguments.model:
        begun = time.perf_counter()
        tables.append(predict_events(find_model(name), store, events, name=name))
        milliseconds = 1e3 * (time.perf_counter() - begun) / len(events)
        about[f"{name}_ms_per_event"] = round(milliseconds, 2)
    if arguments.train_minutes:
        from equal_time import train_both

        trained, about["equal_time"] = train_both(
            store, events, arguments.train_minutes, arguments.train_events
        )
        tables += trained
    tables += [EventTable.load(path, path.stem) for path in arguments.table]
    rows = compare(tables, EventTruth.of(store, events))
    return {
        "context": context.describe(**about),
        "missed": missed,
        "rows": as_dicts(rows),
        "markdown": as_markdown(rows),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--effort", choices=list(EFFORTS), default="full")
    parser.add_argument(
        "--store", type=Path, help="folder of the test set, which is kept"
    )
    parser.add_argument(
        "--table", type=Path, action="append", default=[], help="table of directions"
    )
    parser.add_argument("--limit", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--model", action="append", default=[], help="network to compare"
    )
    parser.add_argument(
        "--train-minutes", type=float, help="training time of t_sim and DynEdge"
    )
    parser.add_argument("--train-events", type=int, default=300_000)
    parser.add_argument("--name", default="resolution", help="name of the result")
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.events, arguments.effort = 12, "quick"
        arguments.train_events = 400
        if arguments.train_minutes:
            arguments.train_minutes = 0.05
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(arguments, arguments.store or Path(scratch) / "test_set")
    notes = NOTES.format(missed=result["missed"]) if arguments.limit else ""
    text = (
        f"# Resolution on simulated events\n\n{context.table(result['context'])}\n\n"
        f"{notes}\n{result.pop('markdown')}\n"
    )
    context.write(arguments.out, arguments.name, text, result)


if __name__ == "__main__":
    main()
