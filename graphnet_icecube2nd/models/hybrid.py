"""DeepIceGNN: DeepIce with a graph network beside its embedding.

Reference: the 2nd-place code (github.com/DrHB/icecube-2nd-place,
`EncoderWithDirectionReconstructionV22` and `...V23`; EPJC 84, 646, 2024). Half of each
pulse's latent vector comes from the embedding, with learned amplitudes, half from
dynamic edge convolutions on the raw features, the only place where quantum efficiency
and ice properties are read. Shape letters: T pulses in the batch, D width, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import (
    ABSORPTION,
    AUXILIARY,
    CHARGE,
    QE,
    SCATTERING,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.deepice import (
    DeepIce,
    DeepIceConfig,
    start_as_published,
)
from graphnet_icecube2nd.nn.edge_conv import DynamicEdgeBranch
from graphnet_icecube2nd.nn.packing import Packing

NODE_FEATURES = (X, Y, Z, TIME, AUXILIARY, QE, CHARGE, SCATTERING, ABSORPTION)


@dataclass(frozen=True, kw_only=True)
class DeepIceGNNConfig(DeepIceConfig):
    """What `DeepIceGNN` is built from.

    Args:
        knn_features: The first graph joins neighbours in x, y, z (3, published V22) or
            x, y, z, time (4, V23).
    """

    depth: int = 8
    knn_features: int = 3

    def __post_init__(self) -> None:
        if self.knn_features not in (3, 4):
            raise ValueError(
                f"knn_features must be 3 (x, y, z) or 4 (and time), got "
                f"{self.knn_features}"
            )
        super().__post_init__()


class DeepIceGNN(DeepIce):
    """DeepIce whose embedding is joined by a dynamic edge network.

    Args:
        **sizes: Fields of `DeepIceGNNConfig`, those of `DeepIceConfig` among them.
            Both halves read `extra_features`.

    Raises:
        ValueError: A size does not fit; the message names it and what would.
    """

    model_name = "deepice_gnn"
    config_class = DeepIceGNNConfig
    config: DeepIceGNNConfig
    is_hybrid = True

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.node_features = NODE_FEATURES + self.embedding.extra_features
        self.graph = DynamicEdgeBranch(
            len(self.node_features),
            self.dim // 2,
            knn_features=self.config.knn_features,
        )
        start_as_published(self.graph)

    def embed_pulses(self, batch: PackedBatch, packing: Packing) -> Tensor:
        """Return each pulse's latent vector, embedding and graph halves, (T, D)."""
        embedded_TD = self.embedding(batch, packing)
        nodes_TF = batch.columns(self.node_features)
        graph_TD = self.graph(nodes_TF, batch.n_pulses, packing)
        return torch.cat((embedded_TD, graph_TD), dim=1)
