"""Packing: from pulses one after the other to a padded table, and back.

Layers that treat each pulse alone work on packed tensors (T, ...); attention and
nearest neighbours need events side by side. Shape letters: T tokens (pulses, and
class tokens where there are some), B events, L longest event.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Packing:
    """Where every token of a packed batch sits in the padded table.

    Args:
        offsets: (B + 1,) int64 borders of the events; no event is empty.

    Attributes:
        offsets: As given.
        lengths_B: Tokens of each event.
        longest: L.
        event_T: The event of each token.
        valid_BL: True for a real token, False for padding.
    """

    def __init__(self, offsets: Tensor) -> None:
        self.offsets = offsets
        self.lengths_B = offsets.diff()
        self.longest = int(self.lengths_B.max())
        num_tokens = int(offsets[-1])
        events_B = torch.arange(len(self.lengths_B), device=offsets.device)
        self.event_T = events_B.repeat_interleave(
            self.lengths_B, output_size=num_tokens
        )
        position_T = torch.arange(num_tokens, device=offsets.device)
        self._slot_T = position_T + (
            events_B * self.longest - offsets[:-1]
        ).index_select(0, self.event_T)
        position_L = torch.arange(self.longest, device=offsets.device)
        self.valid_BL = position_L < self.lengths_B[:, None]

    def pad(self, packed: Tensor) -> Tensor:
        """Spread (T, ...) to (B, L, ...), zero where there is no token."""
        rows = len(self.lengths_B) * self.longest
        padded = packed.new_zeros((rows, *packed.shape[1:]))
        padded = padded.index_copy(0, self._slot_T, packed)
        return padded.view(-1, self.longest, *packed.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """Gather the real tokens of (B, L, ...) to (T, ...)."""
        return padded.flatten(0, 1).index_select(0, self._slot_T)

    def with_class_token(self) -> Packing:
        """Return the packing of events with one more token in front of each."""
        extra = torch.arange(len(self.offsets), device=self.offsets.device)
        return Packing(self.offsets + extra)

    def prepend(self, token_D: Tensor, latent_TD: Tensor) -> Tensor:
        """Put one token in front of every event.

        Args:
            token_D: (D,) the token.
            latent_TD: (T, D) of this packing.

        Returns:
            (T + B, D), laid out as `with_class_token` says.
        """
        num_events = len(self.lengths_B)
        slots = torch.arange(len(latent_TD), device=latent_TD.device)
        grown = token_D.to(latent_TD.dtype).repeat(len(latent_TD) + num_events, 1)
        return grown.index_copy(0, slots + self.event_T + 1, latent_TD)
