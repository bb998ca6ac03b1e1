"""What judging will take, before anything is asked: calls, and what they cost. Loads no client, needs no key.

In: an annotator's settings, and pairs or how many there will be. Out: counts and US dollars. Prices come from the
calls of the same annotator so far, else from the length of the prompts; what is not known is None, never 0.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alpaca_farm_core.annotators.calls import CallStats, Request
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.factory import asks_api, calls_per_pair, planning_annotator
from alpaca_farm_core.annotators.prices import usd
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.config.base import Config
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.generation.config import ApiOutputsConfig
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.types import Annotation, Pair

_MADE_UP = 40
_INSTRUCTION = 240  # characters of an instruction with its input, about AlpacaFarm's mean
_PER_TOKEN = 4  # characters of a token, about


@dataclass(frozen=True)
class CallEstimate:
    """Calls that judging some pairs begins with.

    Attributes:
        n_calls: Calls to make; one more for each pair that an answer about several leaves open.
        n_kept: Calls answered before, which cost nothing again.
        usd: What the calls to make are likely to cost; None where a price is not known.
        unpriced: Models without a price.
    """

    n_calls: int = 0
    n_kept: int = 0
    usd: float | None = 0.0
    unpriced: tuple[str, ...] = ()


def estimate_calls(
    config: AnnotatorConfig, calls: Path, execution: ExecutionConfig, pairs: Sequence[Pair]
) -> CallEstimate:
    """Say what judging `pairs` takes; repeats, equal answers, noised labels and kept answers cost nothing.

    Raises:
        ConfigError: unknown annotator, or a broken definition.
        StoreError: the call cache cannot be used.
    """
    if not asks_api(config):
        return CallEstimate()
    by_model = defaultdict(list)
    with _existing(calls) as folder:
        annotator = planning_annotator(config, folder, execution)
        known, missing = annotator.planned(pairs)
        for request in missing:
            by_model[request.model].append(request)
        costs = {model: annotator.likely_cost(requests, execution.batch_api) for model, requests in by_model.items()}
    sums = [cost for cost in costs.values() if cost is not None]
    return CallEstimate(
        n_calls=len(missing),
        n_kept=len(known),
        usd=sum(sums) if len(sums) == len(costs) else None,
        unpriced=tuple(sorted(model for model, cost in costs.items() if cost is None)),
    )


class Rehearsal:
    """Stands where an annotator stands and only says what that one would take; its labels are all missing."""

    def __init__(self, config: AnnotatorConfig, calls: Path, execution: ExecutionConfig) -> None:
        self.name = config.name
        self.stats = CallStats()
        self.n_pairs = 0
        self.estimate = CallEstimate()
        self._settings = (config, calls, execution)

    def annotate(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Annotation]:
        """Estimate; return a missing annotation per pair."""
        self.n_pairs, self.estimate = len(pairs), estimate_calls(*self._settings, pairs)
        return [Annotation(None, self.name, "failed", "dry run")] * len(pairs)


@contextmanager
def _existing(calls: Path) -> Iterator[Path]:
    """The call cache, or an empty one for the moment: who only asks for a price leaves nothing behind."""
    if calls.exists():
        yield calls
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def usd_per_pair(config: AnnotatorConfig, calls: Path, execution: ExecutionConfig, max_new_tokens: int) -> float | None:
    """Likely price of judging one pair whose answers are as long as they may be; None when not known.

    Raises:
        ConfigError, StoreError: as in `estimate_calls`.
    """
    clean = config.model_copy(update={"label_flip": 0.0})
    found = estimate_calls(clean, calls, execution, _made_up(max_new_tokens * _PER_TOKEN))
    return None if found.usd is None else found.usd / _MADE_UP * (1 - 2 * config.label_flip)


def usd_per_answer(config: ApiOutputsConfig, execution: ExecutionConfig) -> float | None:
    """Likely price of one answer of an API model, as long as it may be; None when not known."""
    asked = ({"role": "user", "content": "x" * (_INSTRUCTION + len(config.system))},)
    request = Request(config.model, asked, {"max_tokens": config.max_tokens})
    likely = Purse.of(execution).likely([request], None, execution.batch_api)
    return None if likely is None else usd(likely)


def _made_up(length: int) -> list[Pair]:
    """Pairs that nobody has asked about."""
    texts = [f"made up {number} ".ljust(_INSTRUCTION, "x") for number in range(_MADE_UP)]
    return [Pair(text, "", "a" * length, "b" * length) for text in texts]


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
