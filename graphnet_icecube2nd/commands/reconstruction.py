"""The command that reconstructs events."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from graphnet_icecube2nd.commands import options
from graphnet_icecube2nd.commands.options import option, reading_option
from graphnet_icecube2nd.commands.show import counting_later


@options.reads_files
def reconstruct(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT] | [KEY VALUE]...",
            help="INPUT: a store, or what `icecube2nd prepare` reads: the "
            "competition's folder, GraphNeT's files, parquet, HDF5. With --config: "
            "L 512 BS 32",
            show_default=False,
        ),
    ] = None,
    *,
    reading: dict[str, Any],
    model: options.Model = None,
    ensemble: options.Ensemble = None,
    out: Annotated[
        Path | None,
        option("Table of results: .parquet, .csv, .db (SQLite), submission.csv."),
    ] = None,
    config: Annotated[
        Path | None,
        option(
            "The published config.json, as `predict.py config.json L 512 BS 32` has "
            "it; OUT is submission.csv then."
        ),
    ] = None,
    weights: Annotated[
        Path | None, option("Weights of any origin for --model, as V22FT6_1.pth.")
    ] = None,
    format: Annotated[
        str | None,
        option(
            "Format of OUT: parquet, csv, sqlite, submission. Default: by its ending."
        ),
    ] = None,
    contours: Annotated[
        str, option("Contours, percent, whose radii are columns, as radius_50.")
    ] = "50,90",
    calibration: Annotated[
        str,
        option(
            "Calibration of the widths. stored: the one beside the weights, if it is "
            "there; none: no calibration (needed where --max-pulses or --selection "
            "differ from the calibration's); or the path of a calibration.json."
        ),
    ] = "stored",
    device: options.Device = "auto",
    max_pulses: options.MaxPulses = None,
    selection: Annotated[
        str | None,
        reading_option(
            "Pulses that are kept of longer events: uniform, hlc_first, first."
        ),
    ] = None,
    seed: Annotated[
        int | None, reading_option("Random seed of the pulse selection.")
    ] = None,
    batch_size: Annotated[int | None, reading_option("Events at once.")] = None,
    precision: Annotated[
        str | None, reading_option("Precision: float32 or bfloat16.")
    ] = None,
    unknown_detector: options.UnknownDetector = False,
    published_features: Annotated[
        bool | None,
        reading_option(
            "Efficiency and ice as the competition's code had them, for its weights.",
            "--published-features/--own-features",
        ),
    ] = None,
) -> None:
    """Write a table of results: every event once, in the order of the store.

    An interrupted reconstruction resumes when the command is run again, and ends with
    the same file. A .db that is there gets a table `directions` and keeps its other
    tables; any other file that holds no results stays as it is.
    """
    from graphnet_icecube2nd.inference.inference_config import InferenceConfig
    from graphnet_icecube2nd.inference.model_bundle import load_bundle
    from graphnet_icecube2nd.inference.reconstruction import reconstruct as run
    from graphnet_icecube2nd.results.result_files import SUBMISSION, format_of

    data, asked = _input(words or [], config)
    if config is not None:
        out = out or Path("submission.csv")
        if "which" not in reading and (data / "test").is_dir():
            reading["which"] = "test"  # predict.py reads this
    if out is None:
        raise ValueError("--out must be given (see --help)")
    name = options.model_name(model, ensemble)
    format = format_of(out, format)
    given = {
        "max_pulses": max_pulses,
        "selection": selection,
        "seed": seed,
        "batch_size": batch_size,
        "precision": precision,
        "published_features": published_features,
    }
    # What is wrong in itself is an error before weights are read.
    options.changed(InferenceConfig(), **given)
    levels = options.shares(contours, "--contours")
    device = options.chosen_device(device)
    bundle = load_bundle(name, weights, calibration=calibration)
    with (
        warnings.catch_warnings(),
        counting_later("reconstructing") as (on_start, on_progress),
    ):
        warnings.simplefilter("ignore", UserWarning)  # printed below
        report = run(
            data,
            bundle,
            out,
            format=format,
            options=options.changed(options.changed(bundle.options, **asked), **given),
            device=device,
            contours=levels,
            unknown_detector=unknown_detector,
            on_start=on_start,
            on_progress=on_progress,
            **reading,
        )
    statuses = ", ".join(f"{name} {n:,}" for name, n in report.statuses.items())
    print(
        f"{report.path}: {report.num_events:,} events ({statuses}) in "
        f"{report.seconds:.1f} s"
    )
    for text in report.notices:
        print(f"  {text}")
    num_ok = report.statuses.get("ok", 0)
    if bundle.calibrations:
        share = report.num_calibrated / max(1, num_ok)
        print(f"  widths are calibrated for {share:.1%} of the events")
    else:
        print("  widths are not calibrated (icecube2nd calibrate)")
    if report.num_resumed:
        print(f"  {report.num_resumed:,} of them from an earlier call")
    if format == SUBMISSION and (lost := report.num_events - num_ok):
        print(f"  {lost:,} have no direction: a submission wants one, the horizon's")


def _input(words: list[str], config: Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the input, and options that a published configuration asks for."""
    if config is None:
        if len(words) != 1:
            raise ValueError(f"give one INPUT, got {' '.join(words) or 'none'}")
        return Path(words[0]), {}
    from graphnet_icecube2nd.files import read_json
    from graphnet_icecube2nd.published.published_config import read_values

    values = read_values(config, words)
    # What the file or the command line names; the rest is the ensemble's own.
    named = {*read_json(config), *words[::2]}
    keys = {"L": "max_pulses", "BS": "batch_size", "SEED": "seed"}
    asked = {name: values[key] for key, name in keys.items() if key in named}
    return Path(str(values["PATH"])), asked
