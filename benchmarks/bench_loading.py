"""Speed of loading: GraphNeT's path and ours, on the same events.

    python benchmarks/bench_loading.py                 values of README
    python benchmarks/bench_loading.py --toy           short test, seconds
    python benchmarks/bench_loading.py --gigabytes 10  memory with a large store

Events have the lengths of the competition's first batch (its published quantiles).
They are written as Kaggle parquet, prepared into a store, and exported to GraphNeT's
SQLite and parquet; the SQLite is also prepared into a store. Each case runs in its own
process, cases take turns, and each is repeated after a warm-up. `one core` pins the
process to one core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import context
import numpy as np
from numpy.typing import NDArray

QUANTILES = [0, 0.01, 0.05, 0.10, 0.50, 0.75, 0.90, 0.95, 0.99, 0.999, 1]
LENGTHS = [15, 30, 36, 40, 63, 89, 144, 219, 1130, 19553, 110517]
BATCH_SIZE, MAX_PULSES = 32, 192
COLUMNS = ("x", "y", "z", "time", "charge", "auxiliary")

# name -> (description, True if on one core)
CASES = {
    "ours, packed": ("EventDataModule, PackedBatch", True),
    "ours, PyG": ("StoreDataModule, PyG batch", True),
    "ours, dataset": ("StoreDataset, PackedPulses, torch DataLoader", True),
    "ours, SQLite": ("SQLiteDataset, PackedPulses", True),
    "ours, SQLite, nodes": ("SQLiteDataset, EdgelessGraph, DeepIcePulses", True),
    "GraphNeT": ("SQLiteDataset, EdgelessGraph, IceMixNodes", True),
    "GraphNeT, no nodes": ("the same, nodes that do nothing", True),
    "GraphNeT, 2 workers": ("SQLiteDataset, IceMixNodes, 2 workers", False),
    "ours, parquet": ("ParquetDataset, PackedPulses", True),
    "ours, parquet, nodes": ("ParquetDataset, EdgelessGraph, DeepIcePulses", True),
    "GraphNeT, parquet": ("ParquetDataset, EdgelessGraph, IceMixNodes", True),
}


def lengths_of(num_events: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw pulses per event from the published quantiles, log-linear between them."""
    drawn = np.exp(np.interp(rng.random(num_events), QUANTILES, np.log(LENGTHS)))
    return drawn.astype(np.int64)


def write_kaggle(folder: Path, num_batches: int, events: int) -> None:
    """Write batches of random pulses with the competition's columns and types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "train").mkdir(parents=True)
    metas = []
    for batch in range(1, num_batches + 1):
        rng = np.random.default_rng(batch)
        lengths = lengths_of(events, rng)
        num_pulses = int(lengths.sum())
        event = np.repeat(np.arange(events), lengths)
        pulse_time = rng.integers(5_900, 20_000, num_pulses)
        event_id = 10_000_000 * batch + 16 * np.arange(events)
        pulses = {
            "sensor_id": rng.integers(0, 5160, num_pulses).astype(np.int16),
            "time": pulse_time[np.lexsort((pulse_time, event))],
            "charge": np.round(rng.gamma(2.0, 24.0, num_pulses) + 1) / 40,
            "auxiliary": rng.random(num_pulses) < 0.7,
            "event_id": event_id[event],
        }
        pq.write_table(pa.table(pulses), folder / "train" / f"batch_{batch}.parquet")
        stop = np.cumsum(lengths)
        meta = {
            "batch_id": np.full(events, batch),
            "event_id": event_id,
            "first_pulse_index": stop - lengths,
            "last_pulse_index": stop - 1,
            "azimuth": rng.uniform(0, 2 * np.pi, events),
            "zenith": np.arccos(rng.uniform(-1, 1, events)),
        }
        metas.append(pa.table(meta))
    pq.write_table(pa.concat_tables(metas), folder / "train_meta.parquet")


def batches_of(case: str, folder: Path, seed: int) -> Iterator[Any]:
    """Return the batches of one pass over the training events of a case."""
    import torch

    torch.set_num_threads(1)
    if case in ("ours, packed", "ours, PyG"):
        from graphnet_icecube2nd import EventDataModule

        kind: Any = EventDataModule
        if case == "ours, PyG":
            from graphnet_icecube2nd.graphnet_adapter import StoreDataModule as kind
        data = kind(folder / "store", batch_size=BATCH_SIZE, seed=seed)
        loader = data.train_dataloader()
        for _ in range(8):
            yield from loader
        return
    from graphnet.data.dataloader import collate_fn
    from graphnet.data.dataset import ParquetDataset, SQLiteDataset

    import graphnet_icecube2nd.graphnet_adapter as adapter

    is_parquet, is_store = "parquet" in case, case == "ours, dataset"
    kind = ParquetDataset if is_parquet else SQLiteDataset
    path = folder / ("parquet" if is_parquet else "events.db")
    dataset = (adapter.StoreDataset if is_store else kind)(
        path=str(folder / "store" if is_store else path),
        pulsemaps="pulses",
        features=list(COLUMNS),
        truth=["azimuth", "zenith"],
        data_representation=representation_of(case),
    )
    yield from torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=2 if case.endswith("2 workers") else 0,
        collate_fn=adapter.collate_events if case.startswith("ours") else collate_fn,
        generator=torch.Generator().manual_seed(seed),
    )


def representation_of(case: str) -> Any:
    """Return the data representation of a case: GraphNeT's, or one of ours."""
    import torch
    from graphnet.models.data_representation import EdgelessGraph
    from graphnet.models.data_representation.graphs.nodes import (
        IceMixNodes,
        NodeDefinition,
    )
    from graphnet.models.detector.icecube import IceCubeKaggle

    import graphnet_icecube2nd.graphnet_adapter as adapter

    class NoNodes(NodeDefinition):
        """Empty representation, to measure GraphNeT's part alone."""

        def _define_output_feature_names(self, names: list[str]) -> list[str]:
            return [*names, "scattering", "absorption"]

        def _construct_nodes(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(min(len(x), MAX_PULSES), len(COLUMNS) + 2)

    detector: Any = IceCubeKaggle()
    if case.endswith("no nodes"):
        nodes: Any = NoNodes()
    elif case.startswith("GraphNeT"):
        nodes = IceMixNodes(
            input_feature_names=list(COLUMNS),
            max_pulses=MAX_PULSES,
            z_name="z",
            hlc_name="auxiliary",
        )
    else:
        detector = adapter.KagglePulseMapDetector()
        if not case.endswith("nodes"):
            return adapter.PackedPulses(detector, MAX_PULSES)
        nodes = adapter.DeepIcePulses(list(COLUMNS), max_pulses=MAX_PULSES)
    return EdgelessGraph(
        detector=detector, node_definition=nodes, input_feature_names=list(COLUMNS)
    )


def run_case(case: str, folder: Path, seconds: float) -> dict[str, float]:
    """Load for some seconds after a warm-up, and return the amount."""
    real = padded = 0

    import torch  # noqa: F401

    if case == "ours, packed":
        import graphnet_icecube2nd.loading.datamodule
    else:
        import graphnet_icecube2nd.graphnet_adapter  # noqa: F401
    imports = context.anonymous_memory()

    def passes() -> Iterator[Any]:
        for seed in range(1_000_000):
            yield from batches_of(case, folder, seed)

    batches = passes()
    deadline = time.perf_counter() + min(2.0, seconds)
    while time.perf_counter() < deadline:
        next(batches)
    events, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        batch = next(batches)
        border = batch.offsets if hasattr(batch, "offsets") else batch.ptr
        lengths = border.diff()
        events += len(lengths)
        real += int(border[-1])
        padded += len(lengths) * int(lengths.max())
    return {
        "events_per_s": events / spent,
        "pulses_per_s": real / spent,
        "real_share_if_padded": real / padded,
        "anonymous_MB": (context.anonymous_memory() - imports) / 1e6,
    }


def in_process(arguments: list[str], one_core: bool) -> dict[str, float]:
    """Run this script for one case, and return its printed result."""
    command = [sys.executable, __file__, *arguments]
    if one_core and hasattr(os, "sched_setaffinity"):
        core = min(context.cores())
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    else:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def has_graphnet() -> bool:
    """Return whether GraphNeT is installed, not the other project of its name."""
    try:
        from graphnet.models import StandardModel  # noqa: F401
    except ImportError:
        return False
    return True


def time_prepare(source: Path, store: Path, repeats: int) -> dict[str, Any]:
    """Prepare files several times, on all cores, from the page cache."""
    from graphnet_icecube2nd import prepare

    rates = []
    for _ in range(repeats + 1):  # the first is a warm-up
        shutil.rmtree(store, ignore_errors=True)
        report = prepare(source, store)
        rates.append(report.num_pulses / report.seconds)
    files = [path for path in (source, *source.rglob("*")) if path.is_file()]
    return {
        "pulses_per_s": statistics.median(rates[1:]),
        "spread": [min(rates[1:]), max(rates[1:])],
        "events": report.num_events,
        "pulses": report.num_pulses,
        "store_bytes_per_pulse": report.num_bytes / report.num_pulses,
        "source_bytes_per_pulse": sum(f.stat().st_size for f in files)
        / report.num_pulses,
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the data, and run all cases in turns."""
    folder = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        write_kaggle(folder / "kaggle", arguments.batches, arguments.events)
        kaggle, store, repeats = folder / "kaggle", folder / "store", arguments.repeats
        prepared = {"Kaggle parquet": time_prepare(kaggle, store, repeats)}
        export_some(folder, arguments.graphnet_events)
        prepared["GraphNeT's SQLite"] = time_prepare(
            folder / "events.db", folder / "store_of_sqlite", repeats
        )
        results: dict[str, Any] = {"prepare": prepared}
        names = list(CASES) if has_graphnet() else ["ours, packed"]
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(arguments.repeats):
            for name in names:
                call = ["--case", name, "--folder", str(folder)]
                call += ["--seconds", str(arguments.seconds)]
                runs[name].append(in_process(call, CASES[name][1]))
                print(name, runs[name][-1], file=sys.stderr)
        results["loading"] = {name: summary(found) for name, found in runs.items()}
        return results
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def export_some(folder: Path, num_events: int) -> None:
    """Write the first events as SQLite and parquet for GraphNeT."""
    from graphnet_icecube2nd.store import writers

    events, store = np.arange(num_events), folder / "store"
    writers.write_graphnet_sqlite(store, folder / "events.db", events=events)
    writers.write_graphnet_parquet(store, folder / "parquet", events=events)


def summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return medians, and the spread of the rate."""
    rates = [run["events_per_s"] for run in runs]
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**middle, "spread": [min(rates), max(rates)]}


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Convert and load a large store in this process, and record its memory."""
    import torch

    from graphnet_icecube2nd import EventDataModule, PulseMap
    from graphnet_icecube2nd.store.conversion import convert
    from graphnet_icecube2nd.store.readers.source import EventChunk, Part, Source

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lengths = lengths_of(10_000, rng)
    offsets = np.append(0, np.cumsum(lengths))
    num_pulses = int(offsets[-1])
    event = np.repeat(np.arange(len(lengths)), lengths)
    pulse_time = rng.integers(5_900, 20_000, num_pulses)
    columns = {
        "sensor_id": rng.integers(0, 5160, num_pulses).astype(np.int16),
        "time": pulse_time[np.lexsort((pulse_time, event))],
        "charge": rng.gamma(2.0, 0.6, num_pulses) + 0.02,
        "auxiliary": rng.random(num_pulses) < 0.7,
    }
    truth = {
        "azimuth": rng.uniform(0, 6, len(lengths)),
        "zenith": rng.uniform(0, 3, len(lengths)),
    }

    class Generated(Part):
        """The same pulses repeated as new events."""

        name = "generated"

        def fingerprint(self) -> dict[str, Any]:
            return {}

        def chunks(self, max_pulses: int) -> Iterator[EventChunk]:
            for repeat in range(int(arguments.gigabytes * 1e9 / 11 / num_pulses) + 1):
                event_id = repeat * len(lengths) + np.arange(len(lengths))
                yield EventChunk(
                    columns=columns, offsets=offsets, event_id=event_id, truth=truth
                )

    peak = imports = context.anonymous_memory()

    def watch(events: int = 0, pulses: int = 0) -> None:
        nonlocal peak
        peak = max(peak, context.anonymous_memory())

    folder = Path(tempfile.mkdtemp(dir=arguments.scratch))
    try:
        source = Source(
            kind="generated",
            pulse_map=PulseMap.kaggle(),
            parts=[Generated()],
            pulse_columns=tuple(columns),
        )
        begun = time.perf_counter()
        manifest = convert(source, folder / "store", workers=1, on_progress=watch)
        results: dict[str, Any] = {
            "store_GB": directory_bytes(folder / "store") / 1e9,
            "events": manifest.num_events,
            "pulses": manifest.num_pulses,
            "converting_MB": (peak - imports) / 1e6,
            "converted_pulses_per_s": manifest.num_pulses
            / (time.perf_counter() - begun),
        }
        peak = context.anonymous_memory()
        loader = EventDataModule(folder / "store", batch_size=BATCH_SIZE)
        loaded, begun = 0, time.perf_counter()
        for number, batch in enumerate(loader.train_dataloader()):
            loaded += len(batch)
            if number % 100 == 0:
                watch()
        results["loading_MB"] = (peak - imports) / 1e6
        results["loaded_events"] = loaded
        results["loaded_events_per_s"] = loaded / (time.perf_counter() - begun)
        return results
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def directory_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def memory_markdown(found: dict[str, Any], about: dict[str, Any]) -> str:
    """Return the table of a large store."""
    return "\n".join(
        [
            "# Memory with a large store",
            "",
            context.table(about),
            "",
            f"A store of {found['store_GB']:.1f} GB, {found['events']:,} events, "
            f"{found['pulses']:,} pulses, generated, not cached beforehand.",
            "",
            "| | anonymous memory above imports | rate |",
            "|---|---|---|",
            f"| converting, one process | {found['converting_MB']:.0f} MB | "
            f"{found['converted_pulses_per_s'] / 1e6:.1f} million pulses/s |",
            f"| a shuffled sub-epoch of {found['loaded_events']:,} events | "
            f"{found['loading_MB']:.0f} MB | {found['loaded_events_per_s']:,.0f} "
            "events/s |",
            "",
        ]
    )


def as_markdown(results: dict[str, Any], about: dict[str, Any]) -> str:
    """Return the stored table."""
    lines = ["# Loading events", "", context.table(about), ""]
    lines += [
        "| into a store, all cores | events | million pulses/s (spread) "
        "| bytes a pulse in the store | in the source |",
        "|---|---|---|---|---|",
    ]
    for name, found in results["prepare"].items():
        low, high = (value / 1e6 for value in found["spread"])
        lines.append(
            f"| {name} | {found['events']:,} | {found['pulses_per_s'] / 1e6:.1f} "
            f"({low:.1f} to {high:.1f}) | {found['store_bytes_per_pulse']:.1f} | "
            f"{found['source_bytes_per_pulse']:.1f} |"
        )
    lines += [
        "",
        "| case | what | cores | events/s (spread) | over GraphNeT's IceMixNodes "
        "| million pulses/s | real pulses if padded | RssAnon above imports |",
        "|---|---|---|---|---|---|---|---|",
    ]
    loading = results["loading"]
    for name, found in loading.items():
        theirs = "GraphNeT, parquet" if "parquet" in name else "GraphNeT"
        base = loading.get(theirs, {}).get("events_per_s")
        what, one_core = CASES[name]
        low, high = found["spread"]
        ratio = f"{found['events_per_s'] / base:.1f}" if base else "-"
        lines.append(
            f"| {name} | {what} | {1 if one_core else about['cores']} | "
            f"{found['events_per_s']:,.0f} ({low:,.0f} to {high:,.0f}) | {ratio} | "
            f"{found['pulses_per_s'] / 1e6:.2f} | "
            f"{found['real_share_if_padded']:.1%} | {found['anonymous_MB']:.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=4, help="number of Kaggle files")
    parser.add_argument("--events", type=int, default=50_000, help="events per file")
    parser.add_argument("--graphnet-events", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="duration of a run of a case"
    )
    parser.add_argument("--gigabytes", type=float, help="size of a large store")
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--scratch", type=Path, help="folder for the data")
    parser.add_argument("--out", type=Path, help="folder for the result")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        found = run_case(arguments.case, arguments.folder, arguments.seconds)
        print(json.dumps(found))
        return
    if arguments.toy:
        arguments.batches, arguments.events, arguments.repeats = 2, 300, 1
        arguments.graphnet_events, arguments.seconds = 200, 0.3
    about = context.describe(
        batch_size=BATCH_SIZE,
        max_pulses=MAX_PULSES,
        events=arguments.batches * arguments.events,
        graphnet_events=arguments.graphnet_events,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
    )
    if arguments.gigabytes:
        about["configuration"] = {"batch_size": BATCH_SIZE, "max_pulses": MAX_PULSES}
        results = measure_memory(arguments)
        name, text = "loading_memory", memory_markdown(results, about)
    else:
        results = measure(arguments)
        name, text = "loading", as_markdown(results, about)
    context.write(arguments.out, name, text, {"context": about, **results})


if __name__ == "__main__":
    main()
