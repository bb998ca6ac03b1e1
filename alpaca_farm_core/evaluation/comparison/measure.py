"""What a method's answers earn and how far its policy has moved: outputs, policy, reference and reward model in.

Out: `measurement.json`: mean proxy reward and tokens of the answers, and for a policy the KL from the reference in
nats per response, from samples at the configured temperature. Each model reads the prompt of its own template, so
that a policy conditioned by its prompt compares with its reference; both score the same sampled tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from alpaca_farm_core.artifacts.files import write_json
from alpaca_farm_core.data.collate import collate
from alpaca_farm_core.data.rows import read_outputs, read_split
from alpaca_farm_core.data.tokenise import encode_prompts, tokenise_prompts
from alpaca_farm_core.evaluation.comparison.config import MeasureConfig
from alpaca_farm_core.evaluation.intervals import mean_and_standard_error
from alpaca_farm_core.generation.answers import context_length, load_decoder
from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.rewards import rewards_of_outputs
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.models.device import DTYPES
from alpaca_farm_core.models.loading import LoadedModel, load_policy, load_reward_model
from alpaca_farm_core.models.logprobs import response_logprobs
from alpaca_farm_core.models.packing import micro_batches
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.seeding import stable_seed
from alpaca_farm_core.types import Instruction


def measure(context: StageContext) -> StageResult:
    """Body of the stage `measure`.

    Raises:
        ModelError: a model cannot be loaded.
        DataError: no instruction of the split fits into the policy's context.
    """
    config: MeasureConfig = context.config
    outputs = read_outputs(context.inputs["outputs"].path / "outputs.jsonl")
    reward = load_reward_model(context.inputs["reward_model"].path, context.execution)
    reward.model.to(DTYPES[config.precision])
    rewards = rewards_of_outputs(reward, outputs, context.execution)
    del reward
    mean, error = mean_and_standard_error(rewards)
    figures: dict[str, Any] = {
        "reward": mean,
        "reward_se": error,
        "tokens_mean": sum(row.n_tokens for row in outputs) / len(outputs),
        "finished_share": sum(row.finished for row in outputs) / len(outputs),
        **(_kl(context) if "policy" in context.inputs else {}),
    }
    write_json(context.output / "measurement.json", figures)
    return StageResult(metrics=figures)


def _kl(context: StageContext) -> dict[str, Any]:
    """k1 estimate of KL(policy ‖ reference), summed over each response, with its standard error."""
    config: MeasureConfig = context.config
    policy = load_decoder(context)
    reference = load_policy(context.inputs["reference"].path, context.execution)
    reference.model.to(DTYPES[config.precision])
    rows = read_split(context.inputs["data"].path, config.split)[: config.limit]
    room = min(context_length(policy.model), context_length(reference.model)) - config.max_new_tokens
    prompts = tokenise_prompts(policy.tokenizer, policy.template, rows, room)
    kept = [rows[place] for place in prompts.kept]
    assert config.seed is not None
    completions = generate(
        policy.model,
        prompts.prompt_ids,
        [stable_seed("measure", config.seed, row.id) for row in kept],
        SamplingParams(config.max_new_tokens, config.temperature),
        int(policy.tokenizer.eos_token_id),
        int(policy.tokenizer.pad_token_id),
        context.execution.decode_batch_size,
    )
    # The reference has no probability for a token that only the policy knows.
    known = len(reference.tokenizer)
    scorable = [place for place, c in enumerate(completions) if max(c.token_ids) < known]
    responses = [completions[place].token_ids for place in scorable]
    theirs = [kept[place] for place in scorable]
    gaps = [
        one - other
        for one, other in zip(
            _logprobs(policy, theirs, responses, context), _logprobs(reference, theirs, responses, context), strict=True
        )
    ]
    mean, error = mean_and_standard_error(gaps)
    return {"kl": mean, "kl_se": error, "n_kl_samples": len(gaps), "n_unscorable": len(kept) - len(gaps)}


@torch.no_grad()
def _logprobs(
    loaded: LoadedModel, rows: Sequence[Instruction], responses: Sequence[list[int]], context: StageContext
) -> list[float]:
    """Summed log-probability of each response under one model, which reads its own prompt, in order."""
    config: MeasureConfig = context.config
    prompts = encode_prompts(loaded.tokenizer, [loaded.template.render(row.instruction, row.input) for row in rows])
    found = [0.0] * len(rows)
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    for group in micro_batches(loaded.model, lengths, context.execution.micro_batch_tokens):
        batch = collate([prompts[i] for i in group], [responses[i] for i in group], int(loaded.tokenizer.pad_token_id))
        batch = batch.to(loaded.model.device)
        scores = response_logprobs(
            loaded.model,
            batch.input_ids_BT,
            batch.attention_mask_BT,
            batch.response_mask_BT,
            config.temperature,
            entropies=False,
        )
        for index, value in zip(group, scores.logprobs_BT.sum(1).tolist(), strict=True):
            found[index] = value
    return found
