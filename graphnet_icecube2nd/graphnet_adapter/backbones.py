"""DeepIce and its hybrid as GraphNeT backbones: events in, latent vectors out."""

from __future__ import annotations

import torch
from graphnet.models.gnn.gnn import GNN
from torch import Tensor, nn
from torch_geometric.data import Data

from graphnet_icecube2nd.conventions import FEATURE_NAMES
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN


class _Backbone(GNN):
    """Runs a model up to its last layer, which belongs to GraphNeT's task."""

    def __init__(self, model: DeepIce) -> None:
        names = (*FEATURE_NAMES, *model.config.extra_features)
        super().__init__(nb_inputs=len(names), nb_outputs=model.dim)
        model.head = nn.Identity()
        self.model = model
        self._names = names

    def forward(self, data: Data) -> Tensor:
        """Return the class token of every event, (B, nb_outputs).

        Args:
            data: `x` (T, F) from `PackedPulses` or `DeepIcePulses`; `n_pulses`, the
                pulses of each event before selection; edges are ignored.
        """
        return self.model.embed_events(self._packed(data))

    def _packed(self, data: Data) -> PackedBatch:
        given = data.get("features")
        if given and not isinstance(given[0], str):
            given = given[0]  # a batch has one list an event
        if data.x.shape[1] != len(self._names) or (
            given and tuple(given) != self._names
        ):
            raise ValueError(
                f"{type(self).__name__} reads {len(self._names)} features "
                f"({', '.join(self._names)}), data.x has {data.x.shape[1]}"
                f"{' (' + ', '.join(given) + ')' if given else ''}; make it with "
                "PackedPulses or DeepIcePulses, and name the pulse map's extra columns "
                "in extra_features"
            )
        offsets = data.get("ptr")
        if offsets is None:  # one event, not a batch
            offsets = torch.tensor([0, len(data.x)], device=data.x.device)
        return PackedBatch(
            features=data.x,
            offsets=offsets,
            n_pulses=data.n_pulses.reshape(-1).long(),
            names=self._names,
        )


class DeepIceBackbone(_Backbone):
    """DeepIce as a GraphNeT backbone.

    Args:
        dim: Width of the latent vectors, and `nb_outputs`.
        dim_base: Channels of one sinusoid of the embedding.
        depth: Blocks of the encoder.
        head_size: Width of an attention head.
        depth_rel: Blocks before the class token joins.
        n_rel: How many of those see the space-time interval.
        use_checkpoint: Trade time for memory in the encoder.
        extra_features: Further columns that the pulse map hands on.
    """

    def __init__(
        self,
        dim: int = 384,
        dim_base: int = 128,
        depth: int = 12,
        head_size: int = 32,
        depth_rel: int = 4,
        n_rel: int = 1,
        use_checkpoint: bool = False,
        extra_features: list[str] | None = None,
    ) -> None:
        super().__init__(
            DeepIce(
                dim=dim,
                dim_base=dim_base,
                depth=depth,
                head_size=head_size,
                depth_rel=depth_rel,
                n_rel=n_rel,
                use_checkpoint=use_checkpoint,
                extra_features=extra_features or (),
            )
        )


class DeepIceGNNBackbone(_Backbone):
    """DeepIceGNN as a GraphNeT backbone.

    Args:
        dim: Width of the latent vectors, and `nb_outputs`.
        dim_base: Channels of one sinusoid of the embedding.
        depth: Blocks of the encoder.
        head_size: Width of an attention head.
        depth_rel: Blocks before the class token joins.
        n_rel: How many of those see the space-time interval.
        knn_features: The first graph is built on x, y, z (3) or with time (4).
        use_checkpoint: Trade time for memory in the encoder.
        extra_features: Further columns that the pulse map hands on.
    """

    def __init__(
        self,
        dim: int = 384,
        dim_base: int = 128,
        depth: int = 8,
        head_size: int = 32,
        depth_rel: int = 4,
        n_rel: int = 1,
        knn_features: int = 3,
        use_checkpoint: bool = False,
        extra_features: list[str] | None = None,
    ) -> None:
        super().__init__(
            DeepIceGNN(
                dim=dim,
                dim_base=dim_base,
                depth=depth,
                head_size=head_size,
                depth_rel=depth_rel,
                n_rel=n_rel,
                knn_features=knn_features,
                use_checkpoint=use_checkpoint,
                extra_features=extra_features or (),
            )
        )
