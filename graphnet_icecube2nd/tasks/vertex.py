"""Vertex: position and time of an interaction in or near the detector.

Shape letters: B events, D latent width, M models, N knots, A axes (x, y, z).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.statistics import (
    density,
    effective_events,
    mean,
    quantile,
    quantile_intervals,
    share_interval,
)
from graphnet_icecube2nd.tasks.bins import weights_of
from graphnet_icecube2nd.tasks.label import DIRECTION, VERTEX
from graphnet_icecube2nd.tasks.losses import (
    HALF_WIDTHS,
    LIKELIHOODS,
    SHARE,
    WIDTH_LOSSES,
)
from graphnet_icecube2nd.tasks.section import (
    COVERAGE_FIGURE,
    LEFT_OUT,
    NORMAL_WIDTH,
    WIDTH_TEXT,
    Columns,
    Curve,
    DrawnFigure,
    Panel,
    Section,
    Tables,
    answered_events,
    bins_section,
    empty_section,
    event_counts,
    pull_curve,
    share_curve,
    width_panels,
    with_interval,
)
from graphnet_icecube2nd.tasks.task import (
    FEWEST,
    Calibration,
    Column,
    Task,
    finite_number,
    register_task,
)
from graphnet_icecube2nd.tasks.width import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    mixture_log_scale,
    width_knots,
)

Array = NDArray[np.float64]
# Units of the last layer; an output of 0 is a width of about this.
POSITION_UNIT, TIME_UNIT = 50.0, 200.0  # m, ns
PLACE = ("vertex_x", "vertex_y", "vertex_z")
TIME, PLACE_WIDTH, TIME_WIDTH = "vertex_time", "vertex_sigma", "vertex_time_sigma"
TIME_KNOWN = 4  # index in the target
# Radii of spheres, in units of the width of a coordinate, that hold a share of normal
# errors of equal widths along x, y and z.
REGIONS = {
    share: radius / NORMAL_WIDTH
    for share, radius in ((0.5, 1.538172), (0.68, 1.872400), (0.9, 2.500278))
}
REGION_TEXT = (
    " For a vertex, x, y and z are counted together; 'inside x 68%' counts x alone. "
    "'inside region 50%', '68%' and '90%' are the shares of true vertices in spheres "
    "around the predicted vertex that would hold so many if errors were normally "
    "distributed with the predicted width."
)


@dataclass(frozen=True, kw_only=True)
class VertexCalibration(Calibration):
    """Scales the widths as functions of the predicted widths, and shifts the time.

    Values between the knots are interpolated; values beyond are those of the edge.
    Without knots of the time (no event had a true time) times are not changed.
    """

    what: ClassVar[str] = "calibration of a vertex"

    widths: tuple[float, ...]  # (N,) predicted widths of the position, m, ascending
    factors: tuple[float, ...]  # (N,) factors on them
    time_widths: tuple[float, ...] = ()  # (N,) predicted widths of the time, ns
    time_shifts: tuple[float, ...] = ()  # (N,) ns, added to the time
    time_factors: tuple[float, ...] = ()  # (N,) factors on its widths
    num_events: int = 0

    def __post_init__(self) -> None:
        self.check_knots("widths", "factors", fewest=1)
        self.check_knots("time_widths", "time_shifts", "time_factors")
        finite_number(self.num_events, "num_events of a vertex calibration")


@register_task
class Vertex(Task):
    """Position and time of the interaction.

    The last layer predicts them relative to the first light of the event (see
    `nn.first_light`). The outputs are x, y, z [m], time [ns], and the logarithms of the
    scales of their distributions. The time counts on the clock of the detector: that of
    the pulses' times in a file, or a running clock (see `PulseMap`).

    Events whose vertex is not known, or that only pass through the detector (topology
    `through_going_track` or `muon_bundle`), have no label. Without a topology these are
    events whose vertex is more than 500 m outside a detector with known modules.
    Without true times only the position is trained, and the predicted time has no
    meaning.

    Args:
        likelihood: Distribution of position and time: `student` (4 degrees of freedom,
            with heavy tails), `gaussian`, or `quantile` (no form is assumed). Its width
            is the same along x, y and z.

    Raises:
        ValueError: The likelihood is unknown.
    """

    name: ClassVar[str] = "vertex"
    truth: ClassVar[tuple[str, ...]] = (VERTEX,)
    num_outputs: ClassVar[int] = 6
    uses_first_light: ClassVar[bool] = True
    default_weight: ClassVar[float] = 0.05
    calibration_class: ClassVar[type[Calibration]] = VertexCalibration
    columns: ClassVar[tuple[Column, ...]] = (
        *(Column(name, "m", f"{name[-1]} of the interaction") for name in PLACE),
        Column(TIME, "ns", "time of the interaction, on the clock of the pulses"),
        Column(PLACE_WIDTH, "m", "half of the central 68% of x, of y and of z"),
        Column(TIME_WIDTH, "ns", "half of the central 68% of the time"),
    )

    def __init__(self, likelihood: str = "student") -> None:
        super().__init__()
        check_one_of("likelihood", likelihood, LIKELIHOODS)
        self.likelihood = likelihood

    def forward(  # type: ignore[override]
        self, latent_BD: Tensor, first_light_B4: Tensor
    ) -> Tensor:
        """Return the raw outputs, (B, 6), in the coordinates of `first_light_B4`."""
        raw_B6 = super().forward(latent_BD)
        # At least float32: float16 has steps of 8 ns at the time of a trigger.
        raw_B6 = raw_B6.to(first_light_B4.dtype)
        unit_4 = raw_B6.new_tensor([POSITION_UNIT] * 3 + [TIME_UNIT])
        point_B4 = first_light_B4 + unit_4 * raw_B6[:, :4]
        return torch.cat([point_B4, unit_4[2:].log() + raw_B6[:, 4:]], dim=1)

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return x, y, z [m], time [ns] and whether the time is known (1 or 0), (B, 5).

        An event without a true vertex has NaN.
        """
        return truth[VERTEX]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the losses of position and, if known, of time, (B,).

        They are negative log-likelihoods, nat, or quantile losses, in the units of the
        last layer.
        """
        loss = WIDTH_LOSSES[self.likelihood]
        scale_B2 = self._scales(output)
        position_B3 = (output[:, :3] - target[:, :3]) / POSITION_UNIT
        time_B = (output[:, 3] - target[:, 3]) / TIME_UNIT
        loss_B = loss(position_B3, scale_B2[:, 0] / POSITION_UNIT)
        time_loss_B = loss(time_B, scale_B2[:, 1] / TIME_UNIT)
        return loss_B + time_loss_B.where(target[:, TIME_KNOWN] > 0, 0.0)

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return the columns without calibration."""
        return self.predict_calibrated(output, None)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return the columns, with a `VertexCalibration` applied."""
        output = output.double()
        width_B, time_width_B = self._widths(output).unbind(1)
        time_B = output[:, 3]
        if calibration is not None:
            assert isinstance(calibration, VertexCalibration)
            knots = calibration
            width_B = width_B * _between(width_B, knots.widths, knots.factors)
            if times := knots.time_widths:
                shift_B = _between(time_width_B, times, knots.time_shifts)
                factor_B = _between(time_width_B, times, knots.time_factors)
                time_B, time_width_B = time_B + shift_B, time_width_B * factor_B
        place = dict(zip(PLACE, output[:, :3].unbind(1), strict=True))
        return {
            **place,
            TIME: time_B,
            PLACE_WIDTH: width_B,
            TIME_WIDTH: time_width_B,
        }

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the distance [m] and the share of x, y, z within their intervals."""
        error_B3 = output[:, :3] - target[:, :3]
        inside_B3 = error_B3.abs() <= self._widths(output)[:, :1]
        return {
            "distance": error_B3.norm(dim=1),
            "inside_68": inside_B3.float().mean(dim=1),
        }

    def collect(self) -> dict[str, Any]:
        """Return the mean absolute error of the time [ns], of events with a time."""
        from torchmetrics import MeanMetric

        class TimeError(MeanMetric):
            higher_is_better = False  # type: ignore[assignment]

            def update(  # type: ignore[override]
                self, time_B: Tensor, target: Tensor, weight_B: Tensor | None = None
            ) -> None:
                known_B = target[:, TIME_KNOWN] > 0
                weight_B = torch.ones_like(time_B) if weight_B is None else weight_B
                error_B = (time_B - target[:, 3]).abs()
                super().update(error_B[known_B], weight_B[known_B])

        return {"time_error": TimeError()}

    def scores(self, output: Tensor) -> Tensor:
        """Return the times [ns], (B,)."""
        return output[:, 3]

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> VertexCalibration:
        """Fit the widths in bins of equal numbers of events of similar width.

        Then 68% of the errors of x, y and z together, and of the time, lie within the
        widths, and the median error of the time is 0. ValueError if fewer than 100
        events have an answer and a label.
        """
        good_B = np.isfinite(output).all(axis=1) & np.isfinite(target).all(axis=1)
        output, target = output[good_B], target[good_B]
        if len(output) < FEWEST:
            raise ValueError(
                f"a calibration needs at least {FEWEST} events, got {len(output)}"
            )
        width_B2 = self._widths(torch.from_numpy(output).double()).numpy()
        width_B, time_width_B = width_B2.T
        error_B4 = target[:, :4] - output[:, :4]
        widths, _, factors = width_knots(
            width_B, error_B4[:, :3], width_B, shifted=False
        )
        times: tuple[tuple[float, ...], ...] = ((), (), ())
        timed_B = target[:, TIME_KNOWN] > 0
        if timed_B.sum() >= FEWEST:
            by_B = time_width_B[timed_B]
            times = width_knots(by_B, error_B4[timed_B, 3], by_B)
        time_widths, time_shifts, time_factors = times
        return VertexCalibration(
            widths=widths,
            factors=factors,
            time_widths=time_widths,
            time_shifts=time_shifts,
            time_factors=time_factors,
            num_events=len(output),
        )

    def calibration_figures(self, columns: Columns, target: Array) -> dict[str, float]:
        """Return shares within the 68% intervals, of x, y, z and of the time."""
        good_B = has_vertex(columns)
        columns = {name: values[good_B] for name, values in columns.items()}
        target = target[good_B]
        pull_B3 = _residual(columns, target) / columns[PLACE_WIDTH][:, None]
        timed_B = target[:, TIME_KNOWN] > 0
        pull_B = (columns[TIME] - target[:, 3]) / columns[TIME_WIDTH]
        return {
            "inside_68": _share(np.abs(pull_B3) <= 1),
            "time_inside_68": _share(np.abs(pull_B[timed_B]) <= 1),
        }

    def combine(self, outputs_MBK: Tensor, weights: Sequence[float]) -> Tensor:
        """Return mean and scales of the mixture of the members, (B, 6).

        Members that disagree make it wide, as in `WidthTask.combine`.
        """
        mean_BK = super().combine(outputs_MBK, weights)
        good_MB = outputs_MBK.isfinite().all(dim=2)
        share_MB = outputs_MBK.new_tensor(weights)[:, None] * good_MB
        share_MB = share_MB / share_MB.sum(dim=0)
        spread_MB4 = (outputs_MBK[..., :4] - mean_BK[:, :4]).square()
        spreads = (spread_MB4[..., :3].mean(dim=2), spread_MB4[..., 3])
        log_scales = [
            mixture_log_scale(scale_MB, spread_MB, share_MB, self.likelihood)
            for scale_MB, spread_MB in zip(
                self._scales(outputs_MBK).unbind(-1), spreads, strict=True
            )
        ]
        return torch.cat([mean_BK[:, :4], torch.stack(log_scales, dim=1)], dim=1)

    def report_section(self, tables: Tables, target: Array, known: Columns) -> Section:
        """Return distances, errors along and across the flight, pulls and coverage."""
        tables, target, known, missing = answered_events(
            tables, target, known, has_vertex
        )
        if not len(target):
            return empty_section(self.name, "Vertex", missing)
        return _section(tables, target, known, missing)

    def _scales(self, output: Tensor) -> Tensor:
        """Return the scales of position [m] and time [ns], (..., B, 2)."""
        unit_2 = output.new_tensor([POSITION_UNIT, TIME_UNIT])
        low, high = math.log(SMALLEST_SCALE), math.log(LARGEST_SCALE)
        return (output[..., 4:] - unit_2.log()).clamp(low, high).exp() * unit_2

    def _widths(self, output: Tensor) -> Tensor:
        """Return half of the central 68% of each coordinate and of the time, (B, 2)."""
        return self._scales(output) * HALF_WIDTHS[self.likelihood]


def has_vertex(columns: Columns) -> NDArray[np.bool_]:
    """Return which events have a position and, if there are widths, widths, (B,)."""
    good_B: NDArray[np.bool_] = np.all(
        [
            *(np.isfinite(columns[name]) for name in PLACE),
            *(columns[n] > 0 for n in (PLACE_WIDTH, TIME_WIDTH) if n in columns),
        ],
        axis=0,
    )
    return good_B


@dataclass(frozen=True, kw_only=True, eq=False)
class _Errors:
    """Errors of the vertices of one table."""

    place_B3: Array  # m, predicted minus true
    distance_B: Array  # m
    along_B: Array  # m, along the true flight; NaN without a true direction
    across_B: Array  # m, distance from the true flight
    time_B: Array  # ns; NaN without a true or a predicted time
    width_B: Array | None  # m, None if other software gives none
    time_width_B: Array | None  # ns

    @classmethod
    def of(cls, table: Columns, target: Array, known: Columns) -> _Errors:
        """Compare a table with the true vertices."""
        place_B3, nothing_B = _residual(table, target), np.full(len(target), np.nan)
        along_B, across_B, time_B = nothing_B, nothing_B, nothing_B
        if DIRECTION in known:
            flight_B3 = -known[DIRECTION]
            along_B = (place_B3 * flight_B3).sum(axis=1)
            off_B3 = place_B3 - along_B[:, None] * flight_B3
            across_B = np.linalg.norm(off_B3, axis=1)
        if TIME in table:
            timed_B = target[:, TIME_KNOWN] > 0
            time_B = np.where(timed_B, table[TIME] - target[:, 3], np.nan)
        return cls(
            place_B3=place_B3,
            distance_B=np.linalg.norm(place_B3, axis=1),
            along_B=along_B,
            across_B=across_B,
            time_B=time_B,
            width_B=table.get(PLACE_WIDTH),
            time_width_B=table.get(TIME_WIDTH),
        )

    def figures(self, chosen_B: NDArray[np.bool_], weight_B: Array) -> dict[str, float]:
        """Return the figures of chosen events; NaN for what is not known."""
        weight, distance = weight_B[chosen_B], self.distance_B[chosen_B]
        median, most = quantile(distance, [0.5, SHARE], weight)
        interval = quantile_intervals(distance, [0.5], weight)[0]
        x, y, z = self.place_B3[chosen_B].T
        plain = {
            "horizontal_m": np.hypot(x, y),
            "vertical_m": np.abs(z),
            "across_m": self.across_B[chosen_B],
        }
        if self.width_B is not None:
            plain["median_width_m"] = self.width_B[chosen_B]
        found = {
            **with_interval("distance_m", median, *interval),
            "distance_68_m": float(most),
            **{name: _quantile(v, 0.5, weight) for name, v in plain.items()},
        }
        for name, unit, error in (
            ("along", "m", self.along_B[chosen_B]),
            ("time", "ns", self.time_B[chosen_B]),
        ):
            low, middle, high = (_quantile(error, q, weight) for q in (0.16, 0.5, 0.84))
            found[f"{name}_bias_{unit}"] = middle
            found[f"{name}_resolution_{unit}"] = (high - low) / 2
        pulls = {}
        if self.width_B is not None:
            pulls[""] = self.place_B3[chosen_B] / self.width_B[chosen_B, None]
            for name, is_in_B in _containment(pulls[""]).items():
                share = mean(is_in_B, weight)
                ends = share_interval(share, effective_events(weight))
                found |= with_interval(f"inside_{name}", share, *ends)
        if self.time_width_B is not None:
            time_B = self.time_B[chosen_B] / self.time_width_B[chosen_B]
            pulls["time_"] = time_B[:, None]
        for name, pull_BA in pulls.items():
            good_B = np.isfinite(pull_BA).all(axis=1) & (weight > 0)
            if not good_B.any():
                continue
            size_BA, some = np.abs(pull_BA[good_B]), weight[good_B]
            share = mean((size_BA <= 1).mean(axis=1), some)
            ends = share_interval(share, effective_events(some))
            found |= with_interval(f"{name}inside_68", share, *ends)
            flat, num = size_BA.ravel(), size_BA.shape[1]
            held = quantile(flat, [SHARE], np.repeat(some, num))
            found[f"{name}pull_68"] = float(held[0])
        return found


def _section(
    tables: Tables,
    target: Array,
    known: Columns,
    missing: Mapping[str, Mapping[str, int]],
) -> Section:
    weight_B = weights_of(known, len(target))
    errors = {name: _Errors.of(t, target, known) for name, t in tables.items()}

    def row(name: str, chosen_B: NDArray[np.bool_]) -> dict[str, float]:
        return errors[name].figures(chosen_B, weight_B)

    everything_B = np.ones(len(target), bool)
    rows = [
        event_counts(name, weight_B, missing[name]) | row(name, everything_B)
        for name in errors
    ]
    # A column without any value is left out.
    used = {name for one in rows for name, value in one.items() if value == value}
    rows = [{n: v for n, v in one.items() if n in used} for one in rows]
    flight, times, pulls, coverage = [], [], [], []
    for number, (name, one) in enumerate(errors.items()):
        for values, what in ((one.along_B, "along"), (one.across_B, "across")):
            is_across = what == "across"
            flight += _histogram(values, f"{name}, {what}", number, weight_B, is_across)
        times += _histogram(one.time_B, name, number, weight_B)
        if one.width_B is not None:
            pull_B3 = one.place_B3 / one.width_B[:, None]
            thrice = np.repeat(weight_B, 3)
            pulls.append(pull_curve(pull_B3.ravel(), name, number, thrice))
            inside = np.abs(pull_B3.ravel()) <= 1
            width = np.repeat(one.width_B, 3)
            coverage.append(share_curve(width, inside, name, number, thrice))
    panels = {
        "error of the vertex [m]": ("Along and across the flight", flight),
        "predicted minus true time [ns]": ("Time", times),
    }
    figures: dict[str, tuple[Panel, ...]] = {}
    drawn_panels = tuple(
        Panel(
            x_label=label,
            y_label="density of events",
            curves=tuple(curves),
            title=title,
        )
        for label, (title, curves) in panels.items()
        if curves
    )
    captions: dict[str, str] = {}
    if drawn_panels:
        figures["vertex_errors"] = drawn_panels
        captions["vertex_errors"] = (
            "Errors along the true flight (full; above 0 the predicted vertex is "
            "further along), distance from it (dashed), and errors of the time."
        )
    drawn = {
        "vertex_by_bin": DrawnFigure(
            column="distance_m",
            label="distance to the true vertex [m]",
            dashed="distance_68_m",
        )
    }
    drawn_captions = {
        "vertex_by_bin": "Median distance (solid), and the distance that 68% do not "
        "exceed (dotted, or open marks)."
    }
    if pulls:
        figures["vertex_widths"] = width_panels(
            pulls, coverage, f"{PLACE_WIDTH} [m]", x_log=True
        )
        captions["vertex_widths"] = (
            "Left: distribution of the pulls of x, y and z together; grey is a normal "
            "distribution whose central 68% lies between -1 and 1. Right: share of "
            "coordinates within the predicted width, with one standard error."
        )
    if all(one.width_B is not None for one in errors.values()):
        drawn["vertex_coverage_by_bin"] = replace(COVERAGE_FIGURE, dashed="inside_z_68")
        drawn_captions["vertex_coverage_by_bin"] = (
            "Share of x, y and z within the predicted width (solid), and of z alone "
            "(dotted, or open marks)."
        )
        drawn["vertex_regions_by_bin"] = DrawnFigure(
            column="inside_region_90",
            label="share of vertices in the region",
            dashed="inside_region_50",
            nominal=(0.5, 0.9),
            y_range=(0.0, 1.0),
        )
        drawn_captions["vertex_regions_by_bin"] = (
            "Share of true vertices in the 90% region (solid) and in the 50% region "
            "(dotted, or open marks); grey: the nominal shares."
        )
    by_bin = bins_section(
        VERTEX, "Vertex", list(errors), known, row, drawn, drawn_captions, len(target)
    )
    return Section(
        task=VERTEX,
        title="Vertex",
        text="The distance is that between predicted and true vertex, a median; "
        "'distance 68' is not exceeded by 68% of the events. 'horizontal' is the "
        "distance in x and y, 'vertical' that in z. 'along' is the error along the "
        "true flight, 'across' the distance from it."
        + WIDTH_TEXT * bool(pulls)
        + REGION_TEXT * bool(pulls)
        + LEFT_OUT * any(missing.values()),
        figures=figures,
        captions=captions,
        rows=rows,
        further=(by_bin,) if by_bin else (),
    )


def _containment(pull_B3: Array) -> dict[str, NDArray[np.bool_]]:
    """Return which true vertices lie in each coordinate's interval and each region."""
    inside_B3, radius_B = np.abs(pull_B3) <= 1, np.linalg.norm(pull_B3, axis=1)
    coordinates = zip("xyz", inside_B3.T, strict=True)
    return {
        **{f"{axis}_68": inside_B for axis, inside_B in coordinates},
        **{f"region_{100 * n:.0f}": radius_B <= r for n, r in REGIONS.items()},
    }


def _residual(columns: Columns, target: Array) -> Array:
    """Return predicted minus true positions, (B, 3) m."""
    return np.stack([columns[name] for name in PLACE], axis=1) - target[:, :3]


def _quantile(value_B: Array, share: float, weight_B: Array) -> float:
    """Return a quantile of the finite values; NaN if there are none."""
    good_B = np.isfinite(value_B) & (weight_B > 0)
    if not good_B.any():
        return float("nan")
    return float(quantile(value_B[good_B], [share], weight_B[good_B])[0])


def _histogram(
    value_B: Array, label: str, table: int, weight_B: Array, dashed: bool = False
) -> list[Curve]:
    """Return the distribution of errors, up to 1% on either side; none if unknown."""
    good_B = np.isfinite(value_B) & (weight_B > 0)
    if not good_B.any():
        return []
    value, weight = value_B[good_B], weight_B[good_B]
    low, high = quantile(value, [0.01, 0.99], weight)
    edges = np.linspace(low, max(high, low + 1e-6), 41)
    return [
        Curve(
            x=edges,
            y=density(value, edges, weight),
            label=label,
            style="steps",
            table=table,
            dashed=dashed,
        )
    ]


def _between(
    value_B: Tensor, knots: tuple[float, ...], values: tuple[float, ...]
) -> Tensor:
    """Return values interpolated between knots, (B,)."""
    plain_B = value_B.detach().cpu().numpy()
    return value_B.new_tensor(np.interp(plain_B, knots, values))


def _share(inside: NDArray[np.bool_]) -> float:
    return float(inside.mean()) if inside.size else float("nan")
