"""The command line as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from graphnet_icecube2nd.commands import (
    calibration,
    catalogue,
    display,
    ensemble,
    evaluation,
    reconstruction,
    robustness,
    simulation,
    sky,
    store,
    training,
)
from graphnet_icecube2nd.version import __version__

app = typer.Typer(
    name="icecube2nd",
    help="Reconstruct neutrino events from pulses of light: direction, energy, track "
    "or cascade, each with a width. With DeepIce, the 2nd place of 'IceCube - "
    "Neutrinos in Deep Ice'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # `cli.main` says what a user can mend
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"icecube2nd {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say it."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole trace of an error.")
    ] = False,
) -> None:
    """Options that stand before a command."""


app.command()(simulation.simulate)
app.command()(store.prepare)
app.command()(store.inspect)
app.command()(display.show)
app.command()(sky.skymap)
app.command()(store.export)
app.command()(training.train)
app.command()(training.recipes)
app.command()(training.tune)
app.command()(reconstruction.reconstruct)
app.command()(calibration.calibrate)
app.command()(evaluation.evaluate)
app.command()(robustness.robustness)
app.add_typer(ensemble.app, name="ensemble")
app.command()(catalogue.detectors)
app.command()(catalogue.tasks)
app.command()(catalogue.models)
app.command("import-weights")(ensemble.import_weights)
