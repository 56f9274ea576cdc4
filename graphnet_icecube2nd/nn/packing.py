"""Packing: between consecutive pulses and a padded table.

Layers that treat each pulse alone work on packed tensors (T, ...); attention and
nearest neighbours need events side by side. Shape letters: T tokens (pulses and, if
present, class tokens), B events, L longest event.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property, wraps
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

# Values that several models compute from one batch, by key.
BatchCache = dict[Hashable, Any]
Made = TypeVar("Made")


def event_slices(offsets: Tensor) -> list[slice]:
    """Return the rows of each event in a packed table; offsets are on the CPU."""
    return [slice(*borders) for borders in pairwise(offsets.tolist())]


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type for sums over a tensor, at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def empty_packed(like: Tensor) -> Tensor:
    """Return an empty, contiguous tensor of the same shape and type."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def operation(function: Callable[..., Any]) -> Any:
    """Register a function with PyTorch, so that `torch.compile` makes it one node.

    The function chooses its types itself, also under autocast.
    """

    @wraps(function)
    def without_autocast(*args: Any) -> Any:
        device = next(arg for arg in args if isinstance(arg, Tensor)).device.type
        with torch.autocast(device, enabled=False):
            return function(*args)

    name = f"graphnet_icecube2nd::{function.__name__}"
    return torch.library.custom_op(name, without_autocast, mutates_args=())


class Packing:
    """Positions of the tokens of a packed batch in the padded table.

    `offsets` are the (B + 1,) borders of the events, int64; no event is empty. Give
    `num_tokens` if it is known, because reading it from the borders waits for a GPU.
    Padding is computed when it is first needed: on a CPU the models pad nothing.

    The sinusoids of features and intervals, and the first graph of the hybrids, depend
    on the batch but not on the weights. Members of an ensemble compute them once if
    their packings have one `shared` cache.
    """

    def __init__(
        self,
        offsets: Tensor,
        num_tokens: int | None = None,
        shared: BatchCache | None = None,
    ) -> None:
        if num_tokens is None:
            num_tokens = int(offsets[-1])
        self.offsets = offsets
        self.num_tokens = num_tokens
        self.shared = shared
        self.lengths_B = offsets.diff()
        self.event_T = self.index_events().repeat_interleave(
            self.lengths_B, output_size=num_tokens
        )

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return the value of a key; make it if it is new or nothing is shared."""
        if self.shared is None:
            return make()
        if key not in self.shared:
            self.shared[key] = make()
        made: Made = self.shared[key]
        return made

    def index_events(self) -> Tensor:
        """Return the indices 0 to B - 1."""
        return torch.arange(len(self.offsets) - 1, device=self.offsets.device)

    @cached_property
    def longest(self) -> int:
        """Length L of the longest event; on a GPU the host waits for this number."""
        return int(self.lengths_B.max())

    @cached_property
    def valid_BL(self) -> Tensor:
        """True for a real token, False for padding."""
        position_L = torch.arange(self.longest, device=self.offsets.device)
        return position_L < self.lengths_B[:, None]

    @cached_property
    def _slot_T(self) -> Tensor:
        position_T = torch.arange(self.num_tokens, device=self.offsets.device)
        first_B = self.index_events() * self.longest - self.offsets[:-1]
        return position_T + first_B.index_select(0, self.event_T)

    def pad(self, packed: Tensor) -> Tensor:
        """Copy (T, ...) to (B, L, ...), with zeros where there is no token."""
        rows = len(self.lengths_B) * self.longest
        padded = packed.new_zeros((rows, *packed.shape[1:]))
        padded = padded.index_copy(0, self._slot_T, packed)
        return padded.view(-1, self.longest, *packed.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """Copy the real tokens of (B, L, ...) to (T, ...)."""
        return padded.flatten(0, 1).index_select(0, self._slot_T)

    def with_class_token(self) -> Packing:
        """Return the packing of events with one more token at the front of each."""
        extra = torch.arange(len(self.offsets), device=self.offsets.device)
        return Packing(self.offsets + extra, self.num_tokens + len(self.offsets) - 1)

    def prepend(self, token_D: Tensor, latent_TD: Tensor) -> Tensor:
        """Put a token in front of every event, (T + B, D); see `with_class_token`."""
        num_events = len(self.lengths_B)
        slots = torch.arange(len(latent_TD), device=latent_TD.device)
        grown = token_D.to(latent_TD.dtype).repeat(len(latent_TD) + num_events, 1)
        return grown.index_copy(0, slots + self.event_T + 1, latent_TD)
