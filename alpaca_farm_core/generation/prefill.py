"""Reading prompts: a queue of prompts in, the keys, values and next logits of several of them at a time out.

Prompts are read shortest first, those of a pass have similar lengths; samples of one prompt share its pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache


class Group(NamedTuple):
    """Rows that sample from the same prompt."""

    prompt: list[int]
    rows: list[int]


class Row(NamedTuple):
    """A row whose prompt has been read: its index, its prompt's place in the pass and its prompt's length."""

    row: int
    place: int
    length: int


@dataclass
class Read:
    """What one pass read.

    Attributes:
        rows: Rows that wait to be decoded.
        cache: Keys and values, one row per prompt, left-padded.
        width: Positions of the cache.
        logits_PV: Of the token behind each prompt.
    """

    rows: deque[Row]
    cache: DynamicCache
    width: int
    logits_PV: Tensor


class Reader:
    """The prompts that have not been read yet.

    Args:
        model: A causal LM of transformers.
        prompts: Token ids.
        pad_id: Token of the padding.
        most: Samples of a prompt that share a pass at most.
    """

    def __init__(self, model: Any, prompts: Sequence[list[int]], pad_id: int, most: int) -> None:
        self._model, self._pad_id = model, pad_id
        self._device = next(model.parameters()).device
        self._groups = deque(_groups(prompts, most))

    def __bool__(self) -> bool:
        """Whether prompts are left."""
        return bool(self._groups)

    @torch.no_grad()
    def read(self, rows: int, tokens: int | None) -> Read:
        """Read the next prompt, and further ones within these numbers of rows and of tokens, padding included."""
        groups = [self._groups.popleft()]
        n_rows = len(groups[0].rows)
        while self._groups:
            n_rows += len(self._groups[0].rows)
            n_tokens = len(self._groups[0].prompt) * (len(groups) + 1)  # sorted: the next one is the widest
            if n_rows > rows or (tokens is not None and n_tokens > tokens):
                break
            groups.append(self._groups.popleft())
        return self._run(groups)

    def _run(self, groups: list[Group]) -> Read:
        prompts = [group.prompt for group in groups]
        width = len(prompts[-1])
        ids = torch.tensor([[self._pad_id] * (width - len(p)) + p for p in prompts], device=self._device)
        lengths = torch.tensor([len(p) for p in prompts], device=self._device)
        mask = torch.arange(width, device=self._device)[None, :] >= (width - lengths)[:, None]
        cache = DynamicCache(config=self._model.config)
        output = self._model(
            input_ids=ids,
            attention_mask=mask.long() if len(prompts[0]) < width else None,
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        rows = [Row(row, place, len(group.prompt)) for place, group in enumerate(groups) for row in group.rows]
        return Read(deque(rows), cache, width, output.logits[:, -1])


def _groups(prompts: Sequence[list[int]], most: int) -> list[Group]:
    """Rows by prompt, the shortest prompts first."""
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), prompts[row]))
    groups = []
    for prompt, equal in groupby(order, key=lambda row: prompts[row]):
        rows = list(equal)
        groups += [Group(prompt, rows[start : start + most]) for start in range(0, len(rows), most)]
    return groups
