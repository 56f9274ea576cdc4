"""DeepIce: a transformer from pulses to a direction.

Reference: the 2nd place of "IceCube - Neutrinos in Deep Ice"
(github.com/DrHB/icecube-2nd-place, `DeepIceModel`; EPJC 84, 646, 2024). Pulses are
embedded. A few blocks relate them; the first of these use the space-time interval of
every pair. Then a class token joins each event and a deep encoder collects the event in
it. One linear layer turns it into kappa * direction.

Shape letters: T pulses in the batch, B events, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from graphnet_icecube2nd.conventions import FEATURE_NAMES, INTERVAL_SPEED
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.models.model import Model
from graphnet_icecube2nd.nn.block import Block, RelativeAttention, SelfAttention
from graphnet_icecube2nd.nn.embedding import PulseEmbedding, SpaceTimeInterval
from graphnet_icecube2nd.nn.interval_attention import IntervalTerm, sinusoids_of_pairs
from graphnet_icecube2nd.nn.packing import BatchCache, Packing
from graphnet_icecube2nd.tasks.direction.direction import Direction
from graphnet_icecube2nd.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class DeepIceConfig:
    """Sizes of `DeepIce`; the names are those of the published MODEL_KWARGS.

    Args:
        dim: Width D of the latent vectors.
        dim_base: Channels of one sinusoid of the embedding.
        depth: Number of encoder blocks, which include the class token.
        head_size: Width of an attention head; must divide `dim`.
        depth_rel: Number of blocks before the class token joins.
        n_rel: Number of these blocks, from the first, that use the space-time interval:
            1 in the published V22, 4 in V23.
        use_checkpoint: Whether the backward pass computes the encoder's blocks again
            instead of storing them: less memory, a third more time.
        extra_features: Additional columns of the batch to embed.
        extra_waves: Factor on each extra feature before its Fourier features; default:
            that of positions, 4096.
        interval_speed: Speed of light in units of the features (`Scales`).
        embedding_width: Width of the hidden layer of the embedding; default: that of
            its inputs, which grows with `extra_features`.

    Raises:
        ValueError: A size is not allowed; the message gives its name and what is.
    """

    dim: int = 384
    dim_base: int = 128
    depth: int = 12
    head_size: int = 32
    depth_rel: int = 4
    n_rel: int = 1
    use_checkpoint: bool = False
    extra_features: Sequence[str] = ()
    extra_waves: Sequence[float] = ()
    interval_speed: float = INTERVAL_SPEED
    embedding_width: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.extra_features, str):
            raise ValueError(
                f"extra_features must be a list of names, got {self.extra_features!r}"
            )
        object.__setattr__(self, "extra_features", tuple(self.extra_features))
        object.__setattr__(self, "extra_waves", tuple(self.extra_waves))
        if self.extra_waves and len(self.extra_waves) != len(self.extra_features):
            raise ValueError(
                f"extra_waves has {len(self.extra_waves)} entries for "
                f"{len(self.extra_features)} extra_features"
            )
        if not self.interval_speed > 0:
            raise ValueError(
                f"interval_speed must be above 0, got {self.interval_speed}"
            )
        names = (*FEATURE_NAMES, *self.extra_features)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"extra_features has {', '.join(twice)}, which is a feature already"
            )
        sizes = ["dim", "dim_base", "depth", "head_size", "depth_rel", "n_rel"]
        sizes += ["embedding_width"] * (self.embedding_width is not None)
        for name in sizes:
            if not isinstance(getattr(self, name), int):
                raise ValueError(
                    f"{name} must be a whole number, got {getattr(self, name)!r}"
                )
            if name != "n_rel" and getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.dim % self.head_size or self.head_size % 2:
            raise ValueError(
                f"head_size must be even and divide dim={self.dim}, got "
                f"{self.head_size}"
            )
        if self.dim_base % 4:
            raise ValueError(
                f"dim_base must be a multiple of 4 (sines and cosines of half of it), "
                f"got {self.dim_base}"
            )
        if not 0 <= self.n_rel <= self.depth_rel:
            raise ValueError(
                f"n_rel must be 0 to depth_rel={self.depth_rel}, got {self.n_rel}"
            )


class DeepIce(Model):
    """DeepIce with its last layer: a `Model` whose task is the direction.

    `without_head` turns it into a backbone.

    Args:
        **sizes: Fields of `DeepIceConfig`.

    Raises:
        ValueError: A size is not allowed; the message gives its name and what is.
    """

    model_name = "deepice"
    config_class: type[DeepIceConfig] = DeepIceConfig
    takes_cache = True
    is_hybrid = False  # True if a graph network gives half of the latent vectors

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        config = self.config_class(**sizes)
        self.config, self.dim = config, config.dim
        dim, num_heads = config.dim, config.dim // config.head_size
        self.embedding = PulseEmbedding(
            config.dim_base,
            dim // 2 if self.is_hybrid else dim,
            scaled=self.is_hybrid,
            extra_features=config.extra_features,
            extra_waves=config.extra_waves,
            width=config.embedding_width,
        )
        self.interval = SpaceTimeInterval(config.head_size, config.interval_speed)
        # Frozen if no block uses it; otherwise distributed training would wait for it.
        self.interval.requires_grad_(config.n_rel > 0)
        self.local = nn.ModuleList(
            Block(dim, RelativeAttention(dim, num_heads), layer_scale=False)
            for _ in range(config.depth_rel)
        )
        self.class_token = nn.Parameter(torch.empty(1, dim))
        self.encoder = nn.ModuleList(
            Block(dim, SelfAttention(dim, num_heads), layer_scale=True)
            for _ in range(config.depth)
        )
        self.head: nn.Module = nn.Linear(dim, 3)
        # A plain dict: the task's layer is `head`, so the task has no weights here.
        self._tasks: dict[str, Task] = {Direction.name: Direction()}
        start_as_published(self)
        nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, batch: PackedBatch, shared: BatchCache | None = None) -> Tensor:
        """Reconstruct a batch: (B, 3), kappa * direction.

        The direction, in the order x, y, z, points to where the neutrino came from.

        Args:
            batch: Batch of events.
            shared: Cache of values that other models computed from the same batch
                (`models.ensemble_model.predict_together`).
        """
        latent_BD = self.embed_events(batch, shared)
        if not self._tasks:  # a backbone
            return latent_BD
        # Rounding to bfloat16 would change a direction by a third of a degree.
        with torch.autocast(latent_BD.device.type, enabled=False):
            weight = next(self.head.parameters(), latent_BD)
            prediction_B3: Tensor = self.head(latent_BD.to(weight.dtype))
        return prediction_B3

    @property
    def task_map(self) -> Mapping[str, Task]:
        """The direction task; empty for a backbone."""
        return self._tasks

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Features that the model reads, in order."""
        return (*FEATURE_NAMES, *self.config.extra_features)

    def set_task(self, task: Task) -> None:
        """Replace the task by another direction task, for example with another loss."""
        self._tasks = {Direction.name: task}

    def without_head(self) -> DeepIce:
        """Remove the last layer; `forward` then returns latent vectors, (B, D)."""
        self.head, self._tasks = nn.Identity(), {}
        return self

    def layers(self) -> tuple[tuple[str, ...], ...]:
        """Return the names of the modules of each layer, the lowest first."""
        first = ("embedding", "interval", "graph")[: 3 if self.is_hybrid else 2]
        local = [(f"local.{number}",) for number in range(len(self.local))]
        encoder = [(f"encoder.{number}",) for number in range(1, len(self.encoder))]
        return (first, *local, ("class_token", "encoder.0"), *encoder)

    def columns_of(self, extra_features: Sequence[str]) -> dict[str, Tensor]:
        """Return how weights of a model of fewer extra features fit into this one.

        The result has the columns that they are in this model, by name of the weights.
        """
        known = self.embedding.extra_features
        if not set(extra_features) <= set(known):
            return {}
        return {"embedding.project.0.weight": self.embedding.columns_of(extra_features)}

    def latents(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return the latent vectors after the last block of events and of pulses.

        They are (B, D) and (T, D).
        """
        latent_TD, packing = self._related_pulses(batch)
        latent_SD = packing.prepend(self.class_token[0], latent_TD)
        with_token = packing.with_class_token()
        for block in self.encoder:
            latent_SD = self._run(block, latent_SD, with_token)
        slot_T = torch.arange(len(latent_TD), device=latent_TD.device)
        pulses_TD = latent_SD.index_select(0, slot_T + packing.event_T + 1)
        return latent_SD.index_select(0, with_token.offsets[:-1]), pulses_TD

    def pulse_latents(self, batch: PackedBatch) -> Tensor:
        """Return each pulse's latent vector after the last block, (T, D)."""
        return self.latents(batch)[1]

    def embed_events(
        self, batch: PackedBatch, shared: BatchCache | None = None
    ) -> Tensor:
        """Return the class token of every event, (B, D)."""
        return self.encode(*self._related_pulses(batch, shared))

    def _related_pulses(
        self, batch: PackedBatch, shared: BatchCache | None = None
    ) -> tuple[Tensor, Packing]:
        packing = Packing(batch.offsets, len(batch.features), shared)
        # The sum of all branches has the type of the weights, also under autocast.
        latent_TD = self.embed_pulses(batch, packing)
        latent_TD = latent_TD.to(self.class_token.dtype)
        return self.relate_pulses(latent_TD, batch, packing), packing

    def embed_pulses(self, batch: PackedBatch, packing: Packing) -> Tensor:
        """Return each pulse's latent vector before pulses are related, (T, D)."""
        embedded: Tensor = self.embedding(batch, packing)
        return embedded

    def relate_pulses(
        self, latent_TD: Tensor, batch: PackedBatch, packing: Packing
    ) -> Tensor:
        """Relate pulses; the first `n_rel` blocks use the interval, (T, D)."""
        places_T4, kept_P = self.interval.places(batch), None
        num_uses = self.config.n_rel * (1 if packing.shared is None else 2)
        kept = num_uses > 1 and not torch.is_grad_enabled()
        if kept and not torch.compiler.is_compiling():
            channels = self.interval.channels
            kept_P = packing.once(
                ("interval", channels, self.interval.speed),
                lambda: sinusoids_of_pairs(places_T4, packing, channels),
            )
        term = IntervalTerm(self.interval, places_T4, kept_P)
        for number, block in enumerate(self.local):
            with_term = term if number < self.config.n_rel else None
            latent_TD = self._run(block, latent_TD, packing, with_term)
        return latent_TD

    def encode(self, latent_TD: Tensor, packing: Packing) -> Tensor:
        """Collect each event in its class token, (B, D)."""
        latent_TD = packing.prepend(self.class_token[0], latent_TD)
        packing = packing.with_class_token()
        for block in self.encoder[:-1]:
            latent_TD = self._run(block, latent_TD, packing)
        # The last block computes class tokens only; the head reads nothing else.
        return self._run(self.encoder[-1], latent_TD, packing, first_only=True)

    def _run(self, block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        if self.config.use_checkpoint and torch.is_grad_enabled():
            result: Tensor = checkpoint(block, *args, use_reentrant=False, **kwargs)
        else:
            result = block(*args, **kwargs)
        return result

    def kwargs(self) -> dict[str, Any]:
        """Return the arguments that build this model; default values are left out."""
        arguments = asdict(self.config)
        for name, usual in (
            ("extra_waves", ()),
            ("interval_speed", INTERVAL_SPEED),
            ("embedding_width", None),
        ):
            if arguments[name] == usual:
                del arguments[name]  # as in files of 0.1.0
        return arguments

    def describe(self) -> dict[str, Any]:
        """Return name and arguments; the task is always the direction."""
        return {"model": self.model_name, "kwargs": self.kwargs(), "tasks": None}


def start_as_published(module: nn.Module) -> None:
    """Initialise the linear layers of a module from the published distributions."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, SelfAttention):
            # The loop above does not reach this weight of nn.MultiheadAttention, which
            # the published encoder uses.
            nn.init.xavier_uniform_(part.qkv.weight)
