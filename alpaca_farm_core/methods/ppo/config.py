"""Settings of PPO; the defaults are AlpacaFarm's for simulated preferences, with corrected numerics. No torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.training.on_policy.config import EpochsConfig


class PPOConfig(EpochsConfig):
    """Proximal policy optimisation of a policy against a reward, with a KL penalty to where it started."""

    # reward
    kl_loss_coef: float = Field(0.0, ge=0, description="Weight of a KL term in the loss; 0 = disabled.")
    kl_loss: Literal["k2", "k3"] = Field("k2", description="Estimator of that term; k2 has the gradient of the KL.")
    whiten_rewards: bool = Field(
        True, description="Scale the shaped rewards of a rollout to unit variance (mean kept)."
    )

    # advantages and losses
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of later rewards.")
    lam: float = Field(1.0, ge=0, le=1, description="λ of generalised advantage estimation.")
    clip_range: float = Field(0.2, gt=0, description="Probability ratios beyond 1 ± this earn nothing.")
    value_clip_range: float = Field(0.2, gt=0, description="Values move at most this far from the rollout's.")
    vf_coef: float = Field(
        0.1,
        gt=0,
        description="Weight of the value loss; with critic = 'shared_trunk' smaller ones, 0.02 say, are steadier.",
    )

    # models
    critic_learning_rate: float = Field(0.0, ge=0, description="Highest learning rate of the critic; 0 = the policy's.")
    critic: Literal["separate", "shared_trunk"] = Field(
        "separate",
        description="A model of its own; or a value head on the policy's last hidden states, with one backbone and "
        "one pass for both: half of the memory and time, but policy and values pull at the same weights.",
    )
    critic_init: Literal["reward_model", "policy"] = Field(
        "reward_model", description="Backbone that a separate critic starts from."
    )
    zero_value_head: bool = Field(True, description="Start with value 0; false = with the reward model's own head.")
    paper_compat: bool = Field(
        False,
        description="The original's numerics: KL clamped at 0, means and whitening over all max_new_tokens positions, "
        "rewards read without EOS, gradients of policy and critic clipped together.",
    )

    @model_validator(mode="after")
    def value_head_needs_a_reward_head(self) -> Self:
        """A policy has no reward head to start the value head from."""
        if not self.zero_value_head and self.critic_init == "policy":
            raise ValueError("zero_value_head = false needs critic_init = 'reward_model'")
        return self

    @model_validator(mode="after")
    def head_on_the_policy_starts_at_zero(self) -> Self:
        """The reward model's head knows nothing of the policy's states."""
        if self.critic == "shared_trunk" and not self.zero_value_head:
            raise ValueError("zero_value_head = false needs critic = 'separate'")
        return self

    @model_validator(mode="after")
    def critic_of_the_reward_model_needs_one(self) -> Self:
        """Other rewards have no backbone for a separate critic to start from."""
        if self.critic == "separate" and self.critic_init == "reward_model" and not self.reward.needs_reward_model:
            raise ValueError(f"reward.kind = '{self.reward.kind}' needs critic_init = 'policy'")
        return self
