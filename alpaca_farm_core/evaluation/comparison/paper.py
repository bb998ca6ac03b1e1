"""The paper's table, to stand beside ours: win rates in percent against Davinci003, simulated and human judges.

Source: Dubois et al. 2023, "AlpacaFarm", table 2 (DPO: version 4). Best-of-n is n = 1024; SFT is SFT 10k. Ours are
against the SFT model, so the orders compare, not the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict


class PaperRow(TypedDict):
    """Win rate and standard error by simulated judges, and by people where measured."""

    simulated: tuple[float, float]
    human: tuple[float, float] | None


PAPER_WIN_RATES: Mapping[str, PaperRow] = {
    "ppo": {"simulated": (46.8, 1.8), "human": (55.1, 1.7)},
    "dpo": {"simulated": (46.8, 1.7), "human": None},
    "best-of-n": {"simulated": (45.0, 1.7), "human": (50.7, 1.8)},
    "expert-iteration": {"simulated": (41.9, 1.7), "human": (45.7, 1.7)},
    "sft": {"simulated": (36.7, 1.7), "human": (44.3, 1.7)},
    "feedme": {"simulated": (36.6, 1.7), "human": (37.9, 1.7)},
    "quark": {"simulated": (35.6, 1.7), "human": None},
    "reward-conditioning": {"simulated": (32.4, 1.6), "human": None},
}
