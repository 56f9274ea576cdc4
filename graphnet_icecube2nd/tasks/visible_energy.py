"""Visible energy: the energy of an electromagnetic cascade with the event's light."""

from __future__ import annotations

from typing import ClassVar

from graphnet_icecube2nd.tasks.energy import EnergyTask, energy_columns
from graphnet_icecube2nd.tasks.label import VISIBLE_ENERGY
from graphnet_icecube2nd.tasks.task import Column, register_task


@register_task
class VisibleEnergy(EnergyTask):
    """Visible energy; see `EnergyTask`."""

    name: ClassVar[str] = "visible_energy"
    truth: ClassVar[tuple[str, ...]] = (VISIBLE_ENERGY,)
    columns: ClassVar[tuple[Column, ...]] = energy_columns(
        "visible_energy", "visible energy"
    )
