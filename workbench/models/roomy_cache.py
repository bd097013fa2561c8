"""A cache layer with room: tokens are written into place instead of the whole being copied for each of them."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values as views of buffers that have room for `length` tokens; beyond that it grows by copying."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None
        self._used = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        added = key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._buffers is None or self._used + added > self._buffers[0].shape[-2]:
            self._make_room(key_states, value_states, added)
        assert self._buffers is not None
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._used : self._used + added].copy_(states)
        self._used += added
        self.keys, self.values = (buffer[:, :, : self._used] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self._buffers is not None:
            # Only what is used is moved; the rest of the room is empty.
            moved = []
            for buffer in self._buffers:
                fresh = buffer.new_empty((len(indices), *buffer.shape[1:]))
                fresh[:, :, : self._used] = buffer[indices, :, : self._used]
                moved.append(fresh)
            self._buffers = (moved[0], moved[1])
            self.keys, self.values = (buffer[:, :, : self._used] for buffer in self._buffers)

    def _make_room(self, key_states: torch.Tensor, value_states: torch.Tensor, added: int) -> None:
        room = max(self.length, 2 * (self._used + added) if self._used else added)
        grown = []
        for place, states in enumerate((key_states, value_states)):
            rows, heads, _, width = states.shape
            fresh = states.new_empty((rows, heads, room, width))
            if self._buffers is not None:
                fresh[:, :, : self._used] = self._buffers[place][:, :, : self._used]
            grown.append(fresh)
        self._buffers = (grown[0], grown[1])
