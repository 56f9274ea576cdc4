"""DirectionTable: one direction an event, whoever found it.

Shape letters: B events.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import unit_vector_to_angles
from graphnet_icecube2nd.store.manifest import N_PULSES

OK = "ok"
COLUMNS = ("direction_x", "direction_y", "direction_z")
EVENT_NAMES = ("event_id", "event_no")
RADIUS = "radius_"  # and the percentage that the contour holds


def radius_name(level: float) -> str:
    """Return the column of the radius of a contour that holds a share, 0 to 1."""
    return f"{RADIUS}{100 * level:g}"


def radius_level(column: str) -> float | None:
    """Return the share that a column's contour holds; None of other columns."""
    if not column.startswith(RADIUS):
        return None
    try:
        percent = float(column.removeprefix(RADIUS))
    except ValueError:
        return None
    return round(percent / 100, 6) if 0 < percent < 100 else None


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectionTable:
    """Directions of events, pointing back to where the neutrino came from.

    Args:
        name: What found them, for legends.
        event_id: (B,) int64.
        direction_B3: (B, 3) unit vectors; NaN where there is none.
        kappa_B: (B,) concentration; NaN where it is not known.
        status_B: (B,) `ok`, or why there is no direction.
        radii: (B,) rad by name, `radius_50`, `radius_90` and so on: the contours that
            the table itself gives, of a calibration perhaps; empty where it gives none.
        n_pulses_B: (B,) pulses of the events; None where the table does not say.

    Raises:
        ValueError: Shapes differ, an event stands twice, a direction with the status
            `ok` is no unit vector.
    """

    name: str
    event_id: NDArray[np.int64]
    direction_B3: NDArray[np.float64]
    kappa_B: NDArray[np.float64]
    status_B: NDArray[np.str_]
    radii: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    n_pulses_B: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        num = len(self.event_id)
        shapes = {
            "direction_B3": (num, 3),
            "kappa_B": (num,),
            "status_B": (num,),
            "n_pulses_B": (num,),
        }
        for column, shape in shapes.items():
            values = getattr(self, column)
            found = shape if values is None else values.shape
            if found != shape:
                raise ValueError(
                    f"table {self.name!r}: {column} must be {shape}, got {found}"
                )
        ids, counts = np.unique(self.event_id, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"table {self.name!r}: event {ids[counts > 1][0]} stands there twice"
            )
        norm_B = np.linalg.norm(self.direction_B3, axis=1)
        bad_B = self.is_ok & ~(np.abs(norm_B - 1.0) < 1e-3)
        if bad_B.any():
            event = int(bad_B.argmax())
            raise ValueError(
                f"table {self.name!r}: the direction of event {self.event_id[event]} "
                f"has length {norm_B[event]:g}, not 1"
            )

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.event_id)

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """(B,) which events have a direction."""
        ok: NDArray[np.bool_] = self.status_B == OK
        return ok

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the table as columns, angles [rad] included, for any data frame."""
        zenith_B, azimuth_B = np.full((2, len(self)), np.nan)
        ok = self.is_ok
        if ok.any():
            zenith, azimuth = unit_vector_to_angles(self.direction_B3[ok])
            zenith_B[ok], azimuth_B[ok] = zenith.numpy(), azimuth.numpy()
        return {
            "event_id": self.event_id,
            **dict(zip(COLUMNS, self.direction_B3.T, strict=True)),
            "azimuth": azimuth_B,
            "zenith": zenith_B,
            "kappa": self.kappa_B,
            **self.radii,
            **({} if self.n_pulses_B is None else {N_PULSES: self.n_pulses_B}),
            "status": self.status_B,
        }

    def of_events(self, event_id: NDArray[np.int64]) -> DirectionTable:
        """Return the rows of some events, in their order.

        Raises:
            ValueError: An event is not in the table.
        """
        row = rows_of(self.event_id, event_id, f"table {self.name!r}")
        return DirectionTable(
            name=self.name,
            event_id=self.event_id[row],
            direction_B3=self.direction_B3[row],
            kappa_B=self.kappa_B[row],
            status_B=self.status_B[row],
            radii={name: value[row] for name, value in self.radii.items()},
            n_pulses_B=None if self.n_pulses_B is None else self.n_pulses_B[row],
        )

    @classmethod
    def from_vectors(
        cls, name: str, event_id: Any, prediction: Any, kappa: Any = None
    ) -> DirectionTable:
        """Make a table of what a model predicted: kappa times direction, or GraphNeT's.

        Args:
            name: What found them.
            event_id: (B,) whole numbers.
            prediction: (B, 3) vectors, or (B, 4) with the concentration last, as
                GraphNeT's direction tasks give them.
            kappa: (B,) concentrations; default the fourth column, else the length.

        Raises:
            ValueError: Another shape.
        """
        vectors = np.asarray(prediction, dtype=np.float64)
        if vectors.ndim != 2 or vectors.shape[1] not in (3, 4):
            raise ValueError(
                f"predictions must be (B, 3) or (B, 4), got {vectors.shape}"
            )
        norm_B = np.linalg.norm(vectors[:, :3], axis=1)
        if kappa is None:
            kappa = vectors[:, 3] if vectors.shape[1] == 4 else norm_B
        good_B = np.isfinite(norm_B) & (norm_B > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            direction_B3 = vectors[:, :3] / norm_B[:, None]
        direction_B3[~good_B] = np.nan
        return cls(
            name=name,
            event_id=np.asarray(event_id, dtype=np.int64),
            direction_B3=direction_B3,
            kappa_B=np.asarray(kappa, dtype=np.float64),
            status_B=np.where(
                good_B, OK, np.where(norm_B == 0, "length 0", "not finite")
            ),
        )

    @property
    def levels(self) -> dict[float, NDArray[np.float64]]:
        """Radii of the table's own contours, (B,) rad, by the share that they hold."""
        found = {radius_level(name): radius_B for name, radius_B in self.radii.items()}
        return {level: found[level] for level in sorted(filter(None, found))}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as parquet, CSV or SQLite, as the name ends.

        Raises:
            ImportError: pyarrow or sqlite-utils is not installed.
            ValueError: Another ending, or a file is there that holds no results.
        """
        from graphnet_icecube2nd.results.result_files import (
            check_replaceable,
            format_of,
            write_results,
        )

        kind = format_of(path, None)
        check_replaceable(path, kind)
        write_results(path, [self.columns()], kind)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        name: str | None = None,
        angles: str = "origin",
    ) -> DirectionTable:
        """Read a table of directions from parquet, CSV or SQLite.

        Args:
            path: The file.
            name: What the table is called; default the file's name.
            angles: As `from_columns`.

        Raises:
            OSError: There is no such file.
            ValueError: A column is missing.
            ImportError: pyarrow is not installed.
        """
        from graphnet_icecube2nd.results.table_io import read_columns

        file_name = os.path.basename(os.fspath(path))
        return cls.from_columns(read_columns(path), name or file_name, angles)

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Any], name: str, angles: str = "origin"
    ) -> DirectionTable:
        """Make a table of columns: our results', or a GraphNeT model's predictions.

        Args:
            columns: (B,) arrays by name, or a DataFrame: event_id or event_no;
                direction_x, _y, _z (or dir_x_pred, ...), or azimuth and zenith (rad);
                where there are any kappa (or direction_kappa), radius_50, radius_90 and
                others like them, n_pulses, status.
            name: What the table is called.
            angles: `origin`: directions point to where the neutrino came from;
                `flight`: to where it flies, and are turned round.

        Raises:
            ValueError: A column is missing; says which there are.
        """
        from graphnet_icecube2nd.results.table_columns import table_of_columns

        return table_of_columns(columns, name, angles)


def rows_of(
    event_id: NDArray[np.int64], wanted: NDArray[np.int64], what: str
) -> NDArray[np.int64]:
    """Return the rows (W,) at which wanted events stand among those of a table.

    Args:
        event_id: (B,) of the table.
        wanted: (W,) numbers of events.
        what: What messages call the table.

    Raises:
        ValueError: An event is not in it.
    """
    order = np.argsort(event_id)
    place = np.searchsorted(event_id[order], wanted)
    found = place < len(order)
    found[found] = event_id[order[place[found]]] == wanted[found]
    if not found.all():
        raise ValueError(
            f"{what} has no event {wanted[~found][0]} "
            f"({int((~found).sum())} of {len(wanted)} are missing)"
        )
    row: NDArray[np.int64] = order[place]
    return row
