"""The command that makes kappa honest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run's or an ensemble's folder, a .safetensors file, a name of "
            "weights. Or none, with --results."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A store. Default: the one that the run was trained on."),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="A condition, as 'n_pulses >= 8'. Default: what the run was validated "
            "on; of another store all."
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="So many events at most.", min=1)] = 50_000,
    method: Annotated[
        str,
        typer.Option(
            help="isotonic: a rising map of kappa; temperature: one factor; none: "
            "kappa stays. All correct the levels of contours."
        ),
    ] = "isotonic",
    max_pulses: Annotated[
        int | None, typer.Option(help="L; default: the model's own.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="A table of directions and kappa, in place of MODEL."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="With --results: a store, or a table.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The calibration, .json. Default: beside the weights, where "
            "`icecube2nd reconstruct` finds it."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps; auto chooses.")] = "auto",
) -> None:
    """Fit kappa to events that were not trained on, so that contours hold their share.

    Says what contours held before, and after with each half of the events calibrated by
    the other.
    """
    from dataclasses import replace

    from rich.console import Console
    from rich.table import Table

    from graphnet_icecube2nd.commands.held_out import held_out_events
    from graphnet_icecube2nd.commands.show import chosen_device, counting
    from graphnet_icecube2nd.reconstruction.calibrate import calibrate as run
    from graphnet_icecube2nd.reconstruction.calibrate import calibrate_table
    from graphnet_icecube2nd.reconstruction.calibration_file import place_beside
    from graphnet_icecube2nd.reconstruction.direction_table import DirectionTable
    from graphnet_icecube2nd.reconstruction.trained import find_trained, weights_place
    from graphnet_icecube2nd.reconstruction.truth import EventTruth

    if (model is None) == (results is None):
        raise ValueError("give MODEL or --results, one of them")
    if results is not None:
        if truth is None or out is None:
            raise ValueError("--results needs --truth and --out")
        found = calibrate_table(
            DirectionTable.load(results), EventTruth.load(truth), method=method
        )
    else:
        assert model is not None
        trained = find_trained(model, calibration="none")
        store, numbers, what = held_out_events([model], data, events, most)
        out = out or place_beside(weights_place(model))
        print(f"kappa from {len(numbers):,} events: {what}")
        options = trained.options
        if max_pulses is not None:
            options = replace(options, max_pulses=max_pulses)
        trained.network.to(chosen_device(device))
        with counting(Console(stderr=True), len(numbers), "reading") as on_progress:
            found = run(
                trained,
                store,
                numbers,
                method=method,
                options=options,
                on_progress=on_progress,
            )
    found.file.save(out)
    table = Table(title="share of true directions inside contours")
    for column in ("contour", "before", "calibrated"):
        table.add_column(column, justify="right")
    for level, before in found.before.items():
        after = found.after.get(level)
        is_known = after is not None
        table.add_row(
            f"{level:.0%}", f"{before:.1%}", f"{after:.1%}" if is_known else "-"
        )
    Console().print(table)
    print(out)
