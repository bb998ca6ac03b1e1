"""Settings of DPO and of its reference log-probabilities; the defaults are AlpacaFarm's. No torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.methods.sft.config import FineTuneConfig
from alpaca_farm_core.training.config import Precision
from alpaca_farm_core.types import Split


class ReferenceLogprobsConfig(Config):
    """Log-probabilities of both answers of each pair under the reference policy."""

    max_length: int = Field(512, ge=2, description="Tokens of prompt and response; longer pairs are dropped, counted.")
    precision: Precision = Field("float32", description="Arithmetic of the forward passes.")


class DPOConfig(FineTuneConfig):
    """Training of the policy on preferences, without a reward model."""

    epochs: int = Field(2, ge=1, description="Passes over the training pairs.")
    batch_size: int = Field(64, ge=1, description="Pairs of one optimiser step, over all processes.")
    learning_rate: float = Field(1e-6, gt=0, description="Highest learning rate.")
    beta: float = Field(
        0.1, gt=0, description="Strength of the tie to the reference policy; larger stays nearer (IPO: its τ)."
    )
    loss: Literal["sigmoid", "ipo"] = Field("sigmoid", description="DPO's logistic loss, or IPO's squared one.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Assumed share of wrong labels (conservative DPO); 0 = none."
    )
    length_normalised: bool = Field(
        False, description="Log-probabilities per token of each response instead of their sums."
    )
    ties: Literal["soft", "drop"] = Field(
        "soft", description="Pairs with preference 1.5: learnt with target 0.5, or dropped; counted either way."
    )
    eval_split: Split = Field("val", description="Split whose first prompts are answered at the end.")
    eval_every: int = Field(50, ge=0, description="Optimiser steps between evaluations; 0 = only at the end.")
    eval_size: int = Field(500, ge=1, description="Pairs held out to measure accuracy and margin.")

    @model_validator(mode="after")
    def ipo_has_no_label_smoothing(self) -> Self:
        """IPO regularises by its target; smoothing belongs to the logistic loss."""
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError(f"label_smoothing={self.label_smoothing} belongs to loss='sigmoid'; set it to 0 for IPO")
        return self
