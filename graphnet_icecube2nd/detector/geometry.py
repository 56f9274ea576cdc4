"""DetectorGeometry: table of a detector's DOMs, depth and z, and the nearest DOM.

Shape letters: S DOMs (sensors), P PMTs of a DOM, T pulses; in a table of PMTs N rows;
in the search H pulses in occupied cells, C occupied cells, E entries (pairs of a DOM
and a cell within its reach).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import DETECTOR_CENTRE_DEPTH
from graphnet_icecube2nd.detector.detx import (
    DATX,
    MAX_PMTS,
    DetectorFile,
    is_detx,
    read_detector_file,
    read_detx,
)
from graphnet_icecube2nd.detector.text_table import TextTable, text_of
from graphnet_icecube2nd.files import write_text
from graphnet_icecube2nd.lazy import import_extra

HIGH_QE_RULES = ("rde", "published")
DOMS_PER_STRING = 60
# Column names in GraphNeT's and other tables.
OTHER_NAMES = {
    **{axis: (f"sensor_pos_{axis}", f"dom_{axis}", f"pos_{axis}") for axis in "xyz"},
    "string": ("sensor_string_id", "string_id"),
}
MISSING = ("", "None", "nan", "NaN")  # texts of an unknown rde
PARQUET = b"PAR1"  # first bytes of a parquet file
PROMETHEUS = "### Modules ###"  # the line before the modules of a .geo file
# Columns of tables with one row for each PMT: its number in the DOM, its direction.
PMT = "pmt"
PMT_COLUMNS = ("pmt_dir_x", "pmt_dir_y", "pmt_dir_z")
PROMETHEUS_COLUMNS = ("x", "y", "z", "string", "number")  # number: along its string
Metres = TypeVar("Metres", float, Tensor)
Kind = TypeVar("Kind")


def depth_to_z(depth: Metres) -> Metres:
    """Return z [m], upward from the detector centre, of a depth [m]."""
    return DETECTOR_CENTRE_DEPTH - depth


def z_to_depth(z: Metres) -> Metres:
    """Return the depth [m] below the surface of z [m]."""
    return DETECTOR_CENTRE_DEPTH - z


class Shared:
    """Base of constant tables, which are shared in a process and copied to others.

    Torch would move their tensors to shared memory and so invalidate the arrays that
    view them in this process.
    """

    def __deepcopy__(self: Kind, memo: dict[int, object]) -> Kind:
        """Return the table itself."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with tensors as arrays."""
        values = vars(self).items()
        return {n: v.numpy() if isinstance(v, Tensor) else v for n, v in values}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the state from `__getstate__`."""
        for name, value in state.items():
            is_array = isinstance(value, np.ndarray)
            vars(self)[name] = torch.from_numpy(value) if is_array else value


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorGeometry(Shared):
    """The DOMs of a detector; row i of each tensor is the DOM with sensor_id i.

    Args:
        name: Name of the detector, for messages and reports.
        position_S3: DOM positions x, y, z [m], (S, 3) float64, origin at the detector
            centre, z up.
        string_S: String of each DOM, (S,) int64; 1 to 86 in IceCube.
        rde_S: Relative DOM efficiency, (S,) float64: 1.0 standard, 1.35 high-QE.
        pmt_direction_SP3: Directions in which the PMTs of each DOM look, (S, P, 3)
            float64 unit vectors; NaN for a PMT that a DOM lacks. None if they are not
            known.

    Raises:
        ValueError: There is no DOM, or a shape, type or value is wrong.
    """

    name: str
    position_S3: Tensor
    string_S: Tensor
    rde_S: Tensor
    pmt_direction_SP3: Tensor | None = None

    def __post_init__(self) -> None:
        num_doms = len(self.position_S3)
        if num_doms == 0:
            raise ValueError(f"detector {self.name!r} has no DOM; at least 1 is needed")
        for column, shape, dtype in (
            ("position_S3", (num_doms, 3), torch.float64),
            ("string_S", (num_doms,), torch.int64),
            ("rde_S", (num_doms,), torch.float64),
        ):
            value = getattr(self, column)
            if value.shape != shape or value.dtype != dtype:
                raise ValueError(
                    f"detector {self.name!r}: {column} must be {shape} {dtype}, "
                    f"got {tuple(value.shape)} {value.dtype}"
                )
            if not value.isfinite().all():
                row = int((~value.isfinite()).nonzero()[0, 0])
                raise ValueError(
                    f"detector {self.name!r}: {column} is not finite at DOM {row}"
                )
        self._check_pmts()

    def _check_pmts(self) -> None:
        """Check that each DOM has a PMT, and that directions are unit vectors."""
        value = self.pmt_direction_SP3
        if value is None:
            return
        shape, dtype = tuple(value.shape), value.dtype
        if (len(shape), *shape[::2]) != (3, len(self), 3) or dtype != torch.float64:
            raise ValueError(
                f"detector {self.name!r}: pmt_direction_SP3 must be ({len(self)}, P, "
                f"3) torch.float64, got {shape} {dtype}"
            )
        length_SP = torch.linalg.vector_norm(value, dim=2)
        wrong_S = (length_SP.isnan() | ((length_SP - 1).abs() < 1e-3)).logical_not()
        wrong_S = wrong_S.any(dim=1) | length_SP.isnan().all(dim=1)
        if wrong_S.any():
            dom = int(wrong_S.nonzero()[0, 0])
            raise ValueError(
                f"detector {self.name!r}: DOM {dom} must have at least one PMT, and "
                "directions of length 1"
            )

    @classmethod
    @cache
    def icecube86(cls) -> DetectorGeometry:
        """IceCube-86: 5160 DOMs, from the table in the package.

        The table is read once and shared: do not write into its tensors. The head of
        `data/icecube86.csv` gives its origin and licence (GraphNeT, Apache-2.0).
        """
        resource = files("graphnet_icecube2nd.detector") / "data" / "icecube86.csv"
        return _from_table(TextTable.read(resource), "icecube86")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> DetectorGeometry:
        """Read a DOM table, such as the competition's `sensor_geometry.csv`.

        The content decides whether the file is CSV, parquet (GraphNeT's geometry
        tables), Prometheus' `.geo`, or KM3NeT's detx or datx; its name does not matter.
        Positions are not moved: their origin should be the detector's centre.

        The columns are `sensor_id`, `x`, `y`, `z` [m] and, optionally, `string`, or
        GraphNeT's names (`sensor_pos_x`, `dom_x`, `sensor_string_id`). Rows may have
        any order; each sensor_id from 0 to S - 1 is needed once. Columns `string` and
        `dom` (both from 1, 60 DOMs per string) may replace `sensor_id`, as in the
        package's own table. Modules of a `.geo` file are numbered by row, and so are
        those of a detx or datx file that have PMTs. Lines that begin with # and other
        columns are ignored.

        A table with a column `pmt` has one row per PMT: its number in the DOM, its
        direction (`pmt_dir_x`, `pmt_dir_y`, `pmt_dir_z`) and the columns of its DOM.

        A missing `string` is sensor_id // 60 + 1. A missing `rde` column or value is
        that of the IceCube-86 DOM within 1 m, or 1.0 if there is none. So the
        competition's table and extensions of IceCube get the right efficiencies and
        other detectors get 1.0. Add the column to set other values.

        Raises:
            OSError: The file does not exist.
            ValueError: The file has none of these formats, a column is missing, a value
                is not allowed, or a sensor_id is missing or repeated; the message names
                file, line and column.
            ImportError: The file is parquet and pyarrow is not installed, or it is datx
                and km3det is not installed.
        """
        path = Path(path)
        with open(path, "rb") as file:
            begin = file.read(len(PARQUET))
        if begin == PARQUET:
            return _from_table(_read_parquet(path), path.stem)
        if begin == DATX:
            return _from_detector_file(read_detector_file(path), path.stem)
        text = text_of(path, "a geometry as detx, CSV, parquet or Prometheus' .geo")
        if is_detx(text):
            return _from_detector_file(read_detx(text, str(path)), path.stem)
        return _from_table(_read_text(text, str(path)), path.stem)

    from_csv = from_file

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], name: str) -> DetectorGeometry:
        """Make a geometry from columns or a DataFrame; see `from_file` for the columns.

        Without `sensor_id` (or `string` and `dom`) modules are numbered by row.

        Raises:
            ValueError: As in `from_file`; the message names row and column.
        """
        texts = {str(key): tuple(map(str, columns[key])) for key in columns}
        if not {"sensor_id", "dom"} & texts.keys():
            num_rows = max(map(len, texts.values()), default=0)
            texts["sensor_id"] = tuple(map(str, range(num_rows)))
        return _from_table(_table_of_rows(texts, name), name)

    @classmethod
    @cache
    def from_package(cls, name: str) -> DetectorGeometry:
        """Return a geometry that comes with the package, such as `orca150`.

        The head of a table (`data/geometry/NAME.csv.gz`) gives its source; positions
        are in the source's coordinates. Tables are read once and shared.

        Raises:
            ValueError: The package has no geometry of this name.
        """
        folder = files("graphnet_icecube2nd.detector") / "data" / "geometry"
        resource = folder / f"{name}.csv.gz"
        if not resource.is_file():
            known = sorted(entry.name.split(".")[0] for entry in folder.iterdir())
            raise ValueError(
                f"no geometry {name!r} in the package; choose from {', '.join(known)}"
            )
        return _from_table(TextTable.read(resource), name)

    def moved(self, centre: Sequence[float]) -> DetectorGeometry:
        """Return the geometry in coordinates with their origin at `centre` [m]."""
        shift_3 = torch.tensor(centre, dtype=torch.float64)
        return replace(self, position_S3=self.position_S3 - shift_3)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table so that `from_file` reads the same numbers."""
        header = ["sensor_id", "string", "x", "y", "z", "rde"]
        sensor_id_S = torch.arange(len(self))
        columns = [sensor_id_S, self.string_S, *self.position_S3.T, self.rde_S]
        if self.pmt_direction_SP3 is not None:
            dom_N, pmt_N = self.pmt_direction_SP3[:, :, 0].isfinite().nonzero().T
            direction_N3 = self.pmt_direction_SP3[dom_N, pmt_N]
            columns = [*(value[dom_N] for value in columns), pmt_N, *direction_N3.T]
            header += [PMT, *PMT_COLUMNS]
        lines = [",".join(header)]
        for row in zip(*(column.tolist() for column in columns), strict=True):
            lines.append(",".join(map(repr, row)))
        write_text(path, "\n".join(lines) + "\n")

    def __len__(self) -> int:
        """Return the number of DOMs."""
        return len(self.position_S3)

    def high_qe_flag(self, rule: str = "rde") -> Tensor:
        """Return 1 for DOMs of high quantum efficiency, else 0; (S,) float32.

        `rde` uses the table: rde above 1.1. `published` is the rule with which the
        competition models were trained; it is meaningful for IceCube-86 only. It has
        DOMs 12 to 60 of strings 79 to 86, and the first DOM of the string after each of
        them, because the code took an inclusive slice end for an exclusive one. Origin:
        `prepare_sensors` in DrHB/icecube-2nd-place, src/dataset.py.

        Raises:
            ValueError: The rule is unknown.
        """
        if rule not in HIGH_QE_RULES:
            raise ValueError(
                f"unknown rule {rule!r} for high-QE DOMs; "
                f"choose from {', '.join(HIGH_QE_RULES)}"
            )
        if rule == "rde":
            return (self.rde_S > 1.1).float()
        flag_S = torch.zeros(len(self), device=self.rde_S.device)
        for string_index in range(78, min(86, len(self) // DOMS_PER_STRING)):
            first = DOMS_PER_STRING * string_index
            # One too many on purpose: the error described above.
            flag_S[first + 11 : first + DOMS_PER_STRING + 1] = 1.0
        return flag_S

    def lookup(self, sensor_id_T: Tensor) -> Tensor:
        """Return the positions (T, 3) float64 [m] of the DOMs with these ids (T,).

        Raises:
            ValueError: Ids are not integers, or not from 0 to S - 1.
        """
        if sensor_id_T.is_floating_point() or sensor_id_T.dtype == torch.bool:
            raise ValueError(f"sensor_id must be integers, got {sensor_id_T.dtype}")
        sensor_id_T = sensor_id_T.to(self.position_S3.device, torch.int64)
        bad_T = (sensor_id_T < 0) | (sensor_id_T >= len(self))
        if bad_T.any():
            bad = sorted(set(sensor_id_T[bad_T].tolist()))
            raise ValueError(
                f"sensor_id {_first_few(bad)} not in detector {self.name!r}; "
                f"allowed: 0 to {len(self) - 1}"
            )
        return self.position_S3[sensor_id_T]

    def encloses(
        self, position_B3: NDArray[np.float64], margin: float = 0.0
    ) -> NDArray[np.bool_]:
        """Return which positions lie in the upright cylinder around the DOMs, (B,).

        Args:
            position_B3: Positions x, y, z [m]; NaN lies outside.
            margin: Distance [m] by which the cylinder is larger on all sides.
        """
        dom_S3 = self.position_S3.numpy()
        centre_2 = (dom_S3.min(axis=0) + dom_S3.max(axis=0))[:2] / 2
        radius = np.linalg.norm(dom_S3[:, :2] - centre_2, axis=1).max()
        away_B = np.linalg.norm(position_B3[:, :2] - centre_2, axis=1)
        low, high = dom_S3[:, 2].min() - margin, dom_S3[:, 2].max() + margin
        inside_B: NDArray[np.bool_] = (position_B3[:, 2] >= low) & (
            position_B3[:, 2] <= high
        )
        inside_B &= away_B <= radius + margin
        return inside_B

    def nearest_dom(self, position_T3: Tensor, tolerance: float = 1.0) -> Tensor:
        """Return sensor_id (T,) int64 of the DOM nearest to each position, -1 for none.

        Space is divided into cells, so that a pulse is compared with nearby DOMs only.
        A million pulses take a fraction of a second; memory is bounded.
        `nearest_dom_plain` is the simple, slow version.

        Args:
            position_T3: Positions x, y, z [m], (T, 3), any float type; NaN has no
                nearest DOM.
            tolerance: Maximum distance [m]. Among DOMs at the same distance the lowest
                sensor_id is returned.

        Raises:
            ValueError: The shape is wrong, or the tolerance not positive and finite.
        """
        if position_T3.ndim != 2 or position_T3.shape[1] != 3:
            raise ValueError(
                f"positions must be (T, 3), got {tuple(position_T3.shape)}"
            )
        if not 0 < tolerance < math.inf:
            raise ValueError(f"tolerance must be above 0 m and finite, got {tolerance}")
        grid = _cell_grid(self, tolerance)
        return grid.nearest(position_T3.to(self.position_S3)).to(position_T3.device)


def strings_like(
    geometry: DetectorGeometry, other: DetectorGeometry, within: float
) -> list[int]:
    """Return the strings that stand as those of another, smaller detector.

    Detectors of one telescope may have other zeros and spacings, as KM3NeT/ORCA in its
    simulation, whose strings stand 1.15 times as close as in the sea. So the other
    detector is moved, and this one is scaled by 0.8 to 1.25, until all strings fit
    best.

    Args:
        geometry: Modules of the detector.
        other: Modules of the smaller detector.
        within: Maximum distance of two strings after that, m.

    Raises:
        ValueError: Some string is further away.
    """
    number_N, place_N2 = _lines(geometry)
    _, other_M2 = _lines(other)
    best = (np.inf, np.array([], np.int64))
    theirs_M2 = other_M2 - other_M2.mean(0)
    for factor in np.linspace(0.8, 1.25, 10):
        # The first of the other strings is moved to each of these, in turn.
        moved_NM2 = (other_M2 - other_M2[0]) / factor + place_N2[:, None]
        for nearest_M in _nearest(moved_NM2, place_N2):
            if len(np.unique(nearest_M)) < len(nearest_M):
                continue
            ours_M2 = place_N2[nearest_M] - place_N2[nearest_M].mean(0)
            fitted = (ours_M2 * theirs_M2).sum() / max((ours_M2**2).sum(), 1e-9)
            off_M2 = theirs_M2 - np.clip(fitted, 0.8, 1.25) * ours_M2
            off = float(np.hypot(*off_M2.T).max())
            if off < best[0] - 1e-6:
                best = off, nearest_M
    if best[0] > within:
        found = (
            "it has fewer strings" if np.isinf(best[0]) else f"found {best[0]:.1f} m"
        )
        raise ValueError(
            f"strings of {geometry.name} must stand within {within:g} m of those of "
            f"{other.name} after both were moved and scaled, but {found}: raise "
            "`within`, or name the strings by number"
        )
    return sorted(number_N[best[1]].tolist())


def _nearest(
    point_NM2: NDArray[np.float64], place_N2: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the row of the place that is nearest to each point, (N, M)."""
    square_N = (place_N2**2).sum(1) / 2
    nearest: NDArray[np.int64] = (square_N - point_NM2 @ place_N2.T).argmin(2)
    return nearest


def _lines(geometry: DetectorGeometry) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the numbers of the strings, (N,), and their mean x and y, (N, 2) m."""
    number_N, string_S = np.unique(geometry.string_S.numpy(), return_inverse=True)
    count_N = np.bincount(string_S)
    xy_S2 = geometry.position_S3.numpy()[:, :2]
    sums = [np.bincount(string_S, column) / count_N for column in xy_S2.T]
    return number_N, np.stack(sums, 1)


@lru_cache(maxsize=16)
def _cell_grid(geometry: DetectorGeometry, tolerance: float) -> CellGrid:
    return CellGrid(geometry.position_S3, tolerance)


def _read_text(text: str, source: str) -> TextTable:
    """Return the table of a CSV or Prometheus file."""
    lines = text.splitlines()
    if PROMETHEUS not in lines:
        return TextTable.of_text(text, source)
    first = lines.index(PROMETHEUS)
    # The lines above the modules become empty lines and a header.
    lines[: first + 1] = [*[""] * first, " ".join(PROMETHEUS_COLUMNS)]
    table = TextTable.of_text("\n".join(lines), source)
    sensor_id = tuple(map(str, range(len(table.lines))))
    return replace(table, columns={**table.columns, "sensor_id": sensor_id})


def _from_detector_file(file: DetectorFile, name: str) -> DetectorGeometry:
    """Return the geometry of KM3NeT's modules that have PMTs."""
    shape = (len(file.module_S), int(file.num_pmts_S.max()), 3)
    direction_SP3 = np.full(shape, np.nan)
    direction_SP3[file.module_P, file.channel_P] = file.direction_P3
    with_pmts_S = file.num_pmts_S > 0
    return DetectorGeometry(
        name=name,
        position_S3=torch.from_numpy(file.position_S3[with_pmts_S]),
        string_S=torch.from_numpy(file.string_S[with_pmts_S]),
        rde_S=torch.ones(int(with_pmts_S.sum()), dtype=torch.float64),
        pmt_direction_SP3=torch.from_numpy(direction_SP3[with_pmts_S]),
    )


def _read_parquet(path: Path) -> TextTable:
    """Return the table of a parquet file; its rows count from 1."""
    pa = import_extra("pyarrow", "parquet files need", "data")
    import_extra("pyarrow.parquet", "parquet files need", "data")
    try:
        columns = pa.parquet.read_table(path).to_pydict()
    except (pa.ArrowException, KeyError, OSError, UnicodeError) as error:
        raise ValueError(
            f"{path} cannot be read: it is damaged or not a parquet file ({error})"
        ) from None
    texts = {name: tuple(map(str, values)) for name, values in columns.items()}
    return _table_of_rows(texts, str(path))


def _table_of_rows(columns: dict[str, tuple[str, ...]], source: str) -> TextTable:
    """Return a table without a header, whose first row is line 1."""
    lines = tuple(range(1, 1 + max(map(len, columns.values()), default=0)))
    return TextTable(source=source, lines=lines, columns=columns, line="row")


def _from_table(table: TextTable, name: str) -> DetectorGeometry:
    """Return the geometry of a table, sorted by sensor_id; rules in `from_file`."""
    columns = dict(table.columns)
    for ours, others in OTHER_NAMES.items():
        theirs = next((n for n in others if n in columns), None)
        if ours not in columns and theirs is not None:
            columns[ours] = columns[theirs]
    table = replace(table, columns=columns)
    if PMT in columns:
        return _from_pmts(table, name)
    order_S = _sensor_id(table).argsort()
    position_S3 = torch.stack([table.numbers(axis) for axis in "xyz"], 1)[order_S]
    if "string" in table.columns:
        string_S = table.numbers("string", "whole numbers", float.is_integer)
        string_S = string_S.long()[order_S]
    else:
        string_S = torch.arange(len(order_S)) // DOMS_PER_STRING + 1
    texts = table.columns.get("rde", ("",) * len(order_S))
    filled = {**table.columns, "rde": tuple("1" if t in MISSING else t for t in texts)}
    rde_S = replace(table, columns=filled).numbers(
        "rde", "numbers above 0", lambda rde: rde > 0
    )[order_S]
    unknown_S = torch.tensor([text in MISSING for text in texts])[order_S]
    if unknown_S.any():
        icecube = DetectorGeometry.icecube86()
        twin_S = icecube.nearest_dom(position_S3)
        known_S = icecube.rde_S[twin_S.clamp(min=0)]
        rde_S = torch.where(unknown_S & (twin_S >= 0), known_S, rde_S)
    return DetectorGeometry(
        name=name, position_S3=position_S3, string_S=string_S, rde_S=rde_S
    )


def _from_pmts(table: TextTable, name: str) -> DetectorGeometry:
    """Return the geometry of a table with one row per PMT; rules in `from_file`."""
    dom_N = table.numbers(
        "sensor_id", "whole numbers from 0", lambda v: v >= 0 == v % 1
    ).long()
    pmt_N = table.numbers(
        PMT,
        f"whole numbers 0 to {MAX_PMTS - 1}",
        lambda v: 0 <= v < MAX_PMTS and v.is_integer(),
    ).long()
    row_of = {int(dom): row for row, dom in reversed([*enumerate(dom_N)])}
    rows = sorted(row_of.values())
    doms = replace(
        table,
        lines=tuple(table.lines[row] for row in rows),
        columns={
            column: tuple(texts[row] for row in rows)
            for column, texts in table.columns.items()
            if column not in (PMT, *PMT_COLUMNS)
        },
    )
    geometry = _from_table(doms, name)
    position_N3 = torch.stack([table.numbers(axis) for axis in "xyz"], 1)
    off_N = (position_N3 != geometry.position_S3[dom_N]).any(dim=1)
    known = set[tuple[int, int]]()
    for row, pair in enumerate(zip(dom_N.tolist(), pmt_N.tolist(), strict=True)):
        if off_N[row] or pair in known:
            what = "another position than its DOM" if off_N[row] else "a number twice"
            raise ValueError(
                f"{table.source}, {table.line} {table.lines[row]}: PMT {pair[1]} of "
                f"sensor_id {pair[0]} has {what}"
            )
        known.add(pair)
    direction_N3 = torch.stack([table.numbers(column) for column in PMT_COLUMNS], 1)
    shape = (len(geometry), int(pmt_N.max()) + 1, 3)
    direction_SP3 = torch.full(shape, torch.nan, dtype=torch.float64)
    direction_SP3[dom_N, pmt_N] = direction_N3
    return replace(geometry, pmt_direction_SP3=direction_SP3)


def _sensor_id(table: TextTable) -> Tensor:
    """Return sensor_id (S,) int64 of each row; 0 to S - 1 must occur once each."""
    if "sensor_id" not in table.columns and {"string", "dom"} <= set(table.columns):
        string_S = table.numbers(
            "string", "whole numbers from 1", lambda v: v >= 1 and v.is_integer()
        )
        dom_S = table.numbers(
            "dom",
            f"whole numbers 1 to {DOMS_PER_STRING}",
            lambda v: 1 <= v <= DOMS_PER_STRING and v.is_integer(),
        )
        sensor_id_S = (DOMS_PER_STRING * (string_S - 1) + dom_S - 1).long()
    else:
        sensor_id_S = table.numbers(
            "sensor_id", "whole numbers from 0", lambda v: v >= 0 and v.is_integer()
        ).long()
    line_of: dict[int, int] = {}
    for line, sensor_id in zip(table.lines, sensor_id_S.tolist(), strict=True):
        if sensor_id in line_of:
            raise ValueError(
                f"{table.source}, {table.line} {line}, column 'sensor_id': {sensor_id} "
                f"is also in {table.line} {line_of[sensor_id]}; each sensor_id must "
                "occur once"
            )
        line_of[sensor_id] = line
    missing = sorted(set(range(len(line_of))) - set(line_of))
    if missing:
        largest = max(line_of)
        raise ValueError(
            f"{table.source}, {table.line} {line_of[largest]}, column 'sensor_id': got "
            f"{largest}, but the {len(line_of)} rows must hold 0 to "
            f"{len(line_of) - 1}, each once; missing: {_first_few(missing)}"
        )
    return sensor_id_S


def _first_few(values: list[int]) -> str:
    """Return the first five values, and their number if there are more."""
    text = ", ".join(str(value) for value in values[:5])
    return text if len(values) <= 5 else f"{text}, ... ({len(values)} in all)"


def nearest_dom_plain(
    position_S3: Tensor, position_T3: Tensor, tolerance: float
) -> Tensor:
    """Compare every position with every DOM: the plain twin of `nearest_dom`."""
    nearest_T = []
    for chunk_T3 in torch.split(position_T3, max(1, 2**22 // len(position_S3))):
        # The matrix-product form of cdist loses centimetres at these distances.
        distance_TS = torch.cdist(
            chunk_T3, position_S3, compute_mode="donot_use_mm_for_euclid_dist"
        )
        distance_T, sensor_id_T = distance_TS.min(dim=1)
        nearest_T.append(torch.where(distance_T <= tolerance, sensor_id_T, -1))
    return torch.cat(nearest_T)


class CellGrid:
    """Cubic cells; an occupied cell lists the DOMs whose tolerance ball touches it."""

    def __init__(self, position_S3: Tensor, tolerance: float) -> None:
        self.position_S3, self.tolerance = position_S3, tolerance
        # Slightly more than the tolerance, so that rounding loses no pulse at its edge.
        reach = 1.01 * tolerance
        self.origin_3 = position_S3.amin(0) - reach
        extent_3 = position_S3.amax(0) + reach - self.origin_3
        # With an edge of 3 reach a ball touches at most two cells along each axis. At
        # most 2^20 cells along each axis keep cell numbers within 63 bits.
        self.edge = max(3 * reach, float(extent_3.max()) / 2**20)
        self.num_cells_3 = (extent_3 / self.edge).floor().long() + 1
        corner_83 = position_S3.new_tensor(list(product((-reach, reach), repeat=3)))
        corner_S83 = position_S3[:, None] + corner_83
        cell_S83 = ((corner_S83 - self.origin_3) / self.edge).floor().long()
        key_S8 = self._cell_number(cell_S83.clamp(min=0))
        sensor_id_S8 = torch.arange(len(position_S3)).to(key_S8)[:, None].expand(-1, 8)
        entry_E2 = torch.stack([key_S8, sensor_id_S8], -1).flatten(0, 1)
        entry_E2 = torch.unique(entry_E2, dim=0)
        # Numbers of the occupied cells, ascending.
        self.key_C, self.num_doms_C = entry_E2[:, 0].unique_consecutive(
            return_counts=True
        )
        self.sensor_id_E = entry_E2[:, 1].contiguous()  # by cell, then ascending
        self.first_C = self.num_doms_C.cumsum(0) - self.num_doms_C  # in sensor_id_E

    def nearest(self, position_T3: Tensor) -> Tensor:
        """Return sensor_id (T,) of the nearest DOM, -1 for none."""
        if int(self.num_doms_C.max()) > 64:  # cells this full save no time
            return nearest_dom_plain(self.position_S3, position_T3, self.tolerance)
        return torch.cat([self._search(t) for t in torch.split(position_T3, 2**17)])

    def _search(self, position_T3: Tensor) -> Tensor:
        cell_T3 = ((position_T3 - self.origin_3) / self.edge).floor()
        inside_T = ((cell_T3 >= 0) & (cell_T3 < self.num_cells_3)).all(1)
        # NaN and infinity are outside; they become cell 0 before they become integers.
        key_T = self._cell_number(torch.where(inside_T[:, None], cell_T3, 0.0).long())
        slot_T = torch.searchsorted(self.key_C, key_T).clamp(max=len(self.key_C) - 1)
        index_H = (inside_T & (self.key_C[slot_T] == key_T)).nonzero().squeeze(1)
        position_H3, slot_H = position_T3[index_H], slot_T[index_H]
        first_H, num_doms_H = self.first_C[slot_H], self.num_doms_C[slot_H]
        best_H = position_H3.new_full((len(index_H),), math.inf)
        nearest_H = torch.full_like(index_H, -1)
        for k in range(int(self.num_doms_C.max())):
            # Cells with fewer DOMs repeat their last one.
            sensor_id_H = self.sensor_id_E[first_H + (num_doms_H - 1).clamp(max=k)]
            gap_H3 = position_H3 - self.position_S3[sensor_id_H]
            distance_H = torch.linalg.vector_norm(gap_H3, dim=1)
            closer_H = (distance_H < best_H) & (distance_H <= self.tolerance)
            best_H = torch.where(closer_H, distance_H, best_H)
            nearest_H = torch.where(closer_H, sensor_id_H, nearest_H)
        nearest_T = torch.full_like(slot_T, -1)
        nearest_T[index_H] = nearest_H
        return nearest_T

    def _cell_number(self, cell: Tensor) -> Tensor:
        """Return the number (...) of a cell (..., 3) in the grid."""
        number = cell[..., 0] * self.num_cells_3[1] + cell[..., 1]
        return number * self.num_cells_3[2] + cell[..., 2]
