"""Cost of more tasks: direction alone, and direction, energy and track.

    python benchmarks/bench_tasks.py --out benchmarks/results      # some minutes
    python benchmarks/bench_tasks.py --toy                         # seconds

Both models have the same backbone and take turns on the same batches, whose lengths
follow the competition's. A training step has the forward pass, the losses of all tasks,
the backward pass and AdamW; inference ends with the columns of the results. Ratios are
taken in each round. The weights are random, which does not change the cost.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import context
import torch
from bench_models import Case, make_batch

from graphnet_icecube2nd import PackedBatch, build_model

TASKS = {"direction": ["direction"], "three": ["direction", "energy", "track"]}
CASES = [
    Case(model=model, task=task, dtype=dtype, longest=192, num_events=events)
    for model, events in (("t_sim", 64), ("s_d32", 32))
    for task in ("training", "inference")
    for dtype in ("float32", "bfloat16")
]


def with_truth(batch: PackedBatch, seed: int) -> PackedBatch:
    """Return a batch with random labels of all three tasks."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(len(batch), 3, generator=generator)
    truth = {
        "direction": torch.nn.functional.normalize(direction, dim=1),
        "energy": 10 ** (2 + 4 * torch.rand(len(batch), generator=generator)),
        "track": torch.rand(len(batch), generator=generator).round(),
    }
    return replace(batch, truth=truth)


class Step:
    """Training step or inference of one model; it is called with a batch."""

    def __init__(self, case: Case, tasks: list[str], toy: bool) -> None:
        sizes = {"dim": 64, "dim_base": 32, "depth": 2} if toy else {}
        self.model = build_model(case.model, tasks=tasks, **sizes)
        self.dtype = getattr(torch, case.dtype)
        self.is_training = case.task == "training"
        self.model.train(self.is_training)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)

    def __call__(self, batch: PackedBatch) -> None:
        """Train on or predict a batch."""
        half = torch.autocast(
            "cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16
        )
        if not self.is_training:
            with torch.no_grad(), half:
                self.model.predict(batch)
            return
        assert batch.truth is not None
        self.optimiser.zero_grad()
        with half:
            losses = self.model.losses(self.model.outputs(batch), batch.truth)
            loss = self.model.weighted(losses)
        loss.backward()
        self.optimiser.step()


def measure(case: Case, rounds: int, toy: bool) -> dict[str, Any]:
    """Return seconds of both models in turns, and their ratio."""
    batches = [with_truth(make_batch(case, seed, "cpu"), seed) for seed in range(2)]
    steps = {name: Step(case, tasks, toy) for name, tasks in TASKS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        # The second model has warm caches, so the order alternates.
        order = list(steps) if number % 2 else list(steps)[::-1]
        for name in order:
            begun = time.perf_counter()
            for batch in batches:
                steps[name](batch)
            if number:  # the first round is a warm-up
                seconds[name].append(time.perf_counter() - begun)
    ratios = sorted(
        three / one
        for one, three in zip(seconds["direction"], seconds["three"], strict=True)
    )
    num_events = sum(len(batch) for batch in batches)
    return {
        "case": asdict(case),
        "seconds": seconds,
        "events_per_s": {k: num_events / median(v) for k, v in seconds.items()},
        "ratio": [median(ratios), ratios[0], ratios[-1]],
    }


def as_text(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "# Cost of more tasks",
        "",
        context.table(result["context"]),
        "",
        "Events/s of direction alone and of direction, energy and track; time of three "
        "tasks over that of one, median over the rounds (least to most).",
        "",
        "| model | | precision | direction | three tasks | time ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        case, rate, ratio = row["case"], row["events_per_s"], row["ratio"]
        lines.append(
            f"| {case['model']} | {case['task']} | {case['dtype']} | "
            f"{rate['direction']:,.1f} | {rate['three']:,.1f} | {ratio[0]:.3f} "
            f"({ratio[1]:.3f} to {ratio[2]:.3f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="short test")
    parser.add_argument("--out", type=Path, help="folder for the result")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    rounds, cases = arguments.rounds, CASES
    if arguments.toy:
        rounds = 1
    result = {
        "context": context.describe(
            rounds=rounds, threads=torch.get_num_threads(), longest=192
        ),
        "rows": [measure(case, rounds, arguments.toy) for case in cases],
    }
    context.write(arguments.out, "tasks", as_text(result), result)


if __name__ == "__main__":
    main()
