"""Settings of binary reward conditioning; the paper gives no hyper-parameters, the defaults are those of SFT."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.methods.sft.config import ContinueConfig


class RewardConditioningConfig(ContinueConfig):
    """Fine-tuning of the policy on both answers of each pair, told apart by a token."""

    good_token: str = Field("<|good|>", min_length=1, description="Stands before preferred answers.")
    bad_token: str = Field("<|bad|>", min_length=1, description="Stands before the others.")

    @model_validator(mode="after")
    def tokens_differ(self) -> Self:
        """Equal tokens would tell nothing."""
        if self.good_token == self.bad_token:
            raise ValueError(f"good_token and bad_token are both {self.good_token!r}; they must differ")
        return self

    @model_validator(mode="after")
    def tokens_need_embeddings(self) -> Self:
        """Adapters leave the embeddings as they are, so new tokens would never mean anything."""
        if self.lora.rank:
            raise ValueError("the tokens need trained embeddings; reward conditioning cannot be used with lora.rank")
        return self
