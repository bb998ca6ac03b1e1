"""Reward modelling: policy and preferences artifacts in, reward-model folder with held-out rewards out.

Follows the Bradley-Terry loss of Ouyang et al. 2022, equation 1, on AlpacaFarm's recipe. It differs:
1. the reward is read at the EOS of finished responses (`eos = false` reads it at the last content token);
2. rows are padded on the right and read at their own last position, so that padding plays no part;
3. labels may be soft: a tie has the target 0.5 (the original fails on ties), or is dropped; both are counted;
4. the artifact is a plain sequence classifier with one label.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.data.pairs import TokenisedPairs, tokenise_pairs
from alpaca_farm_core.data.preferences import LabelCounts, usable_preferences
from alpaca_farm_core.data.rows import read_preferences, split_preferences
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.answers import context_length
from alpaca_farm_core.generation.scoring import READS_EOS
from alpaca_farm_core.methods.reward_model.config import RewardModelConfig
from alpaca_farm_core.methods.reward_model.objective import PairLoss
from alpaca_farm_core.models.loading import LoadedModel, load_policy, reward_model_from_policy, save_reward_model
from alpaca_farm_core.models.lora import ADAPTERS, adapt, merged, save_adapters
from alpaca_farm_core.models.sharding import whole
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.training.launch import start_workers
from alpaca_farm_core.training.loop import Supervised
from alpaca_farm_core.types import Preference


def train(context: StageContext) -> StageResult:
    """Body of the stage `reward_model`.

    Raises:
        DataError: too few pairs, only ties, or only one label.
        ModelError: the policy cannot be loaded, or its architecture has no sequence classifier.
        TrainingDivergedError: loss, gradient or a held-out reward became NaN or infinite.
    """
    config: RewardModelConfig = context.config
    workers, execution = start_workers(context.execution, config.precision)
    assert config.seed is not None
    # 1. the model: the policy's backbone and a fresh head, trained in float32
    policy = load_policy(context.inputs["policy"].path, execution)
    stored_dtype = policy.model.dtype
    reward = reward_model_from_policy(policy, config.seed)
    reward.model.float()
    adapt(reward.model, config.lora, config.seed)
    reward.model.score.requires_grad_(True)
    setattr(reward.model.config, READS_EOS, config.eos)
    del policy
    # 2. the pairs
    rows = read_preferences(context.inputs["preferences"].path / "preferences.jsonl")
    usable, labels = usable_preferences(rows, config.ties)
    train_rows, heldout_rows = split_preferences(usable, config.eval_size, config.seed)
    training, heldout = _pairs(context, reward, train_rows), _pairs(context, reward, heldout_rows)
    # 3. the loop
    pad_id = int(reward.tokenizer.pad_token_id)
    objective = PairLoss(reward.model, training, heldout, pad_id, execution.micro_batch_tokens)
    run = Supervised.of_stage(context, reward.model, objective, workers, execution)
    steps = run.run()
    # 4. the artifact; held-out rewards are those of the weights as saved
    model = whole(reward.model)
    if workers.is_main:
        assert model is not None
        save_adapters(model, config.lora, context.output / ADAPTERS)
        reward = replace(reward, model=merged(model))
        reward.model.to(stored_dtype)
        objective = PairLoss(reward.model, training, heldout, pad_id, execution.micro_batch_tokens)
        write_jsonl(context.output / "heldout.jsonl", _heldout_rows(objective, heldout, run.total_steps))
        save_reward_model(reward, context.output)
        write_jsonl(context.output / "metrics.jsonl", steps)
    return StageResult(metrics={**_counts(labels, training, heldout), **run.figures()}, timings=run.timings())


def _pairs(context: StageContext, reward: LoadedModel, rows: list[Preference]) -> TokenisedPairs:
    config: RewardModelConfig = context.config
    limit = min(config.max_length, context_length(reward.model))
    pairs = tokenise_pairs(reward.tokenizer, reward.template, rows, limit, config.eos)
    if not len(pairs):
        raise DataError(f"None of {len(rows)} pairs fits into {limit} tokens.", "Raise max_length.")
    if pairs.n_too_long:
        context.progress.say(f"{pairs.n_too_long} of {len(rows)} pairs exceed {limit} tokens and are dropped.")
    return pairs


def _heldout_rows(objective: PairLoss, heldout: TokenisedPairs, step: int) -> list[dict[str, Any]]:
    rewards_1, rewards_2 = (rewards.tolist() for rewards in objective.heldout_rewards())
    require_finite({"held-out reward": sum(rewards_1) + sum(rewards_2)}, step, step)
    return [
        {**row.to_row(), "reward_1": reward_1, "reward_2": reward_2}
        for row, reward_1, reward_2 in zip(heldout.rows, rewards_1, rewards_2, strict=True)
    ]


def _counts(labels: LabelCounts, training: TokenisedPairs, heldout: TokenisedPairs) -> dict[str, int]:
    return {
        "n_pairs": len(training),
        "n_heldout": len(heldout),
        "n_heldout_ties": sum(row.preference == 1.5 for row in heldout.rows),
        "n_missing": labels.n_missing,
        "n_ties": labels.n_ties,
        "n_too_long": training.n_too_long + heldout.n_too_long,
    }
