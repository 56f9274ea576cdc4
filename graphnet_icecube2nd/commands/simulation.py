"""The command that makes simulated events."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from graphnet_icecube2nd.commands import completion
from graphnet_icecube2nd.commands.options import option
from graphnet_icecube2nd.commands.show import counting, show_store

_physics = partial(option, panel="Physics")


def simulate(
    out: Annotated[
        Path,
        typer.Argument(help="Event store to write; with --format, a file or folder."),
    ],
    events: Annotated[int, option("Number of events.")],
    seed: Annotated[int, option("Random seed of the events.")] = 0,
    format: Annotated[
        str,
        option(
            "Format of OUT: store; kaggle, the competition's files; graphnet, SQLite "
            "if OUT ends in .db, else parquet."
        ),
    ] = "store",
    detector: Annotated[
        str | None,
        option(
            "Detector (see `icecube2nd detectors`). Default: IceCube-86.",
            complete=completion.detector,
        ),
    ] = None,
    geometry: Annotated[
        Path | None,
        option(
            "Table of DOMs: CSV, parquet, detx or Prometheus' .geo. Default: the "
            "detector's."
        ),
    ] = None,
    ice: Annotated[
        Path | None, option("Table of ice properties. Default: IceCube's.")
    ] = None,
    fractions: Annotated[
        str | None,
        _physics(
            "Shares of the topologies through_going_track, starting_track, cascade, "
            "double_cascade, muon_bundle, such as through_going_track=0.7,cascade=0.3. "
            "Default: shares like those of the competition's data; in ORCA no double "
            "cascades."
        ),
    ] = None,
    energy_min: Annotated[
        float | None,
        _physics(
            "Lowest neutrino energy, GeV. Double cascades always have 30 TeV to 3 PeV. "
            "Default: 100; for ORCA 1."
        ),
    ] = None,
    energy_max: Annotated[
        float | None,
        _physics("Highest neutrino energy, GeV. Default: 1e6; for ORCA 1000."),
    ] = None,
    spectral_index: Annotated[
        float | None,
        _physics(
            "Spectral index g of the energy spectrum, which is E^-g. Default: 2.15; "
            "in water 1.4."
        ),
    ] = None,
    noise_rate: Annotated[
        float | None,
        _physics(
            "Noise rate of a DOM with rde 1, or of each PMT if a DOM has several, Hz. "
            "Default: that of the modules, 440 for IceCube, 7000 for KM3NeT."
        ),
    ] = None,
    time_jitter: Annotated[
        float | None,
        _physics(
            "Standard deviation of a pulse's time jitter, ns. Default: 3; for modules "
            "of several PMTs 2."
        ),
    ] = None,
    dom_efficiency: Annotated[
        float, _physics("Factor of the efficiency of all DOMs.")
    ] = 1.0,
    systematics: Annotated[
        bool,
        _physics(
            "Draw scattering, absorption and DOM efficiency within 10%, and the hole "
            "ice, for each event; the truth has the drawn values."
        ),
    ] = False,
    workers: Annotated[
        int | None, option("Number of processes. Default: one per core.")
    ] = None,
) -> None:
    """Simulate events with known truth: tracks, cascades, muon bundles, noise.

    The simulation is simplified: use it for development, tests and comparisons, not
    for physics results. The events do not depend on the number of processes. An
    interrupted simulation resumes when the command is run again.
    """
    from rich.console import Console

    from graphnet_icecube2nd.detector.presets import as_detector
    from graphnet_icecube2nd.simulation.configuration import SimulationConfig
    from graphnet_icecube2nd.simulation.production import STORE
    from graphnet_icecube2nd.simulation.production import simulate as make
    from graphnet_icecube2nd.store.event_store import EventStore

    named = None if detector is None else as_detector(detector)
    lowest, highest = SimulationConfig.of(named).energy_range
    given: dict[str, Any] = {
        "fractions": None if fractions is None else parse_fractions(fractions),
        "energy_range": (
            lowest if energy_min is None else energy_min,
            highest if energy_max is None else energy_max,
        ),
        "spectral_index": spectral_index,
        "noise_rate": noise_rate,
        "time_jitter": time_jitter,
        "dom_efficiency": dom_efficiency,
        "systematics": systematics,
    }
    config = SimulationConfig.of(
        named, **{name: value for name, value in given.items() if value is not None}
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
    """Return shares by topology from a text such as `cascade=0.7,muon_bundle=0.3`.

    Raises:
        ValueError: The text has another form, or names a topology twice.
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
                "--fractions must be TOPOLOGY=SHARE pairs such as "
                f"cascade=0.7,muon_bundle=0.3, each once, found {piece.strip()!r}"
            ) from None
    return shares
