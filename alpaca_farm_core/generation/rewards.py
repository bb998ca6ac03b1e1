"""Rewards of answers as texts: rows of `outputs.jsonl` in, one number each out.

The reward model's own tokenizer and template read the texts, as they read the pairs it was trained on, so
it need not share the policy's vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.tokenise import encode_prompts, encode_responses
from alpaca_farm_core.generation.scoring import reads_eos, score
from alpaca_farm_core.models.loading import LoadedModel
from alpaca_farm_core.types import Output


def rewards_of_outputs(
    reward: LoadedModel, rows: Sequence[Output], execution: ExecutionConfig, unfinished_penalty: float | None = None
) -> list[float]:
    """Score answers, in order; an unfinished one gets `unfinished_penalty` instead, where one is given.

    EOS is shown behind finished answers if the reward model was trained to read it.
    """
    show = reads_eos(reward.model)
    prompts = encode_prompts(reward.tokenizer, [reward.template.render(row.instruction, row.input) for row in rows])
    texts = [row.output for row in rows]
    responses = encode_responses(reward.tokenizer, texts, [show and row.finished for row in rows])
    pad_id = int(reward.tokenizer.pad_token_id)
    rewards = score(reward.model, prompts, responses, pad_id, execution.micro_batch_tokens)
    if unfinished_penalty is None:
        return rewards
    return [value if row.finished else unfinished_penalty for row, value in zip(rows, rewards, strict=True)]
