"""Attention of a decoding step in groups of rows: each group over as many positions as its longest row has.

For CPUs, where reading keys and values of positions that are masked costs as much as of those that are not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

SPANS = "row_spans"
"""Keyword of a model's forward pass that holds the groups."""


class RowSpan(NamedTuple):
    """Rows `first` to `end` − 1 attend to positions from `start` on."""

    first: int
    end: int
    start: int


def attend_in_spans(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, spans: list[RowSpan], **keywords: Any
) -> Tensor:
    """SDPA of one new position, [rows, heads, 1, width] → [rows, 1, heads, width], a group of rows at a time.

    The additive mask [rows, 1, 1, positions] says what each row sees; it must hide all before its group's start.
    """
    parts = [
        sdpa_attention_forward(
            module, query[first:end], key[first:end, :, start:], value[first:end, :, start:],
            mask[first:end, :, :, start:], **keywords,
        )[0]
        for first, end, start in spans
    ]  # fmt: skip
    return torch.cat(parts)
