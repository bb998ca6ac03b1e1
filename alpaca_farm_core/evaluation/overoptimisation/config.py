"""Settings of the over-optimisation study (light)."""

from __future__ import annotations

from alpaca_farm_core.config.base import Config, Field


class CheckpointConfig(Config):
    """Which checkpoint of a policy becomes a policy of its own."""

    step: int = Field(1, ge=1, description="Step of the checkpoint.")


class OveroptimisationConfig(Config):
    """Runs to put into one picture."""

    seeds: tuple[int, ...] = Field(
        (), description="Seeds, each a whole chain from SFT on; empty = the run's own. Intervals need two or more."
    )
    best_of_n: bool = Field(
        True,
        description="Draw best-of-n beside PPO, as far as best_of_n.n samples go. Each different sample is judged: "
        "with a paid judge the larger part of the bill.",
    )
