"""Sinusoidal features, the pulse embedding, and the space-time interval.

References: the 2nd-place code (github.com/DrHB/icecube-2nd-place, src/models.py) and
its description in EPJC 84, 646 (2024). Shape letters: T pulses in the batch, B events,
L longest event, D width, C channels of a sinusoid.

The arguments of sinusoids reach several thousand radians, and the interval is a small
difference of large squares. So both are computed at least in float32, even under
autocast or with other weights.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from graphnet_icecube2nd.conventions import (
    AUXILIARY,
    CHARGE,
    INTERVAL_SPEED,
    TIME,
    X,
    Y,
    Z,
)
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.nn.packing import Packing

# Factor on a feature before its sinusoid: the shortest wave has a length of
# 2 pi / 4096 * 500 m = 0.77 m, or 46 ns.
POSITION_WAVES = 4096.0
TIME_WAVES = 4096.0
CHARGE_WAVES = 1024.0
INTERVAL_WAVES = 1024.0
INTERVAL_LIMIT = 4.0  # scaled units: 2 km; larger intervals are all alike


def sinusoids(value: Tensor, channels: int, longest_wave: float = 1e4) -> Tensor:
    """Expand (...,) to sines, then cosines, of geometrically spaced frequencies.

    The result (..., C) is float64 for float64, else float32. The lowest and the highest
    frequency differ by a factor of about `longest_wave`.
    """
    value = value if value.dtype == torch.float64 else value.float()
    frequency = wave_frequencies(channels // 2, value.device, longest_wave)
    phase = value[..., None] * frequency.to(value.dtype)
    return torch.cat((phase.sin(), phase.cos()), dim=-1)


def wave_frequencies(
    num: int, device: torch.device, longest_wave: float = 1e4
) -> Tensor:
    """Return the frequencies of `sinusoids`, falling from 1, (num,) float32."""
    step = math.log(longest_wave) / num
    return torch.exp(torch.arange(num, device=device) * -step)


class FourierFeatures(nn.Module):
    """Sinusoids of one quantity, with a learned amplitude if `scaled` (hybrids).

    The amplitude starts at 1 / sqrt(channels).
    """

    def __init__(self, channels: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(1) * channels**-0.5) if scaled else None

    def forward(
        self, value: Tensor, packing: Packing | None = None, what: Hashable = None
    ) -> Tensor:
        """Map (...,) to (..., channels); `what` names the quantity in the cache."""
        key = ("sinusoids", what, self.channels)
        make = partial(sinusoids, value, self.channels)
        waves = make() if packing is None else packing.once(key, make)
        return waves if self.scale is None else waves * self.scale

    def extra_repr(self) -> str:
        """Return the length of the expansion as text."""
        return f"channels={self.channels}, scaled={self.scale is not None}"


class PulseEmbedding(nn.Module):
    """Turns the features of a pulse into its latent vector.

    A two-layer network joins the sinusoids of position, charge and time, one of two
    learned vectors for the auxiliary flag, and log10 of the event's pulses before
    selection. `scaled` gives each quantity a learned amplitude, as in the hybrids. Each
    of `extra_features`, additional columns of the batch (PMT direction, time over
    threshold, ...), has its own sinusoid; it is first multiplied by its `extra_waves`,
    or by the factor of positions. `width` is that of the hidden layer; default: that of
    all sinusoids.
    """

    def __init__(
        self,
        dim_base: int,
        dim: int,
        *,
        scaled: bool = False,
        extra_features: Sequence[str] = (),
        extra_waves: Sequence[float] = (),
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.dim_base = dim_base
        self.extra_features = tuple(extra_features)
        self.extra_waves = tuple(extra_waves)
        self.position = FourierFeatures(dim_base, scaled=scaled)
        self.charge = FourierFeatures(dim_base, scaled=scaled)
        self.time = FourierFeatures(dim_base, scaled=scaled)
        self.auxiliary = nn.Embedding(2, dim_base // 2)
        self.length = FourierFeatures(dim_base // 2, scaled=scaled)
        if self.extra_features:
            self.extra = FourierFeatures(dim_base, scaled=scaled)
        dim_joined = (6 + len(self.extra_features)) * dim_base
        width = width or dim_joined
        self.project = nn.Sequential(
            nn.Linear(dim_joined, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, dim),
        )

    def columns_of(self, extra_features: Sequence[str]) -> Tensor:
        """Return the inputs of `project` that an embedding of fewer features has."""
        places = [self.extra_features.index(name) for name in extra_features]
        parts = [*range(6), *(6 + place for place in places)]
        first = torch.tensor(parts)[:, None] * self.dim_base
        return (first + torch.arange(self.dim_base)).flatten()

    def forward(self, batch: PackedBatch, packing: Packing) -> Tensor:
        """Embed all pulses of a batch, (T, D)."""
        # The length feature counts pulses before selection, as in the published code;
        # GraphNeT's embedding counts those after it.
        length_T = batch.n_pulses.float().log10().index_select(0, packing.event_T)
        parts = [
            self.position(
                POSITION_WAVES * batch.columns((X, Y, Z)), packing, "position"
            ).flatten(-2),
            self.charge(CHARGE_WAVES * batch.column(CHARGE), packing, CHARGE),
            self.time(TIME_WAVES * batch.column(TIME), packing, TIME),
            self.auxiliary(batch.column(AUXILIARY).long()),
            self.length(length_T, packing, "length"),
        ]
        if self.extra_features:
            extra = batch.columns(self.extra_features)
            if self.extra_waves:
                extra = extra * extra.new_tensor(self.extra_waves)
            else:
                extra = POSITION_WAVES * extra
            what = (self.extra_features, self.extra_waves)
            parts.append(self.extra(extra, packing, what).flatten(-2))
        dtype = self.auxiliary.weight.dtype
        joined: Tensor = self.project(torch.cat([p.to(dtype) for p in parts], -1))
        return joined


class SpaceTimeInterval(nn.Module):
    """The relativistic interval between two pulses, as a term of the attention.

    ds2 = dx2 - (c dt)2 tells whether light can travel from one pulse to the other. Its
    signed root passes through sinusoids and one linear map. The result R_ij, shared by
    all heads and blocks, is added to keys and values (interval_attention.py). `speed`
    is the speed of light in units of the features, 18 with the published scales.
    """

    def __init__(self, head_size: int, speed: float = INTERVAL_SPEED) -> None:
        super().__init__()
        self.channels = head_size
        self.speed = speed
        self.project = nn.Linear(head_size, head_size)

    def places(self, batch: PackedBatch) -> Tensor:
        """Return position and time of all pulses, (T, 4), scaled to a speed of 18."""
        place = batch.columns((X, Y, Z, TIME))
        place = place if place.dtype == torch.float64 else place.float()
        if self.speed != INTERVAL_SPEED:
            factor = self.speed / INTERVAL_SPEED
            place = place * place.new_tensor((1.0, 1.0, 1.0, factor))
        return place

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return R_ij (B, l, L, C) of all pairs of (B, l, 4) and (B, L, 4) `places`.

        This is the simple version, for comparison.
        """
        root_BlL = signed_root(query, key)
        waves_BlLC = sinusoids(INTERVAL_WAVES * root_BlL, self.channels)
        relative: Tensor = self.project(waves_BlLC)
        return relative


def signed_root(query: Tensor, key: Tensor) -> Tensor:
    """Return sign(ds2) sqrt(|ds2|) of all pairs, (..., l, L), within `INTERVAL_LIMIT`.

    `query` (..., l, 4) and `key` (..., L, 4) are scaled x, y, z, time. The root is
    positive for space-like pairs. It uses differences, because |a|^2 + |b|^2 - 2 a.b
    loses small intervals, which matter most.
    """
    x, y, z, time = (
        query[..., :, None, column] - key[..., None, :, column] for column in range(4)
    )
    ds2 = x.square() + y.square() + z.square() - (time * INTERVAL_SPEED).square()
    # The lower limit keeps the root's slope finite for coinciding pulses.
    root = ds2.sign() * ds2.abs().clamp_min(1e-30).sqrt()
    return root.clip(-INTERVAL_LIMIT, INTERVAL_LIMIT)


@torch.no_grad()
def interval_waves(
    query: Tensor, key: Tensor, channels: int, scratch: Tensor
) -> Tensor:
    """Return the sinusoids of the interval of all pairs, (..., l, C, L).

    They are `sinusoids` of `signed_root`, with channels before keys, written in place
    into the one-dimensional `scratch`. This is the fast path, without gradient.
    """
    delta_4lL = query.movedim(-1, 0)[..., None] - key.movedim(-1, 0)[..., None, :]
    delta_4lL[3].mul_(INTERVAL_SPEED)
    x2, y2, z2, ct2 = delta_4lL.square_()
    ds2 = x2.add_(y2).add_(z2).sub_(ct2)
    root = torch.abs(ds2, out=y2).sqrt_().copysign_(ds2)
    root = root.clamp_(-INTERVAL_LIMIT, INTERVAL_LIMIT).mul_(INTERVAL_WAVES)
    half = channels // 2
    shape = (*root.shape[:-1], channels, root.shape[-1])
    waves = scratch[: root.numel() * channels].view(shape)
    sines, cosines = waves[..., :half, :], waves[..., half:, :]
    frequency = wave_frequencies(half, root.device).to(root.dtype)
    torch.mul(root[..., None, :], frequency[:, None], out=cosines)
    torch.sin(cosines, out=sines)
    cosines.cos_()
    return waves
