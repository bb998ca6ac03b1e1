"""Settings of GRPO; `scale_advantages` and `mean_over` choose among its published variants. No torch here."""

from __future__ import annotations

from typing import Literal

from alpaca_farm_core.config.base import Field
from alpaca_farm_core.training.on_policy.config import GroupConfig


class GRPOConfig(GroupConfig):
    """Advantages relative to the other answers of a group, clipped token by token, the KL in the loss."""

    kl_coef: float = Field(0.04, ge=0, description="Weight of the KL term of the loss, at first.")
    kl_loss: Literal["k2", "k3"] = Field("k3", description="Estimator of that term; k3 is the paper's.")
    scale_advantages: bool = Field(
        True, description="Divide by the group's standard deviation; false = Dr. GRPO's advantages."
    )
    mean_over: Literal["responses", "tokens"] = Field(
        "responses",
        description="Average over the tokens of each response first (the paper), or over all at once (DAPO).",
    )
