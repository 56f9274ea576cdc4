"""The command line as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from graphnet_icecube2nd.commands import (
    calibration,
    catalogue,
    ensemble,
    evaluation,
    pictures,
    reconstruction,
    simulation,
    store,
    training,
)
from graphnet_icecube2nd.commands.options import Commands, option
from graphnet_icecube2nd.notices import print_notices
from graphnet_icecube2nd.version import __version__

app = Commands(
    name="icecube2nd",
    help="Reconstruct neutrino events from pulses of light: direction, energy, track "
    "or cascade, each with a width. With DeepIce, the 2nd place of 'IceCube - "
    "Neutrinos in Deep Ice'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # `cli.main` prints what a user can mend
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
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[bool, option("Show an error's whole trace.", "--debug")] = False,
) -> None:
    """Options that stand before a command."""
    print_notices(always=True)


app.command()(simulation.simulate)
app.command()(store.prepare)
app.command()(store.inspect)
app.command()(pictures.show)
app.command()(pictures.skymap)
app.command()(store.export)
app.command()(training.train)
app.command()(training.recipes)
app.command()(training.tune)
app.command()(reconstruction.reconstruct)
app.command()(calibration.calibrate)
app.command()(evaluation.evaluate)
app.command()(evaluation.robustness)
app.add_typer(ensemble.app, name="ensemble")
app.command()(catalogue.detectors)
app.command()(catalogue.tasks)
app.command()(catalogue.models)
app.command("import-weights")(ensemble.import_weights)
