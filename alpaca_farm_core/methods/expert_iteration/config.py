"""Settings of expert iteration; the defaults are AlpacaFarm's (best-of-16, then the SFT recipe). No torch here."""

from __future__ import annotations

from typing import Literal

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.methods.best_of_n.config import BestOfNConfig
from alpaca_farm_core.methods.sft.config import ContinueConfig
from alpaca_farm_core.types import Split


class ExpertSamplesConfig(BestOfNConfig):
    """Best-of-n answers to the instructions that are learnt from."""

    split: Split = Field("unlabeled", description="Split whose instructions are answered.")


class ExpertIterationConfig(ContinueConfig):
    """Fine-tuning of the policy on the best of its own answers."""

    rounds: int = Field(
        1, ge=1, description="Rounds of sampling and fine-tuning; each starts from the policy of the one before."
    )
    unfinished: Literal["drop", "keep", "close"] = Field(
        "drop",
        description="Chosen answers cut off at the token limit: left out, learnt without EOS, or learnt with EOS as "
        "if they had ended (the original's); counted in each case.",
    )
