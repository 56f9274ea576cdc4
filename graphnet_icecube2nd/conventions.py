"""Names, units and directions: the one place where physics conventions live.

Shape legend: T pulses in the batch, B events; ``...`` any leading shape, or none.

Frame: origin at the detector centre, right-handed, z up. A direction is the unit
vector (sin zen cos az, sin zen sin az, cos zen), order x, y, z, and points back to
where the neutrino came from; the flight direction is its opposite. Zenith is the
angle from +z (0..pi, 0 = source overhead), azimuth the angle from +x towards +y
(0..2 pi, 2 pi excluded), both in rad.
"""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TensorLike: TypeAlias = Tensor | npt.ArrayLike

# Pulse quantities. A pulse table holds the unit; the feature matrix the scaled value.
X = "x"  # (T,) float32, m, DOM position; feature x / POSITION_SCALE
Y = "y"  # (T,) float32, m, DOM position; feature y / POSITION_SCALE
Z = "z"  # (T,) float32, m, DOM position, upward; feature z / POSITION_SCALE
TIME = "time"  # (T,) float32, ns, window clock; feature (t - TIME_OFFSET) / TIME_SCALE
CHARGE = "charge"  # (T,) float32, p.e.; feature log10(charge) / CHARGE_DECADES
AUXILIARY = "auxiliary"  # (T,) bool, True = not hlc, likelier noise; feature 0 or 1
QE = "qe"  # (T,) float32, 1 = DOM of high quantum efficiency, 0 = standard or unknown
SCATTERING = "scattering"  # (T,) float32, scattering length at the DOM, robust-scaled
ABSORPTION = "absorption"  # (T,) float32, absorption length at the DOM, robust-scaled

# Columns of the feature matrix, in the order in which the models read them.
FEATURE_NAMES = (X, Y, Z, TIME, CHARGE, AUXILIARY, QE, SCATTERING, ABSORPTION)

# DOM quantities from which features are made.
SENSOR_ID = "sensor_id"  # (T,) int, DOM index 0..5159 = 60 * string index + position
STRING = "string"  # (T,) int, 1..86 in IceCube, 0..85 when derived from sensor_id
RDE = "rde"  # (T,) float32, relative DOM efficiency: 1.0 standard, 1.35 high-QE
HLC = "hlc"  # (T,) bool, hard local coincidence: True = good; auxiliary = not hlc

# Event quantities.
EVENT_ID = "event_id"  # (B,) int64, event key, joins pulses to truth
TIME_ORIGIN = "time_origin"  # (B,) ns, what a store subtracted from the event's times
AZIMUTH = "azimuth"  # (B,) float, rad, 0..2 pi (2 pi excluded)
ZENITH = "zenith"  # (B,) float, rad, 0..pi

# Pulses an event of the class has, first and last; names and borders are those of the
# competition's code. Events without pulses are in no class.
LENGTH_CLASSES: dict[str, tuple[int, int | None]] = {
    "total": (1, None),
    "short": (1, 63),
    "medium": (64, 191),
    "long": (192, None),
}

SPEED_OF_LIGHT = 0.299792458  # m/ns, in vacuum
POSITION_SCALE = 500.0  # m, one unit of the x, y, z features
TIME_OFFSET = 1.0e4  # ns, where the time feature is zero
TIME_SCALE = 3.0e4  # ns, one unit of the time feature
CHARGE_DECADES = 3.0  # decades of charge in one unit of the charge feature
# c in scaled units: 0.3 m/ns * TIME_SCALE / POSITION_SCALE. The rounded 0.3 is what the
# published weights were trained with; SPEED_OF_LIGHT would give 17.99.
INTERVAL_SPEED = 18.0
DETECTOR_CENTRE_DEPTH = 1948.07  # m, below the surface; z = this - depth


def angles_to_unit_vector(zenith: TensorLike, azimuth: TensorLike) -> Tensor:
    """Return the direction given by zenith and azimuth.

    Python numbers and numpy float64 give float64; tensors keep their dtype and device.

    Args:
        zenith: Angle from +z, rad, shape (...).
        azimuth: Angle from +x towards +y, rad, shape (...); both broadcast.

    Returns:
        Unit vectors, order x, y, z, shape (..., 3).
    """
    zenith, azimuth = to_tensor(zenith), to_tensor(azimuth)
    transverse = torch.sin(zenith)
    x = transverse * torch.cos(azimuth)
    y = transverse * torch.sin(azimuth)
    z = torch.cos(zenith).to(x.dtype).expand_as(x)
    return torch.stack([x, y, z], dim=-1)


def unit_vector_to_angles(direction: TensorLike) -> tuple[Tensor, Tensor]:
    """Return zenith and azimuth of vectors of any length.

    At the poles, where azimuth is undefined, it is 0 and has no gradient.

    Args:
        direction: Finite, non-zero vectors, order x, y, z, shape (..., 3).

    Returns:
        Zenith in 0..pi and azimuth in 0..2 pi (2 pi excluded), rad, shape (...) each.

    Raises:
        ValueError: The last dimension is not 3, or a vector is zero or not finite.
    """
    direction = _to_vectors(direction, "direction")
    _check_has_direction(direction)
    # Adding 0.0 turns -0.0 into 0.0, which atan2 would send to azimuth pi.
    x, y, z = (direction + 0.0).unbind(dim=-1)
    # atan2 keeps its relative accuracy near the poles, where acos(z) loses half of it.
    zenith = torch.atan2(torch.hypot(x, y), z)
    return zenith, wrap_azimuth(torch.atan2(y, x))


def reverse_angles(zenith: TensorLike, azimuth: TensorLike) -> tuple[Tensor, Tensor]:
    """Convert angles of the origin direction to those of the flight, or back.

    Args:
        zenith: Angle from +z, rad, shape (...).
        azimuth: Angle from +x towards +y, rad, shape (...), any number of turns.

    Returns:
        Zenith pi - zen and azimuth az + pi within 0..2 pi (2 pi excluded), rad.
    """
    zenith, azimuth = to_tensor(zenith), wrap_azimuth(to_tensor(azimuth))
    # Subtracting half a turn, rather than adding it and wrapping, rounds less often.
    reversed_azimuth = torch.where(
        azimuth < math.pi, azimuth + math.pi, azimuth - math.pi
    )
    return math.pi - zenith, wrap_azimuth(reversed_azimuth)


def opening_angle(a: TensorLike, b: TensorLike) -> Tensor:
    """Return the angle between two vectors of any length.

    The result is accurate from 0 to pi, with a finite gradient everywhere (zero where
    the vectors are parallel or opposite). A zero vector has no direction: its angle is
    pi/2, the average over random directions, and its gradient is zero. A vector counts
    as zero below the smallest normal number of its dtype, because its gradient would
    overflow.

    Source: W. Kahan, "How futile are mindless assessments of roundoff in floating-point
    computation?", chapter "Mangled angles", explains why acos(a . b) loses half its
    digits; this function uses atan2(|a x b|, a . b).

    Args:
        a: Vectors, order x, y, z, shape (..., 3).
        b: Vectors, order x, y, z, shape (..., 3); leading shapes broadcast.

    Returns:
        Opening angle, rad, shape (...), in the inputs' dtype, but at least float32.

    Raises:
        ValueError: A last dimension is not 3.
    """
    a, b = _to_vectors(a, "a"), _to_vectors(b, "b")
    dtype = at_least_float32(a, b)
    (a, a_is_zero), (b, b_is_zero) = _to_unit_size(a), _to_unit_size(b)
    # torch.linalg.cross is not used: its fused multiply-add makes a x a a tiny nonzero
    # vector, whose gradient has full length and a random direction.
    cross = a.roll(-1, -1) * b.roll(1, -1) - a.roll(1, -1) * b.roll(-1, -1)
    sine = torch.linalg.vector_norm(cross, dim=-1)
    cosine = (a * b).sum(dim=-1)
    # atan2(1, 0) = pi/2 replaces zero vectors before atan2: the gradient of atan2(0, 0)
    # is NaN and passes through a later torch.where.
    is_zero = a_is_zero | b_is_zero
    sine = torch.where(is_zero, 1.0, sine)
    cosine = torch.where(is_zero, 0.0, cosine)
    return torch.atan2(sine, cosine).to(dtype)


def to_tensor(value: TensorLike) -> Tensor:
    """Convert a tensor, array, number or nested sequence to a floating tensor (...).

    A floating tensor or array keeps its dtype, an integer tensor gets torch's default
    dtype, everything else float64.
    """
    if isinstance(value, Tensor):
        if value.is_floating_point():
            return value
        return value.to(torch.get_default_dtype())
    # A copy, because torch refuses negative strides and warns on read-only arrays.
    array = np.array(value, order="C")
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    return torch.from_numpy(array)


def precise_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype for sums that cancel: float64, or float32 on MPS.

    MPS has no float64. Autocast never changes float64, so such code needs no guard.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def at_least_float32(*tensors: Tensor) -> torch.dtype:
    """Return the dtype that holds all tensors: float64 if one has it, else float32."""
    is_double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if is_double else torch.float32


def _to_vectors(value: TensorLike, name: str) -> Tensor:
    """Return a floating tensor of shape (..., 3); ValueError names another shape."""
    vectors = to_tensor(value)
    if vectors.ndim == 0 or vectors.shape[-1] != 3:
        raise ValueError(f"{name} must have shape (..., 3); got {tuple(vectors.shape)}")
    return vectors


def _check_has_direction(vectors: Tensor) -> None:
    """Raise ValueError naming the first vector (..., 3) that is zero or not finite."""
    is_bad = ~torch.isfinite(vectors).all(dim=-1) | (vectors == 0).all(dim=-1)
    if not is_bad.any():
        return
    row = tuple(torch.nonzero(is_bad)[0].tolist())
    label = f"row {', '.join(map(str, row))}" if row else "the vector"
    raise ValueError(
        f"direction must be finite and not zero; {label} is {vectors[row].tolist()}"
    )


def wrap_azimuth(azimuth: Tensor) -> Tensor:
    """Bring azimuth [rad] to 0..2 pi; 2 pi is excluded in the tensor's own dtype."""
    wrapped = torch.remainder(azimuth, 2 * math.pi)
    # A tiny negative angle rounds up to a full turn; 0 is its nearest neighbour.
    return torch.where(wrapped >= 2 * math.pi, 0.0, wrapped)


def _to_unit_size(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Divide by the largest component, in precise_dtype; return which are zero too.

    Products of the result neither overflow nor underflow. No gradient flows through the
    divisor: an angle does not depend on the length, so that gradient is zero anyway.
    """
    precise = vectors.to(precise_dtype(vectors.device))
    size = precise.detach().abs().amax(dim=-1, keepdim=True)
    is_zero = size < torch.finfo(vectors.dtype).tiny
    return precise / torch.where(is_zero, 1.0, size), is_zero.squeeze(-1)
