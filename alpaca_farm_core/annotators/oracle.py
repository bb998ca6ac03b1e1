"""The judge that knows: Bradley-Terry on the gold utility of the embedded world.

In: pairs of the embedded world. Out: annotations drawn with P(output_2 wins) = σ((u₂ − u₁)/temperature)
(Bradley and Terry 1952). It goes through the same noise, ties, call cache and states as an API judge,
so the whole simulation can be rehearsed without a key.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from alpaca_farm_core.annotators.broker import POLL_S, Jobs, ask
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, CallStats, Outcome, Request
from alpaca_farm_core.annotators.config import ORACLE
from alpaca_farm_core.annotators.labelling import label_pairs
from alpaca_farm_core.annotators.parsers import as_preference
from alpaca_farm_core.artifacts.files import canonical_json, sha256_text
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.seeding import stable_uniform
from alpaca_farm_core.types import Annotation, Pair, Passport

_BATCH = 1000


class _Utility(Protocol):
    @property
    def total(self) -> float: ...


Gold = Callable[[str, str, str, bool], _Utility]
Knows = Callable[[str, str], bool]


class OracleAnnotator:
    """Annotates by the gold utility.

    Args:
        cache: Where answers are kept.
        seed: Of the draws and of the noise.
        temperature: Spread of the Bradley-Terry model in units of utility; 0 = the better answer always wins.
        label_flip: Share of labels to flip in expectation, on top of the oracle's own noise.
        gold: (instruction, input, output, finished) → utility; None = the embedded world's.
        knows: (instruction, input) → whether `gold` can judge it; None = the embedded world's.
        gold_version: Marks answers in the cache; must change with `gold`. "" = made from the world's source.
    """

    name = ORACLE

    def __init__(
        self,
        cache: CallCache,
        *,
        seed: int = 0,
        temperature: float = 0.07,
        label_flip: float = 0.0,
        gold: Gold | None = None,
        knows: Knows | None = None,
        gold_version: str = "",
    ) -> None:
        if gold is None or knows is None:
            from alpaca_farm_core.meadow import gold as meadow_gold

            gold, knows = gold or meadow_gold.utility, knows or meadow_gold.is_meadow
        self.stats = CallStats()
        self._cache = cache
        self._seed = seed
        self._temperature = temperature
        self._label_flip = label_flip
        self._gold = gold
        self._knows = knows
        self._model = f"oracle@{gold_version or _meadow_version()}"

    def annotate(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Annotation]:
        """Return one annotation per pair, in order; see `Annotator`.

        Raises:
            DataError: an instruction from outside of the embedded world.
        """
        return label_pairs(
            pairs,
            annotator=self.name,
            seed=self._seed,
            label_flip=self._label_flip,
            judge=lambda distinct: self._judge_pairs(distinct, progress),
        )

    def probability(self, pair: Pair) -> float:
        """Return P(output_2 is preferred) in [0, 1], before label noise; identical outputs: 0.5.

        With labels flipped at rate p the chance becomes (1 − 2p)·P + p. The mean of max(P, 1 − P) over
        pairs is the Bayes ceiling: the best accuracy that any model of these labels can have.
        """
        self._refuse_foreign([pair])
        return self._probability(
            pair.instruction, pair.input, (pair.output_1, pair.finished_1), (pair.output_2, pair.finished_2)
        )

    def work(self, jobs: Jobs) -> None:
        """Answer questions (the judge's side), a batch per transaction."""
        while len(jobs):
            batch = jobs.take(_BATCH)
            if batch:
                jobs.commit({request.key: self._answer(request) for request in batch})
            else:
                time.sleep(POLL_S)

    def _judge_pairs(self, pairs: Sequence[Pair], progress: Progress | None) -> list[Annotation]:
        self._refuse_foreign(pairs)
        requests = [self._request(pair) for pair in pairs]
        outcomes = ask(requests, self, self._cache, self.stats, progress)
        return [
            self._annotation(pair, request.key, outcome)
            for pair, request, outcome in zip(pairs, requests, outcomes, strict=True)
        ]

    def _request(self, pair: Pair) -> Request:
        """Ask about the outputs in an order of their own: a pair and its mirror image are one question."""
        first, second = _in_order(pair)
        question = {"instruction": pair.instruction, "input": pair.input, "first": first, "second": second}
        sampling = {"temperature": self._temperature, "seed": self._seed}
        return Request(self._model, ({"role": "user", "content": canonical_json(question)},), sampling)

    def _answer(self, request: Request) -> Answer:
        question: Mapping[str, Any] = json.loads(request.messages[0]["content"])
        instruction, input = question["instruction"], question["input"]
        (first, first_finished), (second, second_finished) = question["first"], question["second"]
        chance = self._probability(instruction, input, (first, first_finished), (second, second_finished))
        if not self._temperature and chance == 0.5:
            return Answer("1.5", finish_reason="stop", model=self._model)
        draw = stable_uniform("oracle", self._seed, instruction, input, first, second)
        return Answer("2" if draw < chance else "1", finish_reason="stop", model=self._model)

    def _annotation(self, pair: Pair, key: str, outcome: Outcome) -> Annotation:
        assert isinstance(outcome, Answer)  # the oracle never fails a job
        preference = as_preference(outcome.text)
        assert preference is not None
        mirrored = _in_order(pair)[0][0] != pair.output_1
        preference = 3 - preference if mirrored else preference
        # It reads both at once; output 1 stands for the first place.
        passport = Passport(self._model, "", (key,), "1 first", prefers_first=2 - preference)
        return Annotation(preference, self.name, passport=passport)

    def _probability(self, instruction: str, input: str, first: tuple[str, bool], second: tuple[str, bool]) -> float:
        gap = self._gold(instruction, input, *second).total - self._gold(instruction, input, *first).total
        if not self._temperature:
            return 0.5 if gap == 0 else float(gap > 0)
        return _sigmoid(gap / self._temperature)

    def _refuse_foreign(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            if not self._knows(pair.instruction, pair.input):
                raise DataError(
                    f"The oracle judges the embedded world only; it cannot judge {pair.instruction[:80]!r}.",
                    "Set annotator.name to an LLM annotator, for example 'greedy'.",
                )


def _in_order(pair: Pair) -> tuple[tuple[str, bool], tuple[str, bool]]:
    first, second = sorted([(pair.output_1, pair.finished_1), (pair.output_2, pair.finished_2)])
    return first, second


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _meadow_version() -> str:
    """Hash of the embedded world's source: another gold utility never meets the old one's answers."""
    from alpaca_farm_core import meadow

    root = Path(str(meadow.__file__)).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".json"))
    return sha256_text("\x1f".join(path.read_text(encoding="utf-8") for path in files))[:16]
