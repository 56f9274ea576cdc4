"""Several models on one batch: an ensemble's members, without doing work twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.nn.batch_cache import BatchCache


@torch.no_grad()
def predict_together(models: Sequence[DeepIce], batch: PackedBatch) -> Tensor:
    """Reconstruct a batch with several models that share what they can.

    Fourier features, those of the intervals (where they are few enough to
    be kept) and the first graph of hybrids are made once for all members that agree
    on their sizes. The numbers are those that each model gives alone.

    Args:
        models: The members, in evaluation mode, on the device of the batch.
        batch: The events.

    Returns:
        (M, B, 3): kappa * direction of each member, in their order.

    Raises:
        ValueError: There is no model.
    """
    if not models:
        raise ValueError("predict_together needs at least one model")
    shared = BatchCache()
    return torch.stack([model(batch, shared) for model in models])
