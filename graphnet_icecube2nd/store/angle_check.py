"""Check of the angle convention of a source, before it is converted.

A pulse map says whether angles point to the origin or along the flight. Not all files
keep to this, so the convention is also inferred from the pulses of the first events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import SENSOR_ID, TIME, X, Y, Z
from graphnet_icecube2nd.detector.angles import (
    UNDECIDED,
    AngleEvidence,
    infer_angle_convention,
)
from graphnet_icecube2nd.detector.geometry import DetectorGeometry
from graphnet_icecube2nd.detector.pulse_map import ANGLE_CONVENTIONS, PulseMap
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.events.features import read_quantities
from graphnet_icecube2nd.store.readers.source import EventChunk, Source
from graphnet_icecube2nd.tasks.label import POSITION_COLUMNS

MAX_EVENTS = 1000
MAX_PULSES = 2**17
# Pulse maps whose files differ in their angle convention.
UNSETTLED = ("prometheus",)


def settle_angles(source: Source, angles: str | None) -> Source:
    """Return the source with the angle convention settled in its pulse map.

    Args:
        source: The source.
        angles: Convention given by the user, `origin` or `flight`, or None.

    Raises:
        ValueError: Files of this format differ, and neither the user nor the pulses
            decide.
    """
    if angles is not None:
        check_one_of("angles", angles, ANGLE_CONVENTIONS)
    said = angles or source.pulse_map.labels.angles
    settled = _with_angles(source, said)
    evidence = _ask_pulses(source)
    if evidence is None:
        return settled
    found = (
        f"{evidence.num_events} events, mean cosine {evidence.mean_cosine:+.2f} +- "
        f"{evidence.standard_error:.2f}"
    )
    if angles is None and source.pulse_map.name in UNSETTLED:
        if evidence.convention == UNDECIDED:
            labels = source.pulse_map.labels
            raise ValueError(
                f"{source.parts[0].name}: it is not known whether {labels.zenith} and "
                f"{labels.azimuth} point to where a particle came from (origin) or to "
                "where it goes (flight). Files of this format differ, and the pulses "
                f"do not decide ({found}). Give --angles origin or --angles flight "
                "(angles='origin' or angles='flight')"
            )
        note = f"angles point to the {evidence.convention}, inferred from the pulses"
        return _noted(_with_angles(source, evidence.convention), f"{note} ({found})")
    if evidence.convention not in (UNDECIDED, said):
        return _noted(
            settled,
            f"angles are read with the convention {said}, but the pulses indicate "
            f"{evidence.convention} ({found}); check the option angles",
        )
    return settled


def _with_angles(source: Source, angles: str) -> Source:
    labels = replace(source.pulse_map.labels, angles=angles)
    return replace(source, pulse_map=replace(source.pulse_map, labels=labels))


def _noted(source: Source, note: str) -> Source:
    return replace(source, notes=(*source.notes, note))


def _ask_pulses(source: Source) -> AngleEvidence | None:
    """Return the evidence of the first events, or None if they have none."""
    geometry = source.modules()
    pieces: list[tuple[Tensor, ...]] = []
    num_events = 0
    for part in source.parts:
        for chunk in islice(part.chunks(MAX_PULSES), 1):
            piece = _arrays(chunk, source.pulse_map, geometry)
            if piece is None:
                return None
            pieces.append(piece)
            num_events += len(chunk.event_id)
        if num_events >= MAX_EVENTS:
            break
    if not pieces:
        return None
    position, time, length, zenith, azimuth, vertex = (
        torch.cat(parts) for parts in zip(*pieces, strict=True)
    )
    offsets = torch.nn.functional.pad(length.cumsum(0), (1, 0))[: MAX_EVENTS + 1]
    has_vertex = bool(vertex.isfinite().all())
    try:
        return infer_angle_convention(
            position,
            time,
            offsets,
            zenith[:MAX_EVENTS],
            azimuth[:MAX_EVENTS],
            vertex[:MAX_EVENTS] if has_vertex else None,
        )
    except ValueError:  # too few pulses
        return None


def _arrays(
    chunk: EventChunk, pulse_map: PulseMap, geometry: DetectorGeometry
) -> tuple[Tensor, ...] | None:
    """Return position, time, length, zenith, azimuth and vertex (NaN if unknown)."""
    if not {pulse_map.labels.zenith, pulse_map.labels.azimuth} <= chunk.truth.keys():
        return None
    try:
        raw = read_quantities(
            chunk.columns, int(chunk.offsets[-1]), pulse_map, geometry
        )
        if {X, Y, Z} <= raw.keys():
            position = torch.stack([raw[X], raw[Y], raw[Z]], dim=1)
        else:
            position = geometry.lookup(raw[SENSOR_ID].nan_to_num(-1).long())
        angles = _numbers(
            chunk.truth, [pulse_map.labels.zenith, pulse_map.labels.azimuth]
        )
    except (ValueError, TypeError):
        return None  # the conversion raises the error, with its position
    known_names = (v for v in POSITION_COLUMNS if set(v) <= chunk.truth.keys())
    names = next(known_names, None)
    if names is None:
        vertex = torch.full((len(angles), 3), torch.nan, dtype=torch.float64)
    else:
        vertex = _numbers(chunk.truth, names)
    length = torch.from_numpy(np.diff(chunk.offsets).astype(np.int64))
    zenith, azimuth = angles.T
    # NaN and fillers are left out.
    known_B = (zenith >= 0) & (zenith <= torch.pi) & azimuth.isfinite()
    known_T = known_B.repeat_interleave(length)
    return (
        position[known_T],
        raw[TIME][known_T],
        length[known_B],
        zenith[known_B],
        azimuth[known_B],
        vertex[known_B],
    )


def _numbers(columns: Mapping[str, Any], names: Any) -> Tensor:
    arrays = [np.asarray(columns[name], dtype=np.float64) for name in names]
    return torch.from_numpy(np.stack(arrays, axis=1))
