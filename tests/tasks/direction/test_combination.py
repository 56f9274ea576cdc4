"""Several answers made one, and the weights for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.tasks.direction import combination
from graphnet_icecube2nd.tasks.direction.combination import (
    PUBLISHED_WEIGHTS,
    fit_weights,
    normalised,
)

Array = NDArray[np.float64]


def combine(vectors: Array, *args: Any, **kwargs: Any) -> Array:
    """The combined vectors of arrays, as an array."""
    return combination.combine(torch.from_numpy(vectors), *args, **kwargs).numpy()


def members(num: int, kappas: list[float], seed: int = 0) -> tuple[Array, Array]:
    """Members of different quality, of independent errors and calibrated kappas."""
    generator = np.random.default_rng(seed)
    truth = generator.standard_normal((num, 3))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    vectors = []
    for kappa in kappas:
        off = truth + generator.standard_normal((num, 3)) / np.sqrt(kappa)
        off /= np.linalg.norm(off, axis=1, keepdims=True)
        vectors.append(kappa * off)
    return np.array(vectors), truth


def test_published_sum() -> None:
    """By hand: weights, clipping, NaN."""
    nan = float("nan")
    vectors = np.array([[[1.0, 2.0, 3.0]], [[4000.0, nan, -5000.0]]])
    found = combine(vectors, [1.0, 3.0], "published")
    assert found.tolist() == [[0.25 + 750.0, 0.5, 0.75 - 750.0]]
    # Not so our own: a vector that has no number is left out, a long one stays.
    found = combine(vectors, [1.0, 3.0])
    assert found.tolist() == [[1.0, 2.0, 3.0]]  # the other one alone
    sharp = np.array([[[20_000 * 0.6, 20_000 * 0.053, 20_000 * 0.798]]] * 2)
    assert combine(sharp).tolist() == sharp[0].tolist()
    assert sum(PUBLISHED_WEIGHTS.values()) == pytest.approx(1.0, abs=1e-6)
    share = normalised(list(PUBLISHED_WEIGHTS.values()), 5)
    assert share.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("method", ["weighted", "directions", "densities"])
def test_members_without_an_answer_are_left_out(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the others add up to 1; without any there is no number."""
    from graphnet_icecube2nd import build_model
    from graphnet_icecube2nd.models import ensemble_model

    nan = float("nan")
    vectors = np.array(
        [
            [[1.0, 2.0, 2.0], [nan, 0.0, 0.0], [nan, nan, nan]],
            [[6.0, 0.0, 0.0], [0.0, 0.0, 4.0], [0.0, np.inf, 0.0]],
        ]
    )
    found = combine(vectors, [1.0, 3.0], method)
    assert found[1].tolist() == [0.0, 0.0, 4.0]
    assert np.isnan(found[2]).all()
    whole = combine(vectors[:, :1], [1.0, 3.0], method)
    np.testing.assert_allclose(found[0], whole[0])
    # The model says the same.
    outputs = [{"direction": torch.tensor(vector)} for vector in vectors]
    monkeypatch.setattr(
        ensemble_model, "outputs_together", lambda members, batch: outputs
    )
    models = [build_model("t_sim", dim=32, dim_base=8, depth=1, head_size=16)] * 2
    made = ensemble_model.EnsembleModel(models, [1.0, 3.0], method)(None)
    np.testing.assert_allclose(made, found, rtol=1e-6)


def test_product_of_densities_adds_up() -> None:
    vectors, _ = members(50, [3.0, 8.0])
    product = combine(vectors, method="densities")
    # log of the product of two densities, up to a constant, along any direction.
    direction = np.array([0.6, 0.0, 0.8])
    logs = (vectors @ direction).sum(axis=0)
    np.testing.assert_allclose(product @ direction, logs)


def test_mean_of_directions_forgets_who_was_sure() -> None:
    vectors = np.array([[[10.0, 0.0, 0.0]], [[0.0, 2.0, 0.0]]])
    found = combine(vectors, method="directions")[0]
    assert found[0] == pytest.approx(found[1])
    assert np.linalg.norm(found) == pytest.approx(6.0)
    opposite = np.array([[[1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]])
    assert combine(opposite, method="directions").tolist() == [[0.0, 0.0, 0.0]]


def test_fit_refuses_a_direction_that_is_none() -> None:
    vectors, truth = members(200, [5.0, 50.0])
    truth[3, 1] = np.nan
    with pytest.raises(ValueError, match="direction 3 must be finite"):
        fit_weights(vectors, truth)


def test_fit_finds_the_better_member() -> None:
    vectors, truth = members(4000, [5.0, 50.0, 50.0])
    # Kappas that lie: the bad member boasts.
    vectors[0] *= 100
    fitted = fit_weights(vectors, truth)
    assert sum(fitted.weights) == pytest.approx(1.0)
    assert fitted.weights[0] < 0.02
    assert fitted.weights[1] == pytest.approx(fitted.weights[2], rel=0.2)
    angles = fitted.angles
    assert angles["weighted"] < min(angles[f"member {m}"] for m in range(3))
    for other in ("equal", "directions", "densities"):
        assert angles["weighted"] <= angles[other] + 1e-12
    assert fit_weights(vectors, truth) == fitted, "the same each time"


def test_equal_members_get_equal_weights() -> None:
    vectors, truth = members(3000, [20.0, 20.0])
    fitted = fit_weights(vectors, truth)
    assert fitted.weights == pytest.approx((0.5, 0.5), abs=0.05)
    assert fitted.angles["equal"] < fitted.angles["member 0"]


def test_bad_input_says_so() -> None:
    vectors, truth = members(5, [1.0, 2.0])
    for call, message in (
        (lambda: combine(vectors, [1.0]), "2 members need as many weights"),
        (lambda: combine(vectors, [-1.0, 2.0]), "weights must be 0 or more"),
        (lambda: combine(vectors, [0.0, 0.0]), "weights must be 0 or more"),
        (lambda: combine(vectors, method="vote"), "method must be one of weighted"),
        (lambda: combine(vectors[0]), "vectors must be"),
        (lambda: fit_weights(vectors, truth[:3]), "directions must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
