"""Several networks' answers made one.

The published ensemble adds the raw vectors (kappa times direction) with fitted weights,
components clipped.
With equal weights of 1 that is the product of the von Mises-Fisher densities: exponents
add up. A plain mean of unit vectors is the third way; it forgets who was sure.

Source of weights, clipping and what becomes of numbers that are none: the published
predict.py (github.com/DrHB/icecube-2nd-place).

Shape letters: M members, B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from graphnet_icecube2nd.conventions import opening_angle

# Of the published predict.py, by our names; they are normalised there as here.
PUBLISHED_WEIGHTS: Mapping[str, float] = {
    "b_d32": 0.08254897,
    "b_d64": 0.15350807,
    "b_d32_4rel": 0.19367443,
    "s_gnn": 0.23597202,
    "b_gnn": 0.3342965,
}
LARGEST = 1000.0  # published: components are clipped to this
WEIGHTED, DIRECTIONS, DENSITIES = "weighted", "directions", "densities"
PUBLISHED = "published"
METHODS = (WEIGHTED, DIRECTIONS, DENSITIES, PUBLISHED)

Array = NDArray[np.float64]


def combine(
    vectors_MB3: Array, weights: Sequence[float] | None = None, method: str = WEIGHTED
) -> Array:
    """Return one vector an event, kappa times direction, (B, 3).

    Args:
        vectors_MB3: Each member's vectors. A member that has no number for an event
            is left out there, and the weights of the others add up to 1.
        weights: One for each member; default: all alike.
        method: `weighted`: the weighted sum of vectors. `published`: the same after
            each component is clipped to 1000 either way, which turns vectors of larger
            kappa (published models have none), and what is no number is 0.
            `densities`: the product of the members' densities, the plain sum; weights
            are not asked. `directions`: the weighted mean of unit vectors, with the
            weighted mean of kappas as length.

    Returns:
        Vectors; NaN where no member had an answer, but 0 with `published`.

    Raises:
        ValueError: Shapes or weights that do not fit, an unknown method.
    """
    vectors, good_MB = _checked(vectors_MB3, method == PUBLISHED)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    share_MB = normalised(weights, len(vectors))[:, None] * good_MB
    with np.errstate(invalid="ignore"):
        share_MB = share_MB / share_MB.sum(axis=0)  # NaN where no member answers
    if method == DENSITIES:
        total: Array = vectors.sum(axis=0)
        total[~good_MB.any(axis=0)] = np.nan
        return total
    if method in (WEIGHTED, PUBLISHED):
        weighted: Array = np.einsum("mb,mbx->bx", share_MB, vectors)
        return weighted
    kappa_MB = np.linalg.norm(vectors, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit_MB3 = np.nan_to_num(vectors / kappa_MB[..., None], nan=0.0)
    mean_B3 = np.einsum("mb,mbx->bx", share_MB, unit_MB3)
    length_B = np.linalg.norm(mean_B3, axis=1)
    kappa_B = np.einsum("mb,mb->b", share_MB, kappa_MB)
    scale_B = np.divide(
        kappa_B, length_B, out=np.zeros_like(kappa_B), where=length_B > 0
    )
    scaled: Array = mean_B3 * scale_B[:, None]  # NaN stays NaN
    return scaled


def normalised(weights: Sequence[float] | None, num_members: int) -> Array:
    """Return weights whose sum is 1, (M,).

    Raises:
        ValueError: Another number of them, one below 0, or all 0.
    """
    if weights is None:
        return np.full(num_members, 1 / num_members)
    given = np.asarray(weights, np.float64)
    if given.shape != (num_members,):
        raise ValueError(f"{num_members} members need as many weights, got {weights}")
    if not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise ValueError(f"weights must be 0 or more, and one above 0; got {weights}")
    share: Array = given / given.sum()
    return share


@dataclass(frozen=True, kw_only=True)
class FittedEnsemble:
    """Weights, and how the ways of combining compare on the events of the fit.

    Args:
        weights: Fitted, of sum 1.
        angles: Mean opening angle, rad, by way: `weighted` with the fitted weights,
            `equal` weights, `directions`, `densities`, and each member as `member 0`.
    """

    weights: tuple[float, ...]
    angles: Mapping[str, float]


def fit_weights(
    vectors_MB3: Array, direction_B3: Array, *, num_steps: int = 400
) -> FittedEnsemble:
    """Find the weights of smallest mean opening angle.

    From equal weights down the gradient, so it ends in the same place each time. Fit
    on events that no member was trained on.

    Args:
        vectors_MB3: Each member's vectors.
        direction_B3: True directions, unit vectors.
        num_steps: Of the descent.

    Raises:
        ValueError: Shapes that do not fit, a true direction that is not finite.
    """
    vectors, _ = _checked(vectors_MB3)
    truth = np.asarray(direction_B3, np.float64)
    if truth.shape != vectors.shape[1:]:
        raise ValueError(f"directions must be {vectors.shape[1:]}, got {truth.shape}")
    finite_B = np.isfinite(truth).all(axis=1)
    if not finite_B.all():
        raise ValueError(
            f"direction {int(finite_B.argmin())} must be finite, found "
            f"{truth[finite_B.argmin()]}. Leave events without a true direction out"
        )
    members, true = torch.from_numpy(vectors), torch.from_numpy(truth)
    # Softmax of these: weights stay above 0 and add up to 1.
    logit_M = torch.zeros(len(vectors), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logit_M], lr=0.05)
    best, best_share = float("inf"), logit_M.detach().softmax(0)
    for _ in range(num_steps):
        share_M = logit_M.softmax(0)
        loss = opening_angle(torch.einsum("m,mbx->bx", share_M, members), true).mean()
        if loss.item() < best:
            best, best_share = loss.item(), share_M.detach().clone()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    weights = tuple(best_share.tolist())
    ways = {
        WEIGHTED: combine(vectors, weights),
        "equal": combine(vectors),
        DIRECTIONS: combine(vectors, method=DIRECTIONS),
        DENSITIES: combine(vectors, method=DENSITIES),
        **{f"member {m}": vector for m, vector in enumerate(vectors)},
    }
    # An event without any answer counts as a guess, for all ways alike.
    angles = {
        name: float(opening_angle(torch.from_numpy(np.nan_to_num(v)), true).mean())
        for name, v in ways.items()
    }
    return FittedEnsemble(weights=weights, angles=angles)


def _checked(
    vectors_MB3: Array, as_published: bool = False
) -> tuple[Array, NDArray[np.bool_]]:
    """Return vectors to be added, 0 where they are no numbers, and which count."""
    vectors = np.asarray(vectors_MB3, np.float64)
    if vectors.ndim != 3 or vectors.shape[2] != 3 or not len(vectors):
        raise ValueError(f"vectors must be (members, events, 3), got {vectors.shape}")
    if as_published:  # component by component
        clipped: Array = np.clip(np.nan_to_num(vectors, nan=0.0), -LARGEST, LARGEST)
        return clipped, np.ones(vectors.shape[:2], bool)
    good_MB = np.isfinite(vectors).all(axis=2)
    checked: Array = np.where(good_MB[..., None], vectors, 0.0)
    return checked, good_MB
