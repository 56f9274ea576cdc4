"""DirectionTable: one direction an event, whoever found it.

Shape letters: B events.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import unit_vector_to_angles
from graphnet_icecube2nd.files import write_whole

OK = "ok"
COLUMNS = ("direction_x", "direction_y", "direction_z")


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectionTable:
    """Directions of events, pointing back to where the neutrino came from.

    Args:
        name: What found them, for legends.
        event_id: (B,) int64.
        direction_B3: (B, 3) unit vectors; NaN where there is none.
        kappa_B: (B,) concentration; NaN where it is not known.
        status_B: (B,) `ok`, or why there is no direction.

    Raises:
        ValueError: Shapes differ, an event stands twice, a direction with the status
            `ok` is no unit vector.
    """

    name: str
    event_id: NDArray[np.int64]
    direction_B3: NDArray[np.float64]
    kappa_B: NDArray[np.float64]
    status_B: NDArray[np.str_]

    def __post_init__(self) -> None:
        num = len(self.event_id)
        shapes = {
            "direction_B3": (num, 3),
            "kappa_B": (num,),
            "status_B": (num,),
        }
        for column, shape in shapes.items():
            found = getattr(self, column).shape
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
            "status": self.status_B,
        }

    def of_events(self, event_id: NDArray[np.int64]) -> DirectionTable:
        """Return the rows of some events, in their order.

        Raises:
            ValueError: An event is not in the table.
        """
        order = np.argsort(self.event_id)
        place = np.searchsorted(self.event_id[order], event_id)
        found = place < len(order)
        found[found] = self.event_id[order[place[found]]] == event_id[found]
        if not found.all():
            raise ValueError(
                f"table {self.name!r} has no event {event_id[~found][0]} "
                f"({int((~found).sum())} of {len(event_id)} are missing)"
            )
        row = order[place]
        return DirectionTable(
            name=self.name,
            event_id=self.event_id[row],
            direction_B3=self.direction_B3[row],
            kappa_B=self.kappa_B[row],
            status_B=self.status_B[row],
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as parquet, or as CSV if the name ends in .csv.

        Raises:
            ImportError: pyarrow is not installed.
        """
        from graphnet_icecube2nd.store.arrow_table import import_pyarrow

        pa = import_pyarrow()
        table = pa.table({name: pa.array(v) for name, v in self.columns().items()})
        with write_whole(path) as temporary:
            if os.fspath(path).endswith(".csv"):
                import pyarrow.csv

                pyarrow.csv.write_csv(table, temporary)
            else:
                import pyarrow.parquet

                pyarrow.parquet.write_table(table, temporary)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], name: str | None = None
    ) -> DirectionTable:
        """Read a table of directions from parquet or CSV.

        Columns `event_id` (or `event_no`); direction_x, _y, _z, or azimuth and zenith;
        kappa and status where there are any.

        Raises:
            OSError: There is no such file.
            ValueError: A column is missing.
            ImportError: pyarrow is not installed.
        """
        from graphnet_icecube2nd.store.arrow_table import import_pyarrow

        import_pyarrow()
        if os.fspath(path).endswith(".csv"):
            import pyarrow.csv

            table = pyarrow.csv.read_csv(path)
        else:
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path)
        columns = {n: table.column(n).to_numpy() for n in table.column_names}
        return from_columns(columns, name or os.path.basename(os.fspath(path)))


def from_columns(columns: dict[str, NDArray[Any]], name: str) -> DirectionTable:
    """Make a table of columns, as `DirectionTable.load` reads them."""
    from graphnet_icecube2nd.conventions import angles_to_unit_vector

    key = _first(columns, ("event_id", "event_no"), name)
    if set(COLUMNS) <= set(columns):
        direction_B3 = np.stack([columns[c] for c in COLUMNS], axis=1).astype(float)
    else:
        azimuth = columns[_first(columns, ("azimuth",), name)]
        zenith = columns[_first(columns, ("zenith",), name)]
        direction_B3 = angles_to_unit_vector(
            zenith.astype(float), azimuth.astype(float)
        ).numpy()
    finite_B = np.isfinite(direction_B3).all(axis=1)
    status_B = np.where(finite_B, OK, "no direction")
    if "status" in columns:
        given_B = columns["status"].astype(str)
        # A reason that is given stays; `ok` without a direction is not.
        status_B = np.where((given_B == OK) & ~finite_B, status_B, given_B)
    kappa_B = columns.get("kappa", np.full(len(direction_B3), np.nan))
    return DirectionTable(
        name=name,
        event_id=columns[key].astype(np.int64),
        direction_B3=direction_B3,
        kappa_B=kappa_B.astype(float),
        status_B=status_B,
    )


def _first(columns: dict[str, NDArray[Any]], wanted: Sequence[str], name: str) -> str:
    for column in wanted:
        if column in columns:
            return column
    raise ValueError(
        f"table {name!r} has no column {' or '.join(wanted)}; it has "
        f"{', '.join(columns)}"
    )
