"""Commands of ensembles: import-weights, ensemble fit, ensemble show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import degrees
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphnet_icecube2nd.commands import options
from graphnet_icecube2nd.commands.options import Commands, option
from graphnet_icecube2nd.commands.show import counting, print_table

if TYPE_CHECKING:
    from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile

app = Commands(
    name="ensemble",
    help="Fit or show an ensemble: several models used as one.",
    no_args_is_help=True,
)


def import_weights(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder that holds the five .pth files."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the new ensemble.")],
) -> None:
    """Import the competition's five checkpoints as an ensemble.

    Every key of every checkpoint is checked before anything is written. `icecube2nd
    reconstruct --ensemble OUT` then computes what the published predict.py computes.
    """
    from graphnet_icecube2nd.inference.ensemble_file import FILE
    from graphnet_icecube2nd.published.competition_ensemble import import_weights as run

    run(folder, out)
    print(f"{out / FILE}: weights and options as in the published predict.py")


def fit(
    out: Annotated[Path, typer.Argument(help="Folder of the new ensemble.")],
    members: Annotated[
        list[str],
        typer.Argument(
            help="Two or more models: runs' folders, .safetensors files, packaged "
            "weights."
        ),
    ],
    data: options.Data = None,
    events: options.Events = None,
    most: options.Most = 50_000,
    method: Annotated[
        str,
        option(
            "How directions are combined. weighted: mean of the unit vectors with "
            "fitted weights; directions: mean with equal weights; densities: product "
            "of the densities; best: the method with the smallest mean opening angle."
        ),
    ] = "weighted",
    max_pulses: options.MaxPulses = None,
    device: options.Device = "auto",
) -> None:
    """Combine several models into an ensemble.

    The members' weights minimise the mean opening angle on events that no member was
    trained on.
    """
    from graphnet_icecube2nd.calibration.validation_split import unseen_events
    from graphnet_icecube2nd.ensemble.ensemble_fit import fit_ensemble
    from graphnet_icecube2nd.inference.model_bundle import load_bundle

    reading = None
    if max_pulses is not None:
        reading = replace(load_bundle(members[0]).options, max_pulses=max_pulses)
    store, numbers, what = unseen_events(members, data, events, most)
    print(f"fitting weights on {len(numbers):,} events: {what}")
    with counting(len(numbers), "reading") as on_progress:
        found = fit_ensemble(
            members,
            store,
            out,
            events=numbers,
            method=method,
            options=reading,
            device=options.chosen_device(device),
            on_progress=on_progress,
        )
    _print_angles(found.angles)
    _print_members(found.ensemble)


def show(
    ensemble: Annotated[Path, typer.Argument(help="An ensemble's folder or YAML.")],
) -> None:
    """Show the members and options of an ensemble, and check its files."""
    from graphnet_icecube2nd.inference.ensemble_file import EnsembleFile
    from graphnet_icecube2nd.inference.model_bundle import (
        CalibrationFile,
        calibration_path,
    )

    described = EnsembleFile.load(ensemble)
    folder = ensemble if ensemble.is_dir() else ensemble.parent
    described.model(folder)  # checks that the files exist and have their checksums
    _print_members(described)
    reading = described.options
    print(
        f"reads at most {reading.max_pulses} pulses per event (selection "
        f"{reading.selection}) in {reading.precision}"
        + (", published features" if reading.published_features else "")
    )
    fitted = described.fitted_on
    if fitted:
        print(f"weights fitted on {fitted['events']:,} events of {fitted['store']}")
        _print_angles(fitted["mean_opening_angle_rad"])
    beside = calibration_path(folder)
    if beside.is_file():
        stored = CalibrationFile.load(beside)
        print(f"calibrated: {', '.join(stored.calibrations)}; {stored.what}")


def _print_members(described: EnsembleFile) -> None:
    total = sum(member.weight for member in described.members)
    rows = [
        (m.name, f"{m.weight:.8g}", f"{m.weight / total:.1%}", m.file, m.sha256[:12])
        for m in described.members
    ]
    header = ("member", "weight", "share", "file", "SHA-256")
    print_table(header, rows, title=f"{described.name}: {described.method}")


def _print_angles(angles: Mapping[str, float]) -> None:
    rows = [(n, f"{angle:.5f}", f"{degrees(angle):.2f}") for n, angle in angles.items()]
    print_table(("method", "rad", "deg"), rows, title="mean opening angle")
