"""The command that reconstructs directions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

SEEING = "How the model sees events"


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=SEEING)


def reconstruct(
    events: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A store, or what `icecube2nd prepare` reads: the competition's "
            "folder, GraphNeT's files, parquet, HDF5.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Weights of the package (t_sim.simulated), a run's folder, a "
            ".safetensors file, or with --weights a model's name."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="The table: .parquet, .csv, .db (SQLite), submission.csv."),
    ],
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
        str | None, typer.Option(help="train or test, of the competition's folder.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps; auto chooses.")] = "auto",
    max_pulses: Annotated[
        int, _option("L, what longer events are cut to; 192 to 3072 are usual.")
    ] = 192,
    selection: Annotated[
        str, _option("Which pulses are kept then: uniform, hlc_first, first.")
    ] = "uniform",
    seed: Annotated[int, _option("Of that selection.")] = 0,
    batch_size: Annotated[int, _option("Events at once.")] = 64,
    precision: Annotated[str, _option("float32 or bfloat16.")] = "float32",
    published_features: Annotated[
        bool,
        _option(
            "Efficiency and ice as the competition's code had them, for its weights.",
            "--published-features",
        ),
    ] = False,
) -> None:
    """Write a table of directions: every event once, in the order of the store.

    Killed in the middle, the same command goes on, and ends with the same file.
    """
    import torch
    from rich.console import Console

    from graphnet_icecube2nd.commands.show import counting
    from graphnet_icecube2nd.models.pretrained import find_model
    from graphnet_icecube2nd.reconstruction.network import NetworkOptions
    from graphnet_icecube2nd.reconstruction.reconstruct import reconstruct as run
    from graphnet_icecube2nd.reconstruction.result_files import format_of
    from graphnet_icecube2nd.store.event_store import EventStore
    from graphnet_icecube2nd.store.manifest import MANIFEST
    from graphnet_icecube2nd.store.prepare import prepare

    format_of(out, format)  # before any work
    options = NetworkOptions(
        max_pulses=max_pulses,
        selection=selection,
        seed=seed,
        batch_size=batch_size,
        precision=precision,
        published_features=published_features,
    )
    network = find_model(model, weights)
    folder, is_ours = events, False
    if not (events / MANIFEST).is_file():
        folder, is_ours = out.with_name(f".{out.name}.store"), True
        if not (folder / MANIFEST).is_file():
            print(f"reading {events} ...")
            prepare(events, folder, which=which)
    store = EventStore(folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with counting(Console(stderr=True), len(store), "reconstructing") as on_progress:
        report = run(
            store,
            network,
            out,
            format=format,
            options=options,
            device=device,
            on_progress=on_progress,
        )
    if is_ours:
        shutil.rmtree(folder)
    statuses = ", ".join(f"{name} {n:,}" for name, n in report.statuses.items())
    print(
        f"{report.path}: {report.num_events:,} events ({statuses}) in "
        f"{report.seconds:.1f} s"
    )
    if report.num_resumed:
        print(f"  {report.num_resumed:,} of them from an earlier call")
