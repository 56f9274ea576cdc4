"""Full analysis: simulate, train three models, fit an ensemble, calibrate, evaluate.

    python examples/05_whole_way.py --out runs/whole_way

It shows the analysis of your own data with simulated events and small models, in a
quarter of an hour on two cores. Each step is also a command (`icecube2nd simulate,
train, ensemble fit, reconstruct, calibrate, evaluate`).

It writes into --out: training_store/, held_out/ (test events), member_0/ to member_2/
(runs), ensemble/ (with the calibration of its kappa), tables of directions, and
report/report.html. An interrupted run resumes when the command is run again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

# Contours whose radii the table has, for the report.
CONTOURS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.8, 0.9, 0.95, 0.99)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("runs/whole_way"))
    parser.add_argument("--events", type=int, default=40_000, help="training events")
    parser.add_argument("--held-out", type=int, default=20_000, help="test events")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.events < 2000 or arguments.held_out < 100 or arguments.members < 2:
        parser.error(
            "--events must be 2000 or more, --held-out 100 or more, --members 2 or more"
        )
    return arguments


def main() -> None:
    """Run all steps."""
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
    from graphnet_icecube2nd import (
        EventStore,
        calibrate,
        evaluate,
        reconstruct,
        simulate,
        train,
    )
    from graphnet_icecube2nd.calibration.validation_split import validation_events
    from graphnet_icecube2nd.ensemble import fit_ensemble
    from graphnet_icecube2nd.inference import load_bundle
    from graphnet_icecube2nd.inference.model_bundle import calibration_path
    from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
    from graphnet_icecube2nd.report import write_evaluation
    from graphnet_icecube2nd.results import EventTruth
    from graphnet_icecube2nd.training import TrainerConfig
    from graphnet_icecube2nd.training.recipes import find_recipe

    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    # 1. Training events, and test events that are used only in the evaluation.
    stores = {}
    for number, (name, num_events) in enumerate(
        (("training_store", arguments.events), ("held_out", arguments.held_out))
    ):
        if not (out / name / "manifest.json").exists():
            print(f"simulating {num_events:,} events into {name} ...", flush=True)
            simulate(out / name, num_events=num_events, seed=arguments.seed + number)
        stores[name] = EventStore(out / name)
    events, held_out = stores["training_store"], stores["held_out"]

    # 2. Models that differ only in their initial weights and in the order of events.
    known = find_recipe("t_sim")
    stage = replace(known.stages[0], epochs=1.0, ema_decay=0.99, pct_start=0.1)
    data = replace(known.data, num_sub_epochs=4, validation_fraction=0.1)
    members = []
    for number in range(arguments.members):
        recipe = replace(
            known, name="small", stages=(stage,), data=data, seed=100 + number
        )
        print(f"training member {number} ...", flush=True)
        run = train(
            recipe,
            events,
            out / f"member_{number}",
            resume=True,
            machine=TrainerConfig(devices=1),
        )
        angle = run.handed_over["direction/opening_angle"]
        print(f"\n  {angle:.3f} rad on validation events", flush=True)
        members.append(run.path)

    # 3. Ensemble, with weights from events on which no member was trained.
    validation = validation_events(members[0], events)
    if not (out / "ensemble" / "ensemble.yaml").exists():
        fitted = fit_ensemble(members, events, out / "ensemble", events=validation)
        for name, angle in fitted.angles.items():
            print(f"  {name}: {angle:.4f} rad")

    # 4. Directions with the uncalibrated kappa ...
    ensemble = load_bundle(out / "ensemble", calibration="none")
    raw = reconstruct(held_out, ensemble, out / "ensemble.parquet")
    # ... and with calibrated radii, from the same validation events.
    checked = calibrate(ensemble, events, validation)
    checked.file.save(calibration_path(out / "ensemble"))
    calibrated = reconstruct(
        held_out, out / "ensemble", out / "calibrated.parquet", contours=CONTOURS
    )

    # 5. The report.
    member = reconstruct(held_out, members[0], out / "member_0.parquet")
    tables = [
        replace(calibrated.table(), name="ensemble, calibrated"),
        replace(raw.table(), name="ensemble"),
        replace(member.table(), name="one member"),
        line_fit_events(held_out),
    ]
    evaluation = evaluate(tables, EventTruth.of(held_out))
    page = write_evaluation(
        evaluation,
        out / "report",
        title="Three small models and their ensemble",
        context={
            "trained on": f"{len(events) - len(validation):,} simulated events each",
            "calibrated on": f"{len(validation):,} validation events",
        },
    )
    for row in evaluation.summaries:
        text = f"{row.table}: mean {row.mean.value:.4f} rad"
        if row.inside_50 == row.inside_50:  # the line fit has no kappa
            text += (
                f"; contours of 50% hold {row.inside_50:.1%}, of 90% "
                f"{row.inside_90:.1%}"
            )
        print(text)
    print(f"report: {page}")


if __name__ == "__main__":
    main()
