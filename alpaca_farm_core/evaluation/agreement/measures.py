"""How far two parties agree about pairs: each measure as sums over ballots, so that it can be resampled.

In: ballots. Out: for every ballot a numerator and a denominator (a share is Σ numerators / Σ
denominators), and 3 × 3 tables for Cohen's kappa. Labels are sides: 1, tie, 2. Where the most frequent
label is not unique, each of the k winners counts 1/k: no tie is broken by rule or by luck.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from alpaca_farm_core.evaluation.agreement.votes import Ballot, Category, category

Sums = tuple[float, float]
"""A ballot's numerator and denominator; (0, 0) where it has nothing to say."""
CATEGORIES: tuple[Category, ...] = (1.0, 1.5, 2.0)
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


def modes(labels: Sequence[float]) -> dict[Category, float]:
    """The most frequent sides, each with its share 1/k; {} of no labels."""
    counts = Counter(map(category, labels))
    most = max(counts.values(), default=0)
    winners = [side for side, count in counts.items() if count == most]
    return {side: 1 / len(winners) for side in winners}


def accuracy(ballot: Ballot) -> Sums:
    """The judge's labels against the majority of the reference's."""
    majority = modes(ballot.reference)
    return sum(majority.get(category(label), 0.0) for label in ballot.judge), len(ballot.judge)


def accuracy_without_ties(ballot: Ballot) -> Sums:
    """The same, of the judge's labels that are no ties where the majority is clear and no tie."""
    majority = modes(ballot.reference)
    if len(majority) > 1 or 1.5 in majority:
        return 0.0, 0.0
    sides = [category(label) for label in ballot.judge if label != 1.5]
    return sum(majority.get(side, 0.0) for side in sides), len(sides)


def ceiling(ballot: Ballot) -> Sums:
    """Leave one out: each of the reference's labels against the majority of its other ones (two or more)."""
    return _leave_one_out(ballot.reference)


def accuracy_like_for_like(ballot: Ballot) -> Sums:
    """The judge against what the ceiling is measured against: the reference's majority with one label left out."""
    if len(ballot.reference) < 2:
        return 0.0, 0.0
    rest = [modes(_without(ballot.reference, index)) for index in range(len(ballot.reference))]
    found = sum(majority.get(category(label), 0.0) for label in ballot.judge for majority in rest)
    return found, len(ballot.judge) * len(rest)


def bias(ballot: Ballot) -> Sums:
    """Disagreement of the judge's most frequent label with the reference's: what more draws would not mend."""
    ours, theirs = modes(ballot.judge), modes(ballot.reference)
    return 1 - sum(share * theirs.get(side, 0.0) for side, share in ours.items()), 1.0


def variance(ballot: Ballot) -> Sums:
    """Disagreement of each of the judge's labels with the majority of its other ones (two or more)."""
    found, n = _leave_one_out(ballot.judge)
    return n - found, n


def reference_variance(ballot: Ballot) -> Sums:
    """The same of the reference: 1 − ceiling."""
    found, n = _leave_one_out(ballot.reference)
    return n - found, n


def judge_prefers_output_1(ballot: Ballot) -> Sums:
    """Choices (no ties) that fall on output 1."""
    return _chosen(ballot.judge, 1.0)


def reference_prefers_output_1(ballot: Ballot) -> Sums:
    """The same of the reference."""
    return _chosen(ballot.reference, 1.0)


def judge_prefers_first_shown(ballot: Ballot) -> Sums:
    """How far the judge goes for the output it read first; weighted labels by their weight."""
    return sum(ballot.prefers_first), len(ballot.prefers_first)


def judge_prefers_longer(ballot: Ballot) -> Sums:
    """Choices that fall on the answer with more characters, of pairs of unequal length."""
    return _chosen(ballot.judge, _larger(ballot, len))


def reference_prefers_longer(ballot: Ballot) -> Sums:
    """The same of the reference."""
    return _chosen(ballot.reference, _larger(ballot, len))


def judge_prefers_lists(ballot: Ballot) -> Sums:
    """Choices that fall on the answer with a list, of pairs where one has one."""
    return _chosen(ballot.judge, _larger(ballot, _has_list))


def reference_prefers_lists(ballot: Ballot) -> Sums:
    """The same of the reference."""
    return _chosen(ballot.reference, _larger(ballot, _has_list))


MEASURES: dict[str, Callable[[Ballot], Sums]] = {
    "accuracy": accuracy,
    "accuracy_without_ties": accuracy_without_ties,
    "accuracy_like_for_like": accuracy_like_for_like,
    "ceiling": ceiling,
    "bias": bias,
    "variance": variance,
    "reference_variance": reference_variance,
    "judge_prefers_output_1": judge_prefers_output_1,
    "reference_prefers_output_1": reference_prefers_output_1,
    "judge_prefers_first_shown": judge_prefers_first_shown,
    "judge_prefers_longer": judge_prefers_longer,
    "reference_prefers_longer": reference_prefers_longer,
    "judge_prefers_lists": judge_prefers_lists,
    "reference_prefers_lists": reference_prefers_lists,
}


def confusion(ballot: Ballot) -> NDArray[np.float64]:
    """A 3 × 3 table (judge × reference, over CATEGORIES) whose entries add up to the number of the judge's labels."""
    theirs = np.array([modes(ballot.reference).get(side, 0.0) for side in CATEGORIES])
    ours = Counter(map(category, ballot.judge))
    return np.outer([ours[side] for side in CATEGORIES], theirs)


def kappa(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cohen's kappa (1960) of tables [..., 3, 3]: (p_o − p_e) / (1 − p_e); NaN where chance alone agrees fully."""
    n = tables.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / n
        expected = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / n**2
        found: NDArray[np.float64] = np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), np.nan)
    return found


def _leave_one_out(labels: Sequence[float]) -> Sums:
    if len(labels) < 2:
        return 0.0, 0.0
    found = sum(modes(_without(labels, index)).get(category(label), 0.0) for index, label in enumerate(labels))
    return found, len(labels)


def _without(labels: Sequence[float], index: int) -> list[float]:
    return [*labels[:index], *labels[index + 1 :]]


def _chosen(labels: Sequence[float], side: Category | None) -> Sums:
    """Choices of `side` among those that are no ties; nothing where there is no such side."""
    if side is None:
        return 0.0, 0.0
    sides = [category(label) for label in labels if label != 1.5]
    return float(sides.count(side)), len(sides)


def _larger(ballot: Ballot, measure: Callable[[str], int]) -> Category | None:
    first, second = measure(ballot.pair.output_1), measure(ballot.pair.output_2)
    return None if first == second else 1.0 if first > second else 2.0


def _has_list(text: str) -> int:
    return int(len(_LIST_ITEM.findall(text)) > 1)
