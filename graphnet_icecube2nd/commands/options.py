"""Options that several commands have, declared once, and what their words mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.core

if TYPE_CHECKING:
    from graphnet_icecube2nd.inference.inference_config import InferenceConfig


Function = TypeVar("Function", bound=Callable[..., Any])


class StrictCommand(typer.core.TyperCommand):
    """A command whose options are given once, but for those that may be repeated."""

    def make_parser(self, ctx: Any) -> Any:
        """Return a parser that refuses an option given twice: one would be lost."""
        parser = super().make_parser(ctx)
        parse: Any = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            found = parse(args)
            for given in found[-1]:
                several = getattr(given, "multiple", True)  # an argument
                if not several and found[-1].count(given) > 1:
                    raise typer.BadParameter(
                        "is given more than once", ctx=ctx, param=given
                    )
            return found

        parser.parse_args = parse_once  # type: ignore[method-assign]
        return parser


class Commands(typer.Typer):
    """A group of commands, all of which are strict."""

    def command(
        self, name: str | None = None, **options: Any
    ) -> Callable[[Function], Function]:
        """Return what makes a command of a function."""
        return super().command(name, **{"cls": StrictCommand, **options})


def option(help: str, *names: str, panel: str | None = None) -> Any:
    """Return an option of a command, under a heading of the help where one is given."""
    return typer.Option(*names, help=help, rich_help_panel=panel)


reading_option = partial(
    option,
    panel="How the model reads events (default: as it was trained or calibrated)",
)
machine_option = partial(option, panel="Machine")

Model = Annotated[
    str | None,
    option(
        "Model: weights of the package (t_sim.simulated), a run's folder, a "
        ".safetensors file, or with --weights a model's name."
    ),
]
Ensemble = Annotated[
    Path | None, option("Ensemble in place of --model: its folder or YAML.")
]
Device = Annotated[str, option("Device: cpu, cuda, mps; auto chooses.")]
UnknownDetector = Annotated[
    bool,
    option(
        "Accept a detector or a clock that the model was not trained on. Only a "
        "calibration that was fitted on such data is applied then.",
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
    option("Event store. Default: the one that the model was trained on."),
]
Events = Annotated[
    str | None,
    option(
        "Condition on the events, such as 'n_pulses >= 8'. Events that the model was "
        "trained on are never taken."
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
        "a store knows its own."
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
        "0), tasks.energy.weight=0.1. More than once for several.",
    ),
]
Accelerator = Annotated[str, machine_option("Accelerator: auto, cpu, gpu, cuda, mps.")]


def numbers(text: str, option: str) -> list[float]:
    """Return numbers with commas between; else ValueError, which names the option."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} must be numbers with commas between, got {text!r}"
        ) from None


def shares(text: str, option: str) -> list[float]:
    """Return percentages with commas between as shares, 0 to 1; else ValueError."""
    found = numbers(text, option)
    if not all(0 < percent < 100 for percent in found):
        raise ValueError(f"{option} lie between 0 and 100 percent, got {text!r}")
    return [percent / 100 for percent in found]


def model_name(model: str | None, ensemble: Path | None) -> str:
    """Return what --model or --ensemble names, one of which must be given."""
    from graphnet_icecube2nd.inference.model_bundle import is_ensemble

    if ensemble is not None and not is_ensemble(ensemble):
        raise ValueError(f"{ensemble} is no ensemble: it holds no ensemble.yaml")
    name = model if ensemble is None else str(ensemble)
    if name is None or (model is not None and ensemble is not None):
        raise ValueError("give --model or --ensemble, one of them")
    return name


def changed(config: InferenceConfig, **values: Any) -> InferenceConfig:
    """Return how a model reads events with the values that are not None."""
    return replace(config, **{n: v for n, v in values.items() if v is not None})


def chosen_device(device: str) -> str:
    """Return the device that `auto` means, or the one that is named, if it is here."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from None
    return device
