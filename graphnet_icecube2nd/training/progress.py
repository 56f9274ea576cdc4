"""The progress bar: events and pulses a second, loss, learning rate, validation."""

from __future__ import annotations

import math
import time
from typing import Any

from graphnet_icecube2nd.events.batch import PackedBatch
from graphnet_icecube2nd.training.history import task_columns

try:
    from pytorch_lightning.callbacks import TQDMProgressBar
except ImportError:
    TQDMProgressBar = object

SHOWN = {"train_loss": ("loss", "{:.3f}"), "learning_rate": ("lr", "{:.1e}")}


class RateBar(TQDMProgressBar):  # type: ignore[misc]
    """Lightning's bar, with rates over the last ten seconds or so.

    Args:
        stage: The stage's number.
        num_stages: How many there are.
    """

    def __init__(self, stage: int, num_stages: int) -> None:
        super().__init__(refresh_rate=10)
        self._title = f"stage {stage} of {num_stages}"
        self._since = time.monotonic()
        self._events = self._pulses = 0
        self.rates: dict[str, str] = {}

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: PackedBatch, index: int
    ) -> None:
        """Count; all ranks do the like, so the first one's rate times their number."""
        self._events += len(batch) * trainer.world_size
        self._pulses += len(batch.features) * trainer.world_size
        seconds = time.monotonic() - self._since
        if seconds > 10 or not self.rates:
            self.rates = {
                "events/s": f"{self._events / max(seconds, 1e-3):,.0f}",
                "pulses/s": f"{self._pulses / max(seconds, 1e-3):,.0f}",
            }
            self._since, self._events, self._pulses = time.monotonic(), 0, 0
        super().on_train_batch_end(trainer, module, outputs, batch, index)

    def on_train_epoch_start(self, trainer: Any, *further: Any) -> None:
        """Say which stage and sub-epoch it is."""
        super().on_train_epoch_start(trainer, *further)
        self.train_progress_bar.set_description(
            f"{self._title}, sub-epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        )

    def get_metrics(self, trainer: Any, module: Any) -> dict[str, str]:
        """Return what stands behind the bar."""
        shown = dict(self.rates)
        for name, (label, form) in SHOWN.items():
            if name in trainer.callback_metrics:
                shown[label] = form.format(float(trainer.callback_metrics[name]))
        for task, metrics in task_columns(module.validation).items():
            metric = metrics[0] if metrics else "loss"
            value = module.validation[f"{task}/{metric}"]
            if (task, metric) == ("direction", "opening_angle"):
                shown["angle"] = f"{value:.3f} rad = {math.degrees(value):.1f} deg"
            else:
                shown[task] = f"{value:.3f}"
        return shown
