"""The limit of the resolution for directions of simulated events.

It is the maximum of the simulation's own likelihood, with known topology, for all
events of a store. For events with much light no fit of the same data is better on
average. For dim events the maximum is not the best answer: the mean over all
possibilities has a smaller opening angle on average, so a network can be better than
this limit. Shape letters: B events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import SPEED_OF_LIGHT, angles_to_unit_vector
from graphnet_icecube2nd.detector.ice import ICE
from graphnet_icecube2nd.detector.module import ICECUBE_DOM, Module
from graphnet_icecube2nd.detector.presets import build_detector, list_detectors
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.files import parse_json
from graphnet_icecube2nd.likelihood.event_pulses import EventPulses
from graphnet_icecube2nd.likelihood.max_likelihood import Maximum, find_maximum
from graphnet_icecube2nd.likelihood.photon_likelihood import (
    BEFORE,
    EventLikelihood,
    Seed,
)
from graphnet_icecube2nd.results.event_table import EventTable
from graphnet_icecube2nd.results.result_files import OK
from graphnet_icecube2nd.simulation.configuration import TOPOLOGIES, SimulationConfig
from graphnet_icecube2nd.simulation.detector import SimulatedDetector
from graphnet_icecube2nd.simulation.light import (
    muon_energy_after,
    muon_range,
    shower_light,
)
from graphnet_icecube2nd.simulation.production import VERSION
from graphnet_icecube2nd.simulation.rows import Array
from graphnet_icecube2nd.store.conversion import available_cores
from graphnet_icecube2nd.store.event_store import EventStore, view_event
from graphnet_icecube2nd.tasks.label import CASCADE_TOPOLOGIES

EFFORTS: dict[str, dict[str, int]] = {
    "full": {},
    "quick": {"directions": 48, "searched": 10, "refined": 1, "perturbed": 0},
}
# Fits of events brighter than this are slow and easy, so fewer are made.
BRIGHT_PULSES = 500
_FEWER = {"directions": 48, "searched": 6, "refined": 1, "perturbed": 0}
_GAIN = 0.5  # difference of log L that counts as another maximum
_NO_MAXIMUM = Maximum(
    seed=Seed.of(np.full(3, np.nan), np.nan, np.full(3, np.nan)),
    log_likelihood=np.nan,
    covariance_22=np.full((2, 2), np.nan),
    kappa=np.nan,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class LimitReport:
    """Result of `limit_events`."""

    table: EventTable  # directions of the events
    log_likelihood_B: Array  # (B,) at the maximum; NaN if there is none
    # (B,) whether only the search from the truth found the maximum; all False without
    # such a search.
    from_truth_B: NDArray[np.bool_]


def limit_events(
    store: EventStore,
    events: Sequence[int] | NDArray[np.int64] | None = None,
    *,
    from_truth: bool = True,
    topology: str | None = None,
    effort: str = "full",
    workers: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> LimitReport:
    """Find the maximum likelihood of simulated events.

    Muons lose the mean energy in this likelihood, without the showers of the
    simulation.

    Args:
        store: Store made by `simulate`.
        events: Indices of the events in the store; default: all.
        from_truth: Whether the search also starts at the truth, so that it does not
            miss the global maximum. This is right for a limit, not for a
            reconstruction.
        topology: Hypothesis for all events; default: the true topology of each. The
            difference of two log-likelihoods is the best score between two topologies.
        effort: Effort of the search: `full`, or `quick`, which takes a third of the
            time and misses more maxima without `from_truth`.
        workers: Number of processes; default: one per core. A script must call this
            function under `if __name__ == "__main__":`.
        on_progress: Function called with the number of events since the last call.

    Returns:
        Directions to the origin (of a muon, not of its neutrino). Their kappa comes
        from the curvature at the maximum and does not include other maxima, so it is
        too large for tracks. Vertices of starting tracks and cascades, and the visible
        energies of cascades.

    Raises:
        ValueError: The store was not simulated by this release, or with systematics,
            which the likelihood does not know; a topology or effort is unknown; or
            `from_truth` is combined with a topology.
        ImportError: scipy is not installed.
    """
    check_one_of("effort", effort, tuple(EFFORTS))
    if topology is not None:
        check_one_of("topology", topology, TOPOLOGIES)
        if from_truth:
            raise ValueError("a given topology needs from_truth=False")
    if configuration_of(store).systematics:
        raise ValueError(
            f"{store.path} was simulated with systematics: every event has its own "
            "ice, which the likelihood does not know; simulate it without"
        )
    if store.detector.vectors:
        raise ValueError(
            f"{store.path} has modules with several PMTs "
            f"({store.detector.name}), which the likelihood does not know; simulate "
            "modules with one PMT"
        )
    module = _module_of(store)
    if store.detector.medium != ICE and not any(
        f"modules {module.name!r}" in note for note in store.manifest.notes
    ):
        raise ValueError(
            f"{store.path} was simulated in water by another release, or with modules "
            f"that are not those of {store.detector.name!r} here ({module.name}); "
            "simulate it again"
        )
    numbers = np.arange(len(store)) if events is None else np.asarray(events, np.int64)
    workers = min(workers or available_cores(), max(1, len(numbers)))
    limit = partial(_limit, store, from_truth, topology, effort)
    rows: list[tuple[int, str, Maximum, bool, str]] = []
    with ExitStack() as stack:
        each: Any = map
        if workers > 1:
            spawn = get_context("spawn")  # each process uses one core
            pool = ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,))
            each = stack.enter_context(pool).map
        for row in each(limit, numbers.tolist()):
            rows.append(row)
            if on_progress is not None:
                on_progress(1)
    best = [maximum for _, _, maximum, *_ in rows]
    table = EventTable.of_directions(
        name="limit",
        event_id=np.array([event_id for event_id, *_ in rows], dtype=np.int64),
        direction_B3=np.array([maximum.direction for maximum in best]).reshape(-1, 3),
        kappa_B=np.array([maximum.kappa for maximum in best], dtype=np.float64),
        status_B=np.array([status for _, status, *_ in rows], dtype=np.str_),
        others=_particles([(maximum.seed, t) for *_, maximum, _, t in rows]),
    )
    return LimitReport(
        table=table,
        log_likelihood_B=np.array([maximum.log_likelihood for maximum in best]),
        from_truth_B=np.array([missed for *_, missed, _ in rows], dtype=bool),
    )


def configuration_of(store: EventStore) -> SimulationConfig:
    """Return the configuration of a store simulated by this release, or ValueError."""
    for note in store.manifest.notes:
        if store.manifest.kind == "simulation" and note.startswith("simulated with"):
            if f"version {VERSION}:" not in note:
                raise ValueError(
                    f"{store.path} was simulated by another release ({note[:60]}...); "
                    f"this one has version {VERSION} of the light"
                )
            return SimulationConfig.from_dict(
                parse_json(note[note.index("{") :], store.path, "its configuration")
            )
    raise ValueError(
        f"{store.path} was not simulated (it is from {store.manifest.kind}), so the "
        "likelihood of its events is not known; use a store made by simulate"
    )


def truth_seed(truth: dict[str, Any]) -> Seed:
    """Return the particles of a simulated event, as far as its truth gives them."""
    # Of the muon, if there is one.
    of = "muon_" if np.isfinite(truth["muon_zenith"]) else ""
    flight = -angles_to_unit_vector(truth[f"{of}zenith"], truth[f"{of}azimuth"]).numpy()
    vertex = np.array([truth[f"position_{axis}"] for axis in "xyz"])
    time, topology = float(truth["vertex_time"]), truth["topology"]
    if topology == "muon_bundle":
        along = BEFORE / 2
        sizes = {"muon": 300.0, "muons": max(truth["energy"] / 300.0, 1.0)}
        return _on_track(vertex, time, flight, along, **sizes)
    hadronic = np.array(truth["inelasticity"] * truth["energy"])
    hadrons = max(float(shower_light(hadronic)), 1.0)
    shine = max(float(truth["visible_energy"]), 1.0)
    if topology == "cascade":
        return Seed.of(vertex, time, flight, cascade=shine)
    if topology == "double_cascade":
        second = max(shine - hadrons, 1.0)
        return Seed.of(vertex, time, flight, cascade=hadrons, second=second)
    muon = np.array((1.0 - truth["inelasticity"]) * truth["energy"])
    # A point of the track near the detector that the muon reaches.
    along = float(np.clip(-vertex @ flight, 0.0, 0.5 * muon_range(muon)))
    left = max(float(muon_energy_after(muon, np.array(along))), 1.0)
    return _on_track(vertex, time, flight, along, muon=left, cascade=hadrons)


def _on_track(
    vertex: Array, time: float, flight: Array, along: float, **sizes: float
) -> Seed:
    place, when = vertex + along * flight, time + along / SPEED_OF_LIGHT
    return Seed.of(place, when, flight, back=min(along, BEFORE), **sizes)


def _limit(
    store: EventStore, from_truth: bool, topology: str | None, effort: str, number: int
) -> tuple[int, str, Maximum, bool, str]:
    """Return event_id, status, maximum, whether only the truth led to it, topology."""
    view = view_event(store, number)
    topology = topology or str(view.truth["topology"])
    if not view.truth["n_pulses"]:
        return view.event_id, "no pulses", _NO_MAXIMUM, False, topology
    config, modules = configuration_of(store), store.geometry
    # The efficiency changes the light, not the noise, which goes with the rde.
    modules = replace(modules, rde_S=modules.rde_S * config.dom_efficiency)
    noise = config.noise_rate / config.dom_efficiency
    config = replace(config, noise_rate=min(noise, 1e5))
    likelihood = EventLikelihood(
        EventPulses.read(store, np.array([number])),
        SimulatedDetector(
            modules,
            store.ice,
            substance=store.detector.substance,
            module=_module_of(store),
        ),
        config,
    )
    is_bright = view.truth["n_pulses"] > BRIGHT_PULSES
    settings = _FEWER if is_bright else EFFORTS[effort]
    best = find_maximum(likelihood, topology, **settings)  # type: ignore[arg-type]
    was_missed = False
    if from_truth:
        seed = truth_seed(view.truth)
        there = find_maximum(
            likelihood, topology, directions=0, perturbed=0, further_seeds=(seed,)
        )
        was_missed = there.log_likelihood > best.log_likelihood + _GAIN
        if there.log_likelihood > best.log_likelihood:
            best = there
    return view.event_id, OK, best, was_missed, topology


def _module_of(store: EventStore) -> Module:
    """Return the module of a store's detector; IceCube's if it is not known."""
    name = store.detector.name
    return build_detector(name).module if name in list_detectors() else ICECUBE_DOM


def _particles(found: Sequence[tuple[Seed, str]]) -> dict[str, Array]:
    """Return columns of vertices and visible energies, NaN where there is none."""
    names = ("vertex_x", "vertex_y", "vertex_z", "vertex_time", "visible_energy")
    values = np.full((len(found), len(names)), np.nan)
    for row, (seed, topology) in enumerate(found):
        if topology == "starting_track":
            values[row, :3] = (seed.place - seed.back[:, None] * seed.direction)[0]
            values[row, 3] = seed.time[0] - seed.back[0] / SPEED_OF_LIGHT
        elif topology in CASCADE_TOPOLOGIES:
            values[row, :3], values[row, 3] = seed.place[0], seed.time[0]
            second = seed.second[0] if topology == "double_cascade" else 0.0
            values[row, 4] = seed.cascade[0] + second
    return dict(zip(names, values.T, strict=True))
