"""An LLM as annotator: prompt, order, question, parsing.

In: pairs. Out: annotations. Which output is shown first is drawn from the instruction's text, so that
a judge's taste for the first place cancels out and every model is treated alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from alpaca_farm_core.annotators.broker import Judge, Payer, ask
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, CallStats, Outcome, Request
from alpaca_farm_core.annotators.imported import imported_labels
from alpaca_farm_core.annotators.labelling import label_pairs
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.annotators.spec import AnnotatorSpec
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.seeding import stable_uniform
from alpaca_farm_core.types import Annotation, Pair

_SNIPPET_LENGTH = 200


class LLMAnnotator:
    """Annotates by asking a judge model.

    Args:
        spec: Prompt, model, sampling and parser.
        judge: Who answers.
        cache: Where answers are kept.
        model: Model to ask instead of the spec's; "" = the spec's.
        seed: Of order and noise.
        label_flip: Share of labels to flip in expectation.
        purse: Whose money is spent; None = calls are free.
    """

    def __init__(
        self,
        spec: AnnotatorSpec,
        judge: Judge,
        cache: CallCache,
        *,
        model: str = "",
        seed: int = 0,
        label_flip: float = 0.0,
        purse: Purse | None = None,
    ) -> None:
        self.name = spec.name
        self.stats = CallStats()
        self._spec = spec
        self._judge = judge
        self._cache = cache
        self._model = model or spec.model
        self._seed = seed
        self._label_flip = label_flip
        self._payer = Payer(purse, spec.name) if purse is not None else None

    def annotate(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Annotation]:
        """Return one annotation per pair, in order; see `Annotator`."""
        return label_pairs(
            pairs,
            annotator=self.name,
            seed=self._seed,
            label_flip=self._label_flip,
            judge=lambda distinct: self._judge_pairs(distinct, progress),
        )

    def shown_first(self, pair: Pair) -> Literal[1, 2]:
        """Tell which output the judge reads first; a coin of instruction, input and seed."""
        if not self._spec.random_order:
            return 1
        return 1 if stable_uniform("shown first", self._seed, pair.instruction, pair.input) < 0.5 else 2

    def _judge_pairs(self, pairs: Sequence[Pair], progress: Progress | None) -> list[Annotation]:
        bought = imported_labels(self._cache, self.name, pairs)
        asked = [pair for pair in pairs if pair not in bought]
        judged = dict(zip(asked, self._ask(asked, progress), strict=True))
        return [bought.get(pair) or judged[pair] for pair in pairs]

    def _ask(self, pairs: Sequence[Pair], progress: Progress | None) -> list[Annotation]:
        requests = [self._request(pair) for pair in pairs]
        outcomes = ask(requests, self._judge, self._cache, self.stats, progress, self._payer)
        return [self._annotation(pair, outcome) for pair, outcome in zip(pairs, outcomes, strict=True)]

    def _request(self, pair: Pair) -> Request:
        shown = pair if self.shown_first(pair) == 1 else _swapped(pair)
        return Request(self._model, self._spec.prompt_for(pair).render([shown]), self._spec.sampling)

    def _annotation(self, pair: Pair, outcome: Outcome) -> Annotation:
        if not isinstance(outcome, Answer):
            return Annotation(None, self.name, "failed", f"no answer: {outcome.reason}")
        if outcome.refused:
            return Annotation(None, self.name, "refused", outcome.refusal[:_SNIPPET_LENGTH])
        verdicts = self._spec.parser(outcome.text)
        preference = verdicts[0].preference if len(verdicts) == 1 else None
        if preference is None:
            return Annotation(None, self.name, "unparsable", outcome.text[:_SNIPPET_LENGTH])
        preference = preference if self.shown_first(pair) == 1 else 3 - preference
        return Annotation(preference, self.name, "ok", verdicts[0].explanation)


def _swapped(pair: Pair) -> Pair:
    return replace(
        pair,
        output_1=pair.output_2,
        output_2=pair.output_1,
        finished_1=pair.finished_2,
        finished_2=pair.finished_1,
    )
