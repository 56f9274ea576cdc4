"""Scores against hand-made events and a sampled distribution."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphnet_icecube2nd.tasks.direction import (
    OpeningAngleSummary,
    kappa_to_radius,
    mean_opening_angle,
    summarise_opening_angles,
)

Array = npt.NDArray[np.float64]
PI = math.pi
KAPPAS = [0.0, 5e-324, 1e-300, 1e-20, 1e-12, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e6]
CONTAINMENTS = [0.0, 1e-6, 0.1, 0.393, 0.5, 0.68, 0.9, 0.999, 1.0]


def fan(degrees: list[float]) -> tuple[Array, Array]:
    """Return predictions at these angles from a common true direction, (B, 3)."""
    angle = np.radians(degrees)
    prediction = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], -1)
    return 7 * prediction, np.broadcast_to([0.0, 0.0, 1.0], prediction.shape)


def contained(kappa: float, radius: float) -> float:
    """Return the fraction of a vMF within radius [rad], in longdouble."""
    k = np.longdouble(kappa)
    u = 2 * np.sin(np.longdouble(radius) / 2) ** 2
    return float(u / 2 if kappa == 0 else np.expm1(-k * u) / np.expm1(-2 * k))


def test_mean_opening_angle_of_a_fan() -> None:
    """The mean of 0, 90 and 180 degrees is 90 degrees, at any length."""
    score = mean_opening_angle(*fan([0, 90, 180]))
    assert score.shape == ()
    assert score.item() == pytest.approx(PI / 2, rel=1e-15)


def test_mean_opening_angle_of_broken_predictions() -> None:
    """Zero has no direction, NaN must not hide."""
    _, direction = fan([0.0])
    assert mean_opening_angle(np.zeros((1, 3)), direction).item() == PI / 2
    assert mean_opening_angle(np.full((1, 3), np.nan), direction).isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_summary_of_a_fan(dtype: torch.dtype) -> None:
    """101 angles from 0 to 100 degrees are their own percentiles."""
    prediction, direction = (
        torch.from_numpy(vectors.copy()) for vectors in fan(list(range(101)))
    )
    summary = summarise_opening_angles(prediction.to(dtype), direction)
    assert summary.num_events == 101
    found = [summary.mean, summary.median, summary.q68, summary.q90]
    tolerance = 0.4 if dtype == torch.bfloat16 else 1e-5  # degrees
    assert np.degrees(found) == pytest.approx([50, 50, 68, 90], abs=tolerance)
    assert all(type(value) is float for value in found)


def test_summary_is_frozen_and_keeps_nan() -> None:
    """One NaN event makes all figures NaN."""
    prediction, direction = fan([1, 2, 3])
    prediction[1] = np.nan
    summary = summarise_opening_angles(prediction, direction)
    values = dataclasses.astuple(summary)
    assert values[0] == 3
    assert np.isnan(values[1:]).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.mean = 0.0  # type: ignore[misc]
    assert isinstance(summary, OpeningAngleSummary)


def test_summary_works_on_predictions_with_gradient() -> None:
    """A validation loop may forget no_grad."""
    prediction = torch.ones(4, 3, requires_grad=True)
    assert summarise_opening_angles(prediction, torch.ones(4, 3)).mean == 0


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (1, 3)), ((2, 4), (2, 4))])
def test_bad_shapes_are_named(shapes: tuple[tuple[int, ...], ...]) -> None:
    """The message tells both shapes."""
    for score in (mean_opening_angle, summarise_opening_angles):
        with pytest.raises(ValueError, match=r"shape \(B, 3\)") as caught:
            score(np.ones(shapes[0]), np.ones(shapes[1]))
        assert f"{shapes[0]} and {shapes[1]}" in str(caught.value)
        with pytest.raises(ValueError, match="0 events"):
            score(np.ones((0, 3)), np.ones((0, 3)))


def test_radius_hand_made() -> None:
    """Half of a uniform sky, all of it, and the sigma of a narrow peak."""
    assert kappa_to_radius(0.0, 0.5).item() == pytest.approx(PI / 2, rel=1e-15)
    assert kappa_to_radius(0.0, 1.0).item() == pytest.approx(PI, rel=1e-15)
    sigma = kappa_to_radius(1e6, 1 - math.exp(-0.5)).item()
    assert sigma == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("containment", CONTAINMENTS)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_radius_contains_what_it_should(kappa: float, containment: float) -> None:
    """Put back into the distribution function."""
    radius = kappa_to_radius(kappa, containment).item()
    assert 0 <= radius <= PI
    assert contained(kappa, radius) == pytest.approx(containment, rel=1e-12)


def test_everything_is_contained_in_the_sphere() -> None:
    """Containment 1 means pi, on both sides of the switch between the two forms."""
    kappa = np.logspace(-25, 6, 50_001)
    radius = kappa_to_radius(kappa, 1.0).numpy()
    assert radius == pytest.approx(PI, abs=1e-7)
    assert radius.max() <= PI


@settings(deadline=None)
@given(
    kappa=st.floats(0, 1e6),
    containment=st.floats(0.001, 0.99),
    step=st.floats(0.001, 0.01),
)
def test_radius_grows_with_containment_and_shrinks_with_kappa(
    kappa: float, containment: float, step: float
) -> None:
    """Monotone everywhere, across the switch between the two forms."""
    radius = kappa_to_radius(kappa, containment).item()
    assert kappa_to_radius(kappa, containment + step).item() > radius
    assert kappa_to_radius(kappa * (1 + step) + step, containment).item() <= radius


def test_radius_of_a_sampled_distribution() -> None:
    """68% of directions drawn by inverting cos(theta) with kappa 5 lie inside."""
    uniform = np.random.default_rng(1).random(200_000)
    kappa = 5.0
    cosine = 1 + np.log(uniform + (1 - uniform) * np.exp(-2 * kappa)) / kappa
    radius = kappa_to_radius(kappa, 0.68).item()
    assert np.mean(np.arccos(cosine) < radius) == pytest.approx(0.68, abs=0.004)


def test_radius_broadcasts_and_keeps_dtype() -> None:
    """Coverage curves want all events against all fractions."""
    kappa = torch.rand(5, 1)
    radius = kappa_to_radius(kappa, torch.linspace(0, 1, 7))
    assert radius.shape == (5, 7)
    assert radius.dtype == torch.float32
    assert kappa_to_radius(kappa.bfloat16(), 0.5).dtype == torch.float32
    assert kappa_to_radius(kappa.double(), 0.5).dtype == torch.float64
    assert kappa_to_radius(math.nan, 0.5).isnan()
    assert kappa_to_radius(math.inf, 0.5).item() == 0


def test_bad_kappa_and_containment_are_named() -> None:
    """The bad value and the range."""
    with pytest.raises(ValueError, match=r"kappa must lie in 0\.\.inf; got -1\.0"):
        kappa_to_radius([2.0, -1.0], 0.5)
    for containment in (-0.5, 68.0):
        with pytest.raises(ValueError, match=rf"in 0\.\.1; got {containment}"):
            kappa_to_radius(1.0, containment)
