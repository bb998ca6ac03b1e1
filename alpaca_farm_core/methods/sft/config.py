"""Settings of supervised fine-tuning; the defaults are AlpacaFarm's SFT10k. No torch here."""

from __future__ import annotations

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.models.config import ModelConfig
from alpaca_farm_core.training.config import AdaptableConfig
from alpaca_farm_core.types import Split


class FineTuneConfig(AdaptableConfig):
    """Supervised training on responses, whatever they come from."""

    eval_split: Split = Field("val", description="Split on which the loss is measured.")
    n_samples: int = Field(
        8, ge=0, description="Prompts of eval_split answered greedily at the end, for people to read."
    )
    sample_max_new_tokens: int = Field(300, ge=1, description="Tokens of such an answer at most.")


class SFTConfig(FineTuneConfig):
    """Supervised fine-tuning of a base model on demonstrations."""

    model: ModelConfig = Field(default_factory=ModelConfig, description="The base model to start from.")
    split: Split = Field("sft", description="Split whose demonstrations are learnt.")


class ContinueConfig(FineTuneConfig):
    """More supervised fine-tuning, of a policy, on responses chosen by feedback."""

    max_length: int = Field(512, ge=8, description="Tokens of prompt and response; longer rows are dropped, counted.")
