"""What came of showing a pair once or twice, and the annotation that it adds up to.

In: readings of a judge's answers, in the order the outputs were shown. Out: an annotation with its passport.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from alpaca_farm_core.annotators.batches import Shown
from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.types import Annotation, AnnotationState, Order, Passport

Cost = tuple[str, Answer, float]
"""A call's key, its answer, and the share of it that is this pair's."""


@dataclass(frozen=True)
class Reading:
    """One showing of a pair to a judge.

    Attributes:
        preference: In [1, 2], of the outputs as shown; None when missing.
        state: As in `Annotation`.
        explanation: The judge's reason, or the beginning of an answer that could not be read.
        costs: The calls behind it.
        worth_asking_alone: Missing for want of a readable part in an answer about several pairs.
    """

    preference: float | None
    state: AnnotationState
    explanation: str = ""
    costs: tuple[Cost, ...] = ()
    worth_asking_alone: bool = False

    def after(self, earlier: Reading) -> Reading:
        """The same reading, with the costs of the one it replaces."""
        return replace(self, costs=earlier.costs + self.costs)


def combine(judged: Sequence[tuple[Shown, Reading]], annotator: str, model: str, prompt: str) -> Annotation:
    """Add up the readings of one pair.

    Two orders give the mean of both preferences. Where one of them is missing the pair is: half a
    judgement would bring the position bias back.

    Args:
        judged: One reading, or one per order.
        annotator: Who judged.
        model: The model asked.
        prompt: sha256 of the annotator's definition.
    """
    missing = next((reading for _, reading in judged if reading.preference is None), None)
    if missing is not None:
        passport = _passport(judged, model, prompt, None, None)
        return Annotation(None, annotator, missing.state, missing.explanation, passport)
    preferences = [_of_pair(shown, reading) for shown, reading in judged]
    consistent = len(set(map(_winner, preferences))) == 1 if len(preferences) > 1 else None
    prefers_first = _mean([2.0 - (reading.preference or 0) for _, reading in judged])
    passport = _passport(judged, model, prompt, prefers_first, consistent)
    explanation = "\n".join(reading.explanation for _, reading in judged if reading.explanation)
    return Annotation(_mean(preferences), annotator, "ok", explanation, passport)


def _of_pair(shown: Shown, reading: Reading) -> float:
    assert reading.preference is not None
    return reading.preference if shown.first == 1 else 3 - reading.preference


def _winner(preference: float) -> int:
    return (preference > 1.5) - (preference < 1.5)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _passport(
    judged: Sequence[tuple[Shown, Reading]],
    model: str,
    prompt: str,
    prefers_first: float | None,
    consistent: bool | None,
) -> Passport:
    costs = [cost for _, reading in judged for cost in reading.costs]
    answers = [answer for _, answer, _ in costs]
    prices = [None if answer.price_usd is None else answer.price_usd * share for _, answer, share in costs]
    known = [price for price in prices if price is not None]
    order: Order = "both" if len(judged) > 1 else "1 first" if judged[0][0].first == 1 else "2 first"
    return Passport(
        model=model,
        prompt=prompt,
        calls=tuple(key for key, _, _ in costs),
        order=order,
        prefers_first=prefers_first,
        consistent=consistent,
        served_model=_joined(answer.model for answer in answers),
        fingerprint=_joined(answer.fingerprint for answer in answers),
        price_usd=sum(known) if known and len(known) == len(prices) else None,
        answered_at=max((answer.answered_at for answer in answers), default=""),
    )


def _joined(words: Iterable[str]) -> str:
    return " ".join(sorted({word for word in words if word}))
