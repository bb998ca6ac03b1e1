"""Settings of binary FeedME; the paper gives no hyper-parameters, the defaults are those of SFT. No torch here."""

from __future__ import annotations

from alpaca_farm_core.methods.sft.config import ContinueConfig


class FeedMEConfig(ContinueConfig):
    """Fine-tuning of the policy on the preferred answer of each pair."""
