"""The command that calibrates widths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from graphnet_icecube2nd.calibration.fit import CalibrationCheck
    from graphnet_icecube2nd.inference.model_bundle import CalibrationFile


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
            help="A condition, as 'n_pulses >= 8'. Of the store that a run was trained "
            "on, only what it was validated on is taken."
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(help="So many events at most [default: 50000].", min=1),
    ] = None,
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
    truth_table: Annotated[
        str | None, typer.Option(help="Of a SQLite file of truth.")
    ] = None,
    truth_angles: Annotated[
        str | None,
        typer.Option(help="origin or flight: what angles of a table of truth mean."),
    ] = None,
    result_angles: Annotated[
        str | None,
        typer.Option(
            help="origin or flight: what directions of --results and --apply mean "
            "[default: origin]."
        ),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(help="With --results: a table of the same kind to calibrate."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="With --apply: the calibrated table.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The calibration, .json. Default: beside the weights, where "
            "`icecube2nd reconstruct` finds it; of weights of the package it must be "
            "given."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps; auto chooses [default: auto].")
    ] = None,
    unknown_detector: Annotated[
        bool,
        typer.Option(
            "--unknown-detector",
            help="Calibrate on a detector or a clock that the model was not trained "
            "on.",
        ),
    ] = False,
) -> None:
    """Fit the widths of all tasks on events that were not trained on.

    Prints what contours held before, and after with each half of the events calibrated
    by the other; and the like for other tasks.
    """
    from rich.console import Console
    from rich.table import Table

    from graphnet_icecube2nd.calibration.fit import calibrate_table
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.results.truth import EventTruth
    from graphnet_icecube2nd.tasks.direction.calibration import METHODS

    of_model = {
        "--data": data,
        "--events": events,
        "--most": most,
        "--max-pulses": max_pulses,
        "--device": device,
    }
    of_table = {
        "--truth": truth,
        "--truth-table": truth_table,
        "--truth-angles": truth_angles,
        "--result-angles": result_angles,
        "--apply": apply,
        "--to": to,
    }
    if (model is None) == (results is None):
        raise ValueError("give MODEL or --results, one of them")
    unused = of_table if results is None else of_model
    if given := [name for name, value in unused.items() if value is not None]:
        kind = "MODEL" if results is None else "--results"
        raise ValueError(f"{', '.join(given)} means nothing with {kind}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    angles = result_angles or "origin"
    if results is not None:
        if truth is None or out is None:
            raise ValueError("--results needs --truth and --out")
        if (apply is None) != (to is None):
            raise ValueError("--apply and --to go together")
        plain = EventTable.load(results, angles=angles)
        known = EventTruth.load(truth, table=truth_table, angles=truth_angles)
        found = calibrate_table(plain, known, method=method)
    else:
        assert model is not None
        out = out or _place(model)
        found = _of_model(
            model,
            data,
            events,
            most or 50_000,
            method,
            max_pulses,
            device or "auto",
            unknown_detector,
        )
    found.file.save(out)
    if found.before:
        table = Table(title="share of true directions inside contours")
        thirds = ("small kappas", "middle", "large") if found.thirds else ()
        for column in ("contour", "before", "calibrated", *thirds):
            table.add_column(column, justify="right")
        for level, before in found.before.items():
            after = [part[level] for part in (found.after, *found.thirds) if part]
            table.add_row(f"{level:.0%}", *(f"{h:.1%}" for h in (before, *after)))
        Console().print(table)
    if found.tasks:
        table = Table(title="other tasks")
        for column in ("task", "figure", "before", "calibrated"):
            table.add_column(column)
        for task, figures in found.tasks.items():
            for name, (before, calibrated) in figures.items():
                table.add_row(task, name, f"{before:.4f}", f"{calibrated:.4f}")
        Console().print(table)
    for text in found.notices:
        print(f"  {text}")
    print(out)
    if apply is not None:
        assert to is not None
        _apply(found.file, apply, to, angles)


def _of_model(
    model: str,
    data: Path | None,
    events: str | None,
    most: int,
    method: str,
    max_pulses: int | None,
    device: str,
    unknown_detector: bool,
) -> CalibrationCheck:
    from dataclasses import replace

    from rich.console import Console

    from graphnet_icecube2nd.calibration.fit import calibrate as run
    from graphnet_icecube2nd.calibration.validation_split import held_out_events
    from graphnet_icecube2nd.commands.show import chosen_device, counting
    from graphnet_icecube2nd.inference.model_bundle import load_bundle

    bundle = load_bundle(model, calibration="none")
    options = bundle.options
    if max_pulses is not None:
        options = replace(options, max_pulses=max_pulses)
    places = [] if bundle.place is None else [bundle.place]
    store, numbers, what = held_out_events(places, data, events, most)
    print(f"calibrating on {len(numbers):,} events: {what}")
    with counting(Console(stderr=True), len(numbers), "reading") as on_progress:
        return run(
            bundle,
            store,
            numbers,
            method=method,
            options=options,
            device=chosen_device(device),
            unknown_detector=unknown_detector,
            on_progress=on_progress,
        )


def _place(model: str) -> Path:
    """Return where a model's calibration lies; not in the package."""
    from graphnet_icecube2nd.inference.model_bundle import place_beside, weights_place
    from graphnet_icecube2nd.models.pretrained import list_pretrained

    if model in list_pretrained():
        raise ValueError(
            f"{model} comes with the package: say where its calibration is to be "
            "(--out), and give it to reconstruct (--calibration)"
        )
    return place_beside(weights_place(model))


def _apply(file: CalibrationFile, table: Path, to: Path, angles: str) -> None:
    """Write a table with calibrated kappa and radii."""
    from graphnet_icecube2nd.calibration.fit import (
        calibrated_table,
        has_own_contours,
    )
    from graphnet_icecube2nd.results.event_table import EventTable

    plain = EventTable.load(table, angles=angles)
    if has_own_contours(plain):
        raise ValueError(f"{table} is calibrated already")
    if file.calibration is None:
        raise ValueError("--apply calibrates directions; the calibration has none")
    calibrated_table(plain, file.calibration).save(to)
    print(to)
