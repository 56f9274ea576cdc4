"""Losses of tasks: for numbers with a width, and for classes.

Shape letters: B events, D components of a residual, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from graphnet_icecube2nd.tasks.section import NORMAL_WIDTH

STUDENT_DOF = 4.0
SHARE = 0.68  # share of events within one width of the median
# Half of the central 68% of one component, in units of the scale of its distribution.
HALF_WIDTHS = {"student": 1.1343966379740467, "gaussian": NORMAL_WIDTH, "quantile": 1.0}
LIKELIHOODS = tuple(HALF_WIDTHS)
FOCUS = 2.0  # exponent of the focal loss
SMOOTHING = 0.1  # share of a label that is spread over all classes
ROBUSTNESS = 0.7  # 0: cross-entropy; 1: mean absolute error


def student_nll(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the negative log-likelihood of a Student t, 4 degrees of freedom, (B,).

    Its tails are heavy, so that a few badly reconstructed events do not set all widths.

    Source: K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust statistical modeling
    using the t distribution", J. Am. Stat. Assoc. 84 (1989) 881.

    Args:
        residual: Predicted minus true, (B,), or (B, D) for a distribution in D
            dimensions that is the same in all directions.
        scale: Scale of the distribution, (B,).
    """
    dof, square_B, dim = STUDENT_DOF, *_square(residual)
    constant = (
        math.lgamma(dof / 2)
        - math.lgamma((dof + dim) / 2)
        + dim / 2 * math.log(dof * math.pi)
    )
    pull_B = square_B / (dof * scale.square())
    return constant + dim * scale.log() + (dof + dim) / 2 * torch.log1p(pull_B)


def gaussian_nll(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the negative log-likelihood of a normal distribution, (B,).

    The arguments are those of `student_nll`.
    """
    square_B, dim = _square(residual)
    constant = dim / 2 * math.log(2 * math.pi)
    return constant + dim * scale.log() + 0.5 * square_B / scale.square()


def quantile_loss(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the pinball losses of median and ends of the central 68%, (B,).

    The ends lie at plus and minus `scale` from the median. The loss assumes no form of
    the distribution. The arguments are those of `student_nll`; components are added.

    Source: R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46 (1978) 33.
    """
    residual_BD = residual.reshape(len(residual), -1)
    edge = (1 - SHARE) / 2
    parts_BD = sum(
        torch.maximum((share - 1) * error_BD, share * error_BD)
        for share, error_BD in (
            (0.5, -residual_BD),
            (edge, scale[:, None] - residual_BD),
            (1 - edge, -scale[:, None] - residual_BD),
        )
    )
    assert isinstance(parts_BD, Tensor)
    return parts_BD.sum(dim=1)


WIDTH_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "student": student_nll,
    "gaussian": gaussian_nll,
    "quantile": quantile_loss,
}


def _square(residual: Tensor) -> tuple[Tensor, int]:
    """Return the squared length, (B,), and the number of components."""
    residual_BD = residual.reshape(len(residual), *residual.shape[1:] or (1,))
    return residual_BD.square().sum(dim=1), residual_BD.shape[1]


def cross_entropy(log_p_BC: Tensor, log_p_B: Tensor) -> Tensor:
    """Return the cross-entropy, nat, (B,).

    Args:
        log_p_BC: Logarithms of the probabilities of the classes.
        log_p_B: That of the true class.
    """
    return -log_p_B


def focal_loss(log_p_BC: Tensor, log_p_B: Tensor) -> Tensor:
    """Return the focal loss, (B,), in which events that are right count less.

    Source: T.-Y. Lin et al., arXiv:1708.02002, with gamma 2. The arguments are those of
    `cross_entropy`.
    """
    return -((-torch.expm1(log_p_B)).clamp(min=0.0) ** FOCUS) * log_p_B


def smooth_cross_entropy(log_p_BC: Tensor, log_p_B: Tensor) -> Tensor:
    """Return the cross-entropy with labels of which 10% are spread over all classes.

    Source: C. Szegedy et al., arXiv:1512.00567. The arguments are those of
    `cross_entropy`.
    """
    return -(1 - SMOOTHING) * log_p_B - SMOOTHING * log_p_BC.mean(dim=1)


def generalised_cross_entropy(log_p_BC: Tensor, log_p_B: Tensor) -> Tensor:
    """Return the generalised cross-entropy, (B,), which tolerates wrong labels.

    It is (1 - p^q) / q of the probability p of the label, here with q 0.7, and at most
    1 / q, so that a wrong label of a clear event has little effect.

    Source: Z. Zhang, M. R. Sabuncu, arXiv:1805.07836. The arguments are those of
    `cross_entropy`.
    """
    return -torch.expm1(ROBUSTNESS * log_p_B) / ROBUSTNESS


CLASS_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal_loss,
    "smooth": smooth_cross_entropy,
    "generalised": generalised_cross_entropy,
}


def class_loss(name: str, logits_BC: Tensor, target_B: Tensor) -> Tensor:
    """Return a loss of classes, (B,).

    Args:
        name: Name of the loss, one of `CLASS_LOSSES`.
        logits_BC: Logarithms of the probabilities of the classes, up to a constant.
        target_B: Indices of the true classes.
    """
    log_p_BC = logits_BC.log_softmax(dim=1)
    log_p_B = log_p_BC.gather(1, target_B.long()[:, None])[:, 0]
    return CLASS_LOSSES[name](log_p_BC, log_p_B)
