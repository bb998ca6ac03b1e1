"""Settings of reward modelling; the defaults are AlpacaFarm's. No torch here."""

from __future__ import annotations

from typing import Literal

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.training.config import AdaptableConfig


class RewardModelConfig(AdaptableConfig):
    """Training of a reward model on preferences, starting from the policy's backbone."""

    epochs: int = Field(1, ge=1, description="Passes over the training pairs.")
    batch_size: int = Field(16, ge=1, description="Pairs of one optimiser step, over all processes.")
    learning_rate: float = Field(3e-6, gt=0, description="Highest learning rate.")
    max_length: int = Field(512, ge=2, description="Tokens of prompt and response; longer pairs are dropped, counted.")
    eval_every: int = Field(10, ge=0, description="Optimiser steps between evaluations; 0 = only at the end.")
    eval_size: int = Field(500, ge=1, description="Pairs held out to measure accuracy.")
    ties: Literal["soft", "drop"] = Field(
        "soft", description="Pairs with preference 1.5: learnt with target 0.5, or dropped; counted either way."
    )
    eos: bool = Field(
        True,
        description="Read the reward at the EOS of finished responses; false = at the last content token (paper).",
    )
