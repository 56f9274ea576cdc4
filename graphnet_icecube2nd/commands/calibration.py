"""The command that calibrates widths."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphnet_icecube2nd.commands import options
from graphnet_icecube2nd.commands.options import option
from graphnet_icecube2nd.commands.show import counting, print_table

if TYPE_CHECKING:
    from graphnet_icecube2nd.calibration.fit import CalibrationCheck

MOST = 50_000  # events of a fit


def calibrate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model to calibrate: a run's or an ensemble's folder, a .safetensors "
            "file, or packaged weights. Leave it out with --results."
        ),
    ] = None,
    data: options.Data = None,
    events: options.Events = None,
    most: options.Most = MOST,
    method: Annotated[
        str,
        option(
            "Calibration of kappa. isotonic: a monotonic map; temperature: one factor; "
            "none: kappa is kept. All of them also correct the contour levels."
        ),
    ] = "isotonic",
    max_pulses: options.MaxPulses = None,
    results: Annotated[
        Path | None,
        option("Results table with directions and kappa, used instead of MODEL."),
    ] = None,
    truth: Annotated[
        Path | None,
        option("Event store or table with the true directions, for --results."),
    ] = None,
    truth_table: options.TruthTable = None,
    truth_angles: options.TruthAngles = None,
    result_angles: options.ResultAngles = "origin",
    apply: Annotated[
        Path | None,
        option("Results table to calibrate, from the same source as --results."),
    ] = None,
    to: Annotated[
        Path | None,
        option("Calibrated table to write; needs --apply."),
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "Calibration file to write, .json. Default: beside the weights, where "
            "`icecube2nd reconstruct` finds it. Required for packaged weights."
        ),
    ] = None,
    device: options.Device = "auto",
    unknown_detector: options.UnknownDetector = False,
) -> None:
    """Calibrate the widths of all tasks on events that the model was not trained on.

    Prints the share of true directions inside each contour, before and after
    calibration, and similar figures of the other tasks. For the figures after
    calibration, each half of the events is calibrated with the other half.
    """
    from graphnet_icecube2nd.calibration import fit
    from graphnet_icecube2nd.calibration.validation_split import unseen_events
    from graphnet_icecube2nd.errors import check_one_of
    from graphnet_icecube2nd.inference.model_bundle import load_bundle
    from graphnet_icecube2nd.results.event_table import EventTable
    from graphnet_icecube2nd.results.truth import EventTruth
    from graphnet_icecube2nd.tasks.direction.calibration import METHODS

    check_one_of("--method", method, METHODS)  # before any work

    of_model = {
        "--data": data,
        "--events": events,
        "--most": None if most == MOST else most,
        "--max-pulses": max_pulses,
        "--device": None if device == "auto" else device,
    }
    of_table = {
        "--truth": truth,
        "--truth-table": truth_table,
        "--truth-angles": truth_angles,
        "--result-angles": None if result_angles == "origin" else result_angles,
        "--apply": apply,
        "--to": to,
    }
    if (model is None) == (results is None):
        number = "neither" if model is None else "both"
        raise ValueError(f"give either MODEL or --results, found {number}")
    unused = of_table if results is None else of_model
    if given := [name for name, value in unused.items() if value is not None]:
        kind = "MODEL" if results is None else "--results"
        raise ValueError(f"{', '.join(given)} cannot be used with {kind}: leave it out")
    if results is not None:
        if truth is None or out is None:
            missing = "--truth" if truth is None else "--out"
            raise ValueError(f"--results needs {missing} as well")
        if (apply is None) != (to is None):
            missing = "--apply" if apply is None else "--to"
            raise ValueError(f"--apply and --to go together: give {missing} as well")
        plain = EventTable.load(results, angles=result_angles)
        known = EventTruth.load(truth, table=truth_table, angles=truth_angles)
        found = fit.calibrate_table(plain, known, method=method)
    else:
        assert model is not None
        out = out or _place(model)
        bundle = load_bundle(model, calibration="none")
        places = [] if bundle.place is None else [bundle.place]
        store, numbers, what = unseen_events(places, data, events, most)
        print(f"calibrating on {len(numbers):,} events: {what}")
        with counting(len(numbers), "reading") as on_progress:
            found = fit.calibrate(
                bundle,
                store,
                numbers,
                method=method,
                options=options.changed(bundle.options, max_pulses=max_pulses),
                device=options.chosen_device(device),
                unknown_detector=unknown_detector,
                on_progress=on_progress,
            )
    found.file.save(out)
    _show(found)
    print(out)
    if apply is not None and to is not None:
        table = EventTable.load(apply, angles=result_angles)
        if fit.has_own_contours(table):
            raise ValueError(
                f"{apply}: the table must not be calibrated yet, found contour radii "
                "of its own"
            )
        assert found.file.calibration is not None
        fit.calibrated_table(table, found.file.calibration).save(to)
        print(to)


def _show(found: CalibrationCheck) -> None:
    """Print contour coverage, figures of other tasks, and notices."""
    from rich.table import Column

    if found.before:
        thirds = ("small kappa", "medium kappa", "large kappa") if found.thirds else ()
        held = [part for part in (found.before, found.after, *found.thirds) if part]
        rows = [
            (f"{level:.0%}", *(f"{part[level]:.1%}" for part in held))
            for level in found.before
        ]
        header = ("contour", "before", "calibrated", *thirds)[: 1 + len(held)]
        print_table(
            [Column(name, justify="right") for name in header],
            rows,
            title="share of true directions inside each contour",
        )
    if found.tasks:
        rows = [
            (task, name, *("-" if isnan(x) else f"{x:.4f}" for x in (before, after)))
            for task, figures in found.tasks.items()
            for name, (before, after) in figures.items()
        ]
        header = ("task", "figure", "before", "calibrated")
        print_table(header, rows, title="other tasks")
    for text in found.notices:
        print(f"  {text}")


def _place(model: str) -> Path:
    """Return the path of a model's calibration; ValueError for packaged weights."""
    from graphnet_icecube2nd.inference.model_bundle import (
        calibration_path,
        weights_place,
    )
    from graphnet_icecube2nd.models.pretrained import list_pretrained

    if model in list_pretrained():
        raise ValueError(
            f"{model} is in the package, where nothing can be written: give --out, and "
            "give that file to `icecube2nd reconstruct --calibration`"
        )
    return calibration_path(weights_place(model))
