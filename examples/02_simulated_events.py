"""Simulate, inspect and reconstruct events, without GraphNeT and without data.

    python examples/02_simulated_events.py --out runs/demo

It simulates events with known truth, writes and inspects a store, fits lines, finds the
limit (the maximum of the simulation's own likelihood) of some events, draws two events,
and compares. It writes into --out: store/, line_fit.parquet, limit.parquet, two
pictures and resolution.md. The defaults take under two minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import numpy as np

# Drawn events: topology and minimum number of pulses.
PICTURES = (("through_going_track", 150), ("cascade", 150))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--events", type=int, default=2000, help="events to simulate")
    parser.add_argument(
        "--limit-events", type=int, default=200, help="events whose limit is found"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes; default: one per core")
    arguments = parser.parse_args()
    if not 1 <= arguments.limit_events <= arguments.events:
        parser.error("--limit-events must be from 1 to --events")
    return arguments


def main() -> None:
    """Simulate, inspect, reconstruct and compare."""
    arguments = parse_arguments()
    try:
        import matplotlib as _
        import pyarrow as _  # noqa: F811
        import scipy as _  # noqa: F401, F811
    except ImportError as error:
        sys.exit(f"{error}: pip install graphnet-icecube2nd[data,plots,simulation]")
    from graphnet_icecube2nd import EventStore, simulate
    from graphnet_icecube2nd.evaluation.resolution import as_markdown, compare
    from graphnet_icecube2nd.likelihood.limit import limit_events
    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.plots import save_figure
    from graphnet_icecube2nd.report.event.display import draw_event
    from graphnet_icecube2nd.results.truth import EventTruth
    from graphnet_icecube2nd.store.event_store import length_quantiles, view_event

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "store"
    if folder.exists():
        shutil.rmtree(folder)

    begun = time.monotonic()
    simulate(
        folder,
        num_events=arguments.events,
        seed=arguments.seed,
        workers=arguments.workers,
    )
    store = EventStore(folder)
    seconds = time.monotonic() - begun
    print(f"simulated {len(store):,} events in {seconds:.1f} s")
    lengths = length_quantiles(store)
    print("pulses per event: " + ", ".join(f"{n} {v}" for n, v in lengths.items()))

    line = line_fit_events(store)
    line.save(out / "line_fit.parquet")
    some = np.arange(arguments.limit_events)
    begun = time.monotonic()
    print(f"limit of {len(some)} events ...", flush=True)
    limit = limit_events(store, some, effort="quick", workers=arguments.workers)
    limit.table.save(out / "limit.parquet")
    seconds = time.monotonic() - begun
    print(
        f"  {seconds:.0f} s; found only by the search from the truth: "
        f"{limit.from_truth_B.sum()} of {len(some)}"
    )

    for topology, pulses in PICTURES:
        for number in some:
            truth = view_event(store, int(number)).truth
            if truth["topology"] == topology and truth["n_pulses"] >= pulses:
                break
        figure = draw_event(store, int(number), [line, limit.table])
        picture = out / f"event_{truth['event_id']}_{truth['topology']}.png"
        save_figure(figure, picture)
        print(f"wrote {picture}")

    table = as_markdown(compare([line, limit.table], EventTruth.of(store, some)))
    text = f"# Opening angles of {len(some)} simulated events\n\n{table}\n"
    (out / "resolution.md").write_text(text, encoding="utf-8")
    print()
    print(
        "\n".join(
            line
            for line in table.splitlines()
            if "| all |" in line or "--" in line or "topology" in line
        )
    )
    print(
        f"\nwritten to {out}: store, line_fit.parquet, limit.parquet, pictures, "
        "resolution.md (also by energy)"
    )


if __name__ == "__main__":
    main()
