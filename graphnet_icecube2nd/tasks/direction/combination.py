"""Combination of several networks' directions.

The published ensemble adds the raw vectors (kappa times direction) with fitted weights,
after clipping components. With equal weights of 1 this is the product of the von
Mises-Fisher densities, whose exponents add. The third method is a plain mean of unit
vectors, which ignores kappa.

Source of weights, clipping and the treatment of NaN: the published predict.py
(github.com/DrHB/icecube-2nd-place).

Shape letters: M members, B events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from graphnet_icecube2nd.conventions import opening_angle
from graphnet_icecube2nd.errors import check_one_of
from graphnet_icecube2nd.tasks.task import weighted_mean

# From the published predict.py, by our names; normalised there and here.
PUBLISHED_WEIGHTS: Mapping[str, float] = {
    "b_d32": 0.08254897,
    "b_d64": 0.15350807,
    "b_d32_4rel": 0.19367443,
    "s_gnn": 0.23597202,
    "b_gnn": 0.3342965,
}
LARGEST = 1000.0  # limit of components in the published code
WEIGHTED, DIRECTIONS, DENSITIES = "weighted", "directions", "densities"
PUBLISHED = "published"
METHODS = (WEIGHTED, DIRECTIONS, DENSITIES, PUBLISHED)

Array = NDArray[np.float64]


def combine(
    vectors_MB3: Tensor, weights: Sequence[float] | None = None, method: str = WEIGHTED
) -> Tensor:
    """Return one vector per event, kappa times direction, (B, 3).

    `weighted`: the weighted mean of vectors; without weights, the plain mean.
    `published`: the same after clipping each component to +-1000 and replacing NaN by
    0. Clipping rotates vectors of larger kappa, which published models do not have.
    `densities`: the product of the members' densities; without weights, the plain sum.
    `directions`: the weighted mean of unit vectors, with the weighted mean of kappas as
    length.

    A member without a finite answer for an event is left out for it, and the weights of
    the others are normalised. An event without any answer is NaN, or 0 with
    `published`.

    Raises:
        ValueError: Shapes or weights do not fit, or the method is unknown.
    """
    shape = tuple(vectors_MB3.shape)
    if len(shape) != 3 or shape[2] != 3 or not shape[0]:
        raise ValueError(f"vectors must be (members, events, 3), got {shape}")
    check_one_of("method", method, METHODS)
    share_M = normalised(weights, len(vectors_MB3)).tolist()
    if method == WEIGHTED:
        return weighted_mean(vectors_MB3, share_M)
    if method == PUBLISHED:
        share_M11 = vectors_MB3.new_tensor(share_M)[:, None, None]
        clipped_MB3 = vectors_MB3.nan_to_num().clip(-LARGEST, LARGEST)
        summed_B3: Tensor = (share_M11 * clipped_MB3).sum(dim=0)
        return summed_B3
    exact_MB3 = vectors_MB3.double()
    if method == DENSITIES:
        good_MB1 = exact_MB3.isfinite().all(dim=2, keepdim=True)
        total_B3 = exact_MB3.where(good_MB1, 0.0).sum(dim=0)
        return total_B3.where(good_MB1.any(dim=0), torch.nan).to(vectors_MB3)
    mean_B3 = weighted_mean(normalize(exact_MB3, dim=2), share_M)
    kappa_B1 = weighted_mean(exact_MB3.norm(dim=2, keepdim=True), share_M)
    length_B1 = mean_B3.norm(dim=1, keepdim=True)
    # Opposite directions have no mean; NaN stays NaN.
    vectors_B3: Tensor = mean_B3 * (kappa_B1 / length_B1).where(length_B1 > 0, 0.0)
    return vectors_B3.to(vectors_MB3)


def normalised(weights: Sequence[float] | None, num_members: int) -> Array:
    """Return weights with sum 1, (M,); equal weights if none are given."""
    if weights is None:
        return np.full(num_members, 1 / num_members)
    given = np.asarray(weights, np.float64)
    if given.shape != (num_members,):
        raise ValueError(f"{num_members} members need as many weights, got {weights}")
    if not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise ValueError(
            f"weights must be 0 or more, with at least one above 0; got {weights}"
        )
    share: Array = given / given.sum()
    return share


@dataclass(frozen=True, kw_only=True)
class FittedEnsemble:
    """Fitted weights, and a comparison of the methods on the events of the fit."""

    weights: tuple[float, ...]  # fitted, with sum 1
    # Mean opening angle [rad] by method: `weighted` with the fitted weights, `equal`
    # weights, `directions`, `densities`, and each member as `member 0`.
    angles: Mapping[str, float]


def fit_weights(
    vectors_MB3: Array, direction_B3: Array, *, num_steps: int = 400
) -> FittedEnsemble:
    """Fit the weights with the smallest mean opening angle to true directions.

    Gradient descent starts from equal weights, so the result is reproducible. No member
    may have been trained on the events.
    """
    true = torch.from_numpy(np.asarray(direction_B3, np.float64))
    if true.shape != vectors_MB3.shape[1:]:
        raise ValueError(
            f"directions must be {vectors_MB3.shape[1:]}, got {tuple(true.shape)}"
        )
    finite_B = true.isfinite().all(dim=1)
    if not finite_B.all():
        first = int(finite_B.int().argmin())
        raise ValueError(
            f"direction {first} must be finite, found {true[first].numpy()}. Leave out "
            "events without a true direction"
        )
    # An event without an answer counts as a guess, for all methods alike.
    members = torch.from_numpy(np.asarray(vectors_MB3, np.float64))
    members = members.where(members.isfinite().all(dim=2, keepdim=True), 0.0)
    # The softmax of these gives weights above 0 with sum 1.
    logit_M = torch.zeros(len(members), dtype=torch.float64, requires_grad=True)
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
        WEIGHTED: combine(members, weights),
        "equal": combine(members),
        DIRECTIONS: combine(members, method=DIRECTIONS),
        DENSITIES: combine(members, method=DENSITIES),
        **{f"member {m}": vectors for m, vectors in enumerate(members)},
    }
    angles = {n: float(opening_angle(v, true).mean()) for n, v in ways.items()}
    return FittedEnsemble(weights=weights, angles=angles)
