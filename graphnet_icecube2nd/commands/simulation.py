"""The command that makes simulated events."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from graphnet_icecube2nd.commands.options import option
from graphnet_icecube2nd.commands.show import counting, show_store

_physics = partial(option, panel="What is simulated")


def simulate(
    out: Annotated[
        Path, typer.Argument(help="The store; or, with --format, the file or folder.")
    ],
    events: Annotated[int, option("Number of events.")],
    seed: Annotated[int, option("Random seed; another gives other events.")] = 0,
    format: Annotated[
        str,
        option(
            "Format of OUT: store, kaggle (the competition's files), graphnet (SQLite "
            "if OUT ends in .db, else parquet)."
        ),
    ] = "store",
    detector: Annotated[
        str | None,
        option("The detector (see `icecube2nd detectors`). Default: IceCube-86."),
    ] = None,
    geometry: Annotated[
        Path | None,
        option(
            "Table of DOMs in place of IceCube-86's: CSV, parquet, Prometheus' .geo."
        ),
    ] = None,
    ice: Annotated[Path | None, option("Ice table in place of IceCube's.")] = None,
    fractions: Annotated[
        str | None,
        _physics(
            "Shares of topologies, as through_going_track=0.7,cascade=0.3; of "
            "through_going_track, starting_track, cascade, double_cascade, "
            "muon_bundle. Default: as the competition's data look."
        ),
    ] = None,
    energy_min: Annotated[
        float,
        _physics("Lowest neutrino energy, GeV (double cascades: 30 TeV to 3 PeV)."),
    ] = 100.0,
    energy_max: Annotated[float, _physics("Highest neutrino energy, GeV.")] = 1e6,
    spectral_index: Annotated[
        float, _physics("Energies follow E to minus this.")
    ] = 2.15,
    noise_rate: Annotated[float, _physics("Noise rate of a DOM of rde 1, Hz.")] = 440.0,
    time_jitter: Annotated[float, _physics("Time jitter of a pulse, ns.")] = 3.0,
    workers: Annotated[
        int | None, option("Processes. Default: one for each core.")
    ] = None,
) -> None:
    """Simulate events with known truth: tracks, cascades, muon bundles, noise.

    A simplified simulation, for development, tests and comparisons, not for physics
    results. The events do not depend on the number of processes. An interrupted
    simulation resumes when the command is run again.
    """
    from rich.console import Console

    from graphnet_icecube2nd.simulation.configuration import SimulationConfig
    from graphnet_icecube2nd.simulation.production import STORE
    from graphnet_icecube2nd.simulation.production import simulate as make
    from graphnet_icecube2nd.store.event_store import EventStore

    default = SimulationConfig().fractions
    config = SimulationConfig(
        fractions=default if fractions is None else parse_fractions(fractions),
        energy_range=(energy_min, energy_max),
        spectral_index=spectral_index,
        noise_rate=noise_rate,
        time_jitter=time_jitter,
    )
    with counting(events, "simulating") as on_progress:
        make(
            out,
            num_events=events,
            seed=seed,
            config=config,
            detector=detector,
            format=format,
            geometry=geometry,
            ice=ice,
            workers=workers,
            on_progress=on_progress,
        )
    if format == STORE:
        show_store(Console(markup=False), EventStore(out))
    else:
        print(f"{out}: {events:,} events")


def parse_fractions(text: str) -> dict[str, float]:
    """Return shares by topology, of `name=share,name=share`; else ValueError."""
    shares: dict[str, float] = {}
    for piece in text.split(","):
        name, equals, share = piece.partition("=")
        try:
            if not equals or name.strip() in shares:
                raise ValueError
            shares[name.strip()] = float(share)
        except ValueError:
            raise ValueError(
                "fractions must be as cascade=0.7,muon_bundle=0.3, each name once; "
                f"got {piece.strip()!r}"
            ) from None
    return shares
