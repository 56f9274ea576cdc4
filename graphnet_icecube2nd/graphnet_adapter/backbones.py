"""Models of this package as GraphNeT backbones: events in, latent vectors out."""

from __future__ import annotations

from typing import Any

import torch
from graphnet.models.gnn.gnn import GNN
from torch import Tensor, nn
from torch_geometric.data import Data

from graphnet_icecube2nd.conventions import FEATURE_NAMES, INTERVAL_SPEED
from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.build import build_backbone
from graphnet_icecube2nd.models.deepice import DeepIce
from graphnet_icecube2nd.models.hybrid import DeepIceGNN


class _Backbone(GNN):
    """Runs a backbone of the core on GraphNeT's batches.

    Args:
        model: Gives latent vectors (B, dim) of a `PackedBatch`.
        names: Features that it reads; None: those that the batch names.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...] | None) -> None:
        super().__init__(nb_inputs=len(names or FEATURE_NAMES), nb_outputs=model.dim)
        self.model = model
        self._names = names

    def forward(self, data: Data) -> Tensor:
        """Return the latent vector of every event, (B, nb_outputs).

        Args:
            data: `x` (T, F) from `PackedPulses` or `DeepIcePulses`; `n_pulses`, the
                pulses of each event before selection; edges are ignored.
        """
        latent_BD: Tensor = self.model(self._packed(data))
        return latent_BD

    def _packed(self, data: Data) -> PackedBatch:
        given = data.get("features")
        if given and not isinstance(given[0], str):
            given = given[0]  # a batch has one list an event
        names = self._names or tuple(given or FEATURE_NAMES)
        if data.x.shape[1] != len(names) or (given and tuple(given) != names):
            raise ValueError(
                f"{type(self).__name__} reads {len(names)} features "
                f"({', '.join(names)}), data.x has {data.x.shape[1]}"
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
            names=names,
        )


def _features_of(model: nn.Module) -> tuple[str, ...] | None:
    """Return the features that a backbone reads; None where it does not say."""
    if isinstance(model, DeepIce):
        return (*FEATURE_NAMES, *model.config.extra_features)
    return None


class ModelBackbone(_Backbone):
    """Any registered model as a GraphNeT backbone, also one of a plugin.

    Args:
        name: Name of the model, one of `list_models()`.
        detector: Name of the detector whose pulses it reads, one of
            `list_detectors()`: sets the extra columns and scales of models that know
            them. Default: those of IceCube-86.
        model_kwargs: Constructor arguments that replace the named model's.

    Raises:
        ValueError: An unknown model or detector; the message has the nearest names.
        TypeError: An unknown constructor argument.
    """

    def __init__(
        self,
        name: str = "t_d32",
        detector: str | None = None,
        model_kwargs: dict[str, Any] | None = None,
    ) -> None:
        known = None if detector is None else build_detector(detector)
        model = build_backbone(name, known, **(model_kwargs or {}))
        super().__init__(model, _features_of(model))


class DeepIceBackbone(_Backbone):
    """DeepIce as a GraphNeT backbone.

    Args:
        dim: Width of the latent vectors, and `nb_outputs`.
        dim_base: Channels of one Fourier feature of the embedding.
        depth: Blocks of the encoder.
        head_size: Width of an attention head.
        depth_rel: Blocks before the class token joins.
        n_rel: How many of those see the space-time interval.
        use_checkpoint: Trade time for memory in the encoder.
        extra_features: Further columns that the pulse map hands on.
        extra_waves: Factor on each extra column before its Fourier features; default:
            that of positions.
        interval_speed: Speed of light in units of the features; default: that of the
            published scales.
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
        extra_waves: list[float] | None = None,
        interval_speed: float = INTERVAL_SPEED,
    ) -> None:
        model = DeepIce(
            dim=dim,
            dim_base=dim_base,
            depth=depth,
            head_size=head_size,
            depth_rel=depth_rel,
            n_rel=n_rel,
            use_checkpoint=use_checkpoint,
            extra_features=extra_features or (),
            extra_waves=extra_waves or (),
            interval_speed=interval_speed,
        )
        super().__init__(model.without_head(), _features_of(model))


class DeepIceGNNBackbone(_Backbone):
    """DeepIceGNN as a GraphNeT backbone.

    Args:
        dim: Width of the latent vectors, and `nb_outputs`.
        dim_base: Channels of one Fourier feature of the embedding.
        depth: Blocks of the encoder.
        head_size: Width of an attention head.
        depth_rel: Blocks before the class token joins.
        n_rel: How many of those see the space-time interval.
        knn_features: The first graph is built on x, y, z (3) or with time (4).
        use_checkpoint: Trade time for memory in the encoder.
        extra_features: Further columns that the pulse map hands on.
        extra_waves: Factor on each extra column before its Fourier features; default:
            that of positions.
        interval_speed: Speed of light in units of the features; default: that of the
            published scales.
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
        extra_waves: list[float] | None = None,
        interval_speed: float = INTERVAL_SPEED,
    ) -> None:
        model = DeepIceGNN(
            dim=dim,
            dim_base=dim_base,
            depth=depth,
            head_size=head_size,
            depth_rel=depth_rel,
            n_rel=n_rel,
            knn_features=knn_features,
            use_checkpoint=use_checkpoint,
            extra_features=extra_features or (),
            extra_waves=extra_waves or (),
            interval_speed=interval_speed,
        )
        super().__init__(model.without_head(), _features_of(model))
