"""Neutrino: the probability that an event is a neutrino, not atmospheric muons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from graphnet_icecube2nd.tasks.classification import BinaryTask
from graphnet_icecube2nd.tasks.label import NEUTRINO
from graphnet_icecube2nd.tasks.task import Column, register_task


@register_task
class Neutrino(BinaryTask):
    """Neutrino or atmospheric muons.

    The output is the logarithm of the odds.
    """

    name: ClassVar[str] = "neutrino"
    title: ClassVar[str] = "Neutrino or muons"
    classes: ClassVar[tuple[str, str]] = ("neutrino", "muon event")
    truth: ClassVar[tuple[str, ...]] = (NEUTRINO,)
    default_weight: ClassVar[float] = 0.3
    columns: ClassVar[tuple[Column, ...]] = (
        Column("p_neutrino", "", "probability that the event is a neutrino"),
    )

    def target(self, truth: Mapping[str, Tensor]) -> Tensor:
        """Return 1 for neutrinos, 0 for muons, (B,); NaN if it is not known."""
        return truth[NEUTRINO]
