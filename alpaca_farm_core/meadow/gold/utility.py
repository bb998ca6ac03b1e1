"""Gold utility = relevance, completeness, form and a mild taste for the right length, less what is said twice.

In: instruction, input, answer, and whether the answer was finished. Out: each component in [0, 1] and their weighted
total in [0, 1]. Only the texts are judged; where an answer came from is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.meadow.families import parse
from alpaca_farm_core.meadow.gold.judges import judge
from alpaca_farm_core.meadow.gold.reading import Reading, distinct_share, sentences_of, words_of

WEIGHTS: Mapping[str, float] = {
    "relevance": 0.32,
    "completeness": 0.45,
    "form": 0.15,
    "length": 0.08,
}
COMPONENTS = ("relevance", "completeness", "form", "length", "no_repetition")
MAX_UTILITY = 1.0

MIN_RELEVANCE = 0.6
MIN_FORM = 0.5

_STRAY_WEIGHT = 0.5  # a sentence that says nothing counts half as much as one that says something wrong
_SLACK = 0.25  # lengths within ±25 % of an honest full answer are all equally good


@dataclass(frozen=True, slots=True)
class Utility:
    """Gold judgement of one answer: `total` and its `components`, all in [0, 1]."""

    total: float
    components: Mapping[str, float]
    finished: bool = True


def is_meadow(instruction: str, input: str = "") -> bool:
    """Tell whether the meadow could have written this instruction, so that gold can judge answers to it."""
    return parse(instruction, input) is not None


def utility(instruction: str, input: str, output: str, finished: bool = True) -> Utility:
    """Judge an answer.

    total = no_repetition × (relevance × (0.32 + 0.15 form + 0.08 length) + 0.45 completeness): how an answer is put
    counts only as far as it is about the task; completeness counts right parts only; an answer of which half
    repeats the other half is worth half. An empty answer is all 0.

    Raises:
        DataError: the instruction is not one of the meadow's.
    """
    task = parse(instruction, input)
    if task is None:
        raise DataError(
            f"Gold cannot judge {instruction!r}: the meadow did not write this instruction.",
            "Use another annotator for data from elsewhere.",
        )
    sentences = sentences_of(output)
    if not sentences:
        return Utility(0.0, dict.fromkeys(COMPONENTS, 0.0), finished)
    reading = judge(task, sentences)
    parts = {
        "relevance": _relevance(reading),
        "completeness": reading.complete,
        "form": _form(output, reading, finished),
        "length": _length(len(words_of(output)), reading.expected_words),
        "no_repetition": _no_repetition(output, sentences, reading),
    }
    manner = sum(WEIGHTS[name] * parts[name] for name in ("form", "length"))
    said = parts["relevance"] * (WEIGHTS["relevance"] + manner) + WEIGHTS["completeness"] * parts["completeness"]
    return Utility(parts["no_repetition"] * said, parts, finished)


def well_formed_and_on_topic(judged: Utility) -> bool:
    """Finished, relevance ≥ 0.6 and form ≥ 0.5: it answers the task asked, in readable language, complete or not."""
    parts = judged.components
    return judged.finished and parts["relevance"] >= MIN_RELEVANCE and parts["form"] >= MIN_FORM


def _relevance(reading: Reading) -> float:
    """Mean truth of the sentences; those that say nothing about the task have truth 0 and half a vote."""
    truths = [sentence.truth for sentence in reading.sentences if sentence.truth is not None]
    stray = len(reading.sentences) - len(truths)
    return sum(truths) / (len(truths) + _STRAY_WEIGHT * stray)


def _form(output: str, reading: Reading, finished: bool) -> float:
    """Mean of: capital at the start, end mark, whole sentences (counted twice), manners; 0 when unfinished."""
    if not finished:
        return 0.0
    text = output.strip()
    whole = sum(sentence.whole for sentence in reading.sentences) / len(reading.sentences)
    marks = [float(text[0].isupper()), float(text[-1] in ".!?"), whole, whole]
    marks += [float(kept) for kept in reading.manners]
    return sum(marks) / len(marks)


def _no_repetition(output: str, sentences: list[str], reading: Reading) -> float:
    """Smallest share of distinct entries among items, sentences, and runs of four words."""
    words = words_of(output)
    runs = [tuple(words[n : n + 4]) for n in range(len(words) - 3)]
    return min(distinct_share(reading.items), distinct_share(sentences), distinct_share(runs))


def _length(n_words: int, expected: float) -> float:
    """1 within ±25 % of an honest full answer's length; from there it falls linearly to 0 at none and at twice that."""
    low, high = (1 - _SLACK) * expected, (1 + _SLACK) * expected
    if n_words < low:
        return n_words / low
    return max(0.0, 1.0 - max(0.0, n_words - high) / (2 * expected - high))
