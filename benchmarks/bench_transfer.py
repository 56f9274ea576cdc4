"""What a model of a large detector is worth on a small one, by number of events.

    python benchmarks/bench_transfer.py WORK --out benchmarks/results     # hours
    python benchmarks/bench_transfer.py WORK --toy                        # minutes

Models of simulated ORCA115 events (with truth; of track and shower alone; without
truth; with strings switched off) begin the training on ORCA6 and ORCA10. WORK keeps
the stores and runs; each trained model is one line of WORK/models.jsonl, and its
answers to the test events are a file. A call that was stopped goes on where it was.
Intervals (95%) come from resampling both events and seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import context
import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd import (
    EventStore,
    finetune,
    load_model,
    pretrain,
    simulate,
    train,
)
from graphnet_icecube2nd.conventions import TIME, opening_angle
from graphnet_icecube2nd.events.augmentation import modules_of
from graphnet_icecube2nd.events.events import is_triggered
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.predictor import event_outputs
from graphnet_icecube2nd.likelihood.line_fit import line_fit_events
from graphnet_icecube2nd.loading.reading import EventReader
from graphnet_icecube2nd.plots import TableStyle, new_figure, save_figure
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.simulation import SimulationConfig
from graphnet_icecube2nd.statistics import roc_area, roc_curve
from graphnet_icecube2nd.training import TrainerConfig
from graphnet_icecube2nd.training.recipe import DataConfig, Recipe, Stage

Array = NDArray[np.float64]
SOURCE, TARGETS = "orca115", ("orca6", "orca10")
TASKS = ("direction", "energy", "track")
# Runs on the source: tasks, and augmentations of the training.
SOURCES: dict[str, tuple[tuple[str, ...], list[dict[str, Any]]]] = {
    "labelled": (TASKS, []),
    "class": (("track",), []),
    "mixed": (TASKS, [{"kind": "drop_strings", "probability": 0.8}]),
    "unlabelled": ((), []),
}
# How a model of a target is made: run on the source, and method of `finetune`.
METHODS: dict[str, tuple[str, str]] = {
    "scratch": ("", ""),
    "frozen": ("labelled", "frozen"),
    "full": ("labelled", "full"),
    "layer-wise": ("labelled", "layer-wise"),
    "pre-trained without labels": ("unlabelled", "full"),
    "linear probe without labels": ("unlabelled", "frozen"),
}
# The second study: from track and shower to the energy.
TO_ENERGY = {"energy from scratch": ("", ""), "energy from class": ("class", "full")}
METRICS = {
    "track": "AUROC of track against shower",
    "energy": "mean error of log10 energy",
    "direction": "median opening angle, deg",
}
MODULES = (0, 5, 10, 20, 40, 10_000)  # triggered modules of an event, bins
SEED, TEST_SEED, NOISY_SEED = 20261201, 20261202, 20261203
RESAMPLES = 500
MODELS, ANSWERS = "models.jsonl", "answers"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of events, passes and pulses, and the model."""

    source: int = 200_000
    test: int = 10_000
    training: tuple[int, ...] = (1_000, 10_000, 100_000)
    epochs: tuple[float, ...] = (30.0, 10.0, 4.0)
    source_epochs: float = 4.0
    seeds: tuple[int, ...] = (1, 2, 3)
    max_pulses: int = 96
    model: Mapping[str, Any] | None = None


TOY = Sizes(
    source=400,
    test=200,
    training=(100,),
    epochs=(1.0,),
    source_epochs=1.0,
    seeds=(1,),
    max_pulses=24,
    model={"dim": 32, "dim_base": 8, "depth": 1, "head_size": 16, "depth_rel": 1},
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model to train: `target` is a detector, or empty for a run on the source."""

    target: str = ""
    method: str
    events: int = 0
    seed: int = 0
    tasks: tuple[str, ...] = TASKS

    @property
    def key(self) -> str:
        """Name of the run's folder and of the answers."""
        parts = (self.target or SOURCE, self.method, self.events, self.seed)
        return "_".join(str(part).replace(" ", "-") for part in parts)


def jobs_of(sizes: Sizes) -> Iterator[Job]:
    """Yield all models, those on the source first, then the cheap ones first."""
    for method, (tasks, _) in SOURCES.items():
        yield Job(method=method, tasks=tasks)
    for events in sizes.training:
        for seed in sizes.seeds:
            for target in TARGETS:
                for method in METHODS:
                    yield Job(target=target, method=method, events=events, seed=seed)
            for method in TO_ENERGY:
                yield Job(
                    target=TARGETS[0],
                    method=method,
                    events=events,
                    seed=seed,
                    tasks=("energy",),
                )


def make_store(work: Path, detector: str, kind: str, sizes: Sizes) -> EventStore:
    """Return a store of simulated events: `train`, `test`, or `noisy`."""
    path = work / f"{detector}_{kind}"
    num = sizes.test if kind != "train" else max(sizes.training)
    num = sizes.source if detector == SOURCE and kind == "train" else num
    seed = {"train": SEED, "test": TEST_SEED, "noisy": NOISY_SEED}[kind]
    config = None  # the detector's
    if kind == "noisy":
        usual = make_store(work, detector, "test", sizes)
        (said,) = (n for n in usual.manifest.notes if n.startswith("simulated with"))
        config = SimulationConfig.from_dict(json.loads(said.partition(": ")[2]))
        config = replace(config, noise_rate=2 * config.noise_rate)
    if not (path / "manifest.json").is_file():
        simulate(path, num_events=num, seed=seed, config=config, detector=detector)
    return EventStore(path)


def stage_of(sizes: Sizes, epochs: float) -> dict[str, Any]:
    """Return options of a stage that all methods share."""
    return {
        "epochs": epochs,
        "max_pulses": sizes.max_pulses,
        "batch_size": 64,
        "accumulate_events": 64,
        "pct_start": 0.1,
        "div_final": 100.0,
    }


def run_job(job: Job, work: Path, sizes: Sizes) -> Path:
    """Train a model and return its run."""
    run = work / "runs" / job.key
    machine = TrainerConfig(devices=1, progress=False, plot=False)
    kwargs = dict(sizes.model or {})
    if not job.target:
        stage = stage_of(sizes, sizes.source_epochs)
        store = make_store(work, SOURCE, "train", sizes)
        if not job.tasks:
            values = {f"stages.0.{name}": value for name, value in stage.items()}
            values |= {f"model_kwargs.{name}": value for name, value in kwargs.items()}
            pretrain(store, run, overrides=values, resume=True, machine=machine)
            return run
        recipe = Recipe(
            name=job.method,
            model="t_sim",
            model_kwargs=kwargs,
            tasks={name: {} for name in job.tasks},
            stages=(Stage(lr_max=1e-3, **stage),),
            data=DataConfig(
                num_sub_epochs=1,
                validation_fraction=0.05,
                augmentations=tuple(SOURCES[job.method][1]),
            ),
            monitor="loss",
        )
        train(recipe, store, run, resume=True, machine=machine)
        return run
    place = sizes.training.index(job.events)
    stage = stage_of(sizes, sizes.epochs[place])
    store = make_store(work, job.target, "train", sizes)
    begins, method = {**METHODS, **TO_ENERGY}[job.method]
    data = {"events": f"event_id < {job.events}", "validation_fraction": 0.1}
    if not begins:
        recipe = Recipe(
            name="scratch",
            model="t_sim",
            model_kwargs=kwargs,
            tasks={name: {} for name in job.tasks},
            stages=(Stage(lr_max=1e-3, **stage),),
            data=DataConfig(num_sub_epochs=1, **data),  # type: ignore[arg-type]
            seed=job.seed,
            monitor="loss",
        )
        train(recipe, store, run, resume=True, machine=machine)
        return run
    values = {f"stages.0.{name}": value for name, value in stage.items()}
    values |= {f"data.{name}": value for name, value in data.items()}
    finetune(
        work / "runs" / Job(method=begins).key,
        store,
        run,
        tasks=job.tasks,
        method=method,
        overrides={**values, "seed": job.seed, "monitor": "loss"},
        resume=True,
        machine=machine,
    )
    return run


def answers_of(run: Path, store: EventStore) -> dict[str, Array]:
    """Return errors or scores of a model's tasks, (B,), NaN without pulses or label."""
    model = load_model(run / "model.safetensors")
    numbers = np.arange(len(store))
    options = InferenceConfig.of(model.input_config)
    outputs = event_outputs(model, store, numbers, options)
    truth = EventTruth.of(store, numbers)
    answers: dict[str, Array] = {}
    for name, task in model.task_map.items():
        if name not in METRICS:
            continue
        output, target = torch.from_numpy(outputs[name]), truth.target(task)
        if name == "track":
            answers[name], answers["is_track"] = task.scores(output).numpy(), target
        else:
            metric = {"energy": "log10_error", "direction": "opening_angle"}[name]
            values = task.metrics(output, torch.from_numpy(target))
            answers[name] = values[metric].double().numpy()
    return answers


def modules_hit(store: EventStore) -> Array:
    """Return the number of modules with a triggered pulse in each event, (B,)."""
    reader = EventReader(store, max_pulses=None, truth=())
    counts_B = np.zeros(len(store))
    full = np.flatnonzero(store.whole_event_column("n_pulses") > 0)
    for some in np.array_split(full, max(1, len(full) // 1000)):
        events = reader.raw(some)
        good_T = np.ones(len(events.columns[TIME]), bool)
        if {"hlc", "auxiliary"} & events.columns.keys():
            good_T = is_triggered(events.columns)
        dom_T = modules_of("bench", events.columns, store.detector).numpy()
        event_T = np.repeat(np.arange(len(some)), np.diff(events.offsets.numpy()))
        pairs = np.unique(np.stack([event_T[good_T], dom_T[good_T]], 1), axis=0)
        counts_B[some] = np.bincount(pairs[:, 0], minlength=len(some))
    return counts_B


def auroc(score_B: Array, is_yes_B: Array) -> float:
    """Return the area under the ROC curve; NaN if there is one class only."""
    good_B = np.isfinite(score_B) & np.isfinite(is_yes_B)
    is_yes_B = is_yes_B[good_B] > 0.5
    if is_yes_B.all() or not is_yes_B.any():
        return math.nan
    return roc_area(*roc_curve(score_B[good_B], is_yes_B))


def figure_of(task: str, answers: Mapping[str, Array], rows: Any) -> float:
    """Return the figure of merit of a task on some events."""
    if task == "track":
        return auroc(answers["track"][rows], answers["is_track"][rows])
    values = answers[task][rows]
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan
    return float(
        np.degrees(np.median(values)) if task == "direction" else values.mean()
    )


def with_interval(
    task: str, several: list[dict[str, Array]], rows: NDArray[np.int64]
) -> list[float]:
    """Return the mean figure of several seeds, and its interval."""
    mean = float(np.mean([figure_of(task, answers, rows) for answers in several]))
    generator, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES if len(rows) else 0):
        chosen = generator.choice(rows, len(rows))
        seeds = generator.integers(0, len(several), len(several))
        found.append(np.mean([figure_of(task, several[s], chosen) for s in seeds]))
    low, high = np.nanquantile(found, (0.025, 0.975)) if found else (math.nan, math.nan)
    return [mean, float(low), float(high)]


def result_of(work: Path, sizes: Sizes, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all figures with intervals, from the answers of all models."""

    def load(key: str, kind: str = "test") -> dict[str, Array]:
        with np.load(work / ANSWERS / f"{key}_{kind}.npz") as file:
            return dict(file)

    table: list[dict[str, Any]] = []
    for target in TARGETS:
        hit_B = load(target, "modules")["modules"]
        every = np.flatnonzero(hit_B > 0)
        bins = [
            (low, np.flatnonzero((hit_B >= low) & (hit_B < high)))
            for low, high in pairwise(MODULES)
        ]
        for method in (*METHODS, *TO_ENERGY):
            for events in sizes.training:
                rows = [
                    row["key"]
                    for row in done
                    if (row["target"], row["method"]) == (target, method)
                    if row["events"] == events
                ]
                if not rows:
                    continue
                clean, noisy = (
                    [load(k, kind) for k in rows] for kind in ("test", "noisy")
                )
                for task in METRICS:
                    if task not in clean[0]:
                        continue
                    table.append(
                        {
                            "target": target,
                            "method": method,
                            "events": events,
                            "task": task,
                            "seeds": len(rows),
                            "value": with_interval(task, clean, every),
                            "doubled_noise": with_interval(
                                task, noisy, np.arange(len(hit_B))
                            ),
                            "by_modules": {
                                str(low): with_interval(task, clean, some)
                                for low, some in bins
                                if len(some) > 30
                            },
                        }
                    )
    unseen = {}
    for target in TARGETS:
        if not (work / ANSWERS / f"{target}_mixed.npz").is_file():
            continue
        mixed, line = load(target, "mixed"), load(target, "line")
        rows = np.flatnonzero(np.isfinite(line["direction"]) & (line["is_track"] > 0.5))
        unseen[target] = {
            "mixed geometries": with_interval("direction", [mixed], rows),
            "line fit": with_interval("direction", [line], rows),
            "tracks": len(rows),
        }
    return {"table": table, "unseen": unseen}


def draw(result: dict[str, Any]) -> Any:
    """Return the figure: each task and target against the number of events."""
    figure = new_figure(4.2 * len(TARGETS) + 2.6, 3.0 * len(METRICS))
    panels = figure.subplots(len(METRICS), len(TARGETS), squeeze=False, sharex=True)
    for row, task in enumerate(METRICS):
        for column, target in enumerate(TARGETS):
            axes = panels[row][column]
            for number, method in enumerate((*METHODS, *TO_ENERGY)):
                points = [
                    (line["events"], *line["value"])
                    for line in result["table"]
                    if (line["target"], line["task"]) == (target, task)
                    if line["method"] == method
                ]
                if not points:
                    continue
                x, y, low, high = np.array(points).T
                style = TableStyle.numbered(number)
                axes.errorbar(
                    x * 1.06 ** (number - 2),
                    y,
                    [np.maximum(y - low, 0), np.maximum(high - y, 0)],
                    color="#888888" if method in TO_ENERGY else style.colour,
                    ls=style.line,
                    marker=style.marker,
                    ms=4,
                    capsize=2,
                    label=method,
                )
            axes.set_xscale("log")
            axes.grid(alpha=0.25)
            if not row:
                axes.set_title(target.upper())
            if row == len(METRICS) - 1:
                axes.set_xlabel("training events")
            if not column:
                axes.set_ylabel(METRICS[task])
    handles = {}
    for axes in panels.flat:
        handles.update(dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True)))
    figure.legend(handles.values(), handles.keys(), loc="outside right", frameon=False)
    return figure


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""

    def shown(values: list[float]) -> str:
        return f"{values[0]:.3f} ({values[1]:.3f} to {values[2]:.3f})"

    lines = [
        "# From a large detector to a small one",
        "",
        context.table(result["context"]),
        "",
        "Events with a triggered module; means over seeds. "
        f"Values: {'; '.join(METRICS.values())}.",
        "",
        "| target | task | training events | method | seeds | value (95%) | with "
        "doubled noise, all events | by triggered modules, from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["table"]:
        by = ", ".join(f"{low}: {v[0]:.3f}" for low, v in row["by_modules"].items())
        lines.append(
            f"| {row['target']} | {row['task']} | {row['events']:,} | {row['method']} "
            f"| {row['seeds']} | {shown(row['value'])} | {shown(row['doubled_noise'])} "
            f"| {by} |"
        )
    lines += [
        "",
        "Tracks on a geometry that the model never saw, median in degrees:",
        "",
    ]
    for target, row in result["unseen"].items():
        lines.append(
            f"- {target}, {row['tracks']:,} tracks: mixed geometries "
            f"{shown(row['mixed geometries'])}, line fit {shown(row['line fit'])}"
        )
    return "\n".join(lines) + "\n"


def keep(path: Path, make: Callable[[], dict[str, Array]]) -> None:
    """Write arrays unless their file exists."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **make())  # type: ignore[arg-type]
    temporary.replace(path)


def line_answers(store: EventStore) -> dict[str, Array]:
    """Return the errors of the line fit, and which events are tracks, (B,)."""
    truth = EventTruth.of(store, np.arange(len(store)))
    columns = line_fit_events(store).columns
    fitted_B3 = np.stack([columns[f"direction_{axis}"] for axis in "xyz"], 1)
    angle_B = opening_angle(
        torch.from_numpy(fitted_B3), torch.from_numpy(np.array(truth.direction_B3))
    )
    return {"direction": angle_B.double().numpy(), "is_track": truth.target("track")}


def study(work: Path, sizes: Sizes, most: float) -> list[dict[str, Any]]:
    """Train what is missing, at most so many hours; return the lines of all models."""
    lines = work / MODELS
    work.mkdir(parents=True, exist_ok=True)
    known = lines.read_text(encoding="utf-8").splitlines() if lines.is_file() else []
    done = [json.loads(line) for line in known]
    tests = {
        (target, kind): make_store(work, target, kind, sizes)
        for target in TARGETS
        for kind in ("test", "noisy")
    }
    for target in TARGETS:
        store = tests[target, "test"]
        path = work / ANSWERS
        keep(
            path / f"{target}_modules.npz", lambda s=store: {"modules": modules_hit(s)}
        )
        keep(path / f"{target}_line.npz", lambda s=store: line_answers(s))
    begun = time.monotonic()
    for job in jobs_of(sizes):
        if job.key in {row["key"] for row in done}:
            continue
        if time.monotonic() - begun > 3600 * most:
            print("the time is over; call again to go on", flush=True)
            break
        started = time.monotonic()
        run = run_job(job, work, sizes)
        if job.target:
            for kind in ("test", "noisy"):
                store = tests[job.target, kind]
                path = work / ANSWERS / f"{job.key}_{kind}.npz"
                keep(path, lambda r=run, s=store: answers_of(r, s))
            shutil.rmtree(run)  # its answers stay
        elif job.method == "mixed":
            for target in TARGETS:
                store = tests[target, "test"]
                path = work / ANSWERS / f"{target}_mixed.npz"
                keep(path, lambda r=run, s=store: answers_of(r, s))
        row = {**asdict(job), "key": job.key, "s": round(time.monotonic() - started)}
        with open(lines, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        done.append(row)
        print(f"{job.key}: {row['s']} s", flush=True)
    return done


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of stores, runs and answers")
    parser.add_argument("--hours", type=float, default=math.inf, help="time to train")
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    arguments = parser.parse_args()
    sizes = TOY if arguments.toy else Sizes()
    done = study(arguments.work, sizes, arguments.hours)
    result = {
        "context": context.describe(**asdict(sizes), threads=torch.get_num_threads()),
        **result_of(arguments.work, sizes, done),
        "models": done,
    }
    context.write(arguments.out, "transfer", as_text(result), result)
    if arguments.out is not None:
        save_figure(draw(result), arguments.out / "transfer.png")


if __name__ == "__main__":
    main()
