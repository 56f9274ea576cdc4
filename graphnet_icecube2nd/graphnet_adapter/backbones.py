"""Models of this package as GraphNeT backbones: events -> latent vectors."""

from __future__ import annotations

from typing import Any

import torch
from graphnet.models.gnn.gnn import GNN
from torch import Tensor
from torch_geometric.data import Data

from graphnet_icecube2nd.conventions import FEATURE_NAMES, INTERVAL_SPEED
from graphnet_icecube2nd.detector.presets import build_detector
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.features import CHARGE_CENTRE
from graphnet_icecube2nd.models.registry import build_backbone
from graphnet_icecube2nd.nn.first_light import first_light


class ModelBackbone(GNN):
    """GraphNeT backbone made of any registered model, plugins included.

    Args:
        name: Name of the model, one of `list_models()`.
        detector: Name of the detector whose pulses the model reads, one of
            `list_detectors()`. It sets the model's extra columns and scales.
            Default: those of IceCube-86.
        model_kwargs: Constructor arguments that replace those of the named model.
        first_light: Whether the first light of the events, (B, 4), follows the latent
            vectors, for a `TaskHead` of a task that needs it, such as `vertex`. Other
            tasks of GraphNeT cannot read such latent vectors.

    Raises:
        ValueError: The model or detector is unknown; the message has similar names.
        TypeError: A constructor argument is unknown.
    """

    def __init__(
        self,
        name: str = "t_d32",
        detector: str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        first_light: bool = False,
    ) -> None:
        known = None if detector is None else build_detector(detector)
        model = build_backbone(name, known, **(model_kwargs or {}))
        # If the backbone does not name its features, the batch does.
        names = getattr(model, "feature_names", None)
        super().__init__(nb_inputs=len(names or FEATURE_NAMES), nb_outputs=model.dim)
        self.model, self._names = model, names
        self._first_light = first_light

    def forward(self, data: Data) -> Tensor:
        """Return the latent vector of every event, (B, nb_outputs), and first light.

        Args:
            data: Batch with `x` (T, F) from `PackedPulses` or `DeepIcePulses`, and
                `n_pulses` (B,), the number of pulses before selection. Edges are
                ignored.

        Raises:
            ValueError: The features of the batch are not those of the model.
        """
        config = getattr(self.model, "input_config", None)
        centred = config is not None and config.positions == CHARGE_CENTRE
        if centred and data.get("centre") is None:
            raise ValueError(
                "positions must count from the centre of charge of each event, as in "
                "the training of the weights, but the data have no such centre. Make "
                f"them with PackedPulses(positions={CHARGE_CENTRE!r}); DeepIcePulses "
                "cannot do it"
            )
        if self.training and torch.is_grad_enabled():
            # The configuration described the loaded weights; training changes them.
            self.model.input_config = None  # type: ignore[assignment]
        batch = self._packed(data)
        latent_BD: Tensor = self.model(batch)
        if self._first_light:
            light_B4 = first_light(batch)  # in float32, also under autocast
            return torch.cat([latent_BD.to(light_B4.dtype), light_B4], dim=1)
        return latent_BD

    def _packed(self, data: Data) -> PackedBatch:
        given = data.get("features")
        if given and not isinstance(given[0], str):
            given = given[0]  # a batch has one list for each event
        names = self._names or tuple(given or FEATURE_NAMES)
        if data.x.shape[1] != len(names) or (given and tuple(given) != names):
            raise ValueError(
                f"{type(self).__name__} reads {len(names)} features "
                f"({', '.join(names)}), data.x has {data.x.shape[1]}"
                f"{' (' + ', '.join(given) + ')' if given else ''}. Make the data with "
                "PackedPulses or DeepIcePulses, and name the pulse map's extra columns "
                "in extra_features"
            )
        offsets, units = data.get("ptr"), data.get("units")
        if offsets is None:  # one event, not a batch
            offsets = torch.tensor([0, len(data.x)], device=data.x.device)
        return PackedBatch(
            features=data.x,
            offsets=offsets,
            n_pulses=data.n_pulses.reshape(-1).long(),
            names=names,
            units=units[0] if isinstance(units, list) else units,
            centre=data.get("centre"),
        )


class DeepIceBackbone(ModelBackbone):
    """DeepIce as a GraphNeT backbone; `nb_outputs` is `dim`.

    The arguments are the fields of `models.deepice.DeepIceConfig`. `extra_features`
    names extra columns of the pulse map.
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
        super().__init__("deepice", model_kwargs=_given(locals()))


class DeepIceGNNBackbone(ModelBackbone):
    """DeepIceGNN as a GraphNeT backbone.

    The first graph is built on x, y, z (`knn_features=3`) or on x, y, z, time (4). The
    other arguments are those of `DeepIceBackbone`.
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
        super().__init__("deepice_gnn", model_kwargs=_given(locals()))


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments in the `locals()` of a constructor that are not None."""
    others = ("self", "__class__")
    return {n: v for n, v in arguments.items() if n not in others and v is not None}
