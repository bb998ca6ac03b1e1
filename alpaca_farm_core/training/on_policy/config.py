"""Settings that all on-policy methods share; each method adds its own. No torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.models.config import LoraConfig
from alpaca_farm_core.training.config import OptimiserConfig, Schedule
from alpaca_farm_core.training.rewards.config import RewardConfig
from alpaca_farm_core.types import Split


class OnPolicyConfig(OptimiserConfig):
    """A policy answers prompts, its answers are rewarded, and it learns from them; a KL penalty holds it back."""

    seed: int | None = Field(None, description="Seed of prompts, samples and minibatches; none = the run's seed.")
    split: Split = Field("unlabeled", description="Split whose instructions are answered in training.")
    reward: RewardConfig = Field(default_factory=RewardConfig, description="What rewards the answers.")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="Adapters instead of full training.")

    # length of the run
    passes: int = Field(10, ge=1, description="Passes over the prompts; decides the number of steps when `steps` is 0.")
    steps: int = Field(0, ge=0, description="Steps; 0 = as many full rollout batches as the passes hold.")
    rollout_batch_size: int = Field(512, ge=1, description="Responses sampled per step, over all processes.")
    minibatch_size: int = Field(256, ge=1, description="Responses of one optimiser step, over all processes.")

    # sampling
    max_prompt_tokens: int = Field(192, ge=1, description="Longer prompts are dropped, counted.")
    max_new_tokens: int = Field(300, ge=1, description="Tokens of a response at most, EOS included.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits, in sampling and in all log-probabilities.")

    # reward
    kl_coef: float = Field(0.0067, ge=0, description="Weight of the KL penalty, at first.")
    kl_controller: Literal["fixed", "adaptive"] = Field("fixed", description="Whether kl_coef follows the measured KL.")
    kl_target: float = Field(6.0, gt=0, description="KL per response, in nats, that the adaptive controller steers to.")
    kl_gain: float = Field(
        0.1, gt=0, description="Largest relative speed of the adaptive controller, per unit of error."
    )
    unfinished_penalty: float | None = Field(
        None,
        description="Reward of a response that does not end within max_new_tokens, instead of its own; none = off.",
    )

    # models
    learning_rate: float = Field(1e-5, gt=0, description="Highest learning rate of the policy.")
    schedule: Schedule = Field("linear", description="How the learning rate falls to 0 behind the warm-up.")
    warmup_steps: int = Field(5, ge=0, description="Steps with a rising learning rate.")
    adam_epsilon: float = Field(1e-5, gt=0, description="Adam's ε.")
    dropout: bool = Field(False, description="Leave the models' dropout on while they are updated.")

    # what is kept
    eval_split: Split = Field("val", description="Split of held-out prompts.")
    eval_prompts: int = Field(256, ge=1, description="Held-out prompts answered at each evaluation, at most.")
    eval_every: int = Field(10, ge=0, description="Steps between evaluations; 0 = only at start and end.")
    select: Literal["best", "last"] = Field(
        "best",
        description="The resulting policy: the best evaluated one by held-out reward − kl_coef · KL, or the last.",
    )
    save_every: int = Field(20, ge=0, description="Steps between policies kept in checkpoints/; 0 = disabled.")
    log_rollouts_every: int = Field(
        10, ge=0, description="Steps between decoded samples in rollouts.jsonl; 0 = disabled."
    )
    log_rollouts: int = Field(4, ge=1, description="Decoded samples of such a step.")


class EpochsConfig(OnPolicyConfig):
    """An on-policy method that passes over each rollout batch in minibatches."""

    epochs: int = Field(2, ge=1, description="Passes over each rollout batch.")

    @model_validator(mode="after")
    def minibatches_fill_the_rollout(self) -> Self:
        """Every response is used once per epoch."""
        if self.rollout_batch_size % self.minibatch_size:
            raise ValueError(
                f"rollout_batch_size {self.rollout_batch_size} must be a multiple of "
                f"minibatch_size {self.minibatch_size}"
            )
        return self


class GroupConfig(EpochsConfig):
    """An on-policy method that compares several answers to the same prompt, and needs no critic."""

    group_size: int = Field(4, ge=2, description="Answers to each prompt of a rollout.")
    epochs: int = Field(1, ge=1, description="Passes over each rollout batch.")
    clip_range: float = Field(0.2, gt=0, description="Probability ratios beyond 1 ± this earn nothing.")

    @model_validator(mode="after")
    def groups_fill_the_rollout(self) -> Self:
        """Every prompt has all its answers."""
        if self.rollout_batch_size % self.group_size:
            raise ValueError(
                f"rollout_batch_size {self.rollout_batch_size} must be a multiple of group_size {self.group_size}"
            )
        return self
