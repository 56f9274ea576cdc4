"""First light: a point in space and time near an event's interaction.

Tasks that answer with a position or a time predict it relative to this point. Shape
letters: T pulses, B events, L longest event.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet_icecube2nd.conventions import TIME, X, Y, Z
from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.events.features import pulse_light
from graphnet_icecube2nd.nn.packing import BatchCache, Packing

# Share of an event's light. A smaller one is nearer to the start of a track, but noise
# moves it more (measured on simulated events, docs/tasks.md).
SHARE = 0.3


def first_light(batch: PackedBatch, shared: BatchCache | None = None) -> Tensor:
    """Return the mean position [m] and time [ns] of each event's first light, (B, 4).

    It is the charge-weighted mean of the earliest 30% of the light in the batch, in the
    coordinates and on the clock of the file. Auxiliary pulses, which are likelier
    noise, count only if an event has no others.

    Args:
        batch: Batch of events with `units`.
        shared: Cache of values that other models computed from the same batch.

    Raises:
        ValueError: The batch has no units.
    """
    if batch.units is None:
        raise ValueError(
            "a task that answers with a position or a time needs the units of the "
            "features: PackedBatch(..., units=detector.units)"
        )
    packing = Packing(batch.offsets, len(batch.features), shared)
    return packing.once("first_light", lambda: _first_light(batch, packing))


def _first_light(batch: PackedBatch, packing: Packing) -> Tensor:
    units = batch.units
    assert units is not None
    dtype = torch.promote_types(batch.features.dtype, torch.float32)
    point_T4 = torch.stack(
        [units.physical(n, batch.column(n).to(dtype)) for n in (X, Y, Z, TIME)], dim=1
    )
    features_TF = batch.features.to(dtype)
    light_T = pulse_light(features_TF, batch.names, units, packing.event_T, len(batch))
    point_BL4, light_BL = packing.pad(point_T4), packing.pad(light_T)
    time_BL = point_BL4[..., 3].where(packing.valid_BL, torch.inf)
    order_BL = time_BL.argsort(dim=1, stable=True)
    light_BL = light_BL.gather(1, order_BL)
    point_BL4 = point_BL4.gather(1, order_BL[..., None].expand(-1, -1, 4))
    until_BL = light_BL.cumsum(dim=1)
    # The part of each pulse that belongs to the first light: steps would let rounding
    # decide about a whole pulse.
    wanted_B1 = SHARE * until_BL[:, -1:]
    early_BL = (wanted_B1 - (until_BL - light_BL)).clamp(min=0.0).minimum(light_BL)
    # Differences from the earliest pulse keep the precision of float32.
    first_B14 = point_BL4[:, :1]
    mean_B4 = (early_BL[..., None] * (point_BL4 - first_B14)).sum(dim=1)
    light_B4 = first_B14[:, 0] + mean_B4 / early_BL.sum(dim=1, keepdim=True)
    if batch.centre is not None:
        light_B4 = light_B4 + torch.nn.functional.pad(batch.centre.to(dtype), (0, 1))
    return light_B4
