"""Keys and values of the rows being decoded: rows leave and others take their place without copying the rest.

A prefill runs on a cache of its own (`empty_cache`) and its rows are then added to the decoding cache. All rows end
at the same position, so that a step writes one column; shorter ones are masked in front. Models with layers that are
not plain full attention (sliding windows, linear attention …) keep the implementation that transformers gives them,
whose rows can be dropped but not replaced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

BLOCK = 64
"""Capacities are multiples of this many positions."""


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """One layer: buffers of slots × positions, of which the first slots and a window of positions are in use."""

    def __init__(self, slots: int, most: int) -> None:
        super().__init__()
        self._slots, self._most, self._rows = slots, most, 0
        self._start = self._end = 0
        self._buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append one position, [rows, heads, 1, width]; return all in use, [rows, heads, positions, width]."""
        if self._end == self._buffers[0].shape[2]:
            self._move_window(0)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: self._rows, :, self._end : self._end + 1] = states
        self._end += 1
        self._show()
        return self.keys, self.values

    def add(self, prefilled: DynamicLayer, source: Tensor) -> None:
        """Copy rows `source` (repeats allowed) of a prefilled layer behind the rows in use."""
        states = [prefilled.keys, prefilled.values]
        if not self._buffers:
            self.dtype, self.device, self.is_initialized = states[0].dtype, states[0].device, True
            self._buffers = [part.new_zeros(self._slots, part.shape[1], 0, part.shape[3]) for part in states]
        if not self._rows:
            self._start = self._end
        width, rows = states[0].shape[2], self._rows + len(source)
        missing = width - (self._end - self._start)
        if missing > self._start:
            self._move_window(missing)
        self._start -= max(0, missing)
        for buffer, part in zip(self._buffers, states, strict=True):
            buffer[self._rows : rows, :, self._end - width : self._end] = part[source]
        self._rows = rows
        self._show()

    def replace(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Copy rows `movers` over rows `holes`; the first `rows` rows stay in use."""
        if len(holes):
            for buffer in self._buffers:
                window = buffer[:, :, self._start : self._end]
                window[holes] = window[movers]
        self._rows = rows
        self._show()

    def trim(self, width: int) -> None:
        """Keep the last `width` positions."""
        self._start = self._end - width
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (buffer[: self._rows, :, self._start : self._end] for buffer in self._buffers)

    def _move_window(self, start: int) -> None:
        """Let the window begin at `start`, in buffers with room behind it: half as much again, within `most`."""
        end = start + self._end - self._start
        needed = end + 1
        capacity = -(-max(needed, min(needed * 3 // 2, self._most)) // BLOCK) * BLOCK
        for index, buffer in enumerate(self._buffers):
            slots, heads, _, width = buffer.shape
            # zeros, not empty: masked positions must hold finite numbers, because 0 × NaN is NaN
            larger = buffer.new_zeros(slots, heads, capacity, width)
            larger[: self._rows, :, start:end] = buffer[: self._rows, :, self._start : self._end]
            self._buffers[index] = larger
        self._start, self._end = start, end


class SlotCache:
    """Rows are added at any time and removed for the price of copying as many rows as leave.

    `past` is what the model takes; `slots` the most rows, `width` the number of positions in use, counted on by whoever
    runs the model.
    """

    refillable = True

    def __init__(self, config: Any, slots: int, most: int) -> None:
        self.past = DynamicCache(config=config)
        self.past.layers = [SlotLayer(slots, most) for _ in self.past.layers]
        self.slots, self.width = slots, 0

    def add(self, prefilled: DynamicCache, source: Tensor, width: int) -> None:
        """Copy rows `source` of a prefilled cache of `width` positions behind the rows in use."""
        self.width = max(self.width, width)
        for mine, theirs in zip(self.past.layers, prefilled.layers, strict=True):
            mine.add(theirs, source)

    def remove(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Copy rows `movers` over rows `holes`, then keep the first `rows` rows."""
        self.width = self.width if rows else 0
        for layer in self.past.layers:
            layer.replace(holes, movers, rows)

    def trim(self, width: int) -> None:
        """Forget all but the last `width` positions."""
        self.width = width
        for layer in self.past.layers:
            layer.trim(width)


class ShrinkingCache:
    """The same for caches as transformers makes them: rows are added to an empty one only, and nothing is trimmed."""

    refillable = False

    def __init__(self) -> None:
        self.past = DynamicCache()
        self.width = 0

    def add(self, prefilled: DynamicCache, source: Tensor, width: int) -> None:
        """Go on with rows `source` of a prefilled cache, which is changed."""
        self.past, self.width = prefilled, width
        self._select(source)

    def remove(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Copy rows `movers` over rows `holes`, then keep the first `rows` rows."""
        kept = torch.arange(rows, device=holes.device)
        kept[holes] = movers
        self._select(kept)

    def trim(self, width: int) -> None:
        """Do nothing: such layers count their positions from the start."""

    def _select(self, rows: Tensor) -> None:
        for layer in self.past.layers:
            layer.batch_select_indices(rows)


def make_cache(config: Any, slots: int, most: int) -> SlotCache | ShrinkingCache:
    """An empty decoding cache of `slots` rows for a model of this config; a row has at most `most` positions."""
    layers = DynamicCache(config=config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return SlotCache(config, slots, most) if plain else ShrinkingCache()
