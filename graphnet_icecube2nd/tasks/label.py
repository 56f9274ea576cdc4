"""Labels: truth columns of a file as training targets of tasks.

Only this module distinguishes origin from flight, knows the names of truth columns in
other packages, and turns impossible truth (fillers, NaN, values out of range) into NaN,
which means that an event has no such label.

A label is a quantity by name: `direction`, `energy`, `track`. Any other name is the
name of a column, used unchanged. Shape letter: B events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    TIME_ORIGIN,
    TensorLike,
    angles_to_unit_vector,
)
from graphnet_icecube2nd.detector.detector import DetectorLabels
from graphnet_icecube2nd.detector.pulse_map import ANGLE_CONVENTIONS, LabelColumns

Array = NDArray[np.float64]

DIRECTION, ENERGY, TRACK = "direction", "energy", "track"
VISIBLE_ENERGY, INELASTICITY = "visible_energy", "inelasticity"
VISIBLE_INELASTICITY = "visible_inelasticity"  # also its column in NuBench's files
NEUTRINO, VERTEX = "neutrino", "vertex"
ANGLE_PRECISION = 1e-3  # rad, tolerance for rounding at the ends of the range
# Columns by their names in files; the first that exists is used.
ENERGY_COLUMNS = (
    *("energy", "injection_energy", "initial_state_energy"),
    *("true_energy", "true_E", "energy_true"),
)
VISIBLE_ENERGY_COLUMNS = (
    *("visible_energy", "deposited_energy", "GNLabelEnergyDepositedTotal"),
)
INELASTICITY_COLUMNS = ("inelasticity", "bjorken_y", VISIBLE_INELASTICITY)
TOPOLOGY = "topology"
TRACK_TOPOLOGIES = ("through_going_track", "starting_track", "muon_bundle")
CASCADE_TOPOLOGIES = ("cascade", "double_cascade")
# PDG code of the primary; interaction: 1 charged current, 2 neutral current.
INTERACTION_COLUMNS = (
    ("pid", "interaction_type"),
    ("initial_state_type", "interaction"),
    ("injection_type", "injection_interaction_type"),
    ("pdgid", "is_cc_flag"),
    ("true_pdgid", "is_cc_flag"),  # GraphNeT's converter of KM3NeT
)
# Decay of the tau of charged currents of tau neutrinos, by GraphNeT's codes of KM3NeT.
TAU_TOPOLOGY, TAU_WITHOUT_MUON, TAU_TO_MUON = "tau_topology", 1, 2
MUON, MUON_NEUTRINO, TAU_NEUTRINO = 13, 14, 16
PROTON, NUCLEI = 2212, 10**9  # nuclei have codes above this one
ELECTRON_NEUTRINO = 12
NEUTRINOS = (ELECTRON_NEUTRINO, MUON_NEUTRINO, TAU_NEUTRINO)
MUON_TOPOLOGIES = ("muon_bundle",)
PASSING_TOPOLOGIES = ("through_going_track", *MUON_TOPOLOGIES)  # vertex far outside
ANY_TRACK = "track"  # a track of which it is not known where it starts
TOPOLOGIES = (*TRACK_TOPOLOGIES[:2], *CASCADE_TOPOLOGIES, *MUON_TOPOLOGIES)
TOPOLOGY_CODES = (*TOPOLOGIES, ANY_TRACK)  # values 0, 1, ... of the label
# Distance from the detector, m, beyond which a vertex is that of a passing event, if
# there is no topology.
FARTHEST_VERTEX = 500.0
# Position of the interaction, m, and its time, ns.
POSITION_COLUMNS = (
    ("injection_position_x", "injection_position_y", "injection_position_z"),
    ("position_x", "position_y", "position_z"),
    ("initial_state_x", "initial_state_y", "initial_state_z"),
    ("true_pos_x", "true_pos_y", "true_pos_z"),
    ("vx", "vy", "vz"),
)
VERTEX_TIME_COLUMNS = ("interaction_time", "vertex_time")


@dataclass(frozen=True, kw_only=True)
class Label:
    """Definition of one label."""

    # Possible sets of columns, the best first.
    columns: Callable[[LabelColumns], Sequence[tuple[str, ...]]]
    # Computes the label, (B,) or (B, size), from those columns, (B,) each, by name.
    make: Callable[[Mapping[str, NDArray[Any]], LabelColumns], Array]
    description: str  # required columns, for messages
    optional: tuple[str, ...] = ()  # columns that `make` uses if there are any
    size: int = 1  # numbers of each event


def flip_to_origin(direction: Tensor, angles: str) -> Tensor:
    """Return directions, (..., 3), that point to where the neutrino came from.

    `angles` is the convention of their file, `origin` or `flight`; ValueError
    otherwise. The function is its own inverse: it also turns origin directions into
    those of a file.
    """
    if angles not in ANGLE_CONVENTIONS:
        raise ValueError(
            f"angles must be {' or '.join(ANGLE_CONVENTIONS)}, got {angles!r}"
        )
    return -direction if angles == "flight" else direction


def origin_direction(zenith: TensorLike, azimuth: TensorLike, angles: str) -> Tensor:
    """Return unit vectors to the origin, (..., 3) float64; NaN for impossible angles.

    `angles` is their convention: `origin` or `flight`.
    """
    # A copy, because columns of files are read-only.
    zenith, azimuth = np.array(zenith, np.float64), np.array(azimuth, np.float64)
    good = torch.from_numpy(np.asarray(possible_angles(zenith, azimuth)))
    direction = flip_to_origin(angles_to_unit_vector(zenith, azimuth), angles)
    return direction.where(good[..., None], torch.nan)


def possible_angles(zenith: NDArray[Any], azimuth: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether angles are those of a direction, (...).

    Zenith must be within 0 to pi and azimuth within 2 pi of 0, in rad, up to rounding.
    """
    possible: NDArray[np.bool_] = (
        (zenith >= -ANGLE_PRECISION)
        & (zenith <= math.pi + ANGLE_PRECISION)
        & (np.abs(azimuth) <= 2 * math.pi + ANGLE_PRECISION)
    )
    return possible


def check_radians(
    angle_B: NDArray[Any], column: str, event_id: NDArray[Any], where: str
) -> None:
    """Raise ValueError if an angle is above 2 pi (degrees), or not a number.

    Other impossible angles give no label and no error. `where` names the source of the
    angles.
    """
    try:
        value_B = np.asarray(angle_B, np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: {column} must be numbers in rad, found {angle_B.dtype}"
        ) from None
    high_B = value_B > 2 * math.pi + ANGLE_PRECISION
    if high_B.any():
        row = int(high_B.argmax())
        raise ValueError(
            f"{where}, event {event_id[row]}: {column} must be in rad (zenith 0 to pi, "
            f"azimuth 0 to 2 pi), found {value_B[row]:g}; convert degrees to radians "
            "(numpy.radians)"
        )


def _direction(columns: Mapping[str, NDArray[Any]], labels: LabelColumns) -> Array:
    azimuth_B, zenith_B = columns.values()
    direction_B3: Array = origin_direction(zenith_B, azimuth_B, labels.angles).numpy()
    return direction_B3


def _energy(columns: Mapping[str, NDArray[Any]], labels: LabelColumns) -> Array:
    energy_B = _first(columns)
    good_B = np.isfinite(energy_B) & (energy_B > 0)
    return np.where(good_B, energy_B, np.nan)


def _track(columns: Mapping[str, NDArray[Any]], labels: LabelColumns) -> Array:
    if TOPOLOGY in columns:
        topology_B = np.asarray(columns[TOPOLOGY]).astype(np.str_)
        is_track_B = np.isin(topology_B, (*TRACK_TOPOLOGIES, ANY_TRACK))
        known_B = is_track_B | np.isin(topology_B, CASCADE_TOPOLOGIES)
        return _yes_or_no(is_track_B, known_B)
    pdg_B, interaction_B = _interaction(columns)
    neutrino_B = np.isin(pdg_B, NEUTRINOS)
    is_track_B = _makes_muon(columns, pdg_B, interaction_B) | (pdg_B == MUON)
    known_B = (neutrino_B & np.isin(interaction_B, (0, 1, 2))) | (pdg_B == MUON)
    return _yes_or_no(is_track_B, known_B)


def _interaction(columns: Mapping[str, NDArray[Any]]) -> tuple[Array, Array]:
    """Return absolute PDG code and interaction, (B,) each."""
    names = next(c for c in INTERACTION_COLUMNS if set(c) <= set(columns))
    pdg_B, interaction_B = (np.asarray(columns[name], np.float64) for name in names)
    return np.abs(pdg_B), interaction_B


def _makes_muon(
    columns: Mapping[str, NDArray[Any]], pdg_B: Array, interaction_B: Array
) -> NDArray[np.bool_]:
    """Return which neutrinos make a muon, at once or by the decay of a tau, (B,)."""
    is_muon_B = pdg_B == MUON_NEUTRINO
    if TAU_TOPOLOGY in columns:
        decays_B = np.asarray(columns[TAU_TOPOLOGY], np.float64) == TAU_TO_MUON
        is_muon_B |= (pdg_B == TAU_NEUTRINO) & decays_B
    result: NDArray[np.bool_] = is_muon_B & (interaction_B == 1)
    return result


def _neutrino(columns: Mapping[str, NDArray[Any]], labels: LabelColumns) -> Array:
    (value_B,) = columns.values()
    if TOPOLOGY in columns:
        topology_B = np.asarray(value_B).astype(np.str_)
        is_muon_B = np.isin(topology_B, MUON_TOPOLOGIES)
        known_B = np.isin(topology_B, TOPOLOGY_CODES)
    else:
        pdg_B = np.abs(np.asarray(value_B, np.float64))
        is_muon_B = _from_air_shower(pdg_B)
        known_B = np.isin(pdg_B, NEUTRINOS) | is_muon_B
    return _yes_or_no(~is_muon_B, known_B)


def _yes_or_no(is_yes_B: NDArray[np.bool_], known_B: NDArray[np.bool_]) -> Array:
    """Return 1 for yes and 0 for no, (B,); NaN if it is not known."""
    return np.where(known_B, is_yes_B.astype(np.float64), np.nan)


def _inelasticity(columns: Mapping[str, NDArray[Any]], labels: LabelColumns) -> Array:
    y_B = _first(columns)
    return np.where((y_B >= 0) & (y_B <= 1), y_B, np.nan)


def _vertex(columns: Mapping[str, NDArray[Any]], labels: LabelColumns) -> Array:
    """Return x, y, z [m], time [ns] (0 if unknown), and whether it is known, (B, 5)."""
    given = {name: np.asarray(columns[name]) for name in columns}
    names = next(names for names in POSITION_COLUMNS if set(names) <= set(given))
    position_B3 = np.stack([given[n].astype(np.float64) for n in names], axis=1)
    # GraphNeT fills the truth of events of noise with -1.
    known_B = np.isfinite(position_B3).all(axis=1) & (position_B3 != -1).any(axis=1)
    if TOPOLOGY in given:
        known_B &= ~np.isin(given[TOPOLOGY].astype(np.str_), PASSING_TOPOLOGIES)
    else:
        inside_B = _inside(position_B3, labels, FARTHEST_VERTEX)
        known_B &= True if inside_B is None else inside_B
    time_B = np.full(len(known_B), np.nan)
    for name in VERTEX_TIME_COLUMNS:
        if name in given:
            time_B = given[name].astype(np.float64)
            time_B = time_B - np.asarray(given.get(TIME_ORIGIN, 0), np.float64)
            break
    has_time_B = np.isfinite(time_B)
    time_B = np.where(has_time_B, time_B, 0.0)
    vertex_B5 = np.column_stack([position_B3, time_B, has_time_B])
    return np.where(known_B[:, None], vertex_B5, np.nan)


def _topology(columns: Mapping[str, NDArray[Any]], labels: LabelColumns) -> Array:
    """Return the index in `TOPOLOGY_CODES`, (B,)."""
    if TOPOLOGY in columns:
        name_B = np.asarray(columns[TOPOLOGY]).astype(np.str_)
    else:
        pdg_B, interaction_B = _interaction(columns)
        charged_B, neutral_B = interaction_B == 1, np.isin(interaction_B, (0, 2))
        name_B = np.full(len(pdg_B), "", "U32")
        name_B[np.isin(pdg_B, NEUTRINOS) & neutral_B] = "cascade"
        name_B[(pdg_B == ELECTRON_NEUTRINO) & charged_B] = "cascade"
        name_B[_from_air_shower(pdg_B)] = MUON_TOPOLOGIES[0]
        is_muon_B = _makes_muon(columns, pdg_B, interaction_B)
        name_B[is_muon_B] = ANY_TRACK
        places = [n for n in POSITION_COLUMNS if set(n) <= set(columns)]
        if places:
            position_B3 = np.stack([columns[n] for n in places[0]], 1).astype(float)
            inside_B = _inside(position_B3, labels)
            if inside_B is not None:
                through, starting = TRACK_TOPOLOGIES[:2]
                start_B = np.where(inside_B, starting, through)
                known_B = is_muon_B & np.isfinite(position_B3).all(axis=1)
                name_B = np.where(known_B, start_B, name_B)
    code_B = np.full(len(name_B), np.nan)
    for code, name in enumerate(TOPOLOGY_CODES):
        code_B[name_B == name] = code
    return code_B


def _check_text(topology_B: NDArray[Any]) -> None:
    """Raise ValueError if topologies are numbers; a column without values is none."""
    if topology_B.dtype.kind in "iuf" and np.isfinite(topology_B).any():
        row = int(np.isfinite(topology_B).argmax())
        raise ValueError(
            f"column {TOPOLOGY} of the truth must be text ({', '.join(TOPOLOGY_CODES)})"
            f", found the number {topology_B[row]:g} in row {row}. Rename the column "
            "if it is a PDG code (pid) or something else"
        )


def _inside(
    position_B3: Array, labels: LabelColumns, margin: float = 0.0
) -> NDArray[np.bool_] | None:
    """Return which positions of a file are in the detector, (B,); None if unknown."""
    if not isinstance(labels, DetectorLabels) or labels.modules is None:
        return None
    return labels.modules.encloses(position_B3 - labels.origin, margin)


def _from_air_shower(pdg_B: Array) -> NDArray[np.bool_]:
    """Return whether a primary, by its absolute PDG code, is of cosmic rays, (B,)."""
    return np.isin(pdg_B, (MUON, PROTON)) | (pdg_B >= NUCLEI)


def _first(columns: Mapping[str, NDArray[Any]]) -> Array:
    """Return the first column as numbers, (B,)."""
    return np.asarray(next(iter(columns.values())), np.float64)


LABELS: dict[str, Label] = {
    DIRECTION: Label(
        columns=lambda labels: [(labels.azimuth, labels.zenith)],
        make=_direction,
        description="azimuth (within 2 pi of 0) and zenith (0 to pi), rad",
        size=3,
    ),
    ENERGY: Label(
        columns=lambda labels: [(name,) for name in ENERGY_COLUMNS],
        make=_energy,
        description="energy above 0, GeV",
    ),
    TRACK: Label(
        columns=lambda labels: [(TOPOLOGY,), *INTERACTION_COLUMNS],
        make=_track,
        optional=(TAU_TOPOLOGY,),
        description="topology, or PDG code and interaction (1 CC, 2 NC)",
    ),
    NEUTRINO: Label(
        columns=lambda labels: [(TOPOLOGY,), *(c[:1] for c in INTERACTION_COLUMNS)],
        make=_neutrino,
        description="topology, or PDG code of the primary",
    ),
    VISIBLE_ENERGY: Label(
        columns=lambda labels: [(name,) for name in VISIBLE_ENERGY_COLUMNS],
        make=_energy,
        description="visible or deposited energy above 0, GeV",
    ),
    INELASTICITY: Label(
        columns=lambda labels: [(name,) for name in INELASTICITY_COLUMNS],
        make=_inelasticity,
        description="inelasticity, 0 to 1",
    ),
    VISIBLE_INELASTICITY: Label(
        columns=lambda labels: [(VISIBLE_INELASTICITY,)],
        make=_inelasticity,
        description="visible inelasticity, 0 to 1",
    ),
    VERTEX: Label(
        columns=lambda labels: POSITION_COLUMNS,
        make=_vertex,
        description="position of an interaction in or near the detector, m",
        optional=(*VERTEX_TIME_COLUMNS, TIME_ORIGIN, TOPOLOGY),
        size=5,
    ),
    TOPOLOGY: Label(
        columns=lambda labels: [
            (TOPOLOGY,),
            *INTERACTION_COLUMNS,
        ],
        optional=(TAU_TOPOLOGY, *(n for names in POSITION_COLUMNS for n in names)),
        make=_topology,
        description="topology, or PDG code and interaction (1 CC, 2 NC), which do not "
        "determine every class",
    ),
}


def label_columns(
    name: str, available: Collection[str], labels: LabelColumns
) -> tuple[str, ...] | None:
    """Return the available columns from which a label is made, or None."""
    if name not in LABELS:
        return (name,) if name in available else None
    choices = LABELS[name].columns(labels)
    chosen = next((c for c in choices if set(c) <= set(available)), None)
    if chosen is None:
        return None
    return (*chosen, *(c for c in LABELS[name].optional if c in available))


def make_label(
    name: str, columns: Mapping[str, NDArray[Any]], labels: LabelColumns
) -> Array:
    """Return a label of events, (B,) or (B, N) float64; NaN if there is none.

    Args:
        name: Name of a label or of a column.
        columns: Values (B,) by column; other columns are ignored.
        labels: Names and convention of the angles.

    Raises:
        ValueError: The columns do not give the label, or a column is text instead of
            numbers; the message gives the columns needed and available.
    """
    chosen = label_columns(name, columns.keys(), labels)
    if chosen is None:
        raise missing_label(name, columns.keys(), labels, "the truth")
    values = {column: np.asarray(columns[column]) for column in chosen}
    if name in LABELS and chosen[0] == TOPOLOGY:
        _check_text(values[TOPOLOGY])
    try:
        if name in LABELS:
            return LABELS[name].make(values, labels)
        return _first(values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {', '.join(chosen)} of the truth must be numbers: {error}"
        ) from None


def missing_label(
    name: str, available: Collection[str], labels: LabelColumns, where: str
) -> ValueError:
    """Return the error for a label that the truth of `where` does not give."""
    wanted = f"column {name}"
    if name in LABELS:
        choices = LABELS[name].columns(labels)
        wanted = " or ".join(" and ".join(names) for names in choices)
    return ValueError(
        f"{where} has no label {name!r}: it needs {wanted}; the columns are "
        f"{', '.join(sorted(available)) or 'none'}"
    )


def has_label(label: Array | Tensor) -> NDArray[np.bool_]:
    """Return which events have a label (no NaN), (B,)."""
    finite = np.isfinite(np.asarray(label))
    result: NDArray[np.bool_] = finite.all(axis=tuple(range(1, finite.ndim)))
    return result
