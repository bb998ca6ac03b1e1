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
