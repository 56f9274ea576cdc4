"""One model with all tasks beside a twin for each task, at equal training.

    python benchmarks/bench_twins.py --weights START --out benchmarks/results
    python benchmarks/bench_twins.py --toy                             # seconds

Every model is t_sim, begins with the same weights (--weights; without: random ones),
and sees the same simulated events in the same order in one cycle of the learning rate.
The figures are of the averaged weights on other events. The ratio is that of the mean
errors of both models on the same events, with a 95% interval from resampling events.
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
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd import EventStore, simulate, train
from graphnet_icecube2nd.inference.model_bundle import load_bundle
from graphnet_icecube2nd.inference.predictor import event_outputs
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.simulation import SimulationConfig
from graphnet_icecube2nd.tasks.label import has_label
from graphnet_icecube2nd.training import TrainerConfig
from graphnet_icecube2nd.training.recipe import Recipe
from graphnet_icecube2nd.training.recipes import find_recipe

Array = NDArray[np.float64]
# Errors of the tasks: names among `Task.metrics`, or the loss (cross-entropy).
ERRORS = {
    "direction": "opening_angle",
    "energy": "log10_error",
    "visible_energy": "log10_error",
    "vertex": "distance",
    "topology": "loss",
    "track": "loss",
    "neutrino": "loss",
    "inelasticity": "loss",
}
SEED, TEST_SEED = 20261129, 20230420
RESAMPLES = 500


def recipe_of(tasks: list[str], arguments: argparse.Namespace) -> Recipe:
    """Return one cycle over all events."""
    known = find_recipe("t_sim")
    stage = replace(
        known.stages[0],
        lr_max=arguments.learning_rate,
        epochs=1.0,
        pct_start=0.1,
        max_pulses=arguments.max_pulses,
        ema_decay=0.99,
        weights=arguments.weights,
        partial=arguments.weights is not None,
    )
    data = replace(
        known.data,
        num_sub_epochs=1,
        validation_fraction=0.01,
        validation_max_pulses=arguments.max_pulses,
    )
    return replace(
        known,
        stages=(stage,),
        tasks={name: {} for name in tasks},
        data=data,
        precision="float32",
        monitor="loss",
        model_kwargs={"depth": 1, "depth_rel": 1} if arguments.toy else {},
    )


def errors_of(folder: Path, store: EventStore) -> dict[str, Array]:
    """Return the errors of a model's tasks, (B,); NaN where there is no label."""
    bundle = load_bundle(folder)
    numbers = np.arange(len(store))
    truth = EventTruth.of(store, numbers)
    outputs = event_outputs(bundle.model, store, numbers, bundle.options)
    errors = {}
    for name, task in bundle.model.task_map.items():
        target = truth.target(task)
        output_BK, known_B = torch.from_numpy(outputs[name]), has_label(target)
        given = output_BK[known_B], torch.from_numpy(target[known_B])
        values = {"loss": task.loss(*given), **task.metrics(*given)}[ERRORS[name]]
        error_B = np.full(len(numbers), np.nan)
        error_B[known_B] = values.double().numpy()
        errors[name] = error_B
    return errors


def compared(joint_B: Array, twin_B: Array) -> dict[str, Any]:
    """Return mean errors and their ratio, with its interval."""
    good_B = np.isfinite(joint_B) & np.isfinite(twin_B)
    both = np.stack([joint_B[good_B], twin_B[good_B]])
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(0, both.shape[1], both.shape[1])
        joint, twin = both[:, chosen].mean(axis=1)
        ratios.append(joint / twin)
    joint, twin = both.mean(axis=1)
    return {
        "events": both.shape[1],
        "joint": float(joint),
        "twin": float(twin),
        "ratio": float(joint / twin),
        "interval": np.quantile(ratios, (0.025, 0.975)).tolist(),
    }


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "# All tasks in one model beside one model a task",
        "",
        context.table(result["context"]),
        "",
        "Mean errors on the same events after equal training: rad (direction), log10 "
        "(energies), m (vertex, distance), cross-entropy (classes), negative "
        "log-likelihood (inelasticity). A ratio above 1: the twin is better.",
        "",
        "| task | events | all tasks | its own twin | ratio (95%) |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        low, high = row["interval"]
        lines.append(
            f"| {name} | {row['events']:,} | {row['joint']:.4f} | {row['twin']:.4f} | "
            f"{row['ratio']:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--test-events", type=int, default=8_000)
    parser.add_argument("--max-pulses", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--weights", help="safetensors file that every model starts at")
    parser.add_argument("--tasks", default=",".join(ERRORS), help="names, with commas")
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    names = arguments.tasks.split(",")
    if arguments.toy:
        arguments.events, arguments.test_events = 1500, 300
        arguments.max_pulses, names = 32, ["direction", "track"]
    begun = time.perf_counter()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        stores = []
        for name, count, seed in (
            ("train", arguments.events, SEED),
            ("test", arguments.test_events, TEST_SEED),
        ):
            config = SimulationConfig(energy_range=(100.0, 1e7), spectral_index=1.7)
            path = Path(folder) / name
            simulate(path, num_events=count, seed=seed, config=config)
            stores.append(EventStore(path))
        errors = []
        for number, tasks in enumerate([names, *([name] for name in names)]):
            run = train(
                recipe_of(tasks, arguments),
                stores[0],
                Path(folder) / str(number),
                machine=TrainerConfig(devices=1),
            )
            errors.append(errors_of(run.path, stores[1]))
            print(f"{time.perf_counter() - begun:.0f} s: {tasks}", flush=True)
            if number:
                (name,) = tasks
                rows[name] = compared(errors[0][name], errors[-1][name])
                print(name, rows[name], flush=True)
    result = {
        "context": context.describe(
            **{
                name: value
                for name, value in vars(arguments).items()
                if name not in ("out", "tasks", "weights")
            },
            begins_with=Path(arguments.weights or "random weights").name,
            energies="100 GeV to 10 PeV, E^-1.7",
            threads=torch.get_num_threads(),
            seconds=round(time.perf_counter() - begun),
        ),
        "rows": rows,
    }
    context.write(arguments.out, "twins", as_text(result), result)


if __name__ == "__main__":
    main()
