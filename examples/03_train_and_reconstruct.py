"""Train from scratch for three minutes, then reconstruct with the shipped model.

    python examples/03_train_and_reconstruct.py --out runs/demo

It simulates training events and trains a small model with a recipe of one stage. Then
it compares three reconstructions of independent test events: the line fit, the model of
these three minutes, and `t_sim.simulated`, which comes with the package. It writes into
--out: training/ (the run: recipe, metrics, curves, weights), held_out/ (test events, if
there are none of `02_simulated_events.py`), answers, a picture of one event with all
answers and their widths (answers.png), and report/: open report/report.html.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--events", type=int, default=24_000, help="training events")
    parser.add_argument("--held-out", type=int, default=2000, help="test events")
    parser.add_argument("--sub-epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="resume a run")
    arguments = parser.parse_args()
    if arguments.events < 100 or arguments.held_out < 1 or arguments.sub_epochs < 1:
        parser.error(
            "--events must be 100 or more, --held-out and --sub-epochs 1 or more"
        )
    return arguments


def main() -> None:
    """Simulate, train, reconstruct and compare."""
    arguments = parse_arguments()
    try:
        import matplotlib as _
        import pyarrow as _  # noqa: F811
        import pytorch_lightning as _  # noqa: F811
        import scipy as _  # noqa: F401, F811
    except ImportError as error:
        sys.exit(
            f"{error}: pip install graphnet-icecube2nd[data,train,simulation,plots]"
        )
    import numpy as np
    import torch

    from graphnet_icecube2nd import EventStore, evaluate, reconstruct, simulate, train
    from graphnet_icecube2nd.evaluation.resolution import as_markdown, compare
    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.plots import save_figure
    from graphnet_icecube2nd.report import write_evaluation
    from graphnet_icecube2nd.report.event.display import draw_event
    from graphnet_icecube2nd.results import EventTruth
    from graphnet_icecube2nd.training import TrainerConfig
    from graphnet_icecube2nd.training.recipes import find_recipe
    from graphnet_icecube2nd.training.trainer import emulates_bfloat16

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    store = out / "training_store"
    if not (store / "manifest.json").exists():
        simulate(store, num_events=arguments.events, seed=arguments.seed)

    # 1. Recipe: the first stage of `t_sim`, for fewer events.
    known = find_recipe("t_sim")
    stage = replace(known.stages[0], epochs=1.0, ema_decay=0.99, pct_start=0.1)
    data = replace(
        known.data, num_sub_epochs=arguments.sub_epochs, validation_fraction=0.03
    )
    recipe = replace(known, name="three_minutes", stages=(stage,), data=data)
    if emulates_bfloat16(torch.device("cpu")):  # float32 is faster then
        recipe = replace(recipe, precision="float32")

    def say_angle(rows: list[dict[str, float]]) -> None:
        row = rows[-1]
        angle = row["direction/opening_angle"]
        print(
            f"\n  after {row['events']:,} events and {row['seconds']:.0f} s: mean "
            f"opening angle {angle:.3f} rad "
            f"({math.degrees(angle):.1f} deg) on validation events",
            flush=True,
        )

    if (out / "training").exists() and not arguments.resume:
        shutil.rmtree(out / "training")
    print(f"training {recipe.name} ...", flush=True)
    begun = time.monotonic()
    run = train(
        recipe,
        store,
        out / "training",
        resume=arguments.resume,
        machine=TrainerConfig(devices=1),
        on_row=say_angle,
    )
    print(f"trained in {time.monotonic() - begun:.0f} s; curves: {run.path}/curves.png")

    # 2. Independent test events, reconstructed three times.
    held_out = out / "store"
    if not held_out.exists():
        held_out = out / "held_out"
        if not (held_out / "manifest.json").exists():
            simulate(held_out, num_events=arguments.held_out, seed=0)
    events = EventStore(held_out)
    tables = [line_fit_events(events)]
    for name, model in (("three minutes", run.path), ("t_sim", "t_sim.simulated")):
        found = reconstruct(
            events,
            model,
            out / f"{name.replace(' ', '_')}.parquet",
            contours=(0.1, 0.3, 0.5, 0.68, 0.9, 0.99),  # for the report
        )
        print(f"{name}: {found.num_events:,} events in {found.seconds:.1f} s")
        tables.append(replace(found.table(), name=name))
    tables[0].save(out / "line_fit.parquet")

    # 3. All answers for the brightest event whose vertex is in the detector.
    inside = events.whole_event_column("topology") == "cascade"
    pulses = np.where(inside, events.whole_event_column("n_pulses"), 0)
    picture = draw_event(events, int(pulses.argmax()), tables[-1:])
    save_figure(picture, out / "answers.png")
    print(f"one event: {out / 'answers.png'}")

    # 4. All tasks: resolution, widths and their coverage.
    truth = EventTruth.of(events)
    page = write_evaluation(
        evaluate(tables[::-1], truth),
        out / "report",
        title=f"{len(events):,} simulated test events",
        context={
            "tables": "t_sim: model of the package, with calibrated kappa; three "
            "minutes: model of this run; line fit: straight line through first pulses",
        },
    )
    text = as_markdown(compare(tables, truth))
    print()
    print("\n".join(text.splitlines()[:2]))
    print("\n".join(line for line in text.splitlines() if "| all |" in line))
    print(f"\nreport: {page}")


if __name__ == "__main__":
    main()
