"""Direction losses on GraphNeT's (B, 4) predictions: unit vector x, y, z and kappa."""

from __future__ import annotations

from graphnet.training.loss_functions import LossFunction
from torch import Tensor

from graphnet_icecube2nd.tasks.direction.losses import (
    AngularDistanceLoss,
    CombinedDirectionLoss,
    DirectionLoss,
    VonMisesFisherLoss,
)


class _DirectionWithKappaLoss(LossFunction):
    """Computes a loss of the core from unit vector and kappa."""

    _loss: DirectionLoss

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        weights: Tensor | None = None,
        return_elements: bool = False,
    ) -> Tensor:
        """Return the mean loss, or one per event.

        Args:
            prediction: (B, 4) from `DirectionReconstructionWithKappa`.
            target: (B, 3) or (B, 1, 3) unit vectors.
            weights: (B,) or (B, 1). GraphNeT's datasets give the latter, which
                GraphNeT's own losses broadcast to (B, B): the mean then is the
                product of two means and the weights have no effect.
            return_elements: One loss per event instead of the mean.
        """
        if weights is not None:
            weights = weights.reshape(-1)
        loss: Tensor = super().forward(prediction, target, weights, return_elements)
        return loss

    def _forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.ndim != 2 or prediction.shape[1] != 4:
            raise ValueError(
                "prediction must be (B, 4), unit vector and kappa, got "
                f"{tuple(prediction.shape)}"
            )
        if target.shape[-1] != 3 or target.numel() != 3 * len(prediction):
            raise ValueError(
                f"target must be ({len(prediction)}, 3) unit vectors, got "
                f"{tuple(target.shape)}"
            )
        vector_B3 = prediction[:, :3] * prediction[:, 3:]
        loss_B: Tensor = self._loss(vector_B3, target.reshape(-1, 3), reduction="none")
        return loss_B


class ExactVonMisesFisher3DLoss(_DirectionWithKappaLoss):
    """Negative log-likelihood of the 3D von Mises-Fisher distribution.

    Exact at every kappa and without a round trip to the CPU. `VonMisesFisher3DLoss` of
    GraphNeT is an approximation above kappa 100 before its pull request 915 (September
    2026).

    Args:
        normalisation: `exact`, or `published` for comparison.
    """

    def __init__(self, normalisation: str = "exact") -> None:
        super().__init__()
        self._loss = VonMisesFisherLoss(normalisation=normalisation)


class AngularDistance(_DirectionWithKappaLoss):
    """Opening angle in rad: the competition's score. Kappa gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self._loss = AngularDistanceLoss()


class CombinedDirection(_DirectionWithKappaLoss):
    """Opening angle + `vmf_weight` times the von Mises-Fisher loss.

    Args:
        vmf_weight: 0.05 as published.
        normalisation: `exact`, or `published` for comparison.
    """

    def __init__(self, vmf_weight: float = 0.05, normalisation: str = "exact") -> None:
        super().__init__()
        self._loss = CombinedDirectionLoss(
            vmf_weight=vmf_weight, normalisation=normalisation
        )
