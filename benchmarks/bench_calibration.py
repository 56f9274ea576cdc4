"""Coverage of contours on events independent of training and calibration.

    python benchmarks/bench_calibration.py --out benchmarks/results

A model's kappa is calibrated on one set of simulated events and tested on another of
20,000. The calibration is that of `icecube2nd calibrate`; contours are the radii that
`reconstruct` writes. The model's own calibration, if it has one, is tested as well.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import context
import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd import (
    EventStore,
    simulate,
)
from graphnet_icecube2nd.inference import (
    load_bundle,
)
from graphnet_icecube2nd.inference.predictor import (
    predict_events,
)
from graphnet_icecube2nd.results import (
    EventTruth,
)
from graphnet_icecube2nd.tasks.direction.calibration import METHODS, fit_calibration

LEVELS = (0.1, 0.3, 0.5, 0.68, 0.9, 0.95, 0.99)
SEEDS = (20261201, 20261202)  # seeds of the fit and the test


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fit on one set, and test on the other."""
    trained = load_bundle(arguments.model, calibration="none")
    seen = []
    for seed in SEEDS:
        path = folder / str(seed)
        if not (path / "manifest.json").exists():
            simulate(path, num_events=arguments.events, seed=seed)
        store = EventStore(path)
        table = predict_events(trained.model, store, options=trained.options)
        truth = EventTruth.of(store)
        ok = table.is_ok & np.isfinite(table.kappa_B)
        seen.append((table.kappa_B[ok], truth.angles(table)[ok], truth.topology_B[ok]))
    (kappa, angle, _), (other, other_angle, topology) = seen
    rows = []
    calibrations = {
        "as the model has it": fit_calibration(kappa, angle, "none", levels=False),
        **{method: fit_calibration(kappa, angle, method) for method in METHODS},
    }
    stored = load_bundle(arguments.model).calibration
    if stored is not None:
        calibrations["comes with the model"] = stored
    for name, calibration in calibrations.items():
        inside = {
            level: other_angle <= calibration.radius(other, level) for level in LEVELS
        }
        groups = {
            "all": np.ones(len(other), bool),
            **{f"kappa {t}": third for t, third in _thirds(other).items()},
            **{kind: topology == kind for kind in np.unique(topology).tolist()},
        }
        for kind, some in groups.items():
            rows.append(
                {
                    "method": name,
                    "group": kind,
                    "events": int(some.sum()),
                    "held": {str(v): float(i[some].mean()) for v, i in inside.items()},
                }
            )
    return {
        "context": context.describe(
            model=arguments.model,
            events_of_the_fit=len(kappa),
            events_of_the_test=len(other),
            seeds=SEEDS,
        ),
        "rows": rows,
    }


def _thirds(kappa: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Return masks of the events in each third of kappa, by its borders."""
    low, high = np.quantile(kappa, [1 / 3, 2 / 3]).tolist()
    return {
        f"below {low:.3g}": kappa < low,
        f"{low:.3g} to {high:.3g}": (kappa >= low) & (kappa < high),
        f"above {high:.3g}": kappa >= high,
    }


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "# Coverage of contours",
        "",
        context.table(result["context"]),
        "",
        "Share of true directions inside contours of the test set. `none` corrects "
        "only the levels of contours, `temperature` also multiplies kappa by a factor, "
        "`isotonic` uses a rising map for small and large kappas separately. No "
        "calibration depends on the topology, so single topologies may deviate.",
        "",
        f"| kappa | events of | events | {' | '.join(f'{v:.0%}' for v in LEVELS)} |",
        f"|---|---|---|{'---|' * len(LEVELS)}",
    ]
    for row in result["rows"]:
        held = " | ".join(f"{100 * value:.1f}" for value in row["held"].values())
        kind = row["group"].replace("_", " ")
        lines.append(f"| {row['method']} | {kind} | {row['events']:,} | {held} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="t_sim.simulated")
    parser.add_argument("--events", type=int, default=20_000, help="events per set")
    parser.add_argument(
        "--folder", type=Path, help="folder of the events, which is kept"
    )
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.events = 256
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(arguments, arguments.folder or Path(scratch))
    context.write(arguments.out, "calibration", as_text(result), result)


if __name__ == "__main__":
    main()
