"""EventTable: results of any reconstruction, with one row per event.

The name or the prefix of a column tells its task: `direction_x`, `energy`, `p_track`.
Tables may also use GraphNeT's and NuBench's names of predictions.

Shape letters: B events.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.config import from_plain, to_plain
from graphnet_icecube2nd.conventions import unit_vector_to_angles
from graphnet_icecube2nd.detector.site import Site
from graphnet_icecube2nd.results.result_files import (
    OK,
    Columns,
    check_replaceable,
    event_ids,
    format_of,
    read_columns,
    read_metadata,
    real_numbers,
    rows_of,
    whole_counts,
    write_results,
)
from graphnet_icecube2nd.store.manifest import N_PULSES
from graphnet_icecube2nd.tasks.catalogue import (
    STATUS,
    build_task,
    is_marked,
    list_tasks,
)
from graphnet_icecube2nd.tasks.direction.direction import COLUMNS, radius_level
from graphnet_icecube2nd.tasks.label import (
    check_radians,
    flip_to_origin,
    origin_direction,
)

KAPPA = "kappa"
ANGLES = ("azimuth", "zenith")
VALID = "_is_valid"  # after the name of a task
CALIBRATED = "calibrated"  # True for events with calibrated widths
# Names in files: ours first, then those of GraphNeT's direction and angle tasks.
DIRECTION_NAMES = (COLUMNS, ("dir_x_pred", "dir_y_pred", "dir_z_pred"))
ANGLE_NAMES = (
    ANGLES,
    ("azimuth_pred", "zenith_pred"),
    ("azimuth_reco", "zenith_reco"),
    ("reco_azimuth", "reco_zenith"),
)
KAPPA_NAMES = (KAPPA, "direction_kappa", "dir_kappa_pred")
# GraphNeT's and NuBench's names of the other tasks' predictions.
PREDICTION_NAMES = {
    "energy_pred": "energy",
    "track_pred": "p_track",
    "target_pred": "p_track",
    "inelasticity_pred": "inelasticity",
    "visible_inelasticity_pred": "visible_inelasticity",
    "position_x_pred": "vertex_x",
    "position_y_pred": "vertex_y",
    "position_z_pred": "vertex_z",
    "interaction_time_pred": "vertex_time",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTable:
    """Results of events.

    Args:
        name: Name of the reconstruction, for legends.
        event_id: Event numbers, (B,) int64.
        status_B: Statuses, (B,): `ok`, or the reason why there is no result.
        columns: Columns of the tasks (`tasks.Column`) by name, (B,) each; NaN for
            events without a result.
        n_pulses_B: Numbers of pulses, (B,); None if the table does not have them.
        notes: Sentences on how columns were read, for reports.
        detector: Name of the detector of the events; empty if it is not known.
        site: Position of this detector on the Earth; None if it is not known.
        clock: Clock of the times, see `PulseMap.time_reference`; empty if unknown.

    Raises:
        ValueError: Lengths differ, an event occurs twice, or a direction with the
            status `ok` is no unit vector.
    """

    name: str
    event_id: NDArray[np.int64]
    status_B: NDArray[np.str_]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    n_pulses_B: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    detector: str = ""
    site: Site | None = None
    clock: str = ""

    def __post_init__(self) -> None:
        num = len(self.event_id)
        given = {"status_B": self.status_B, "n_pulses_B": self.n_pulses_B}
        for column, values in {**given, **self.columns}.items():
            found = (num,) if values is None else values.shape
            if found != (num,):
                raise ValueError(
                    f"table {self.name!r}: {column} must have shape {(num,)}, found "
                    f"{found}"
                )
        ids, counts = np.unique(self.event_id, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"table {self.name!r}: every event must occur once, found event "
                f"{ids[counts > 1][0]} twice"
            )
        if not self.has_direction:
            return
        norm_B = np.linalg.norm(self.direction_B3, axis=1)
        bad_B = self.is_ok & ~(np.abs(norm_B - 1.0) < 1e-3)
        if bad_B.any():
            event = int(bad_B.argmax())
            raise ValueError(
                f"table {self.name!r}: the direction of event {self.event_id[event]} "
                f"must have length 1, found {norm_B[event]:g}"
            )

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.event_id)

    @classmethod
    def of_directions(
        cls,
        *,
        name: str,
        event_id: NDArray[np.int64],
        direction_B3: NDArray[np.float64],
        kappa_B: NDArray[np.float64],
        status_B: NDArray[np.str_],
        radii: Mapping[str, NDArray[np.float64]] | None = None,
        n_pulses_B: NDArray[np.int64] | None = None,
        others: Mapping[str, NDArray[Any]] | None = None,
        notes: tuple[str, ...] = (),
    ) -> EventTable:
        """Return a table of directions.

        Args:
            name: Name of the reconstruction.
            event_id: Event numbers, (B,) int64.
            direction_B3: Unit vectors to the origin, (B, 3); NaN if there is none.
            kappa_B: Concentrations, (B,); NaN if unknown.
            status_B: Statuses, (B,): `ok`, or the reason why there is no direction.
            radii: Contour radii by name (`radius_50`), (B,) rad each.
            n_pulses_B: Numbers of pulses, (B,).
            others: Columns of other tasks by name, (B,) each. `direction_is_valid` is
                False for events with status `ok` that lack only the direction.
            notes: Sentences on how columns were read, for reports.

        Raises:
            ValueError: Lengths differ, an event occurs twice, or directions are not
                (B, 3) unit vectors.
        """
        shape = (len(event_id), 3)
        if direction_B3.shape != shape:
            raise ValueError(
                f"table {name!r}: direction_B3 must have shape {shape}, found "
                f"{direction_B3.shape}"
            )
        azimuth_B, zenith_B = np.full((2, len(event_id)), np.nan)
        good_B = np.isfinite(direction_B3).all(axis=1) & direction_B3.any(axis=1)
        if status_B.shape == good_B.shape:  # the constructor refuses other shapes
            good_B &= status_B == OK
        if good_B.any():
            zenith, azimuth = unit_vector_to_angles(direction_B3[good_B])
            azimuth_B[good_B], zenith_B[good_B] = azimuth.numpy(), zenith.numpy()
        return cls(
            name=name,
            event_id=event_id,
            status_B=status_B,
            columns={
                **dict(zip(COLUMNS, direction_B3.T, strict=True)),
                "azimuth": azimuth_B,
                "zenith": zenith_B,
                "kappa": kappa_B,
                **(radii or {}),
                **(others or {}),
            },
            n_pulses_B=n_pulses_B,
            notes=notes,
        )

    @classmethod
    def from_vectors(
        cls, name: str, event_id: Any, prediction: Any, kappa: Any = None
    ) -> EventTable:
        """Return a table of a model's predicted vectors.

        Args:
            name: Name of the reconstruction.
            event_id: Event numbers, (B,) integers.
            prediction: Vectors kappa times direction, (B, 3), or (B, 4) with kappa
                last, as GraphNeT's direction tasks predict them.
            kappa: Concentrations, (B,); default: the fourth column, or else the length
                of the vectors.

        Raises:
            ValueError: `prediction` has another shape.
        """
        vectors = np.asarray(prediction, dtype=np.float64)
        if vectors.ndim != 2 or vectors.shape[1] not in (3, 4):
            raise ValueError(
                f"prediction must have shape (B, 3) or (B, 4), found {vectors.shape}"
            )
        norm_B = np.linalg.norm(vectors[:, :3], axis=1)
        if kappa is None:
            kappa = vectors[:, 3] if vectors.shape[1] == 4 else norm_B
        good_B = np.isfinite(norm_B) & (norm_B > 0)
        reason_B = np.where(norm_B == 0, "length 0", "not finite")
        length_B = np.where(good_B, norm_B, np.nan)
        return cls.of_directions(
            name=name,
            event_id=np.asarray(event_id, dtype=np.int64),
            direction_B3=vectors[:, :3] / length_B[:, None],
            kappa_B=np.asarray(kappa, dtype=np.float64),
            status_B=np.where(good_B, OK, reason_B),
        )

    @property
    def has_direction(self) -> bool:
        """Whether the table has the columns of directions."""
        return set(COLUMNS) <= set(self.columns)

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """True for events with a result, and a direction if the table has any, (B,)."""
        ok: NDArray[np.bool_] = self.status_B == OK
        valid = self.columns.get(f"direction{VALID}")
        return ok if valid is None else ok & valid.astype(bool)

    @property
    def direction_B3(self) -> NDArray[np.float64]:
        """Unit vectors to the origin, (B, 3); NaN if there is none."""
        if not self.has_direction:
            return np.full((len(self), 3), np.nan)
        return np.stack([self.columns[name] for name in COLUMNS], axis=1)

    @property
    def kappa_B(self) -> NDArray[np.float64]:
        """Concentrations, (B,); NaN if unknown."""
        return self.columns.get(KAPPA, np.full(len(self), np.nan))

    @property
    def radii(self) -> dict[str, NDArray[np.float64]]:
        """Radii of the table's own contours by column, (B,) rad each."""
        return {n: v for n, v in self.columns.items() if radius_level(n) is not None}

    @property
    def levels(self) -> dict[float, NDArray[np.float64]]:
        """Radii of the table's own contours by level, (B,) rad each."""
        found = {radius_level(name): radius_B for name, radius_B in self.radii.items()}
        return {level: found[level] for level in sorted(filter(None, found))}

    @property
    def tasks(self) -> list[str]:
        """Names of the registered tasks whose first column the table has."""
        return [
            name
            for name in list_tasks()
            if build_task(name).columns[0].name in self.columns
        ]

    def task_columns(self, task: str) -> dict[str, NDArray[Any]]:
        """Return the columns of a task in the table by name, (B,) each."""
        names = [column.name for column in build_task(task).columns]
        if task == "direction":
            names += [name for name in self.radii if name not in names]
        return {name: self.columns[name] for name in names if name in self.columns}

    def has_answer(self, task: str) -> NDArray[np.bool_]:
        """Return which events have a result of a task, (B,)."""
        good_B: NDArray[np.bool_] = self.status_B == OK
        for values in self.task_columns(task).values():
            if values.dtype.kind == "f":
                good_B = good_B & np.isfinite(values)
        return good_B

    def to_columns(self) -> Columns:
        """Return the table as columns for any data frame, event_id first."""
        return {
            "event_id": self.event_id,
            **self.columns,
            **({} if self.n_pulses_B is None else {N_PULSES: self.n_pulses_B}),
            STATUS: self.status_B,
        }

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> EventTable:
        """Return the table with some columns replaced or added."""
        return replace(self, columns={**self.columns, **columns})

    def of_events(self, event_id: NDArray[np.int64]) -> EventTable:
        """Return the rows of some events, in their order.

        Raises:
            ValueError: An event is not in the table.
        """
        row = rows_of(self.event_id, event_id, f"table {self.name!r}")
        return replace(
            self,
            event_id=self.event_id[row],
            status_B=self.status_B[row],
            columns={name: value[row] for name, value in self.columns.items()},
            n_pulses_B=None if self.n_pulses_B is None else self.n_pulses_B[row],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as parquet, CSV or SQLite, chosen by the ending of the name.

        Raises:
            ImportError: pyarrow or sqlite-utils is not installed.
            ValueError: The ending is unknown, or a file that holds no results exists.
        """
        kind = format_of(path, None)
        check_replaceable(path, kind)
        known = {"name": self.detector, "site": to_plain(self.site)}
        known |= {"clock": self.clock} if self.clock else {}
        about = {"detector": known} if self.detector else None
        write_results(path, [self.to_columns()], kind, about)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        name: str | None = None,
        angles: str = "origin",
        columns: Collection[str] = (),
    ) -> EventTable:
        """Read a table of results from parquet, CSV or SQLite.

        Args:
            path: File of the table.
            name: Name of the table; default: the file's name.
            angles: Meaning of the directions, `origin` or `flight`, see `from_columns`.
            columns: Further columns of numbers to keep if the file has them, such as
                weights.

        Raises:
            OSError: The file does not exist.
            ValueError: A column is missing.
            ImportError: pyarrow is not installed.
        """
        name = name or os.path.basename(os.fspath(path))
        found, where = read_columns(path), os.fspath(path)
        table = cls._from_columns(found, name, angles, where)
        kept = {
            c: real_numbers(found[c], f"{where}: {c}") for c in columns if c in found
        }
        about = read_metadata(Path(path)).get("detector") or {}
        try:
            return replace(
                table.with_columns(kept),
                detector=str(about.get("name", "")),
                site=about.get("site") and from_plain(Site, about["site"], "site."),
                clock=str(about.get("clock", "")),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: its metadata are damaged: {error}") from None

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Any], name: str, angles: str = "origin"
    ) -> EventTable:
        """Return a table of columns: our results or a GraphNeT model's predictions.

        If a table has no status and has names such as GraphNeT's (`..._pred`), only
        these columns are results; the other ones are taken for truth.

        Args:
            columns: Arrays by name, (B,) each, or a DataFrame: event_id or event_no,
                the columns of tasks, directions as direction_x, direction_y,
                direction_z (or dir_x_pred, ...) or as azimuth and zenith (rad), and
                optionally n_pulses and status.
            name: Name of the table.
            angles: Meaning of the directions. `origin`: they point to where the
                neutrino came from; `flight`: they point along its flight and are
                reversed.

        Raises:
            ValueError: A column is missing, no task has a column, or an angle is in
                degrees.
        """
        return cls._from_columns(columns, name, angles, f"table {name!r}")

    @classmethod
    def _from_columns(
        cls, columns: Mapping[str, Any], name: str, angles: str, what: str
    ) -> EventTable:
        """Return a table of columns, called `what` in messages."""
        found = {str(key): np.asarray(columns[key]) for key in columns}
        event_id = event_ids(found, what)
        if STATUS not in found and any(map(is_marked, found)):
            for angle in ANGLES:  # these belong to the truth
                found.pop(angle, None)
        direction_B3 = _directions(found, angles, event_id, what)
        answers = _answers(found, what)
        if direction_B3 is None and not answers:
            names = " or ".join(map(", ".join, (*DIRECTION_NAMES, *ANGLE_NAMES[:2])))
            raise ValueError(
                f"{what}: expected directions ({names}) or the columns of another "
                f"task, found {', '.join(map(str, columns))}"
            )
        finite_B = np.ones(len(event_id), bool)
        if direction_B3 is not None:
            finite_B = np.isfinite(direction_B3).all(axis=1)
        status_B = _statuses(found, finite_B, what)
        kappa_B = _kappas(found, status_B, what)
        common: dict[str, Any] = {
            "name": name,
            "event_id": event_id,
            "status_B": status_B,
            "notes": _reading_notes(found, answers, name),
            "n_pulses_B": whole_counts(found[N_PULSES], what)
            if N_PULSES in found
            else None,
        }
        if direction_B3 is None:
            return cls(columns=answers, **common)
        return cls.of_directions(
            direction_B3=direction_B3,
            kappa_B=kappa_B,
            radii={
                n: real_numbers(v, f"{what}: {n}")
                for n, v in found.items()
                if radius_level(n)
            },
            others=answers,
            **common,
        )


def _directions(
    columns: Mapping[str, NDArray[Any]],
    angles: str,
    event_id: NDArray[np.int64],
    what: str,
) -> NDArray[np.float64] | None:
    """Return directions to the origin, (B, 3), or None if there are none."""
    found: NDArray[np.float64] | None = None
    pair = _names_there(columns, ANGLE_NAMES)
    for angle in pair or ():
        check_radians(columns[angle], angle, event_id, what)
    if vectors := _names_there(columns, DIRECTION_NAMES):
        given_B3 = np.stack(
            [real_numbers(columns[c], f"{what}: {c}") for c in vectors], axis=1
        )
        found = flip_to_origin(torch.from_numpy(given_B3), angles).numpy()
    elif pair:
        azimuth, zenith = (real_numbers(columns[c], f"{what}: {c}") for c in pair)
        found = origin_direction(zenith, azimuth, angles).numpy()
    else:
        flip_to_origin(torch.empty(0, 3), angles)  # refuses a wrong value
    return found


def _answers(columns: Mapping[str, NDArray[Any]], what: str) -> dict[str, NDArray[Any]]:
    """Return the columns of tasks other than the direction, by our names."""
    answers: dict[str, NDArray[Any]] = {}
    for theirs, ours in _predictions(columns, what).items():
        values = real_numbers(columns[theirs], f"{what}: {theirs}")
        if _are_logits(theirs, values):
            values = torch.from_numpy(values).sigmoid().numpy()
        answers[ours] = values
    # Our results have a status and may also have predictions of GraphNeT's tasks.
    if STATUS not in columns and any(map(is_marked, columns)):
        return answers
    others = [build_task(name) for name in list_tasks() if name != "direction"]
    for name in (column.name for task in others for column in task.columns):
        if name in columns:
            values = columns[name]
            is_text = values.dtype.kind in "US"
            answers[name] = (
                values if is_text else real_numbers(values, f"{what}: {name}")
            )
    for name, values in columns.items():
        if name.endswith(VALID) or name == CALIBRATED:
            answers[name] = _is_true(values)
    return answers


def _predictions(columns: Mapping[str, Any], what: str) -> dict[str, str]:
    """Return GraphNeT's and NuBench's names of columns, and ours."""
    names = {n: ours for n, ours in PREDICTION_NAMES.items() if n in columns}
    for ours in set(names.values()):
        twice = [name for name in names if names[name] == ours]
        if len(twice) > 1:
            raise ValueError(
                f"{what}: columns {' and '.join(twice)} both give {ours}: leave one of "
                "them out"
            )
    return names


def _are_logits(name: str, values: NDArray[np.float64]) -> bool:
    """Return whether a score is the logarithm of the odds: outside 0 to 1."""
    finite = values[np.isfinite(values)]
    is_score = PREDICTION_NAMES[name] == "p_track"
    return is_score and bool(((finite < 0) | (finite > 1)).any())


def _reading_notes(
    columns: Mapping[str, NDArray[Any]], answers: Mapping[str, Any], name: str
) -> tuple[str, ...]:
    """Return sentences on columns that are not read as they are."""
    notes = []
    for theirs, ours in PREDICTION_NAMES.items():
        if theirs not in columns or ours not in answers:
            continue
        if _are_logits(theirs, np.asarray(columns[theirs], np.float64)):
            notes.append(
                f"table {name!r}: {theirs} has values outside 0 to 1, so it is read as "
                f"the logarithm of the odds; {ours} is its probability"
            )
    return tuple(notes)


def _statuses(
    columns: Mapping[str, NDArray[Any]], finite_B: NDArray[np.bool_], what: str
) -> NDArray[np.str_]:
    """Return the status of each event, (B,)."""
    status_B = np.where(finite_B, OK, "no direction")
    if STATUS not in columns:
        return status_B
    given_B = columns[STATUS].astype(str)
    if (empty_B := given_B == "").any():
        raise ValueError(
            f"{what}, row {int(empty_B.argmax())}: the status must not be empty. Check "
            "whether the file is complete"
        )
    # A given reason stays. `ok` without a direction becomes a reason, unless the table
    # says that only the direction failed.
    valid = columns.get(f"direction{VALID}")
    keep_B = finite_B if valid is None else finite_B | ~_is_true(valid)
    return np.where((given_B == OK) & ~keep_B, status_B, given_B)


def _kappas(
    columns: Mapping[str, NDArray[Any]], status_B: NDArray[np.str_], what: str
) -> NDArray[np.float64]:
    """Return the concentrations, (B,); NaN if unknown."""
    kappa = next((columns[n] for n in KAPPA_NAMES if n in columns), None)
    if kappa is None:
        return np.full(len(status_B), np.nan)
    kappa_B = real_numbers(kappa, f"{what}: kappa")
    bad_B = (status_B == OK) & ((kappa_B < 0) | np.isinf(kappa_B))
    if bad_B.any():
        row = int(bad_B.argmax())
        raise ValueError(
            f"{what}, row {row}: kappa must be 0 or more and finite, found "
            f"{kappa_B[row]:g}"
        )
    return kappa_B


def _is_true(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values are true or 1, (B,); missing ones are not."""
    if values.dtype.kind in "biuf":
        found: NDArray[np.bool_] = values == 1
        return found
    return np.isin(np.char.lower(values.astype(str)), ("true", "1", "1.0"))


def _names_there(
    columns: Mapping[str, Any], choices: Sequence[tuple[str, ...]]
) -> tuple[str, ...] | None:
    return next((names for names in choices if set(names) <= set(columns)), None)
