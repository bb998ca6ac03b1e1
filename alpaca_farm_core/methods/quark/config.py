"""Settings of Quark; the defaults are AlpacaFarm's, with corrected numerics. No torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.training.on_policy.config import OnPolicyConfig


class QuarkConfig(OnPolicyConfig):
    """Likelihood training on the policy's own answers, sorted by reward, with a KL penalty in the loss."""

    train_on: Literal["best", "all"] = Field(
        "best",
        description="'best': answers of the best quantile, prompts as they are (AlpacaFarm's default); 'all': "
        "all answers, each behind the token of its quantile, and the best one's token when answering (the paper).",
    )
    n_quantiles: int = Field(4, ge=2, description="Parts into which the pool is cut by reward.")
    clear_pool: bool = Field(True, description="Learn from the newest rollout batch only; false = from all so far.")
    gradient_steps: int = Field(1, ge=1, description="Optimiser steps per rollout batch.")
    kl_coef: float = Field(0.05, ge=0, description="Weight of the KL penalty in the loss, at first.")
    kl: Literal["exact", "sampled"] = Field(
        "exact",
        description="KL to the reference at each position: over the whole vocabulary, or the k2 estimate from the "
        "token itself (cheaper; its gradient is the KL's only for tokens of the present policy).",
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of an entropy bonus in the loss; 0 = disabled.")
    learning_rate: float = Field(3e-6, gt=0, description="Highest learning rate.")
    paper_compat: bool = Field(
        False,
        description="AlpacaFarm's numerics: EOS is no target, the first token of a response shorter than "
        "max_new_tokens has no gradient (left padding), means over all max_new_tokens positions, quantiles by rank "
        "even among equal rewards, a pool for each process.",
    )

    @model_validator(mode="after")
    def every_quantile_can_have_answers(self) -> Self:
        """A rollout batch fills the quantiles."""
        if self.rollout_batch_size < self.n_quantiles:
            raise ValueError(f"rollout_batch_size {self.rollout_batch_size} cannot fill n_quantiles {self.n_quantiles}")
        return self

    @model_validator(mode="after")
    def reward_tokens_need_embeddings(self) -> Self:
        """Adapters leave the embeddings as they are, so new tokens would never mean anything."""
        if self.train_on == "all" and self.lora.rank:
            raise ValueError("train_on = 'all' trains embeddings of new tokens; it cannot be used with lora.rank")
        return self
