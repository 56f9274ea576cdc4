"""Commands of ensembles: import-weights, ensemble fit, ensemble show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile

app = typer.Typer(help="Several models as one.", no_args_is_help=True)


def import_weights(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the five .pth files are.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the ensemble.")],
) -> None:
    """Turn the competition's five checkpoints into an ensemble of safetensors.

    Each is proven to fit in every key before anything is written. `icecube2nd
    reconstruct --ensemble OUT` then does what the published predict.py does.
    """
    from graphnet_icecube2nd.inference.ensemble_file import FILE
    from graphnet_icecube2nd.notices import print_notices
    from graphnet_icecube2nd.published.competition_ensemble import import_weights as run

    print_notices(always=True)
    run(folder, out)
    print(f"{out / FILE}: weights and options as in the published predict.py")


@app.command()
def fit(
    out: Annotated[Path, typer.Argument(help="Folder of the ensemble, new.")],
    members: Annotated[
        list[str],
        typer.Argument(help="Two or more: runs' folders, files, names of weights."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="A store. Default: the one that the runs were trained on."),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="A condition, as 'n_pulses >= 8'. Of a store that runs were trained "
            "on, only what they were validated on is taken."
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="So many events at most.", min=1)] = 50_000,
    method: Annotated[
        str,
        typer.Option(
            help="weighted: fitted weights; directions: plain mean of unit vectors; "
            "densities: product of the densities; best: the smallest angle."
        ),
    ] = "weighted",
    max_pulses: Annotated[
        int | None,
        typer.Option(help="L, what longer events are cut to; default: the members'."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps; auto chooses.")] = "auto",
) -> None:
    """Make one model of several, with weights of smallest mean opening angle."""
    from dataclasses import replace

    from rich.console import Console

    from graphnet_icecube2nd.calibration.validation_split import held_out_events
    from graphnet_icecube2nd.commands.show import chosen_device, counting
    from graphnet_icecube2nd.ensemble.ensemble_fit import fit_ensemble
    from graphnet_icecube2nd.inference.model_bundle import load_bundle
    from graphnet_icecube2nd.notices import print_notices

    options = None
    if max_pulses is not None:
        options = replace(load_bundle(members[0]).options, max_pulses=max_pulses)
    store, numbers, what = held_out_events(members, data, events, most)
    print_notices(always=True)
    print(f"weights from {len(numbers):,} events: {what}")
    with counting(Console(stderr=True), len(numbers), "reading") as on_progress:
        found = fit_ensemble(
            members,
            store,
            out,
            events=numbers,
            method=method,
            options=options,
            device=chosen_device(device),
            on_progress=on_progress,
        )
    _print_angles(found.angles)
    _print_members(found.ensemble)


@app.command()
def show(
    ensemble: Annotated[Path, typer.Argument(help="An ensemble's folder or YAML.")],
) -> None:
    """Say what an ensemble is made of; check its files."""
    from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile
    from graphnet_icecube2nd.inference.model_bundle import (
        CalibrationFile,
        place_beside,
    )

    described = EnsembleFile.load(ensemble)
    folder = ensemble if ensemble.is_dir() else ensemble.parent
    described.model(folder)  # files are there, and the ones that are meant
    _print_members(described)
    options = described.options
    print(
        f"sees {options.selection} {options.max_pulses} pulses in {options.precision}"
        + (", published features" if options.published_features else "")
    )
    fitted = described.fitted_on
    if fitted:
        print(f"weights from {fitted['events']:,} events of {fitted['store']}")
        _print_angles(fitted["mean_opening_angle_rad"])
    beside = place_beside(folder)
    if beside.is_file():
        stored = CalibrationFile.load(beside)
        print(f"calibrated: {', '.join(stored.calibrations)}; {stored.what}")


def _print_members(described: EnsembleFile) -> None:
    from rich.console import Console
    from rich.table import Table

    total = sum(member.weight for member in described.members)
    table = Table(title=f"{described.name}: {described.method}")
    for column in ("member", "weight", "share", "file", "SHA-256"):
        table.add_column(column)
    for member in described.members:
        table.add_row(
            member.name,
            f"{member.weight:.8g}",
            f"{member.weight / total:.1%}",
            member.file,
            member.sha256[:12],
        )
    Console().print(table)


def _print_angles(angles: Mapping[str, float]) -> None:
    from math import degrees

    from rich.console import Console
    from rich.table import Table

    table = Table(title="mean opening angle")
    for column in ("way", "rad", "deg"):
        table.add_column(column)
    for name, angle in angles.items():
        table.add_row(name, f"{angle:.5f}", f"{degrees(angle):.2f}")
    Console().print(table)
