"""Token ids in, right-padded tensors out; and rows packed into micro-batches by a token budget.

Knows nothing of texts. Padding is marked in the attention mask and carries no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
"""Label of positions that are not trained on (torch's and Hugging Face's convention)."""


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass, padded on the right.

    Attributes:
        input_ids_BT: Prompt and response, int64.
        attention_mask_BT: 1 at tokens, 0 at padding, int64.
        labels_BT: The token itself at response positions, IGNORED elsewhere, int64 (not shifted).
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    labels_BT: Tensor

    @property
    def response_mask_BT(self) -> Tensor:
        """True at response tokens, bool."""
        return self.labels_BT != IGNORED

    def to(self, device: torch.device) -> Batch:
        """Move all tensors."""
        return Batch(self.input_ids_BT.to(device), self.attention_mask_BT.to(device), self.labels_BT.to(device))


def collate(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """Concatenate each prompt with its response and pad on the right to the longest row.

    Prompt tokens are visible and not trained on; a pad id inside a row is an ordinary token.
    """
    rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    width = max((len(row) for row in rows), default=0)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    attention = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.int64)
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        input_ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        attention[index, : len(row)] = 1
        labels[index, len(prompt) : len(row)] = input_ids[index, len(prompt) : len(row)]
    return Batch(input_ids, attention, labels)


def token_budget_micro_batches(lengths: Sequence[int], budget: int, padded: bool = True) -> list[list[int]]:
    """Group rows so that each group holds at most `budget` tokens.

    Rows are taken longest first (memory runs out at once or never), ties by index; a row longer than the
    budget stands alone. Depends on nothing but the arguments.

    Args:
        lengths: Tokens of each row.
        budget: Tokens of a group, at most.
        padded: A group costs rows × longest row, so that rows of like length go together; otherwise the sum of
            its rows, and each row goes into the first group with room.

    Returns:
        Indices into `lengths`, each exactly once.
    """
    groups: list[list[int]] = []
    longest_first = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    if not padded:
        room: list[int] = []
        for index in longest_first:
            place = next((number for number, free in enumerate(room) if lengths[index] <= free), len(groups))
            if place == len(groups):
                groups.append([])
                room.append(budget)
            groups[place].append(index)
            room[place] -= lengths[index]
        return groups
    width = 0
    for index in longest_first:
        if groups and (len(groups[-1]) + 1) * width <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
            width = lengths[index]
    return groups
