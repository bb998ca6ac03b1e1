"""Settings that all trainers share. No torch here."""

from __future__ import annotations

from typing import Literal

from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.models.config import LoraConfig

Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["float32", "bfloat16"]


class OptimiserConfig(Config):
    """AdamW, its learning-rate schedule and the precision of the arithmetic."""

    learning_rate: float = Field(2e-5, gt=0, description="Highest learning rate.")
    schedule: Schedule = Field(
        "cosine", description="How the learning rate falls to 0 after the warm-up (constant: stays)."
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay of weight matrices (norms and biases: none).")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Decay of Adam's mean of gradients.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="Decay of Adam's mean of squared gradients.")
    adam_epsilon: float = Field(1e-8, gt=0, description="Adam's ε.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are scaled down to this norm; 0 = disabled.")
    precision: Precision = Field(
        "float32", description="Arithmetic of forward and backward passes; the trained weights stay in float32."
    )


class LoopConfig(OptimiserConfig):
    """Supervised training by epochs over rows."""

    seed: int | None = Field(None, description="Seed of the order of rows and of fresh weights; none = the run's seed.")
    epochs: int = Field(3, ge=1, description="Passes over the training rows.")
    batch_size: int = Field(128, ge=1, description="Rows of one optimiser step, over all processes.")
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="Share of steps with a rising learning rate; rounded up.")
    eval_every: int = Field(100, ge=0, description="Optimiser steps between evaluations; 0 = only at the end.")


class AdaptableConfig(LoopConfig):
    """Supervised training of all weights, or of adapters that the trainer merges in the end."""

    lora: LoraConfig = Field(default_factory=LoraConfig, description="Adapters instead of full training.")
