"""The command line as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

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

WAY = """Reconstruct neutrino events from pulses of light: direction, energy, track or
cascade, each with a width.

1. Simulate events with known truth, or convert your own files with `prepare`:
     icecube2nd simulate store/ --events 2000
2. Train a model, or use the packaged weights t_sim.simulated in step 3:
     icecube2nd train --recipe t_sim --data store/ --out runs/first
3. Reconstruct the events:
     icecube2nd reconstruct store/ --model runs/first --out results.parquet
4. Evaluate the results; the report is report/report.html:
     icecube2nd evaluate results.parquet --truth store/

`icecube2nd COMMAND --help` explains a command and shows examples."""

app = Commands(
    name="icecube2nd",
    help=WAY,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # `cli.main` prints the user's errors
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        print(f"icecube2nd {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
    debug: Annotated[
        bool, option("Show the full traceback of an error.", "--debug")
    ] = False,
) -> None:
    """Options that stand before a command."""
    print_notices(always=True)


def _add(
    panel: str | None,
    command: Callable[..., None],
    *examples: str,
    name: str | None = None,
    group: typer.Typer = app,
) -> None:
    """Add a command under a heading; its help ends with the examples."""
    heading = "Examples:" if len(examples) > 1 else "Example:"
    prefix = "icecube2nd" if group is app else f"icecube2nd {group.info.name}"
    lines = [heading, *(f"{prefix} {example}" for example in examples)]
    options: dict[str, Any] = {"epilog": "\n".join(lines), "rich_help_panel": panel}
    group.command(name, **options)(command)


_add(
    "Events",
    simulation.simulate,
    "simulate store/ --events 2000 --seed 1",
    "simulate events.db --events 500 --format graphnet --fractions cascade=1",
)
_add(
    "Events",
    store.prepare,
    "prepare events.db store/",
    "prepare icecube-neutrinos/ store/ --batches 1-5",
    "prepare orca115/ masked/ --only-strings orca6",
)
_add("Events", store.inspect, "inspect store/", "inspect store/ --event 17 --verify")
_add("Events", store.export, "export store/ events.db")
_add(
    "Events",
    pictures.show,
    "show store/ 17 --directions results.parquet",
    "show store/ 17 --out event.html --line-fit",
)
_add(
    "Models",
    training.train,
    "train --recipe t_sim --tasks direction,energy --data store/ --out runs/first",
    "train --recipe t_sim --data store/ --out runs/first --resume",
)
_add(
    "Models",
    training.pretrain,
    "pretrain data/ --out runs/pretrained",
    "pretrain data/ --out runs/pretrained --model t_d32 --set stages.0.epochs=3",
)
_add(
    "Models",
    training.finetune,
    "finetune t_sim.simulated store/ --out runs/second --tasks direction,energy",
    "finetune runs/orca115 orca6/ --out runs/orca6 --method layer-wise",
)
_add(
    "Models",
    training.recipes,
    "recipes",
    "recipes t_sim --set stages.0.lr_max=1e-3 > mine.yaml",
)
_add(
    "Models",
    training.tune,
    "tune --recipe t_sim --data store/ --space space.yaml --out study/",
)
_add(
    "Models",
    calibration.calibrate,
    "calibrate runs/first",
    "calibrate --results results.parquet --truth store/ --out calibration.json",
)
_add(
    "Models",
    ensemble.import_weights,
    "import-weights checkpoints/ ensemble/",
    name="import-weights",
)
app.add_typer(ensemble.app, name="ensemble", rich_help_panel="Models")
_add(
    "Results",
    reconstruction.reconstruct,
    "reconstruct store/ --model t_sim.simulated --out results.parquet",
    "reconstruct events.db --ensemble ensemble/ --out events.db",
)
_add(
    "Results",
    evaluation.evaluate,
    "evaluate results.parquet --truth store/ --line-fit",
    "evaluate new=new.parquet old=old.parquet --truth store/ --out report/",
    "evaluate results.parquet --truth store/ --weight weight_atmospheric",
    "evaluate results.parquet --truth store/ --outliers 0.01 --leave-out-outliers",
)
_add(
    "Results",
    evaluation.compare_data,
    "compare-data data=data/ simulation/ --out comparison/",
    "compare-data data.parquet simulation.parquet --weight weight_atmospheric",
    name="compare-data",
)
_add(
    "Results",
    evaluation.robustness,
    "robustness store/ --model runs/first --out robustness/ --events 1000",
)
_add(
    "Results",
    pictures.skymap,
    "skymap results.parquet 17 --picture event_17.png",
    "skymap results.parquet 17 --time 2021-06-30T00:09:28.846 --levels 50,90",
)
_add("Lists", catalogue.detectors, "detectors", "detectors 'icecube*'")
_add("Lists", catalogue.tasks, "tasks", "tasks energy")
_add("Lists", catalogue.models, "models", "models 'b_*'")
_add(
    None,
    ensemble.fit,
    "fit ensemble/ runs/first runs/second",
    "fit ensemble/ runs/first runs/second --method best",
    group=ensemble.app,
)
_add(None, ensemble.show, "show ensemble/", group=ensemble.app)
