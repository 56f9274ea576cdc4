"""The command that reconstructs directions."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from graphnet_icecube2nd.inference.inference_config import InferenceConfig

SEEING = "How the model sees events (default: the model's or ensemble's own)"


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=SEEING)


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
    model: Annotated[
        str | None,
        typer.Option(
            help="Weights of the package (t_sim.simulated), a run's folder, a "
            ".safetensors file, or with --weights a model's name."
        ),
    ] = None,
    ensemble: Annotated[
        Path | None,
        typer.Option(help="An ensemble's folder or YAML, in place of --model."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The table: .parquet, .csv, .db (SQLite), submission.csv."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The published config.json, as `predict.py config.json L 512 BS 32` "
            "has it; OUT is submission.csv then."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of any origin for --model, as V22FT6_1.pth."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="parquet, csv, sqlite, submission. Default: by the ending of OUT."
        ),
    ] = None,
    which: Annotated[
        str | None,
        typer.Option(
            help="train or test, of the competition's folder. Default: for a "
            "submission and with --config test where it is there, else train."
        ),
    ] = None,
    contours: Annotated[
        str,
        typer.Option(
            help="Shares, percent, of the contours whose radii are columns: radius_50."
        ),
    ] = "50,90",
    calibration: Annotated[
        str,
        typer.Option(
            help="stored: what `icecube2nd calibrate` has laid beside the weights, if "
            "it has; none; or its file."
        ),
    ] = "stored",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps; auto chooses.")] = "auto",
    max_pulses: Annotated[
        int | None,
        _option("L, what longer events are cut to; 192 to 3072 are usual."),
    ] = None,
    selection: Annotated[
        str | None, _option("Which pulses are kept then: uniform, hlc_first, first.")
    ] = None,
    seed: Annotated[int | None, _option("Of that selection.")] = None,
    batch_size: Annotated[int | None, _option("Events at once.")] = None,
    precision: Annotated[str | None, _option("float32 or bfloat16.")] = None,
    unknown_detector: Annotated[
        bool,
        typer.Option(
            "--unknown-detector",
            help="Use the model on a detector or a clock that it was not trained on; "
            "widths are then not calibrated.",
        ),
    ] = False,
    published_features: Annotated[
        bool | None,
        _option(
            "Efficiency and ice as the competition's code had them, for its weights.",
            "--published-features/--own-features",
        ),
    ] = None,
) -> None:
    """Write a table of results: every event once, in the order of the store.

    Killed in the middle, the same command goes on, and ends with the same file. A .db
    that is there gets a table `directions`, its others stay; any other file that holds
    no results stays as it is.
    """
    from rich.console import Console

    from graphnet_icecube2nd.commands.parsing import shares
    from graphnet_icecube2nd.commands.show import chosen_device, counting
    from graphnet_icecube2nd.inference.inference_config import InferenceConfig
    from graphnet_icecube2nd.inference.input_store import InputStore
    from graphnet_icecube2nd.inference.model_bundle import is_ensemble, load_bundle
    from graphnet_icecube2nd.inference.reconstruction import reconstruct as run
    from graphnet_icecube2nd.notices import print_notices
    from graphnet_icecube2nd.results.result_files import (
        check_replaceable,
        format_of,
    )
    from graphnet_icecube2nd.tasks.direction.direction import checked_contours

    data, asked = _input(words or [], config)
    out = Path("submission.csv") if out is None and config is not None else out
    if out is None:
        raise ValueError("--out must be given (see --help)")
    if ensemble is not None and not is_ensemble(ensemble):
        raise ValueError(f"{ensemble} is no ensemble: it holds no ensemble.yaml")
    name = model if ensemble is None else str(ensemble)
    if name is None or (model is not None and ensemble is not None):
        raise ValueError("give --model or --ensemble, one of them")
    kind = format_of(out, format)  # before any work
    check_replaceable(out, kind)
    levels = checked_contours(shares(contours, "--contours"))
    device = chosen_device(device)
    given = {
        "max_pulses": max_pulses,
        "selection": selection,
        "seed": seed,
        "batch_size": batch_size,
        "precision": precision,
        "published_features": published_features,
    }
    _with(InferenceConfig(), given)  # what is wrong in itself, before weights are read
    trained = load_bundle(name, weights, calibration=calibration)
    options = _with(_with(trained.options, asked), given)
    trained.read_otherwise(options)  # before any work
    if which is None and (config is not None or kind == "submission"):
        which = _as_predict_py_reads(data)
    print_notices(always=True)
    events = InputStore(data, out, which=which)
    store = events.open()
    with (
        warnings.catch_warnings(),
        counting(Console(stderr=True), len(store), "reconstructing") as on_progress,
    ):
        warnings.simplefilter("ignore", UserWarning)  # printed below
        report = run(
            store,
            trained,
            out,
            format=format,
            options=options,
            device=device,
            contours=levels,
            unknown_detector=unknown_detector,
            on_progress=on_progress,
        )
    events.remove()
    statuses = ", ".join(f"{name} {n:,}" for name, n in report.statuses.items())
    print(
        f"{report.path}: {report.num_events:,} events ({statuses}) in "
        f"{report.seconds:.1f} s"
    )
    for text in report.notices:
        print(f"  {text}")
    if trained.calibrations:
        num_ok = max(1, report.statuses.get("ok", 0))
        share = report.num_calibrated / num_ok
        print(f"  widths are calibrated for {share:.1%} of the events")
    else:
        print("  widths are not calibrated (icecube2nd calibrate)")
    if report.num_resumed:
        print(f"  {report.num_resumed:,} of them from an earlier call")
    lost = report.num_events - report.statuses.get("ok", 0)
    if lost and kind == "submission":
        print(f"  {lost:,} have no direction: a submission wants one, the horizon's")


def _input(words: list[str], config: Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the input, and options that a published configuration asks for."""
    if config is None:
        if len(words) != 1:
            raise ValueError(f"give one INPUT, got {' '.join(words) or 'none'}")
        return Path(words[0]), {}
    from graphnet_icecube2nd.published.published_config import DEFAULTS, read_values

    values = read_values(config, words)
    # What the file or the command line names; the rest is the ensemble's own.
    named = {*json.loads(config.read_text(encoding="utf-8")), *words[::2]}
    keys = {"L": "max_pulses", "BS": "batch_size", "SEED": "seed"}
    asked = {name: values[key] for key, name in keys.items() if key in named}
    return Path(str(values.get("PATH", DEFAULTS["PATH"]))), asked


def _as_predict_py_reads(events: Path) -> str | None:
    """Return `test` for a folder that has it: predict.py reads nothing else."""
    return "test" if (events / "test").is_dir() else None


def _with(options: InferenceConfig, given: dict[str, Any]) -> InferenceConfig:
    return replace(options, **{n: v for n, v in given.items() if v is not None})
