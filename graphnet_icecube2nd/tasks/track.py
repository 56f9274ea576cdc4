"""Track: the probability that an event is a track."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from graphnet_icecube2nd.tasks.classification import BinaryTask
from graphnet_icecube2nd.tasks.label import TRACK
from graphnet_icecube2nd.tasks.task import Column, register_task


@register_task
class Track(BinaryTask):
    """Track (the trail of a muon) or cascade.

    The output is the logarithm of the odds.
    """

    name: ClassVar[str] = "track"
    title: ClassVar[str] = "Track or cascade"
    classes: ClassVar[tuple[str, str]] = ("track", "other")
    truth: ClassVar[tuple[str, ...]] = (TRACK,)
    default_weight: ClassVar[float] = 0.3
    columns: ClassVar[tuple[Column, ...]] = (
        Column("p_track", "", "probability that the event is a track"),
    )

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for tracks, 0 for others, (B,); NaN if it is not known."""
        return truth[TRACK]
