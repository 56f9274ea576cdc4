"""Checkpoints that are whole or not there, and run no code when they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from graphnet_icecube2nd.files import write_whole

try:
    from pytorch_lightning.plugins import CheckpointIO
except ImportError:
    CheckpointIO = object


class WholeCheckpointIO(CheckpointIO):  # type: ignore[misc]
    """How Lightning writes and reads the checkpoints of a run."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,
    ) -> None:
        """Write a checkpoint; who is killed meanwhile finds the former one."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint of tensors and plain values; anything else is refused.

        Raises:
            ValueError: It cannot be read so.
        """
        try:
            loaded: dict[str, Any] = torch.load(
                path, map_location=map_location, weights_only=True
            )
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read as tensors and plain values "
                f"({type(error).__name__}): it is damaged or no checkpoint of a run; "
                "code from a file is never run"
            ) from error
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint, where it is there."""
        Path(path).unlink(missing_ok=True)
