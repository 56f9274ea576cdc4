"""The command that asks how a score moves when data are not as simulated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def robustness(
    store: Annotated[Path, typer.Argument(help="A store with true directions.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the report: CSV, JSON, Markdown, PDF, PNG.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Weights of the package (t_sim.simulated), a run's folder, a "
            ".safetensors file."
        ),
    ] = None,
    ensemble: Annotated[
        Path | None,
        typer.Option(help="An ensemble's folder or YAML, in place of --model."),
    ] = None,
    events: Annotated[
        int | None, typer.Option(help="How many, drawn from the store. Default: all.")
    ] = None,
    max_pulses: Annotated[
        int | None,
        typer.Option(
            help="L of the baseline, what longer events are cut to. Default: the "
            "model's or ensemble's own."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the events, the pulses and everything else drawn."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps; auto chooses.")] = "auto",
) -> None:
    """Report how the mean opening angle moves under perturbations of the events.

    Times jittered and moved, charges scaled, noise added, DOMs and strings off, axes
    mirrored, the start of the window taken away, other pulses kept: the same events for
    all, differences with paired intervals. As long as 36 times `reconstruct`.
    """
    from rich.console import Console

    from graphnet_icecube2nd.commands.show import chosen_device, counting
    from graphnet_icecube2nd.evaluation.robustness import (
        choose_events,
        default_perturbations,
        num_passes,
    )
    from graphnet_icecube2nd.evaluation.robustness import measure_robustness as measure
    from graphnet_icecube2nd.inference.model_bundle import is_ensemble, load_bundle
    from graphnet_icecube2nd.plots import new_figure
    from graphnet_icecube2nd.report.robustness import context_of, save_robustness
    from graphnet_icecube2nd.store.event_store import EventStore

    if ensemble is not None and not is_ensemble(ensemble):
        raise ValueError(f"{ensemble} is no ensemble: it holds no ensemble.yaml")
    name = model if ensemble is None else str(ensemble)
    if name is None or (model is not None and ensemble is not None):
        raise ValueError("give --model or --ensemble, one of them")
    new_figure(1, 1)  # a missing matplotlib is said before any work
    # Kappa is judged as the network gives it.
    trained = load_bundle(name, calibration="none")
    options = replace(
        trained.options,
        max_pulses=trained.options.max_pulses if max_pulses is None else max_pulses,
        seed=trained.options.seed if seed is None else seed,
    )
    opened = EventStore(store)
    numbers = choose_events(opened, events, options.seed)
    asked = default_perturbations(opened, numbers, options)
    total = num_passes(asked, options) * len(numbers)
    with counting(Console(stderr=True), total, "perturbing") as on_progress:
        rows = measure(
            trained.model.to(chosen_device(device)),
            opened,
            numbers,
            perturbations=asked,
            options=options,
            on_progress=on_progress,
        )
    context = context_of(name, opened, rows, options)
    for path in save_robustness(out, rows, context):
        print(path)
    worst = max(rows, key=lambda row: row.difference)
    print(
        f"baseline {rows[0].mean:.4f} rad; worst: {worst.group}, {worst.strength}: "
        f"{worst.difference:+.4f} rad"
    )
    for row in rows:
        if row.no_pulses:
            print(
                f"  {row.group}, {row.strength}: {row.no_pulses:,} events without "
                "pulses"
            )
