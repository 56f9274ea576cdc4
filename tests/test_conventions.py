"""Hand-made cases and round trips that pin the conventions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from graphnet_icecube2nd import conventions
from graphnet_icecube2nd.conventions import (
    angles_to_unit_vector,
    opening_angle,
    reverse_angles,
    to_tensor,
    unit_vector_to_angles,
)

PI = math.pi
DTYPES = [torch.float32, torch.float64]
# rad, error of a few roundings of an angle or a unit vector
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}

zeniths = st.floats(0, PI)
azimuths = st.floats(0, 2 * PI, exclude_max=True)


def rotated(angle: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return the unit vector at an angle [rad] from +z, in the y-z plane."""
    return torch.tensor([0.0, math.sin(angle), math.cos(angle)], dtype=dtype)


def test_feature_names_are_public_order() -> None:
    """The order is part of the trained weights."""
    names = "x y z time charge auxiliary qe scattering absorption"
    assert " ".join(conventions.FEATURE_NAMES) == names


def test_interval_speed_is_light_in_scaled_units() -> None:
    """The published 18 is c to the digits of 0.3 m/ns."""
    scale = conventions.TIME_SCALE / conventions.POSITION_SCALE
    assert 0.3 * scale == pytest.approx(conventions.INTERVAL_SPEED)
    assert conventions.SPEED_OF_LIGHT * scale == pytest.approx(18, rel=1e-3)


@pytest.mark.parametrize("azimuth", [0, 1.0, PI, 6.0])
def test_zenith_zero_is_overhead(azimuth: float) -> None:
    """Straight down-going: the source is overhead whatever the azimuth."""
    assert angles_to_unit_vector(0, azimuth).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("zenith", "azimuth", "direction"),
    [
        (PI / 2, 0, [1, 0, 0]),
        (PI / 2, PI / 2, [0, 1, 0]),
        (PI / 2, PI, [-1, 0, 0]),
        (PI / 2, 3 * PI / 2, [0, -1, 0]),
        (PI, 0, [0, 0, -1]),
        (PI / 4, PI / 4, [0.5, 0.5, math.sqrt(0.5)]),
    ],
)
def test_hand_made_directions(
    zenith: float, azimuth: float, direction: list[float]
) -> None:
    """Azimuth turns from +x towards +y, zenith opens from +z."""
    vector = angles_to_unit_vector(zenith, azimuth)
    assert vector.tolist() == pytest.approx(direction, abs=1e-15)
    back = unit_vector_to_angles(direction)
    assert [angle.item() for angle in back] == pytest.approx([zenith, azimuth])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("z", "zenith"), [(1.0, 0.0), (-1.0, PI)])
def test_azimuth_of_a_pole_is_zero(dtype: torch.dtype, z: float, zenith: float) -> None:
    """Signed zeros do not choose an azimuth."""
    for x, y in [(0.0, 0.0), (-0.0, 0.0), (0.0, -0.0), (-0.0, -0.0)]:
        vector = torch.tensor([x, y, z], dtype=dtype)
        found_zenith, azimuth = unit_vector_to_angles(vector)
        assert found_zenith == torch.tensor(zenith, dtype=dtype)
        assert azimuth.item() == 0
        assert math.copysign(1, azimuth.item()) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(zenith=zeniths, azimuth=azimuths)
@example(zenith=0.0, azimuth=1.0)
@example(zenith=PI, azimuth=1.0)
@example(zenith=1e-12, azimuth=1.0)
@example(zenith=1.0, azimuth=math.nextafter(2 * PI, 0))
@example(zenith=PI / 2, azimuth=0.0)
def test_round_trip_from_angles(
    dtype: torch.dtype, zenith: float, azimuth: float
) -> None:
    """Angles to vector and back, over the sphere, at the poles and at the seam."""
    angles = torch.tensor([zenith, azimuth], dtype=dtype)
    vector = angles_to_unit_vector(angles[0], angles[1])
    assert vector.dtype == dtype
    back_zenith, back_azimuth = unit_vector_to_angles(vector)
    tolerance = TOLERANCE[dtype]
    assert back_zenith.item() == pytest.approx(angles[0].item(), abs=tolerance)
    turn = (back_azimuth - angles[1]).item()
    # How well azimuth is known shrinks with the circle it lies on.
    assert abs(math.remainder(turn, 2 * PI)) * math.sin(zenith) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(
    vector=st.tuples(*[st.floats(-1, 1)] * 3), length=st.sampled_from([1e-15, 1, 1e15])
)
@example(vector=(1.0, -1e-9, 0.0), length=1)
@example(vector=(1.0, -1e-30, 0.0), length=1)
@example(vector=(1.0, -2e-7, 0.0), length=1)
@example(vector=(0.0, -0.0, 1.0), length=1)
def test_round_trip_from_vector(
    dtype: torch.dtype, vector: tuple[float, float, float], length: float
) -> None:
    """Vector to angles and back; azimuth never reaches 2 pi, length does not matter."""
    long = torch.tensor(vector, dtype=dtype) * length
    assume(long.norm() > 0)
    zenith, azimuth = unit_vector_to_angles(long)
    assert zenith.dtype == azimuth.dtype == dtype
    assert 0 <= zenith.item() <= torch.tensor(PI, dtype=dtype).item()
    assert 0 <= azimuth.item() < 2 * PI
    back = angles_to_unit_vector(zenith, azimuth)
    angle = opening_angle(long.double(), back.double()).item()
    assert angle < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("zenith", [1e-30, 1e-8, 1e-4])
def test_zenith_keeps_its_digits_near_the_pole(zenith: float) -> None:
    """In float32 acos(z) would return 0 for all of these."""
    direction = angles_to_unit_vector(torch.tensor(zenith), torch.tensor(2.0))
    found, azimuth = unit_vector_to_angles(direction)
    assert found.item() == pytest.approx(zenith, rel=1e-6)
    assert azimuth.item() == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(zenith=zeniths, azimuth=st.floats(-20, 20))
@example(zenith=0.3, azimuth=math.nextafter(PI, 0))
@example(zenith=0.3, azimuth=PI)
@example(zenith=0.3, azimuth=-1e-20)
def test_reversed_angles_are_the_reversed_direction(
    dtype: torch.dtype, zenith: float, azimuth: float
) -> None:
    """Origin to flight in angles and in vectors is the same thing."""
    angles = torch.tensor([zenith, azimuth], dtype=dtype)
    flight_zenith, flight_azimuth = reverse_angles(angles[0], angles[1])
    assert flight_zenith.dtype == flight_azimuth.dtype == dtype
    assert 0 <= flight_azimuth.item() < 2 * PI
    flight = angles_to_unit_vector(flight_zenith, flight_azimuth)
    origin = angles_to_unit_vector(angles[0], angles[1])
    # 20 rad is known to one rounding of 20, not of 1.
    assert torch.allclose(flight, -origin, rtol=0, atol=10 * TOLERANCE[dtype])


def test_reversed_vertical_hand_made() -> None:
    """A neutrino from overhead flies downward."""
    zenith, azimuth = reverse_angles(0.0, PI / 2)
    assert (zenith.item(), azimuth.item()) == (PI, 3 * PI / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_keep_dtype_beside_numbers(dtype: torch.dtype) -> None:
    """A Python number adopts the dtype of the tensor it meets."""
    zenith = torch.zeros(2, dtype=dtype)
    assert angles_to_unit_vector(zenith, 0.5).dtype == dtype
    assert angles_to_unit_vector(0.5, zenith).dtype == dtype


def test_numbers_and_arrays_of_any_form() -> None:
    """Read-only, reversed, integer and single-precision arrays are all welcome."""
    read_only = np.array([0.0, 1.0])
    read_only.flags.writeable = False
    assert angles_to_unit_vector(read_only, read_only[::-1]).dtype == torch.float64
    assert to_tensor(np.float32(1)).dtype == torch.float32
    assert to_tensor(1).dtype == torch.float64
    assert to_tensor(torch.tensor([1])).dtype == torch.float32
    assert angles_to_unit_vector(np.zeros((4, 1)), np.zeros(5)).shape == (4, 5, 3)


@pytest.mark.parametrize("shape", [(), (2,), (3, 4)])
def test_wrong_last_dimension_is_named(shape: tuple[int, ...]) -> None:
    """The message tells the shape that came."""
    wrong, right = np.ones(shape), np.ones(3)
    for call in (
        lambda: unit_vector_to_angles(wrong),
        lambda: opening_angle(wrong, right),
        lambda: opening_angle(right, wrong),
    ):
        with pytest.raises(ValueError, match=r"shape \(\.\.\., 3\)") as caught:
            call()
        assert str(caught.value).endswith(f"got {shape}")


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_vectors_without_direction_are_named(bad: float) -> None:
    """The row tells where to look in a long table."""
    vectors = torch.ones(2, 4, 3)
    vectors[1, 2] = bad
    with pytest.raises(ValueError, match=r"row 1, 2 is \[" + str(bad)):
        unit_vector_to_angles(vectors)
    with pytest.raises(ValueError, match=r"the vector is \["):
        unit_vector_to_angles([bad] * 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("angle", [0, 1e-7, 0.5, PI / 2, 3.0, PI - 1e-7, PI])
def test_opening_angle_is_accurate(
    angle: float, length: float, dtype: torch.dtype
) -> None:
    """Where acos would be wrong by 3e-4 in float32, and at any length."""
    a, b = rotated(0, dtype) * length, rotated(angle, dtype) / length
    found = opening_angle(a, b)
    assert found.dtype == dtype
    expected = math.atan2(b[1].item(), b[2].item())
    assert found.item() == pytest.approx(expected, rel=TOLERANCE[dtype], abs=1e-15)
    assert found.item() == pytest.approx(angle, abs=TOLERANCE[dtype])


@settings(deadline=None)
@given(
    a=st.tuples(*[st.floats(-1e100, 1e100)] * 3),
    b=st.tuples(*[st.floats(-1e100, 1e100)] * 3),
)
def test_opening_angle_is_symmetric_with_finite_gradient(
    a: tuple[float, float, float], b: tuple[float, float, float]
) -> None:
    """Any two finite vectors have an angle in 0..pi and a usable gradient."""
    left = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    right = torch.tensor(b, dtype=torch.float64)
    angle = opening_angle(left, right)
    assert 0 <= angle.item() <= PI
    assert angle.item() == opening_angle(right, left).item()
    (gradient,) = torch.autograd.grad(angle, left)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("angle", [0.0, PI / 2, PI])
def test_opening_angle_gradient_is_finite(angle: float, dtype: torch.dtype) -> None:
    """Parallel, orthogonal, opposite, and the shortest vectors a dtype can hold."""
    smallest = torch.finfo(dtype).tiny
    for length in (1.0, 1.5 * smallest, smallest / 4, 0.0):
        vector = torch.tensor([0, 0, length], dtype=dtype, requires_grad=True)
        found = opening_angle(vector, rotated(angle, dtype))
        (gradient,) = torch.autograd.grad(found, vector)
        assert gradient.isfinite().all()
        if length < smallest:
            assert found.item() == pytest.approx(PI / 2)
            assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_and_opposite_vectors_have_exact_angles(dtype: torch.dtype) -> None:
    """No rounding is left over that would give a gradient in a random direction."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(100, 3, generator=generator, dtype=dtype, requires_grad=True)
    for factor, angle in ((1, 0.0), (-2, PI)):
        found = opening_angle(vectors, factor * vectors.detach())
        assert (found == torch.tensor(angle, dtype=dtype)).all()
        (gradient,) = torch.autograd.grad(found.sum(), vectors)
        assert (gradient == 0).all()


def test_opening_angle_gradient_is_right() -> None:
    """Against differences, for both arguments."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    a.requires_grad_()
    b.requires_grad_()
    assert torch.autograd.gradcheck(opening_angle, (a, b))


def test_opening_angle_of_half_precision_is_float32() -> None:
    """An angle in bfloat16 would be wrong by a degree."""
    vectors = torch.ones(5, 3, dtype=torch.bfloat16)
    assert opening_angle(vectors, vectors).dtype == torch.float32


def test_opening_angle_broadcasts() -> None:
    """Sky maps compare every event with every pixel."""
    assert opening_angle(torch.ones(5, 1, 3), torch.ones(1, 7, 3)).shape == (5, 7)


def test_opening_angle_of_non_finite_is_nan() -> None:
    """A broken prediction shows up in the mean instead of hiding."""
    for bad in (math.nan, math.inf):
        angle = opening_angle(torch.tensor([bad, 0, 0]), torch.tensor([1.0, 0, 0]))
        assert angle.isnan()
