"""The command that makes simulated events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WHAT = "What is simulated"


def simulate(
    out: Annotated[
        Path, typer.Argument(help="The store; or, with --format, what it is to be.")
    ],
    events: Annotated[int, typer.Option(help="How many events.")],
    seed: Annotated[int, typer.Option(help="Another seed gives other events.")] = 0,
    format: Annotated[
        str,
        typer.Option(
            help="store, kaggle (the competition's files), graphnet (SQLite if OUT "
            "ends in .db, else parquet)."
        ),
    ] = "store",
    detector: Annotated[
        str | None,
        typer.Option(
            help="The detector (see `icecube2nd detectors`). Default: IceCube-86."
        ),
    ] = None,
    geometry: Annotated[
        Path | None, typer.Option(help="csv of DOMs in place of IceCube-86's.")
    ] = None,
    ice: Annotated[
        Path | None, typer.Option(help="Ice table in place of IceCube's.")
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            help="Shares of topologies, as through_going_track=0.7,cascade=0.3; of "
            "through_going_track, starting_track, cascade, double_cascade, "
            "muon_bundle. Default: as the competition's data look.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    energy_min: Annotated[
        float,
        typer.Option(
            help="Lowest neutrino energy, GeV (double cascades: 30 TeV to 3 PeV).",
            rich_help_panel=WHAT,
        ),
    ] = 100.0,
    energy_max: Annotated[
        float, typer.Option(help="Highest neutrino energy, GeV.", rich_help_panel=WHAT)
    ] = 1e6,
    spectral_index: Annotated[
        float,
        typer.Option(help="Energies follow E to minus this.", rich_help_panel=WHAT),
    ] = 2.15,
    noise_rate: Annotated[
        float, typer.Option(help="Noise of a DOM of rde 1, Hz.", rich_help_panel=WHAT)
    ] = 440.0,
    time_jitter: Annotated[
        float, typer.Option(help="Of a pulse, ns.", rich_help_panel=WHAT)
    ] = 3.0,
    workers: Annotated[
        int | None, typer.Option(help="Processes. Default: one a core.")
    ] = None,
) -> None:
    """Simulate events with known truth: tracks, cascades, muon bundles, noise.

    A simplified simulation, for development, tests and comparisons, not for physics
    results. The same events whatever the number of processes; killed in the middle,
    the same command goes on.
    """
    from rich.console import Console

    from graphnet_icecube2nd.commands.show import counting, show_store
    from graphnet_icecube2nd.simulation.configuration import SimulationConfig
    from graphnet_icecube2nd.simulation.production import STORE
    from graphnet_icecube2nd.simulation.production import simulate as make
    from graphnet_icecube2nd.store.event_store import EventStore

    shares = SimulationConfig().fractions if fractions is None else None
    config = SimulationConfig(
        fractions=shares or parse_fractions(fractions or ""),
        energy_range=(energy_min, energy_max),
        spectral_index=spectral_index,
        noise_rate=noise_rate,
        time_jitter=time_jitter,
    )
    with counting(Console(stderr=True), events, "simulating") as on_progress:
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
    """Return shares by topology, of `name=share,name=share`.

    Raises:
        ValueError: The text is of another form.
    """
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
