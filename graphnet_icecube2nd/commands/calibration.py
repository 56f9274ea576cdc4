"""The command that calibrates widths."""

from __future__ import annotations

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
            help="A run's or an ensemble's folder, a .safetensors file, a name of "
            "weights. Or none, with --results."
        ),
    ] = None,
    data: options.Data = None,
    events: options.Events = None,
    most: options.Most = MOST,
    method: Annotated[
        str,
        option(
            "Calibration of directions: isotonic: a rising map of kappa; temperature: "
            "one factor; none: kappa stays. All correct the levels of contours."
        ),
    ] = "isotonic",
    max_pulses: options.MaxPulses = None,
    results: Annotated[
        Path | None, option("A table of directions and kappa, in place of MODEL.")
    ] = None,
    truth: Annotated[
        Path | None, option("Truth for --results: a store, or a table.")
    ] = None,
    truth_table: options.TruthTable = None,
    truth_angles: options.TruthAngles = None,
    result_angles: options.ResultAngles = "origin",
    apply: Annotated[
        Path | None, option("A table of the same kind as --results to calibrate.")
    ] = None,
    to: Annotated[
        Path | None, option("The calibrated table that --apply makes.")
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "The calibration, .json. Default: beside the weights, where `icecube2nd "
            "reconstruct` finds it; it must be given for weights of the package."
        ),
    ] = None,
    device: options.Device = "auto",
    unknown_detector: options.UnknownDetector = False,
) -> None:
    """Fit the widths of all tasks on events that were not trained on.

    Prints what contours held before, and after with each half of the events calibrated
    by the other; and the like for other tasks.
    """
    from graphnet_icecube2nd.calibration import fit
    from graphnet_icecube2nd.calibration.validation_split import held_out_events
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
        raise ValueError("give MODEL or --results, one of them")
    unused = of_table if results is None else of_model
    if given := [name for name, value in unused.items() if value is not None]:
        kind = "MODEL" if results is None else "--results"
        raise ValueError(f"{', '.join(given)} means nothing with {kind}")
    if results is not None:
        if truth is None or out is None:
            raise ValueError("--results needs --truth and --out")
        if (apply is None) != (to is None):
            raise ValueError("--apply and --to go together")
        plain = EventTable.load(results, angles=result_angles)
        known = EventTruth.load(truth, table=truth_table, angles=truth_angles)
        found = fit.calibrate_table(plain, known, method=method)
    else:
        assert model is not None
        out = out or _place(model)
        bundle = load_bundle(model, calibration="none")
        places = [] if bundle.place is None else [bundle.place]
        store, numbers, what = held_out_events(places, data, events, most)
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
            raise ValueError(f"{apply} is calibrated already")
        assert found.file.calibration is not None
        fit.calibrated_table(table, found.file.calibration).save(to)
        print(to)


def _show(found: CalibrationCheck) -> None:
    """Print what contours held, figures of other tasks, notices."""
    from rich.table import Column

    if found.before:
        thirds = ("small kappas", "middle", "large") if found.thirds else ()
        held = [part for part in (found.before, found.after, *found.thirds) if part]
        rows = [
            (f"{level:.0%}", *(f"{part[level]:.1%}" for part in held))
            for level in found.before
        ]
        header = ("contour", "before", "calibrated", *thirds)
        print_table(
            [Column(name, justify="right") for name in header],
            rows,
            title="share of true directions inside contours",
        )
    if found.tasks:
        rows = [
            (task, name, f"{before:.4f}", f"{calibrated:.4f}")
            for task, figures in found.tasks.items()
            for name, (before, calibrated) in figures.items()
        ]
        header = ("task", "figure", "before", "calibrated")
        print_table(header, rows, title="other tasks")
    for text in found.notices:
        print(f"  {text}")


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
