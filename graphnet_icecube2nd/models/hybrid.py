"""DeepIceGNN: DeepIce with a graph network beside its embedding.

Reference: the 2nd-place code (github.com/DrHB/icecube-2nd-place,
`EncoderWithDirectionReconstructionV22` and `...V23`; EPJC 84, 646, 2024). Half of each
pulse's latent vector comes from the embedding, with learned amplitudes, half from
dynamic edge convolutions on the raw features, the only place where quantum efficiency
and ice properties are read. Shape letters: T pulses in the batch, D width, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    ABSORPTION,
    AUXILIARY,
    CHARGE,
    INTERVAL_SPEED,
    QE,
    SCATTERING,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.deepice import DeepIce, start_as_published
from graphnet_icecube2nd.nn.batch_cache import BatchCache
from graphnet_icecube2nd.nn.edge_conv import DynamicEdgeBranch
from graphnet_icecube2nd.nn.embedding import PulseEmbedding
from graphnet_icecube2nd.nn.packing import Packing

NODE_FEATURES = (X, Y, Z, TIME, AUXILIARY, QE, CHARGE, SCATTERING, ABSORPTION)


class DeepIceGNN(DeepIce):
    """DeepIce whose embedding is joined by a dynamic edge network.

    Args:
        dim: D, width of the latent vectors; even.
        dim_base: Channels of one sinusoid of the embedding.
        depth: Blocks of the encoder.
        head_size: Width of an attention head.
        depth_rel: Blocks before the class token joins.
        n_rel: How many of those see the space-time interval: 1 in the published
            V22, all 4 in V23.
        knn_features: The first graph joins neighbours in x, y, z (3, V22) or
            x, y, z, time (4, V23).
        use_checkpoint: Trade time for memory in the encoder.
        extra_features: Further columns of the batch, for both halves.
        extra_waves: Factor on each of them before its Fourier features.
        interval_speed: Speed of light in units of the features.

    Raises:
        ValueError: A size does not fit; the message names it and what would.
    """

    model_name = "deepice_gnn"

    def __init__(
        self,
        *,
        dim: int = 384,
        dim_base: int = 128,
        depth: int = 8,
        head_size: int = 32,
        depth_rel: int = 4,
        n_rel: int = 1,
        knn_features: int = 3,
        use_checkpoint: bool = False,
        extra_features: Sequence[str] = (),
        extra_waves: Sequence[float] = (),
        interval_speed: float = INTERVAL_SPEED,
    ) -> None:
        if knn_features not in (3, 4):
            raise ValueError(
                f"knn_features must be 3 (x, y, z) or 4 (and time), got {knn_features}"
            )
        super().__init__(
            dim=dim,
            dim_base=dim_base,
            depth=depth,
            head_size=head_size,
            depth_rel=depth_rel,
            n_rel=n_rel,
            use_checkpoint=use_checkpoint,
            extra_features=extra_features,
            extra_waves=extra_waves,
            interval_speed=interval_speed,
        )
        self.knn_features = knn_features
        self.node_features = NODE_FEATURES + self.embedding.extra_features
        self.graph = DynamicEdgeBranch(
            len(self.node_features), dim // 2, knn_features=knn_features
        )
        start_as_published(self.graph)

    def embed_pulses(
        self, batch: PackedBatch, packing: Packing, shared: BatchCache | None = None
    ) -> Tensor:
        """Return each pulse's latent vector, embedding and graph halves, (T, D)."""
        embedded_TD = self.embedding(batch, packing, shared)
        nodes_TF = batch.columns(self.node_features)
        graph_TD = self.graph(nodes_TF, batch.n_pulses, packing, shared)
        return torch.cat((embedded_TD, graph_TD), dim=1)

    def kwargs(self) -> dict[str, Any]:
        """Return the arguments that build this model anew."""
        return {**super().kwargs(), "knn_features": self.knn_features}

    def _make_embedding(self) -> PulseEmbedding:
        config = self.config
        return PulseEmbedding(
            config.dim_base,
            config.dim // 2,
            scaled=True,
            extra_features=config.extra_features,
            extra_waves=config.extra_waves,
        )
