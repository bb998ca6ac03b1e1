"""How many API calls a stage may need, before anything runs. Loads no client."""

from __future__ import annotations

from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.factory import calls_per_pair
from alpaca_farm_core.config.base import Config
from alpaca_farm_core.generation.config import ApiOutputsConfig


def api_calls_per_instruction(config: Config) -> float:
    """Calls that a judging stage makes per instruction when nothing is cached and no two answers are equal.

    Noised labels (probability 2p) cost no call; a model that answers the instructions itself makes one each.
    0 for stages that judge nothing or ask no API.
    """
    if isinstance(config, ApiOutputsConfig):
        return 1.0
    annotator = getattr(config, "annotator", None)
    if not isinstance(annotator, AnnotatorConfig):
        return 0.0
    return int(getattr(config, "pairs_per_instruction", 1)) * calls_per_pair(annotator)
