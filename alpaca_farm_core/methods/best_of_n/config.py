"""Settings of best-of-n; the defaults are AlpacaFarm's (n = 16, temperature 1.0, top-p 0.9). No torch here."""

from __future__ import annotations

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.generation.config import GenerateConfig
from alpaca_farm_core.types import Split


class BestOfNConfig(GenerateConfig):
    """Sampling n answers per instruction and keeping the one with the highest reward."""

    split: Split = Field("eval", description="Split whose instructions are answered.")
    n: int = Field(16, ge=1, description="Samples per instruction; 1 = no choice, an answer of the policy as it is.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits; greedy samples would all be equal.")
    top_p: float = Field(
        0.9, gt=0, le=1, description="Smallest set of likeliest tokens with this probability; 1 = all."
    )
    unfinished_penalty: float | None = Field(
        None,
        description="Reward of a sample that does not end within max_new_tokens, instead of its own; none = off.",
    )
