"""Settings of RLOO. No torch here."""

from __future__ import annotations

from alpaca_farm_core.training.on_policy.config import GroupConfig


class RLOOConfig(GroupConfig):
    """REINFORCE with the other answers' mean reward as baseline, and the KL penalty in the reward."""
