"""Direction: origin of the neutrino, with kappa and the radii of its contours.

The output of an event is one vector, kappa * direction. Shape letters: B events,
M models.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet_icecube2nd.conventions import opening_angle, unit_vector_to_angles
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.tasks.direction.calibration import (
    KappaCalibration,
    fit_calibration,
    kappa_to_radius,
)
from graphnet_icecube2nd.tasks.direction.combination import METHODS, WEIGHTED, combine
from graphnet_icecube2nd.tasks.direction.losses import (
    NORMALISATIONS,
    AngularDistanceLoss,
    CombinedDirectionLoss,
    DirectionLoss,
    VonMisesFisherLoss,
)
from graphnet_icecube2nd.tasks.label import DIRECTION
from graphnet_icecube2nd.tasks.task import Calibration, Column, Task, register_task

Array = NDArray[np.float64]
LOSSES = ("vmf", "combined", "angle")
COLUMNS = ("direction_x", "direction_y", "direction_z")
CONTOURS = (0.5, 0.9)  # default shares of contours in results
RADIUS = "radius_"  # followed by the percentage in the contour


def radius_name(level: float) -> str:
    """Return the column of the radius of a contour with a share, 0 to 1."""
    return f"{RADIUS}{100 * level:g}"


def radius_level(column: str) -> float | None:
    """Return the share in a column's contour, or None for other columns."""
    if not column.startswith(RADIUS):
        return None
    try:
        percent = float(column.removeprefix(RADIUS))
    except ValueError:
        return None
    return round(percent / 100, 6) if 0 < percent < 100 else None


def checked_contours(contours: Sequence[float]) -> tuple[float, ...]:
    """Return shares of contours, 0 to 1, sorted and unique; ValueError for others."""
    rising = tuple(sorted({round(float(level), 6) for level in contours}))
    if not rising or not 0 < rising[0] <= rising[-1] < 1:
        raise ValueError(f"contours must be shares between 0 and 1, got {contours}")
    return rising


@register_task
class Direction(Task):
    """Direction of the neutrino, pointing to where it came from.

    Args:
        loss: Name of the loss: `vmf` (negative log-likelihood of a von Mises-Fisher
            distribution), `combined` (opening angle + 0.05 vmf) or `angle` (opening
            angle).
        normalisation: Normalisation of the vmf: `exact`, or `published`, which is
            wrong above kappa 100.
        contours: Shares, 0 to 1, of the contours whose radii `predict` returns; results
            have those requested from the reconstruction.
        method: Method to combine the models of an ensemble; see `combination.combine`.

    Raises:
        ValueError: A loss, normalisation or method is unknown, or a share not allowed.
    """

    name: ClassVar[str] = "direction"
    truth: ClassVar[tuple[str, ...]] = (DIRECTION,)
    num_outputs: ClassVar[int] = 3
    calibration_class: ClassVar[type[Calibration]] = KappaCalibration
    columns: ClassVar[tuple[Column, ...]] = (
        Column("direction_x", "", "unit vector to the origin"),
        Column("direction_y", "", "unit vector to the origin"),
        Column("direction_z", "", "unit vector to the origin"),
        Column("azimuth", "rad", "0 to 2 pi"),
        Column("zenith", "rad", "0 to pi; 0: from above"),
        Column("kappa", "", "concentration of a von Mises-Fisher distribution"),
        Column("radius_50", "rad", "radius of the contour that holds half"),
        Column("radius_90", "rad", "radius of the contour that holds nine tenths"),
    )

    def __init__(
        self,
        loss: str = "vmf",
        normalisation: str = "exact",
        contours: Sequence[float] = CONTOURS,
        method: str = WEIGHTED,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("loss", loss, LOSSES),
            ("normalisation", normalisation, NORMALISATIONS),
            ("method", method, METHODS),
        ):
            check_one_of(name, value, allowed)
        self.contours, self.method = checked_contours(contours), method
        self.direction_loss = make_loss(loss, normalisation)

    def with_contours(self, contours: Sequence[float]) -> Direction:
        """Return a task like this one with radii of other contours."""
        other = copy.copy(self)
        other.contours = checked_contours(contours)
        other.options = {**self.options, "contours": other.contours}
        return other

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return unit vectors to the origin, (B, 3); NaN if there is none."""
        return truth[DIRECTION]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss, (B,)."""
        loss_B: Tensor = self.direction_loss(output, target, reduction="none")
        return loss_B

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        """Return unit vector, angles, kappa and radii of contours."""
        return self.predict_calibrated(output, None)

    def predict_calibrated(
        self, output: Tensor, calibration: Calibration | None
    ) -> dict[str, Tensor]:
        """Return the columns, with a `KappaCalibration` applied."""
        vector_B3 = output.detach().double()
        kappa_B = vector_B3.norm(dim=1)
        good_B = self.is_valid(output)
        unit_B3 = (vector_B3 / kappa_B[:, None]).where(good_B[:, None], torch.nan)
        zenith_B, azimuth_B = torch.full_like(unit_B3[:, :2].T, torch.nan)
        if bool(good_B.any()):
            zenith_B[good_B], azimuth_B[good_B] = unit_vector_to_angles(unit_B3[good_B])
        kappa_B = kappa_B.where(good_B, torch.nan)
        plain_B = kappa_B.cpu().numpy()
        if calibration is not None:
            assert isinstance(calibration, KappaCalibration)
            kappa_B = kappa_B.new_tensor(calibration.kappa(plain_B))
        radii = radii_of(plain_B, calibration, self.contours)
        return {
            **dict(zip(COLUMNS, unit_B3.unbind(1), strict=True)),
            "azimuth": azimuth_B,
            "zenith": zenith_B,
            "kappa": kappa_B,
            **{name: kappa_B.new_tensor(radius_B) for name, radius_B in radii.items()},
        }

    def is_valid(self, output: Tensor) -> Tensor:
        """Return which events have a direction, (B,): a finite vector, not zero."""
        length_B: Tensor = output.double().norm(dim=1)
        return length_B.isfinite() & (length_B > 0)

    def failure(self, output: Tensor) -> str:
        """Return why an event has no direction."""
        return "length 0" if not bool(output.any()) else "not finite"

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the opening angle, rad."""
        return {"opening_angle": opening_angle(output.float(), target)}

    def calibrate(
        self, output: Array, target: Array, method: str = "default"
    ) -> KappaCalibration:
        """Fit a `KappaCalibration` by `fit_calibration`; default method: isotonic."""
        method = "isotonic" if method == "default" else method
        angle_B = opening_angle(output, target).numpy()
        return fit_calibration(np.linalg.norm(output, axis=1), angle_B, method)

    def combine(self, outputs_MBK: Tensor, weights: Sequence[float]) -> Tensor:
        """Return one vector per event, (B, 3), by the task's method."""
        return combine(outputs_MBK, weights, self.method)


def make_loss(loss: str, normalisation: str) -> DirectionLoss:
    """Return a loss for directions by name."""
    if loss == "angle":
        return AngularDistanceLoss()
    is_combined = loss == "combined"
    kind = CombinedDirectionLoss if is_combined else VonMisesFisherLoss
    return kind(normalisation=normalisation)


def radii_of(
    kappa_B: Array,
    calibration: Calibration | None,
    contours: Sequence[float] = CONTOURS,
) -> dict[str, Array]:
    """Return radii of contours, rad, (B,) by column; NaN where kappa is NaN.

    Without a calibration they are those of the network's kappa.
    """
    known_B = np.isfinite(kappa_B)
    radii = {}
    for level in contours:
        radius_B = np.full(len(kappa_B), np.nan)
        if calibration is not None:
            assert isinstance(calibration, KappaCalibration)
            radius_B[known_B] = calibration.radius(kappa_B[known_B], level)
        else:
            radius_B[known_B] = kappa_to_radius(kappa_B[known_B], level).numpy()
        radii[radius_name(level)] = radius_B
    return radii
