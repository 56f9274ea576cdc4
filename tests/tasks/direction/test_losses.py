"""The losses against longdouble closed forms, the references and themselves."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    angles_to_unit_vector,
    unit_vector_to_angles,
)
from graphnet_icecube2nd.tasks.direction import (
    AngularDistanceLoss,
    CombinedDirectionLoss,
    DirectionLoss,
    VonMisesFisherLoss,
    log_sinh_ratio,
    von_mises_fisher_nll,
)

GOLDEN = Path(__file__).parents[2] / "golden"
GOLDEN_NAMES = ["deepice_small", "deepice_small_4rel", "v22_small", "v23_small"]
LOSSES: list[Callable[[], DirectionLoss]] = [
    VonMisesFisherLoss,
    lambda: VonMisesFisherLoss("published"),
    AngularDistanceLoss,
    CombinedDirectionLoss,
]
# kappa, both sides of the series limit 0.5 and of the published switch 100
KAPPAS = [
    *(0.0, 1e-30, 1e-8, 1e-6, 1e-3, 0.1, 0.499, 0.501, 1.0, 10.0, 99.9, 100.1),
    *(700.0, 750.0, 1e3, 1e4, 1e5, 1e6),
]
ANGLES = [0.0, 1e-3, 0.5, 40.0, 90.0, 180.0]  # degrees


def event(
    kappa: float, degrees: float, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Return prediction and direction of one event, shape (1, 3) each."""
    tilt = np.array([0.3, -0.5, math.sqrt(0.66)])
    side = np.cross(tilt, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    angle = math.radians(degrees)
    direction = math.cos(angle) * tilt + math.sin(angle) * side
    return (
        torch.tensor(kappa * tilt[None], dtype=dtype),
        torch.tensor(direction[None], dtype=dtype),
    )


def random_events() -> tuple[Tensor, Tensor]:
    """Return 23 random predictions and unit vectors, float64, shape (23, 3) each."""
    generator = torch.Generator().manual_seed(7)
    vectors = torch.randn(2, 23, 3, generator=generator, dtype=torch.float64)
    return 3 * vectors[0], vectors[1] / vectors[1].norm(dim=-1, keepdim=True)


def reference_nll(prediction: Tensor, direction: Tensor) -> np.longdouble:
    """Return the exact NLL of one event from the numbers as stored, in longdouble."""
    p = prediction.detach().double().numpy().astype(np.longdouble).ravel()
    t = direction.detach().double().numpy().astype(np.longdouble).ravel()
    kappa = np.sqrt(p @ p)
    if kappa < 1e-6:
        ratio = kappa**2 / 6
    elif kappa < 1:
        ratio = np.log(np.sinh(kappa) / kappa)
    else:
        ratio = kappa + np.log1p(-np.exp(-2 * kappa)) - np.log(2 * kappa)
    return np.longdouble(np.log(4 * np.longdouble(math.pi)) + ratio - p @ t)


def reference_gradient(kappa: float) -> float:
    """Return d/dkappa of ln(sinh kappa / kappa), from its series or closed form."""
    if kappa < 1e-3:
        return kappa / 3 - kappa**3 / 45
    k = np.longdouble(kappa)
    return float(1 / np.tanh(k) - 1 / k)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]
)
@pytest.mark.parametrize("autocast", [False, True])
def test_exact_nll_equals_closed_form(autocast: bool, dtype: torch.dtype) -> None:
    """Kappa 0 to 1e6, all angles, every dtype, with and without autocast."""
    for kappa in KAPPAS:
        if kappa > torch.finfo(dtype).max:
            continue
        for degrees in ANGLES:
            prediction, direction = event(kappa, degrees, dtype)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                found = VonMisesFisherLoss()(prediction, direction, reduction="none")
            is_double = dtype == torch.float64
            assert found.dtype == (torch.float64 if is_double else torch.float32)
            expected = reference_nll(prediction, direction)
            limit = (1e-12 if is_double else 1e-5) * max(1.0, float(abs(expected)))
            # One rounding of kappa is left where float64 numbers of that size cancel.
            assert abs(found.item() - expected) < limit + 1e-15 * kappa, (
                kappa,
                degrees,
            )


def test_direction_is_not_normalised_again() -> None:
    """The likelihood is that of the numbers that came."""
    prediction, direction = event(1e5, 0.5)
    loss = VonMisesFisherLoss()
    longer = loss(prediction, 1.1 * direction)
    shift = 0.1 * (prediction * direction).sum()
    assert (loss(prediction, direction) - longer).item() == pytest.approx(shift.item())


@pytest.mark.parametrize("normalisation", ["exact", "published"])
@pytest.mark.parametrize("kappa", KAPPAS)
def test_nll_gradient_is_finite_and_right(kappa: float, normalisation: str) -> None:
    """The gradient is A(kappa) * direction of the prediction - true direction."""
    prediction, direction = event(kappa, 40.0)
    prediction.requires_grad_()
    loss = von_mises_fisher_nll(prediction, direction, normalisation)
    (gradient,) = torch.autograd.grad(loss.sum(), prediction)
    length = reference_gradient(kappa)
    if normalisation == "published" and kappa > 100:
        length = kappa / math.sqrt(4 + kappa**2)
    axis, _ = event(1.0, 40.0)
    assert torch.allclose(gradient, length * axis - direction, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalisation", ["exact", "published"])
def test_nll_passes_gradcheck(normalisation: str) -> None:
    """Against differences, in both arguments, at kappa 0 and on both sides of 0.5."""
    prediction, direction = random_events()
    prediction = torch.cat([prediction, *(event(k, 0.0)[0] for k in (0.0, 0.4, 0.6))])
    direction = torch.cat([direction, direction[:3]])
    inputs = prediction.requires_grad_(), direction.requires_grad_()

    def nll(prediction: Tensor, direction: Tensor) -> Tensor:
        return von_mises_fisher_nll(prediction, direction, normalisation)

    assert torch.autograd.gradcheck(nll, inputs)
    assert torch.autograd.gradgradcheck(nll, inputs)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("make_loss", LOSSES)
def test_gradients_are_finite_where_it_is_hard(
    make_loss: Callable[[], DirectionLoss], dtype: torch.dtype, autocast: bool
) -> None:
    """Kappa 0, parallel and opposite vectors, kappa up to 1e6; dtype is kept."""
    for kappa in KAPPAS:
        for degrees in (0.0, 180.0):
            prediction, direction = event(kappa, degrees, dtype)
            prediction.requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = make_loss()(prediction, direction)
            (gradient,) = torch.autograd.grad(loss, prediction)
            assert loss.isfinite()
            assert gradient.isfinite().all()
            assert gradient.dtype == dtype


def test_kappa_zero_is_a_uniform_sky() -> None:
    """The density is 1 / 4 pi, and the gradient points to the true direction."""
    prediction, direction = event(0.0, 40.0)
    prediction.requires_grad_()
    for normalisation in ("exact", "published"):
        loss = VonMisesFisherLoss(normalisation)(prediction, direction)
        assert loss.item() == pytest.approx(math.log(4 * math.pi), rel=1e-15)
        (gradient,) = torch.autograd.grad(loss, prediction)
        assert torch.equal(gradient, -direction)


def test_density_integrates_to_one() -> None:
    """The normalisation is a normalisation: midpoint sum over cos(theta)."""
    num_bins = 20_000
    cosine = (torch.arange(num_bins, dtype=torch.float64) + 0.5) * 2 / num_bins - 1
    for kappa in (0.0, 0.3, 3.0, 50.0):
        direction = torch.stack(
            [(1 - cosine**2).sqrt(), torch.zeros_like(cosine), cosine], dim=-1
        )
        prediction = torch.tensor([0, 0, kappa], dtype=torch.float64)
        density = torch.exp(-von_mises_fisher_nll(prediction, direction))
        total = 2 * math.pi * density.sum() * 2 / num_bins
        # The error of the midpoint sum is kappa^2 / num_bins^2 / 6.
        assert total.item() == pytest.approx(1, rel=2e-6)


@pytest.mark.parametrize(
    ("normalisation", "best"), [("exact", 26263), ("published", 229)]
)
def test_best_kappa_half_a_degree_off(normalisation: str, best: float) -> None:
    """What the missing ln(kappa) does: 115 times too small a concentration."""
    kappa = torch.logspace(0, 6, 300_001, dtype=torch.float64)
    axis, direction = event(1.0, 0.5)
    loss = von_mises_fisher_nll(kappa[:, None] * axis, direction, normalisation)
    assert kappa[loss.argmin()].item() == pytest.approx(best, rel=2e-3)


def test_published_is_exact_below_the_switch_and_continuous() -> None:
    """Kappa 100 is where the two part."""
    for kappa in (1e-3, 0.5, 7.0, 99.0, 100 - 1e-9):
        pair = event(kappa, 3.0)
        exact, published = (
            von_mises_fisher_nll(*pair, normalisation=normalisation).item()
            for normalisation in ("exact", "published")
        )
        assert published == exact
    below = von_mises_fisher_nll(*event(100 - 1e-9, 3.0), "published").item()
    above = von_mises_fisher_nll(*event(100 + 1e-9, 3.0), "published").item()
    assert above == pytest.approx(below, abs=1e-7)
    # Far above the switch the approximation lacks ln(kappa / 100).
    pair = event(1e5, 3.0)
    lacking = von_mises_fisher_nll(*pair, "published") - von_mises_fisher_nll(*pair)
    assert lacking.item() == pytest.approx(math.log(1e5 / 100), abs=0.03)


def test_log_sinh_ratio_joins_smoothly() -> None:
    """Series and closed form meet at kappa 0.5 in value and slope."""
    square = torch.tensor([0.25 - 1e-12, 0.25], dtype=torch.float64, requires_grad=True)
    value = log_sinh_ratio(square)
    (slope,) = torch.autograd.grad(value.sum(), square)
    assert value[0].item() == pytest.approx(value[1].item(), abs=1e-12)
    assert slope[0].item() == pytest.approx(slope[1].item(), abs=1e-12)


def test_non_finite_predictions_show() -> None:
    """A diverged model gives NaN, not a plausible number."""
    _, direction = event(1.0, 0.0)
    for bad in (math.nan, math.inf):
        prediction = torch.full((1, 3), bad, dtype=torch.float64)
        for make_loss in LOSSES:
            assert make_loss()(prediction, direction).isnan()


def test_combined_is_the_weighted_sum() -> None:
    """Opening angle + 0.05 vMF, or the weight one asks for."""
    pair = random_events()
    angle = AngularDistanceLoss()(*pair)
    for normalisation in ("exact", "published"):
        nll = VonMisesFisherLoss(normalisation)(*pair)
        default = CombinedDirectionLoss(normalisation=normalisation)(*pair)
        assert default.item() == pytest.approx((angle + 0.05 * nll).item())
        heavier = CombinedDirectionLoss(0.3, normalisation)(*pair)
        assert heavier.item() == pytest.approx((angle + 0.3 * nll).item())


@pytest.mark.parametrize("make_loss", LOSSES)
def test_reductions_and_weights(make_loss: Callable[[], DirectionLoss]) -> None:
    """Weights multiply; "mean" divides by the number of events, as GraphNeT does."""
    prediction, direction = random_events()
    loss = make_loss()
    each_B = loss(prediction, direction, reduction="none")
    assert each_B.shape == (23,)
    assert torch.equal(loss(prediction, direction), each_B.mean())
    assert torch.equal(loss(prediction, direction, reduction="sum"), each_B.sum())
    weights_B = torch.linspace(0, 3, 23, dtype=torch.float64)
    for reduction, expected in (
        ("none", each_B * weights_B),
        ("sum", (each_B * weights_B).sum()),
        ("mean", (each_B * weights_B).sum() / 23),
    ):
        found = loss(prediction, direction, reduction, weights_B)
        assert torch.allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("make_loss", LOSSES)
def test_result_is_float32_unless_an_input_is_float64(
    make_loss: Callable[[], DirectionLoss],
) -> None:
    """Half precision goes up, double stays."""
    loss, (prediction, direction) = make_loss(), random_events()
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert loss(prediction.to(dtype), direction.float()).dtype == torch.float32
        assert loss(prediction.to(dtype), direction).dtype == torch.float64
        assert loss(prediction, direction.to(dtype)).dtype == torch.float64


@pytest.mark.parametrize("make_loss", LOSSES)
def test_events_do_not_see_each_other(make_loss: Callable[[], DirectionLoss]) -> None:
    """The batch an event sits in does not matter."""
    prediction, direction = random_events()
    loss = make_loss()
    together = loss(prediction, direction, reduction="none")
    alone = torch.stack(
        [loss(prediction[i : i + 1], direction[i : i + 1]) for i in range(23)]
    )
    assert torch.allclose(together, alone, rtol=1e-14)


@pytest.mark.parametrize(
    ("prediction_shape", "direction_shape"),
    [
        ((4, 3), (3,)),
        ((4, 3), (5, 3)),
        ((4, 4), (4, 4)),
        ((3,), (3,)),
        ((4, 3), (4, 1)),
    ],
)
def test_bad_shapes_are_named(
    prediction_shape: tuple[int, ...], direction_shape: tuple[int, ...]
) -> None:
    """Broadcasting would turn these into a plausible loss."""
    with pytest.raises(ValueError, match=r"shape \(B, 3\)") as caught:
        VonMisesFisherLoss()(torch.ones(prediction_shape), torch.ones(direction_shape))
    assert str(prediction_shape) in str(caught.value)
    assert str(direction_shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (5,)])
def test_bad_weights_are_named(shape: tuple[int, ...]) -> None:
    """A (B, 1) column would silently make a (B, B) loss."""
    with pytest.raises(ValueError, match=r"\(B,\) = \(4,\); got") as caught:
        VonMisesFisherLoss()(
            torch.ones(4, 3), torch.ones(4, 3), weights_B=torch.ones(shape)
        )
    assert str(caught.value).endswith(str(shape))


def test_bad_choices_are_named() -> None:
    """The bad value and the allowed ones."""
    pair = random_events()
    with pytest.raises(ValueError, match="mean, none, sum; got 'median'"):
        AngularDistanceLoss()(*pair, reduction="median")
    for make in (VonMisesFisherLoss, CombinedDirectionLoss):
        with pytest.raises(ValueError, match="exact, published; got 'approx'"):
            make(normalisation="approx")
    with pytest.raises(ValueError, match="got 'approx'"):
        von_mises_fisher_nll(*pair, normalisation="approx")
    with pytest.raises(ValueError, match=r"direction must .* got \(2,\)"):
        von_mises_fisher_nll(torch.ones(3), torch.ones(2))
    for weight in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"got {weight}"):
            CombinedDirectionLoss(weight)


def test_losses_have_no_state_and_tell_their_settings() -> None:
    """Checkpoints of models do not depend on the loss."""
    for make_loss in LOSSES:
        assert not make_loss().state_dict()
    assert str(VonMisesFisherLoss()) == "VonMisesFisherLoss(normalisation='exact')"
    assert "vmf_weight=0.05" in str(CombinedDirectionLoss())


def compiled_equals_eager(make_loss: Callable[[], DirectionLoss], backend: str) -> None:
    """Compare losses and gradients, the hard places included."""
    hard = [event(kappa, 40.0) for kappa in (0.0, 0.4, 50.0, 1e6)]
    # Along an axis, so that parallel and opposite are exact: a direction that is off
    # by one rounding has a gradient that points anywhere.
    axis = torch.eye(3, dtype=torch.float64)
    hard += [(axis, axis), (-2 * axis, axis)]
    predictions, directions = zip(random_events(), *hard, strict=True)
    direction = torch.cat(directions)
    loss = make_loss()
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    results = []
    for call in (loss, compiled):
        prediction = torch.cat(predictions).requires_grad_()
        each_B = call(prediction, direction, reduction="none")
        (gradient,) = torch.autograd.grad(each_B.sum(), prediction)
        results.append((each_B, gradient))
    for eager, fast in zip(*results, strict=True):
        assert torch.allclose(eager, fast, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make_loss", LOSSES)
def test_loss_compiles_as_one_graph(make_loss: Callable[[], DirectionLoss]) -> None:
    """No graph break, no way over the CPU."""
    torch.compiler.reset()
    compiled_equals_eager(make_loss, backend="aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("make_loss", LOSSES)
def test_compiled_loss_equals_eager(make_loss: Callable[[], DirectionLoss]) -> None:
    """Fused by inductor, which needs a C++ compiler."""
    torch.compiler.reset()
    compiled_equals_eager(make_loss, backend="inductor")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("make_loss", LOSSES)
def test_gpu_equals_cpu(make_loss: Callable[[], DirectionLoss]) -> None:
    """Same numbers on both devices, and the result stays where the inputs are."""
    pair = random_events()
    expected = make_loss()(*pair, reduction="none")
    found = make_loss()(*(vectors.cuda() for vectors in pair), reduction="none")
    assert found.is_cuda
    assert torch.allclose(found.cpu(), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parity
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_losses_equal_the_published_code(name: str) -> None:
    """The references of tests/golden; their vectors have the order y, x, z."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        prediction_B3 = torch.from_numpy(arrays["out"][:, [1, 0, 2]])
        azimuth_B, zenith_B = torch.from_numpy(arrays["target_azimuth_zenith"]).T
        published = {
            key: float(arrays[key]) for key in ("loss_vms", "loss_angular", "loss_comb")
        }
        angles_B2 = torch.from_numpy(arrays["pred_azimuth_zenith"])
    direction_B3 = angles_to_unit_vector(zenith_B, azimuth_B)
    for loss, key in (
        (VonMisesFisherLoss(), "loss_vms"),
        (VonMisesFisherLoss("published"), "loss_vms"),
        (AngularDistanceLoss(), "loss_angular"),
        (CombinedDirectionLoss(), "loss_comb"),
    ):
        found = loss(prediction_B3, direction_B3).item()
        assert found == pytest.approx(published[key], rel=1e-5), key
    zenith, azimuth = unit_vector_to_angles(prediction_B3)
    # The published angles go through asin and acos in float32.
    assert torch.allclose(torch.stack([azimuth, zenith], -1), angles_B2, atol=1e-5)
