"""Speed and memory of our models, GraphNeT's DeepIce and bare matrix products.

    python benchmarks/bench_models.py --out benchmarks/results      # half an hour
    python benchmarks/bench_models.py --toy                         # seconds

All variants of a case process the same batches in turns, in one process, so that a
drift of the machine's speed affects all of them. Ratios are taken in each round; their
median, minimum and maximum are given. `product` multiplies matrices with the number of
operations of our model's linear layers and attention, as the upper limit of the
machine's linear algebra. Memory is measured in a separate process for each variant: the
peak above the memory before the first batch (imports, parameters) and, in training,
above gradients and the optimiser's state, which both sides need.

It also runs on a GPU (--device cuda).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import context
import numpy as np
import torch
from torch import nn

from graphnet_icecube2nd import DeepIce, PackedBatch, build_model

# Pulses per event of the competition's first batch: quantiles (design figures).
QUANTILES = (0, 0.01, 0.05, 0.10, 0.50, 0.75, 0.90, 0.95, 0.99, 0.999, 1)
PULSES = (15, 30, 36, 40, 63, 89, 144, 219, 1130, 19553, 110517)
MODELS: dict[str, dict[str, Any]] = {
    # GraphNeT's DeepIce at the published configuration's sizes
    "dim384_depth8": {"dim": 384, "dim_base": 128, "depth": 8, "head_size": 32},
    "t_d32": {},
    "b_d32": {},
    "s_gnn": {},
}
TOY = {"dim": 64, "dim_base": 16, "depth": 2, "head_size": 32}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Line of the table."""

    model: str
    task: str  # inference or training
    dtype: str  # float32 or bfloat16
    longest: int
    num_events: int
    exactly: bool = False  # all events of `longest` pulses
    use_checkpoint: bool = False


def event_lengths(case: Case, seed: int) -> list[int]:
    """Draw pulses per event from the published quantiles, cut to the longest."""
    if case.exactly:
        return [case.longest] * case.num_events
    share = np.random.default_rng(seed).random(case.num_events)
    lengths = np.exp(np.interp(share, QUANTILES, np.log(PULSES))).astype(int)
    lengths[0] = case.longest  # at least one event has this length
    return np.minimum(lengths, case.longest).tolist()


def make_batch(case: Case, seed: int, device: str) -> PackedBatch:
    """Return random features of the real size."""
    lengths = event_lengths(case, seed)
    generator = torch.Generator().manual_seed(seed)
    features = 0.3 * torch.randn(sum(lengths), 9, generator=generator)
    features[:, 3] *= 0.2
    features[:, 5:7] = (features[:, 5:7] > 0).float()
    batch = PackedBatch(
        features=features,
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        n_pulses=torch.tensor(lengths),
    )
    return batch.to(device)


def make_ours(case: Case, toy: bool) -> DeepIce:
    """Return our model of a case."""
    kwargs = {**MODELS[case.model], **(TOY if toy else {})}
    kwargs["use_checkpoint"] = case.use_checkpoint
    name = case.model
    return DeepIce(**kwargs) if name not in NAMES else build_model(name, **kwargs)


NAMES = ("t_d32", "b_d32", "s_gnn")


def make_graphnet(case: Case, toy: bool) -> tuple[nn.Module, Callable[..., Any]] | None:
    """Return GraphNeT's DeepIce of the same size and its batches, if installed."""
    if case.model == "s_gnn":
        return None  # its hybrid differs from the competition's
    if case.task == "training" and case.longest > 768:
        return None  # its tables of pairs exceed this machine's memory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from graphnet.models.gnn import DeepIce as TheirDeepIce
            from torch_geometric.data import Batch, Data
    except ImportError:
        return None
    config = make_ours(case, toy).config
    model = TheirDeepIce(
        hidden_dim=config.dim,
        seq_length=config.dim_base,
        depth=config.depth,
        head_size=config.head_size,
    )

    def convert(batch: PackedBatch) -> Any:
        events = batch.features.split(batch.lengths.tolist())
        return Batch.from_data_list(
            [
                Data(x=event[:, :6].clone(), n_pulses=torch.tensor(len(event)))
                for event in events
            ]
        ).to(batch.features.device)

    return model, convert


def operations(model: DeepIce, batch: PackedBatch) -> float:
    """Count floating-point operations of one forward pass's matrix products."""
    config, num_pulses = model.config, len(batch.features)
    num_events = len(batch)
    pairs = float(batch.lengths.double().square().sum())
    per_token = 24 * config.dim**2
    blocks = config.depth_rel * num_pulses
    blocks += (config.depth - 1) * (num_pulses + num_events)
    joined = 6 * config.dim_base
    out = model.embedding.project[-1].out_features
    total = per_token * blocks + 2 * num_pulses * (joined**2 + joined * out)
    total += 4 * pairs * config.dim * (config.depth_rel + config.depth - 1)
    total += 4 * pairs * config.dim * config.n_rel
    if hasattr(model, "graph"):
        total += 2 * num_pulses * graph_weights(model.graph)
    return total


def graph_weights(graph: nn.Module) -> int:
    """Return the multiplications per pulse of the graph branch."""
    weights = 0
    for name, parameter in graph.named_parameters():
        if parameter.ndim == 2 and parameter.requires_grad:
            per_edge = name.startswith("convolutions")
            weights += parameter.numel() * (8 if per_edge else 1)
    return weights


class Way:
    """Variant of a case; it is called with the number of a batch."""

    def __init__(
        self, case: Case, model: nn.Module, batches: list[Any], device: str
    ) -> None:
        self.case, self.batches, self.device = case, batches, device
        self.model = model.to(device).train(case.task == "training")
        self.optimiser = None
        if case.task == "training":
            fused = {"fused": True} if torch.__version__ >= "2.4" else {}
            self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, **fused)

    def __call__(self, number: int) -> None:
        """Infer or train on one batch."""
        batch = self.batches[number % len(self.batches)]
        half = torch.autocast(
            self.device, torch.bfloat16, enabled=self.case.dtype == "bfloat16"
        )
        if self.optimiser is None:
            with torch.no_grad(), half:
                self.model(batch)
        else:
            self.optimiser.zero_grad()
            with half:
                loss = self.model(batch).float().square().sum()
            loss.backward()
            self.optimiser.step()
        if self.device != "cpu":
            torch.cuda.synchronize()


class Product:
    """Matrix products with the number of operations of a case."""

    def __init__(
        self, case: Case, model: DeepIce, batches: list[PackedBatch], device: str
    ) -> None:
        dtype = getattr(torch, case.dtype)
        dim, tokens = model.config.dim, len(batches[0].features)
        self.left = torch.randn(tokens, dim, dtype=dtype, device=device)
        self.right = torch.randn(4 * dim, dim, dtype=dtype, device=device)
        each = 2 * tokens * dim * 4 * dim
        factor = 3 if case.task == "training" else 1
        self.times = [
            max(1, round(factor * operations(model, batch) / each)) for batch in batches
        ]
        self.device = device

    def __call__(self, number: int) -> None:
        """Multiply as often as for one batch."""
        for _ in range(self.times[number % len(self.times)]):
            nn.functional.linear(self.left, self.right)
        if self.device != "cpu":
            torch.cuda.synchronize()


def measure(case: Case, toy: bool, device: str, rounds: int) -> dict[str, Any]:
    """Return the rates of a case's variants and their ratios in each round."""
    batches = [make_batch(case, seed, device) for seed in range(2)]
    ours = make_ours(case, toy)
    ways: dict[str, Callable[[int], None]] = {"ours": Way(case, ours, batches, device)}
    ways["product"] = Product(case, ours, batches, device)
    if (theirs := make_graphnet(case, toy)) is not None and not case.use_checkpoint:
        model, convert = theirs
        # Ratios refer to float32, its fastest known form here.
        plain = Case(**{**asdict(case), "dtype": "float32"})
        ways["graphnet_float32"] = Way(
            plain, model, [convert(b) for b in batches], device
        )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            for batch in range(len(batches)):
                way(batch)
            if number:
                seconds[name].append(time.perf_counter() - start)
    num_events = sum(len(batch) for batch in batches)
    num_pulses = sum(len(batch.features) for batch in batches)
    result: dict[str, Any] = {"case": asdict(case), "seconds": seconds}
    result["pulses_per_event"] = num_pulses / num_events
    result["events_per_s"] = {k: num_events / median(v) for k, v in seconds.items()}
    result["pulses_per_s"] = {k: num_pulses / median(v) for k, v in seconds.items()}
    for name in ways:
        if name != "ours":
            pairs = zip(seconds[name], seconds["ours"], strict=True)
            ratios = sorted(other / own for other, own in pairs)
            result[f"over_{name}"] = [median(ratios), ratios[0], ratios[-1]]
    return result


def peak_memory(case: Case, which: str, toy: bool, device: str) -> float:
    """Return the peak memory of one step above the memory before it, in MB."""
    batch = make_batch(case, 0, device)
    if which == "ours":
        way = Way(case, make_ours(case, toy), [batch], device)
    else:
        theirs = make_graphnet(case, toy)
        assert theirs is not None
        way = Way(case, theirs[0], [theirs[1](batch)], device)
    small = Case(**{**asdict(case), "num_events": 1, "longest": 8, "exactly": True})
    warm = make_batch(small, 0, device)
    if which != "ours":
        warm = theirs[1](warm)
    way.batches = [warm, way.batches[0]]
    way(0)  # gradients and the optimiser's state exist from here on
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way(1)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = context.anonymous_memory()
    reset_peak()
    way(1)
    return (resident_peak() - before) / 1e6


def reset_peak() -> None:
    """Reset the system's record of this process's peak memory."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident_peak() -> int:
    """Return the peak memory since the reset, without shared files, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    held = {line.split(":")[0]: line.split()[1] for line in lines if "kB" in line}
    files = int(held["RssFile"]) + int(held["RssShmem"])
    return (int(held["VmHWM"]) - files) * 1024


def memory_in_own_process(case: Case, which: str, toy: bool, device: str) -> float:
    """Return `peak_memory`, measured in a separate process."""
    request = json.dumps({"case": asdict(case), "which": which})
    command = [sys.executable, __file__, "--memory-of", request, "--device", device]
    done = subprocess.run(
        [*command, *(["--toy"] if toy else [])],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "0"},
    )
    if done.returncode:
        raise SystemExit(f"{which}, {case}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def cases(toy: bool) -> list[Case]:
    """Return the lines of the table."""
    if toy:
        return [
            Case(model=m, task=t, dtype=d, longest=24, num_events=3)
            for m in ("dim384_depth8", "s_gnn")
            for t in ("inference", "training")
            for d in ("float32", "bfloat16")
        ]
    rows = []
    for model in MODELS:
        for task in ("inference", "training"):
            for dtype in ("float32", "bfloat16"):
                each = {"model": model, "task": task, "dtype": dtype}
                rows.append(Case(**each, longest=192, num_events=32))
                if model == "dim384_depth8":
                    rows.append(Case(**each, longest=768, num_events=8))
    for task in ("inference", "training"):
        for dtype in ("float32", "bfloat16"):
            each = {"model": "dim384_depth8", "task": task, "dtype": dtype}
            for longest, number in ((192, 16), (3072, 1)):
                rows.append(
                    Case(**each, longest=longest, num_events=number, exactly=True)
                )
    return rows


def memory_cases(toy: bool) -> list[tuple[Case, str]]:
    """Return the cases of the memory measurement."""
    pairs = []
    for longest in (24,) if toy else (192, 768):
        number = 3 if toy else {192: 32, 768: 8}[longest]  # GraphNeT fits into memory
        size = {"model": "dim384_depth8", "longest": longest, "num_events": number}
        training = {**size, "task": "training"}
        pairs.append((Case(**training, dtype="float32"), "graphnet"))
        for dtype in ("float32", "bfloat16"):
            for use_checkpoint in (False, True):
                case = Case(**training, dtype=dtype, use_checkpoint=use_checkpoint)
                pairs.append((case, "ours"))
    return pairs


def label(case: Case) -> str:
    """Return a description of a case."""
    length = (
        f"{case.num_events} x {case.longest}"
        if case.exactly
        else (f"{case.num_events} up to {case.longest}")
    )
    saved = ", checkpointing" if case.use_checkpoint else ""
    return f"{case.model} | {case.task}{saved} | {case.dtype} | {length}"


def table(results: list[dict[str, Any]], memory: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| model | task | type | events x pulses | events/s | pulses/s | of the product"
        " | over GraphNeT in float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        share = result["over_product"]
        over = result.get("over_graphnet_float32")
        ratio = "-" if over is None else f"x{over[0]:.2f} ({over[1]:.2f}-{over[2]:.2f})"
        lines.append(
            f"| {label(Case(**result['case']))} | {result['events_per_s']['ours']:.1f} "
            f"| {result['pulses_per_s']['ours']:,.0f} | {share[0]:.0%} "
            f"({share[1]:.0%}-{share[2]:.0%}) | {ratio} |"
        )
    lines += ["", "| model | task | type | events x pulses | whose | peak, MB |"]
    lines.append("|---|---|---|---|---|---|")
    for row in memory:
        lines.append(
            f"| {label(Case(**row['case']))} | {row['which']} | {row['peak_MB']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for NAME.md and NAME.json")
    parser.add_argument("--name", default="models", help="NAME of the result")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(context.cores()))
    parser.add_argument(
        "--only", default="", help="text in the labels of the cases to run"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    toy, device = arguments.toy, arguments.device
    if arguments.memory_of:
        request = json.loads(arguments.memory_of)
        print(peak_memory(Case(**request["case"]), request["which"], toy, device))
        return
    about = context.describe(
        device=device,
        threads=arguments.threads,
        rounds=arguments.rounds,
        warm_up_rounds=1,
        toy=toy,
    )
    results, memory = [], []
    for case in cases(toy):
        if arguments.only in label(case):
            results.append(measure(case, toy, device, arguments.rounds))
            print(table(results[-1:], []).splitlines()[2], flush=True)
            store(arguments, about, results, memory)
    for case, which in memory_cases(toy):
        if which == "graphnet" and make_graphnet(case, toy) is None:
            continue
        if arguments.only in label(case):
            peak = memory_in_own_process(case, which, toy, device)
            memory.append({"case": asdict(case), "which": which, "peak_MB": peak})
            print(table([], memory[-1:]).splitlines()[-1], flush=True)
            store(arguments, about, results, memory)


def store(
    arguments: argparse.Namespace,
    about: dict[str, Any],
    results: list[dict[str, Any]],
    memory: list[dict[str, Any]],
) -> None:
    """Write the results so far, as a table and as numbers."""
    if arguments.out is None:
        return
    folder, name = arguments.out, arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    text = f"# Models\n\n{context.table(about)}\n\n{table(results, memory)}\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    stored = {"context": about, "results": results, "memory": memory}
    text = json.dumps(stored, indent=1)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
