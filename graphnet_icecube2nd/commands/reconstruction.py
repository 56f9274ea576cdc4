"""Command `reconstruct`."""

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
            help="INPUT: a store, or files that `icecube2nd prepare` reads: the "
            "competition's folder, GraphNeT's files, parquet, HDF5. With --config: "
            "keys and values, such as L 512 BS 32.",
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
            "The published config.json, as in `predict.py config.json L 512 BS 32`. "
            "The default of --out is then submission.csv."
        ),
    ] = None,
    weights: Annotated[
        Path | None, option("File of weights for --model, such as V22FT6_1.pth.")
    ] = None,
    format: Annotated[
        str | None,
        option(
            "Format of --out: parquet, csv, sqlite, submission. Default: by its ending."
        ),
    ] = None,
    contours: Annotated[
        str, option("Contours in percent; their radii are columns, such as radius_50.")
    ] = "50,90",
    calibration: Annotated[
        str,
        option(
            "Calibration of the widths: the path of a calibration.json; stored: the "
            "one beside the weights, if there is one; none: no calibration (necessary "
            "if --max-pulses or --selection differ from the calibration's)."
        ),
    ] = "stored",
    device: options.Device = "auto",
    max_pulses: options.MaxPulses = None,
    selection: Annotated[
        str | None,
        reading_option("Selection of the kept pulses: uniform, hlc_first or first."),
    ] = None,
    seed: Annotated[
        int | None, reading_option("Random seed of the pulse selection.")
    ] = None,
    batch_size: Annotated[int | None, reading_option("Events per batch.")] = None,
    precision: Annotated[
        str | None, reading_option("Precision: float32 or bfloat16.")
    ] = None,
    unknown_detector: options.UnknownDetector = False,
    positions: Annotated[
        str | None,
        reading_option(
            "Point from which positions count: detector, or charge_centre of the event."
        ),
    ] = None,
    published_features: Annotated[
        bool | None,
        reading_option(
            "Efficiency and ice features of the competition's code, for its weights.",
            "--published-features/--own-features",
        ),
    ] = None,
) -> None:
    """Reconstruct events: write one row of results per event, in the store's order.

    An interrupted reconstruction resumes when the command is run again, and writes the
    same file. In an existing .db only the table `directions` is written. Another
    existing file is replaced only if it holds results.
    """
    from graphnet_icecube2nd.inference.inference_config import InferenceConfig
    from graphnet_icecube2nd.inference.model_bundle import load_bundle
    from graphnet_icecube2nd.inference.reconstruction import reconstruct as run
    from graphnet_icecube2nd.results.result_files import SUBMISSION, format_of

    data, asked = _input(words or [], config)
    if config is not None:
        out = out or Path("submission.csv")
        if "which" not in reading and (data / "test").is_dir():
            reading["which"] = "test"  # as predict.py
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
        "positions": positions,
        "published_features": published_features,
    }
    # Wrong options are errors before weights are read.
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
        print(f"  {report.num_resumed:,} events are from an earlier call")
    if format == SUBMISSION and (lost := report.num_events - num_ok):
        print(f"  {lost:,} events have no direction; the submission has the horizon's")


def _input(words: list[str], config: Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the input, and the options of a published configuration."""
    if config is None:
        if len(words) != 1:
            raise ValueError(f"give one INPUT, found {' '.join(words) or 'none'}")
        return Path(words[0]), {}
    from graphnet_icecube2nd.files import read_json
    from graphnet_icecube2nd.published.published_config import read_values

    values = read_values(config, words)
    # Only given keys; the other options are the ensemble's.
    named = {*read_json(config), *words[::2]}
    keys = {"L": "max_pulses", "BS": "batch_size", "SEED": "seed"}
    asked = {name: values[key] for key, name in keys.items() if key in named}
    return Path(str(values["PATH"])), asked
