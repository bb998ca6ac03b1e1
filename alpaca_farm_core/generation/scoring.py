"""Rewards of responses: token ids in, one number per response out, read at the response's last token.

Rows are scored in token-budget batches of similar length. The number is what
`AutoModelForSequenceClassification` gives for the same tokens, wherever the padding stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from alpaca_farm_core.data.collate import collate
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.models.backbone import hidden_states, with_parts
from alpaca_farm_core.models.packing import micro_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READS_EOS = "reward_reads_eos"
"""Key in the reward model's config.json: whether it was trained on responses with their EOS."""


def reads_eos(reward_model: PreTrainedModel) -> bool:
    """Whether the EOS of a finished response belongs to what this reward model reads (true unless it says no)."""
    return bool(getattr(reward_model.config, READS_EOS, True))


def rewards_at_end(reward_model: PreTrainedModel, input_ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Run right-padded rows and read the reward at position length − 1 of each, float32 [B].

    Gradients flow. The last token is found by its place, so a pad or EOS id inside a row changes nothing.

    Raises:
        ModelError: the model has no linear head named `score`.
    """
    if getattr(reward_model, "score", None) is None:
        raise ModelError(
            f"{type(reward_model).__name__} has no reward head named 'score'.",
            "Use a reward model made by the reward_model stage, or one whose classifier is built like Llama's.",
        )
    return with_parts(reward_model, lambda: _rewards_at_end(reward_model, input_ids_BT, lengths_B))


def _rewards_at_end(reward_model: PreTrainedModel, input_ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
    score: Any = reward_model.score
    places_1T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)[None, :]
    last_B1 = lengths_B[:, None] - 1
    hidden_BTD = hidden_states(reward_model, input_ids_BT, (places_1T <= last_B1).long(), places_1T == last_B1)
    last_BD = hidden_BTD[torch.arange(len(lengths_B), device=hidden_BTD.device), lengths_B - 1]
    # The head stays out of autocast: three digits are too few for a reward.
    with torch.autocast(last_BD.device.type, enabled=False):
        rewards_B1 = score(last_BD.to(next(score.parameters()).dtype))
    return cast(Tensor, rewards_B1).squeeze(-1).float()


@torch.no_grad()
def score(
    reward_model: PreTrainedModel,
    prompt_ids: Sequence[list[int]],
    response_ids: Sequence[list[int]],
    pad_id: int,
    micro_batch_tokens: int = 16384,
    passes_of_all: Callable[[int], int] = int,
) -> list[float]:
    """Return one reward per row, in the order given.

    Args:
        reward_model: Sequence classifier with one label, in evaluation mode.
        prompt_ids: Prompts with BOS where the tokenizer adds it.
        response_ids: Responses; finished ones end with EOS if the reward model `reads_eos`.
        pad_id: Token of the padding.
        micro_batch_tokens: Tokens of one forward pass, padding included.
        passes_of_all: From the passes of this process to those of each, where they must be as many.
    """
    device = next(reward_model.parameters()).device
    lengths = [len(p) + len(r) for p, r in zip(prompt_ids, response_ids, strict=True)]
    rewards = torch.zeros(len(lengths))
    groups = micro_batches(reward_model, lengths, micro_batch_tokens)
    idle = passes_of_all(len(groups)) - len(groups)
    for rows in [*groups, *groups[-1:] * idle]:
        batch = collate([prompt_ids[row] for row in rows], [response_ids[row] for row in rows], pad_id).to(device)
        at_end = rewards_at_end(reward_model, batch.input_ids_BT, batch.attention_mask_BT.sum(1))
        rewards[torch.tensor(rows)] = at_end.cpu()
    return [float(reward) for reward in rewards]
