"""What dropout draws: a function of seed, step and process, so that two runs, and a resumed one, draw the same."""

from __future__ import annotations

import torch

from alpaca_farm_core.seeding import stable_seed


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed torch's global generators for one optimiser step (or the updates of one on-policy step)."""
    torch.manual_seed(stable_seed("dropout", seed, step, rank))
