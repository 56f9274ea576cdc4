"""Fit of an ensemble's weights on events with a true direction.

Shape letters: M members, B events.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.files import write_whole_folder
from graphnet_icecube2nd.inference.ensemble_file import FILE, EnsembleFile, save_member
from graphnet_icecube2nd.inference.inference_config import InferenceConfig
from graphnet_icecube2nd.inference.model_bundle import (
    ModelBundle,
    load_bundle,
    weights_place,
)
from graphnet_icecube2nd.inference.predictor import (
    event_reader,
    store_outputs,
)
from graphnet_icecube2nd.models.ensemble_model import EnsembleModel
from graphnet_icecube2nd.notices import Progress
from graphnet_icecube2nd.results.truth import EventTruth
from graphnet_icecube2nd.store.event_store import EventStore
from graphnet_icecube2nd.store.manifest import N_PULSES
from graphnet_icecube2nd.tasks.direction.calibration import even_and_odd
from graphnet_icecube2nd.tasks.direction.combination import (
    DENSITIES,
    DIRECTIONS,
    WEIGHTED,
    combine,
    fit_weights,
)
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.label import has_label
from graphnet_icecube2nd.tasks.task import FEWEST

LOGGER = logging.getLogger(__name__)
BEST = "best"
EQUAL = "equal"
FITTED = (WEIGHTED, DIRECTIONS, DENSITIES, BEST)
WAYS = (WEIGHTED, EQUAL, DIRECTIONS, DENSITIES)


@dataclass(frozen=True, kw_only=True)
class EnsembleFit:
    """Result of a fit of an ensemble's weights."""

    path: Path  # the ensemble's folder
    ensemble: EnsembleFile  # content of its YAML
    # Mean opening angle, rad, on the events of the fit: `weighted` (cross-fitted: each
    # half of the events with the weights of the other), `equal`, `directions`,
    # `densities`, and each member by name.
    angles: Mapping[str, float]
    num_events: int  # events of the fit


def fit_ensemble(
    members: Sequence[str | os.PathLike[str]],
    store: EventStore,
    out: str | os.PathLike[str],
    *,
    events: NDArray[np.int64] | None = None,
    method: str = WEIGHTED,
    options: InferenceConfig | None = None,
    name: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> EnsembleFit:
    """Fit an ensemble of trained models and save it in a folder of its own.

    Use events that no member was trained on. Events are read once for all members.
    Events without pulses or without a true direction are left out.

    Args:
        members: Two or more models, as `find_model` takes them: runs, files, packaged
            weights.
        store: Events with true directions.
        out: Folder of the ensemble, new or empty.
        events: Rows of the events in the store; None: all events.
        method: `weighted`, `directions`, `densities`, or `best`, which chooses among
            fitted weights, equal weights and unit vectors by the smallest mean opening
            angle.
        options: How events are read; default: the members' own options.
        name: Name of the ensemble; default: the folder's name.
        device: Device of the models, such as `cpu` or `cuda`.
        on_progress: Called with the numbers of new events and pulses.

    Raises:
        ValueError: There are fewer than two members, the folder is not empty, fewer
            than 100 events have pulses and a true direction, the method is unknown, or
            members read events differently or do not fit together.
    """
    out = Path(out)
    if len(members) < 2:
        raise ValueError(f"an ensemble needs two members or more, found {len(members)}")
    check_one_of("method", method, FITTED)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} must be new or empty: choose another folder")
    numbers = np.arange(len(store)) if events is None else np.asarray(events)
    length_B = store.whole_event_column(N_PULSES)[numbers]
    numbers = numbers[length_B > 0]
    truth = EventTruth.of(store, numbers)
    known_B = has_label(truth.direction_B3)
    truth, numbers = truth.with_directions(), numbers[known_B]
    if num_unknown := int((~known_B).sum()):
        LOGGER.info(
            f"{num_unknown:,} of {len(known_B):,} events have no "
            f"{truth.description(Direction())} and are left out"
        )
    if len(numbers) < FEWEST:
        raise ValueError(
            f"weights need {FEWEST} events with pulses and a true direction, found "
            f"{len(numbers)}"
        )
    trained = {
        name: load_bundle(member, calibration="none")
        for name, member in zip(_names(members), members, strict=True)
    }
    options = _checked_members(trained, options)
    models = [one.model.to(device) for one in trained.values()]
    outputs, _ = store_outputs(
        models,
        event_reader(store, options),
        numbers,
        store.whole_event_column(N_PULSES)[numbers],
        options,
        on_progress,
    )
    vectors_MB3 = np.stack([of_model[Direction.name] for of_model in outputs])
    fitted = fit_weights(vectors_MB3, truth.direction_B3)
    angles = {name: angle for name, angle in fitted.angles.items() if name in WAYS}
    angles[WEIGHTED] = _held_out(vectors_MB3, truth)
    for number, member in enumerate(trained):
        angles[member] = fitted.angles[f"member {number}"]
    # The product of densities has the direction of equal weights, but another kappa.
    best = min((WEIGHTED, EQUAL, DIRECTIONS), key=lambda way: angles[way])
    chosen = best if method == BEST else method
    weights = fitted.weights if chosen == WEIGHTED else [1.0] * len(models)
    chosen = WEIGHTED if chosen == EQUAL else chosen
    with write_whole_folder(out) as folder:
        copies = []
        for member, source, model, weight in zip(
            trained, members, models, weights, strict=True
        ):
            origin = {"from": str(weights_place(source).resolve())}
            copies.append(save_member(folder, member, model.to("cpu"), weight, origin))
        ensemble = EnsembleFile(
            name=name or out.name,
            members=tuple(copies),
            method=chosen,
            options=options,
            fitted_on={
                "store": store.path.name,
                "store_digest": store.manifest.digest(),
                "events_digest": sha256(truth.event_id.tobytes()).hexdigest(),
                "events": len(numbers),
                "mean_opening_angle_rad": {n: round(a, 6) for n, a in angles.items()},
            },
        )
        ensemble.save(folder)
    LOGGER.info(
        f"{out / FILE}: {len(copies)} members, {chosen}, from {len(numbers):,} events"
    )
    return EnsembleFit(
        path=out, ensemble=ensemble, angles=angles, num_events=len(numbers)
    )


def _checked_members(
    trained: Mapping[str, ModelBundle], options: InferenceConfig | None
) -> InferenceConfig:
    """Return how members read events; ValueError unless they fit together."""
    for name, one in trained.items():
        if isinstance(one.model, EnsembleModel):
            raise ValueError(f"{name} is an ensemble: give its members instead")
        if Direction.name not in one.model.task_map:
            raise ValueError(
                f"{name}: a member must have the task direction, found "
                f"{', '.join(one.model.task_map)}"
            )
    # This checks the members, and warns of differences, before events are read.
    EnsembleModel([one.model for one in trained.values()], names=list(trained))
    (first, one), *others = trained.items()
    for name, other in others:
        if options is None and other.options != one.options:
            raise ValueError(
                f"members must read events alike: {first} has {one.options}, {name} "
                f"has {other.options}. Give `options` (--max-pulses) for the ensemble"
            )
    return options or one.options


def _held_out(vectors_MB3: NDArray[Any], truth: EventTruth) -> float:
    """Return the cross-fitted mean opening angle of fitted weights, rad."""
    angle_B = np.empty(len(truth))
    for here_B in even_and_odd(len(truth)):
        fitted = fit_weights(vectors_MB3[:, ~here_B], truth.direction_B3[~here_B])
        vectors = combine(torch.from_numpy(vectors_MB3[:, here_B]), fitted.weights)
        angle_B[here_B] = opening_angle(vectors, truth.direction_B3[here_B]).numpy()
    return float(angle_B.mean())


def _names(members: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return a unique name for each member."""
    names: list[str] = []
    for member in members:
        first = Path(member).resolve().name.removesuffix(".safetensors")
        choices = (f"{first}_{n}" if n > 1 else first for n in count(1))
        names.append(next(n for n in choices if n not in (*names, *WAYS)))
    return names
