"""DeepIceGNN: DeepIce with a graph network beside its embedding.

Reference: the 2nd-place code (github.com/DrHB/icecube-2nd-place,
`EncoderWithDirectionReconstructionV22` and `...V23`; EPJC 84, 646, 2024). Half of each
pulse's latent vector comes from the embedding, with learned amplitudes. The other half
comes from dynamic edge convolutions on the raw features; only they read quantum
efficiency and ice. Shape letters: T pulses in the batch, D width, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Sizes of `DeepIceGNN`.

    Args:
        knn_features: Number of features that define neighbours in the first graph: 3
            (x, y, z; published V22) or 4 (x, y, z, time; V23).
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
    """DeepIce with a dynamic edge network beside its embedding.

    Args:
        **sizes: Fields of `DeepIceGNNConfig`, including those of `DeepIceConfig`. Both
            halves read `extra_features`.

    Raises:
        ValueError: A size is not allowed; the message gives its name and what is.
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

    def columns_of(self, extra_features: Sequence[str]) -> dict[str, Tensor]:
        """Return how weights of a model of fewer extra features fit into this one."""
        columns = super().columns_of(extra_features)
        if columns:
            names = (*NODE_FEATURES, *extra_features)
            of_graph = self.graph.columns_of([*map(self.node_features.index, names)])
            columns |= {f"graph.{name}": value for name, value in of_graph.items()}
        return columns

    def embed_pulses(self, batch: PackedBatch, packing: Packing) -> Tensor:
        """Return each pulse's latent vector, the embedding and graph halves, (T, D)."""
        embedded_TD = self.embedding(batch, packing)
        nodes_TF = batch.columns(self.node_features)
        graph_TD = self.graph(nodes_TF, batch.n_pulses, packing)
        return torch.cat((embedded_TD, graph_TD), dim=1)
