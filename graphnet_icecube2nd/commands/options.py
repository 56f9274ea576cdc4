"""Shared options of commands, and the parsing of their values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.core

from graphnet_icecube2nd.commands import completion

if TYPE_CHECKING:
    from graphnet_icecube2nd.inference.inference_config import InferenceConfig


Function = TypeVar("Function", bound=Callable[..., Any])


class StrictCommand(typer.core.TyperCommand):
    """Command that refuses repeated options, except for those with several values."""

    def make_parser(self, ctx: Any) -> Any:
        """Return a parser that refuses an option that is given twice."""
        parser = super().make_parser(ctx)
        parse: Any = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            found = parse(args)
            for given in found[-1]:
                several = getattr(given, "multiple", True)  # False for options only
                if not several and found[-1].count(given) > 1:
                    raise typer.BadParameter(
                        "is given more than once", ctx=ctx, param=given
                    )
            return found

        parser.parse_args = parse_once  # type: ignore[method-assign]
        return parser


class Commands(typer.Typer):
    """Group of `StrictCommand`s."""

    def command(
        self, name: str | None = None, **options: Any
    ) -> Callable[[Function], Function]:
        """Return a decorator that registers a function as a command."""
        return super().command(name, **{"cls": StrictCommand, **options})


def option(
    help: str,
    *names: str,
    panel: str | None = None,
    complete: Callable[[str], list[str]] | None = None,
) -> Any:
    """Return an option of a command, with an optional panel and shell completion."""
    return typer.Option(
        *names, help=help, rich_help_panel=panel, autocompletion=complete
    )


reading_option = partial(
    option,
    panel="Reading of the events (default: as in training or calibration)",
)
machine_option = partial(option, panel="Machine")
file_option = partial(option, panel="Input files")

Model = Annotated[
    str | None,
    option(
        "Model: weights of the package (t_sim.simulated), the folder of a run, a "
        ".safetensors file, or a model's name with --weights.",
        complete=completion.model,
    ),
]
Ensemble = Annotated[
    Path | None, option("Ensemble instead of --model: its folder or YAML file.")
]
Device = Annotated[str, option("Device: cpu, cuda, mps, or auto.")]
UnknownDetector = Annotated[
    bool,
    option(
        "Accept a detector or a clock that the model was not trained on. A "
        "calibration is then applied only if it was fitted on such data.",
        "--unknown-detector",
    ),
]
MaxPulses = Annotated[
    int | None,
    reading_option(
        "Maximum pulses per event (192 to 3072 are usual); longer events are cut."
    ),
]
Data = Annotated[
    Path | None,
    option("Event store. Default: the store on which the model was trained."),
]
Events = Annotated[
    str | None,
    option(
        "Condition on the events, such as 'n_pulses >= 8'. Training events of the "
        "model are always excluded."
    ),
]
Most = Annotated[int, typer.Option(help="Maximum number of events.", min=1)]
TruthTable = Annotated[
    str | None,
    option(
        "Table of the truth in a SQLite file. Default: the only one with an event "
        "number and truth; tables of results are skipped."
    ),
]
TruthAngles = Annotated[
    str | None,
    option(
        "Meaning of the angles in a table of truth: origin or flight. Default: origin; "
        "a store has its own."
    ),
]
ResultAngles = Annotated[
    str, option("Meaning of the directions in results: origin or flight.")
]
Replacements = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Replace a value of the recipe: stages.2.lr_max=2e-5 (stages count from "
        "0), tasks.energy.weight=0.1. Repeat the option for several.",
    ),
]
Accelerator = Annotated[str, machine_option("Accelerator: auto, cpu, gpu, cuda, mps.")]


FORMAT_HELP = (
    "Format of the files: kaggle, graphnet-sqlite, graphnet-lmdb, graphnet-parquet, "
    "parquet, nested-parquet, hdf5, km3net, store. Default: recognised."
)


def _file_options(
    input_format: Annotated[str | None, file_option(FORMAT_HELP)] = None,
    detector: Annotated[
        str | None,
        file_option(
            "Detector (see `icecube2nd detectors`), with the meaning of columns, its "
            "modules, medium and scales.",
            complete=completion.detector,
        ),
    ] = None,
    pulse_map: Annotated[
        str | None,
        file_option(
            "Meaning of the columns: kaggle, icecube86, upgrade, prometheus, "
            "km3net, or a JSON file. Default: recognised by the columns."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        file_option(
            "Column that differs from the pulse map's, such as x=pos_x, or hlc=none "
            "for no column. Also y, z, time, charge, auxiliary, rde, sensor_id, "
            "azimuth, zenith. Repeat the option for several."
        ),
    ] = None,
    clock: Annotated[
        str | None,
        file_option(
            "Clock of the times: window, first_pulse, or first_triggered (since the "
            "first pulse with the trigger flag). Default: that of the pulse map."
        ),
    ] = None,
    pulses_table: Annotated[
        list[str] | None,
        file_option(
            "Table (or struct) of pulses. Repeat the option to join an event's pulses "
            "of several tables."
        ),
    ] = None,
    truth_table: Annotated[
        str | None,
        file_option(
            "Table (or struct) of truth, one row per event. `reconstruct` reads it "
            "only for events without pulses."
        ),
    ] = None,
    offsets_table: Annotated[
        str | None, file_option("HDF5 dataset of the events' offsets.")
    ] = None,
    event_column: Annotated[
        str | None, file_option("Column of the event numbers, such as event_no.")
    ] = None,
    keep: Annotated[
        list[str] | None, file_option("Additional pulse column to keep, or `all`.")
    ] = None,
    batches: Annotated[
        str | None, file_option("Kaggle batches: 1,2,5-9, or `present` for existing.")
    ] = None,
    which: Annotated[
        str | None,
        file_option(
            "Part of the competition's folder: train or test. Default: train if it "
            "exists; `reconstruct` prefers test for a submission and with --config."
        ),
    ] = None,
    duplicates: Annotated[
        str | None,
        file_option(
            "Treatment of event numbers that are in several SQLite files: `error` (the "
            "default), or `renumber`, which gives new numbers to all events and keeps "
            "the old number and the file."
        ),
    ] = None,
    event_list: Annotated[
        Path | None,
        file_option("Parquet file of the numbers of the events to read. Default: all."),
    ] = None,
    photons: Annotated[
        list[str] | None,
        file_option(
            "Response of modules to single photons, such as acceptance=0.2, "
            "time_spread=2 [ns], merge_time=5 [ns], or seed=1. Repeat the option for "
            "several. Default: every photon is a pulse."
        ),
    ] = None,
    drop_bad_pulses: Annotated[
        bool,
        file_option(
            "Leave out pulses with impossible values, such as a charge of 0, and count "
            "them. Default: an error in `prepare`; in `reconstruct` their event has a "
            "status instead of a result.",
            "--drop-bad-pulses",
        ),
    ] = False,
    triggered_hits: Annotated[
        bool,
        file_option(
            "Read only the hits of KM3NeT's ROOT files that took part in the trigger.",
            "--triggered-hits",
        ),
    ] = False,
    geometry: Annotated[
        Path | None,
        file_option(
            "Table of DOMs instead of IceCube-86's: csv, parquet, detx, datx or .geo. "
            "A detx or datx file also calibrates raw hits of KM3NeT."
        ),
    ] = None,
    ice: Annotated[Path | None, file_option("Ice table instead of IceCube's.")] = None,
    workers: Annotated[
        int | None, file_option("Parallel readers. Default: one per core.")
    ] = None,
) -> None:
    """Declare the options of reading files; see `reads_files`."""


def reads_files(command: Callable[..., None]) -> Any:
    """Add the options of reading files to a command, which gets them as `reading`.

    `reading` is a dictionary of the given options, with the names of
    `inference.input_store.READING`, except for options that the command declares.
    """
    return with_options(command, _file_options, "reading", _reading)


def with_options(
    command: Callable[..., None],
    declared: Callable[..., None],
    name: str,
    gather: Callable[[dict[str, Any]], Any],
) -> Any:
    """Add the options of `declared` to a command, which gets them as one argument.

    Args:
        command: The command; options that it declares itself are not added.
        declared: Function whose arguments are the options.
        name: Name of the command's argument.
        gather: Function that makes the argument of the given options.
    """
    own = inspect.signature(command, eval_str=True)
    parameters = [p for p in own.parameters.values() if p.name != name]
    options = inspect.signature(declared, eval_str=True).parameters.values()
    shared = [
        option.replace(kind=option.KEYWORD_ONLY)
        for option in options
        if option.name not in own.parameters
    ]
    parameters += shared

    @wraps(command)
    def run(*given: Any, **values: Any) -> None:
        some = {o.name: values.pop(o.name) for o in shared if o.name in values}
        command(*given, **{name: gather(some)}, **values)

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _reading(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `prepare` for options of reading files."""
    given = {name: value for name, value in values.items() if value}
    if "column" in given:
        given["columns"] = parse_columns(given.pop("column"))
    if "photons" in given:
        given["photons"] = parse_photons(given["photons"])
    if "batches" in given:
        given["batches"] = parse_batches(given["batches"])
    if given.get("keep") == ["all"]:
        given["keep"] = "all"
    return given


def parse_batches(text: str) -> list[int] | str:
    """Return the batches of a text such as `1,2,5-9`, or `present` unchanged.

    Raises:
        ValueError: The text has another form.
    """
    if text == "present":
        return text
    if (numbers := _numbers(text)) is None:
        raise ValueError(f"--batches must be like 1,2,5-9 or present, found {text!r}")
    return numbers


def parse_strings(text: str | None) -> list[int] | str | None:
    """Return the numbers of a text such as `1-6,9`, or a detector's name unchanged."""
    return text if text is None else _numbers(text) or text


def _numbers(text: str) -> list[int] | None:
    """Return the numbers of a text such as `1,2,5-9`; None if it has another form."""
    numbers: list[int] = []
    for piece in text.split(","):
        ends = piece.strip().split("-")
        if len(ends) > 2 or not all(end.isdigit() for end in ends):
            return None
        numbers.extend(range(int(ends[0]), int(ends[-1]) + 1))
    return numbers


def parse_columns(texts: Sequence[str]) -> dict[str, str | None]:
    """Return columns by quantity from texts such as `x=pos_x` or `hlc=none`.

    Raises:
        ValueError: A text has another form, or a quantity occurs twice.
    """
    columns: dict[str, str | None] = {}
    for text in texts:
        quantity, separator, column = text.partition("=")
        if not (quantity and separator and column) or quantity in columns:
            raise ValueError(
                f"--column must be QUANTITY=COLUMN, each quantity once, found {text!r}"
            )
        columns[quantity] = None if column == "none" else column
    return columns


def parse_photons(texts: Sequence[str]) -> dict[str, float]:
    """Return numbers by name from texts such as `merge_time=5`.

    Raises:
        ValueError: A text has another form, or a name occurs twice.
    """
    values: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        value: float | None = None
        with suppress(ValueError):
            value = int(number) if name == "seed" else float(number)
        if value is None or name in values:
            raise ValueError(
                f"--photons must be NAME=NUMBER, each name once, found {text!r}"
            )
        values[name] = value
    return values


def numbers(text: str, option: str) -> list[float]:
    """Return comma-separated numbers; ValueError with the option for other texts."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} must be comma-separated numbers, found {text!r}"
        ) from None


def shares(text: str, option: str) -> list[float]:
    """Return comma-separated percentages as shares, 0 to 1; else ValueError."""
    found = numbers(text, option)
    if not all(0 < percent < 100 for percent in found):
        raise ValueError(f"{option} must be between 0 and 100 percent, found {text!r}")
    return [percent / 100 for percent in found]


def model_name(model: str | None, ensemble: Path | None) -> str:
    """Return the name from --model or --ensemble; ValueError unless one is given."""
    from graphnet_icecube2nd.inference.model_bundle import is_ensemble

    if ensemble is not None and not is_ensemble(ensemble):
        raise ValueError(f"--ensemble {ensemble} must hold an ensemble.yaml")
    name = model if ensemble is None else str(ensemble)
    if name is None or (model is not None and ensemble is not None):
        raise ValueError("give either --model or --ensemble")
    return name


def changed(config: InferenceConfig, **values: Any) -> InferenceConfig:
    """Return a configuration with the values that are not None."""
    return replace(config, **{n: v for n, v in values.items() if v is not None})


def chosen_device(device: str) -> str:
    """Return an available device by name or for `auto`; else ValueError."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} is not available: {reason}") from None
    return device
