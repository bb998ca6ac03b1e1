"""LLMs as annotators: assignment, order, questions, reading, and what the readings add up to.

In: pairs. Out: annotations with passports. Which member of a pool judges a pair, and which output it
reads first, are drawn from the instruction's text: the same in every process, and the same for every
model's answers to an instruction, so that a judge's tastes cancel out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alpaca_farm_core.annotators.batches import Question, Shown, compose
from alpaca_farm_core.annotators.broker import Judge, Payer, ask
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, CallStats, Outcome, Request
from alpaca_farm_core.annotators.imported import imported_labels
from alpaca_farm_core.annotators.labelling import label_pairs
from alpaca_farm_core.annotators.parsers import Said
from alpaca_farm_core.annotators.prices import usd
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.annotators.readings import Reading, combine
from alpaca_farm_core.annotators.spec import AnnotatorSet, AnnotatorSpec
from alpaca_farm_core.annotators.token_bias import logit_bias
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.seeding import stable_uniform
from alpaca_farm_core.types import Annotation, Pair

_SNIPPET_LENGTH = 200
# Failures that a shorter prompt may not meet: a prompt of several pairs is then taken apart.
_TOO_LONG = ("400", "413", "too_long", "too long")
_SCHEMA_OPTIONS = ("response_format", "tools", "tool_choice")


@dataclass(frozen=True)
class AskingOptions:
    """How an annotator's definition is put to use.

    Attributes:
        model: Model to ask instead of the members' own; "" = their own.
        seed: Of assignment, order, batches and noise.
        label_flip: Share of labels to flip in expectation.
        both_orders: Ask about each pair twice, once in each order.
        structured: Send the members' JSON schemas.
        token_bias: Send the members' favoured and avoided tokens.
        draw: Which of several draws for the same question; another one is another call.
    """

    model: str = ""
    seed: int = 0
    label_flip: float = 0.0
    both_orders: bool = False
    structured: bool = True
    token_bias: bool = True
    draw: int = 0


class LLMAnnotator:
    """Annotates by asking judge models: one annotator's, or those of a pool at the same time.

    Args:
        annotators: Prompts, models, sampling and parsers.
        judge: Who answers.
        cache: Where answers are kept.
        options: How to ask.
        purse: Whose money is spent; None = calls are free.
    """

    def __init__(
        self,
        annotators: AnnotatorSet,
        judge: Judge,
        cache: CallCache,
        options: AskingOptions | None = None,
        purse: Purse | None = None,
    ) -> None:
        self.name = annotators.name
        self.stats = CallStats()
        self.options = options or AskingOptions()
        self._members = annotators.members
        self._judge = judge
        self._cache = cache
        self._payer = Payer(purse, annotators.name) if purse is not None else None
        self._sampling = {member.name: self._sampling_of(member) for member in self._members}

    def annotate(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Annotation]:
        """Return one annotation per pair, in order; see `Annotator`."""
        return label_pairs(
            pairs,
            annotator=self.name,
            seed=self.options.seed,
            label_flip=self.options.label_flip,
            judge=lambda distinct: self._judge_pairs(distinct, progress),
        )

    def member_for(self, pair: Pair) -> AnnotatorSpec:
        """Draw the member that judges this instruction."""
        if len(self._members) == 1:
            return self._members[0]
        draw = stable_uniform("annotator", self.options.seed, pair.instruction, pair.input)
        return self._members[int(draw * len(self._members))]

    def shown_first(self, pair: Pair) -> Literal[1, 2]:
        """Tell which output the judge reads first (in both-order mode: in the first round)."""
        if not self.member_for(pair).random_order:
            return 1
        return 1 if stable_uniform("shown first", self.options.seed, pair.instruction, pair.input) < 0.5 else 2

    def requests(self, pairs: Sequence[Pair]) -> list[Request]:
        """Return the calls that judging distinct pairs begins with, without making any."""
        return [self._request(question) for question in self._questions(pairs)]

    def planned(self, pairs: Sequence[Pair]) -> tuple[list[Request], list[Request]]:
        """Return the calls that annotating begins with: (those answered before, those to make)."""
        distinct: list[Pair] = []

        def note(to_judge: Sequence[Pair]) -> list[Annotation]:
            distinct.extend(to_judge)
            return [Annotation(None, self.name, "failed") for _ in to_judge]

        label_pairs(pairs, annotator=self.name, seed=self.options.seed, label_flip=self.options.label_flip, judge=note)
        bought = self._bought(distinct)
        requests = {one.key: one for one in self.requests([pair for pair in distinct if pair not in bought])}
        known = self._cache.read(requests)
        kept = [request for key, request in requests.items() if key in known]
        return kept, [request for key, request in requests.items() if key not in known]

    def likely_cost(self, requests: Sequence[Request], by_batch: bool = False) -> float | None:
        """US dollars that calls to one model are likely to cost; None when that is not known."""
        if self._payer is None or not requests:
            return 0.0
        with self._cache.readable_errors():
            mean = self._cache.ledger.mean_price(self._payer.annotator, requests[0].model)
        likely = self._payer.purse.likely(requests, mean, by_batch)
        return None if likely is None else usd(likely)

    def _bought(self, pairs: Sequence[Pair]) -> Mapping[Pair, Annotation]:
        """Labels bought elsewhere; another draw is always judged."""
        return imported_labels(self._cache, self.name, pairs) if not self.options.draw else {}

    def _judge_pairs(self, pairs: Sequence[Pair], progress: Progress | None) -> list[Annotation]:
        """Take labels bought elsewhere where there are any, and judge the rest."""
        bought = self._bought(pairs)
        asked = [pair for pair in pairs if pair not in bought]
        judged = dict(zip(asked, self._judge_anew(asked, progress), strict=True)) if asked else {}
        return [bought.get(pair) or judged[pair] for pair in pairs]

    def _judge_anew(self, pairs: Sequence[Pair], progress: Progress | None) -> list[Annotation]:
        questions = self._questions(pairs)
        readings = self._ask(questions, progress)
        by_pair: dict[Pair, list[tuple[Shown, Reading]]] = {}
        for question in questions:
            for one in question.shown:
                by_pair.setdefault(one.pair, []).append((one, readings[one]))
        return [self._annotation(pair, by_pair[pair]) for pair in pairs]

    def _questions(self, pairs: Sequence[Pair]) -> list[Question]:
        rounds = [[Shown(pair, self.shown_first(pair)) for pair in pairs]]
        if self.options.both_orders:
            rounds.append([Shown(one.pair, 2 if one.first == 1 else 1) for one in rounds[0]])
        return [question for shown in rounds for question in self._compose(shown)]

    def _compose(self, shown: Sequence[Shown]) -> list[Question]:
        """Assign pairs to members, and put each member's pairs into prompts."""
        shares: dict[str, list[Shown]] = {member.name: [] for member in self._members}
        for one in shown:
            shares[self.member_for(one.pair).name].append(one)
        return [
            question for member in self._members for question in compose(member, shares[member.name], self.options.seed)
        ]

    def _ask(self, questions: Sequence[Question], progress: Progress | None) -> dict[Shown, Reading]:
        """Ask; where the answer for several pairs leaves some open, ask about each of those alone, once."""
        readings = self._round(questions, progress)
        again = [
            single
            for question in questions
            if len(question.shown) > 1
            for single in question.alone()
            if readings[single.shown[0]].worth_asking_alone
        ]
        if again:
            if progress is not None:
                progress.say(f"{len(again)} pairs of prompts that held several are asked about alone")
            for shown, later in self._round(again, progress).items():
                readings[shown] = later.after(readings[shown])
        return readings

    def _round(self, questions: Sequence[Question], progress: Progress | None) -> dict[Shown, Reading]:
        requests = [self._request(question) for question in questions]
        outcomes = ask(requests, self._judge, self._cache, self.stats, progress, self._payer)
        readings: dict[Shown, Reading] = {}
        for question, request, outcome in zip(questions, requests, outcomes, strict=True):
            readings.update(zip(question.shown, _read(question, request.key, outcome), strict=True))
        return readings

    def _request(self, question: Question) -> Request:
        member = question.spec
        model = self.options.model or member.model
        return Request(model, question.messages(), self._sampling[member.name], self.options.draw)

    def _sampling_of(self, member: AnnotatorSpec) -> Mapping[str, Any]:
        sampling = dict(member.sampling)
        if not self.options.structured:
            sampling = {key: value for key, value in sampling.items() if key not in _SCHEMA_OPTIONS}
        if member.favoured and self.options.token_bias:
            bias = logit_bias(member.favoured, self.options.model or member.model)
            sampling["logit_bias"] = {**bias, **sampling.get("logit_bias", {})}
        return sampling

    def _annotation(self, pair: Pair, judged: Sequence[tuple[Shown, Reading]]) -> Annotation:
        member = self.member_for(pair)
        return combine(judged, member.name, self.options.model or member.model, member.content)


def _read(question: Question, key: str, outcome: Outcome) -> list[Reading]:
    n = len(question.shown)
    if not isinstance(outcome, Answer):
        alone = outcome.reason.startswith(_TOO_LONG)
        return [Reading(None, "failed", f"no answer: {outcome.reason}", worth_asking_alone=alone)] * n
    cost = ((key, outcome, 1 / n),)
    if outcome.refused:
        said = outcome.refusal[:_SNIPPET_LENGTH]
        return [Reading(None, "refused", said, cost, worth_asking_alone=True)] * n
    readings = []
    for verdict in question.read(Said(outcome.text, outcome.logprobs)):
        if verdict is None or verdict.preference is None:
            snippet = outcome.text[:_SNIPPET_LENGTH]
            readings.append(Reading(None, "unparsable", snippet, cost, worth_asking_alone=True))
        else:
            readings.append(Reading(verdict.preference, "ok", verdict.explanation, cost))
    return readings
