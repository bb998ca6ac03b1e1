"""From settings to a reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.models.loading import LoadedModel, load_reward_model
from alpaca_farm_core.models.lora import ADAPTERS, has_adapters, read_adapters
from alpaca_farm_core.pipeline.stage import StageContext
from alpaca_farm_core.training.launch import Workers
from alpaca_farm_core.training.rewards.base import Reward
from alpaca_farm_core.training.rewards.config import RewardConfig
from alpaca_farm_core.training.rewards.model import ModelReward
from alpaca_farm_core.training.rollouts import Passes, Sampler

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Behind:
    """What stands behind the run that a reward is built for.

    Attributes:
        policy: The policy at the start, with tokenizer and template.
        reference: The same, frozen.
        passes: How forward passes run.
        workers: The processes.
        execution: Device, endpoint and concurrency.
        seed: Of the run.
    """

    policy: LoadedModel
    reference: PreTrainedModel
    passes: Passes
    workers: Workers
    execution: ExecutionConfig
    seed: int


def build_reward(
    config: RewardConfig, context: StageContext, behind: Behind, with_eos: bool = True
) -> tuple[Reward, PreTrainedModel | None]:
    """Build what `config` describes; also return the reward model, frozen, where there is one.

    Raises:
        ModelError: no reward model was given, or it cannot be loaded.
        ConfigError: there is no such function, annotator or address.
        StoreError: the call cache cannot be used.
    """
    if config.needs_reward_model:
        if "reward_model" not in context.inputs:
            raise ModelError("reward.kind is 'model', but no reward model was given.", "Give one, or set reward.kind.")
        loaded = load_reward_model(context.inputs["reward_model"].path, behind.execution)
        if _adapters_fit(context):
            read_adapters(loaded.model, context.inputs["reward_model"].path / ADAPTERS, behind.reference)
        loaded.model.float().eval().requires_grad_(False)
        return ModelReward(loaded, behind.policy, behind.passes, behind.execution, with_eos), loaded.model
    if config.kind == "annotator":
        return _judge(config, context, behind), None
    from alpaca_farm_core.training.rewards.asked import AskedReward

    return AskedReward(_source(config, behind.execution), context.calls, context.progress), None


def _adapters_fit(context: StageContext) -> bool:
    """Whether the reward model is adapters over the very policy of this run, in the precision they were trained in."""
    reward, policy = context.inputs["reward_model"], context.inputs["policy"]
    made_from = reward.manifest.input_contents.get("policy")
    return has_adapters(reward.path / ADAPTERS) and made_from == policy.manifest.content


def _source(config: RewardConfig, execution: ExecutionConfig) -> Any:
    if config.kind == "function":
        from alpaca_farm_core.training.rewards.function import FunctionJudge

        return FunctionJudge(config.name)
    from alpaca_farm_core.training.rewards.endpoint import EndpointJudge

    return EndpointJudge(config.name, execution)


def _judge(config: RewardConfig, context: StageContext, behind: Behind) -> Reward:
    from alpaca_farm_core.annotators.factory import build_annotator
    from alpaca_farm_core.training.rewards.judge import JudgeReward

    run: Any = context.config
    tokenizer = cast(Any, behind.policy.tokenizer)
    opponent = Sampler(
        behind.reference,
        behind.workers.precision == "bfloat16",
        int(tokenizer.eos_token_id),
        int(tokenizer.pad_token_id),
        behind.execution.decode_batch_size,
    )
    annotator = build_annotator(config.annotator.seeded(behind.seed), context.calls, context.execution)
    params = SamplingParams(run.max_new_tokens, run.temperature)
    return JudgeReward(annotator, opponent, params, behind.seed, config.annotator.max_missing, context.progress)
