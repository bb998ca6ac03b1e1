"""What an on-policy run starts from: artifacts in; models, reward and prompts that fit together out."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.data.tokenise import tokenise_prompts
from alpaca_farm_core.errors import DataError, ModelError
from alpaca_farm_core.generation.answers import context_length
from alpaca_farm_core.models.loading import LoadedModel, load_policy
from alpaca_farm_core.models.lora import adapt, sharing_weights
from alpaca_farm_core.models.packing import packing_obstacle
from alpaca_farm_core.models.recompute import recompute_activations
from alpaca_farm_core.models.sharding import shard
from alpaca_farm_core.models.tokens import add_special_tokens
from alpaca_farm_core.pipeline.stage import StageContext
from alpaca_farm_core.training.launch import Workers, start_workers
from alpaca_farm_core.training.offload import offloaded
from alpaca_farm_core.training.on_policy.algorithm import Learner
from alpaca_farm_core.training.on_policy.config import OnPolicyConfig
from alpaca_farm_core.training.optimiser import build_optimiser
from alpaca_farm_core.training.rewards.base import Reward
from alpaca_farm_core.training.rewards.build import Behind, build_reward
from alpaca_farm_core.training.rewards.model import ModelReward
from alpaca_farm_core.training.rollouts import Passes, Sampler
from alpaca_farm_core.types import Instruction, Split

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Prompts:
    """Instructions whose prompts fit, with their token ids; and how many did not."""

    instructions: list[Instruction]
    token_ids: list[list[int]]
    n_too_long: int

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.instructions)


@dataclass(frozen=True)
class Setup:
    """All of a run that does not change, and the policy that does.

    Attributes:
        config: The stage's settings.
        loaded: The policy with tokenizer and template; its model is trained.
        stored_dtype: Precision in which policies are saved.
        reference: The policy as it was at the start, frozen.
        reward: What rewards answers.
        reward_model: The reward model behind `reward`, frozen, where it is one.
        policy: The policy as a learner.
        sampler: Draws responses from the policy.
        passes: How forward passes run.
        workers: The processes.
        execution: As this process follows it.
        prompts: Of training.
        heldout: Of evaluation.
    """

    config: Any
    loaded: LoadedModel
    stored_dtype: torch.dtype
    reference: PreTrainedModel
    reward: Reward
    reward_model: PreTrainedModel | None
    policy: Learner
    sampler: Sampler
    passes: Passes
    workers: Workers
    execution: ExecutionConfig
    prompts: Prompts
    heldout: Prompts

    def learner(self, model: nn.Module, learning_rate: float = 0.0, small: bool = False) -> Learner:
        """A further model in training; learning rate 0 = the policy's. A `small` one is never sharded."""
        return learner(model, self.config, self.execution, None if small else self.workers.mesh, learning_rate)

    def offloaded(self, learners: Iterable[Learner], keep_reference: bool) -> AbstractContextManager[None]:
        """While learners are updated: reward model and reference (unless kept) wait, where that is asked for."""
        models = [None if keep_reference else self.reference, self.reward_model]
        idle = [model for model in models if model is not None and self.execution.offload]
        busy = [learner.model for learner in learners] + [self.reference] * keep_reference
        return offloaded(idle, busy, self.workers.device)

    def shard_frozen(self, keep_reference: bool) -> None:
        """Spread reference and reward model too, where all processes make the same passes over them.

        Not those that something decodes with or runs parts of, nor a reward model that reads texts of its own tokens.
        """
        if self.reward_model is not None and not keep_reference:
            shard(self.reference, self.workers.mesh)
        if isinstance(self.reward, ModelReward) and self.reward.reads_tokens:
            shard(self.reward.model, self.workers.mesh)


def set_up(context: StageContext, tokens: tuple[str, ...] = (), with_eos: bool = True) -> Setup:
    """Load and check everything.

    Args:
        context: Of the stage.
        tokens: Special tokens that the policy gets besides its own.
        with_eos: Whether reward models are shown the EOS of finished answers.

    Raises:
        ModelError: a model cannot be loaded, or LoRA targets do not exist.
        DataError: a split is empty or no prompt fits.
        ConfigError: there is no such reward.
    """
    config: OnPolicyConfig = context.config
    workers, execution = start_workers(context.execution, config.precision)
    if workers.mesh is not None and config.lora.rank:
        raise ModelError(
            "Adapters of an on-policy method share their frozen base with the reference, which cannot be sharded.",
            "Set execution.parallel to 'ddp': adapters have few gradients and moments to shard.",
        )
    start = load_policy(context.inputs["policy"].path, execution)
    stored_dtype = start.model.dtype
    start.model.float()
    loaded, reference = _policy_and_reference(start, config, tokens)
    policy, tokenizer = loaded.model, cast(Any, loaded.tokenizer)
    pad_id = int(tokenizer.pad_token_id)
    padded = workers.mesh is not None or bool(packing_obstacle(policy))
    passes = Passes(workers.device, pad_id, execution.micro_batch_tokens, workers.arithmetic, padded, workers.passes)
    reward, reward_model = build_reward(
        config.reward, context, Behind(start, reference, passes, workers, execution, config.seed or 0), with_eos
    )
    # Before the policy is sharded, as it copies it.
    sampler = Sampler(
        policy,
        config.precision == "bfloat16",
        int(tokenizer.eos_token_id),
        pad_id,
        execution.decode_batch_size,
        sharded=workers.mesh is not None,
    )
    # A prompt may get one of the tokens on top.
    room = min(config.max_prompt_tokens, context_length(policy) - config.max_new_tokens - bool(tokens))
    return Setup(
        config,
        loaded,
        stored_dtype,
        reference,
        reward,
        reward_model,
        learner(policy, config, execution, workers.mesh),
        sampler,
        passes,
        workers,
        execution,
        _prompts(context, loaded, config.split, room),
        _prompts(context, loaded, config.eval_split, room, config.eval_prompts),
    )


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    """Evaluation mode, no gradients."""
    return cast("PreTrainedModel", model.eval().requires_grad_(False))


def learner(
    model: nn.Module,
    config: OnPolicyConfig,
    execution: ExecutionConfig,
    mesh: DeviceMesh | None,
    learning_rate: float = 0.0,
) -> Learner:
    """Give a model its optimiser, after sharding it over `mesh`, if any; learning rate 0 = the config's."""
    if execution.activation_checkpointing:
        recompute_activations(model)
    shard(model, mesh)
    return Learner(model, build_optimiser(model, config, learning_rate), learning_rate or config.learning_rate)


def _policy_and_reference(
    start: LoadedModel, config: OnPolicyConfig, tokens: tuple[str, ...]
) -> tuple[LoadedModel, PreTrainedModel]:
    """The policy in training and the reference: two models, or one and adapters on a tree that shares its weights."""
    assert config.seed is not None
    if config.lora.rank:
        reference = frozen(start.model)
        policy = sharing_weights(reference)
        adapt(policy, config.lora, config.seed)
        return replace(start, model=policy), reference
    reference = frozen(copy.deepcopy(start.model))
    if not tokens:
        return start, reference
    tokenizer = copy.deepcopy(start.tokenizer)
    add_special_tokens(start.model, tokenizer, list(tokens))
    return replace(start, tokenizer=tokenizer), reference


def _prompts(context: StageContext, loaded: LoadedModel, split: Split, room: int, limit: int = 0) -> Prompts:
    rows = read_split(context.inputs["data"].path, split)
    if not rows:
        raise DataError(f"The split '{split}' has no instructions.", "Choose another split or another dataset.")
    tokenised = tokenise_prompts(loaded.tokenizer, loaded.template, rows, room)
    if tokenised.n_too_long:
        context.progress.say(f"{split}: {tokenised.n_too_long} of {len(rows)} prompts are too long, dropped.")
    kept = [rows[index] for index in tokenised.kept]
    return Prompts(kept[: limit or None], tokenised.prompt_ids[: limit or None], tokenised.n_too_long)
