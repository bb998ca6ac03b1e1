"""Tells whether two models differ: both against one baseline, on the same instructions.

In: two models' scores by instruction (content, not position). Out: the mean difference with its paired
standard error, interval and p value, and how many instructions found no partner. The pairing removes
what both models owe to the instruction. Source of the normal test: paired z test on differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.intervals import Z95, mean_and_standard_error


@dataclass(frozen=True)
class PairedComparison:
    """How much better the first of two models is; points are percentage points of win rate.

    Attributes:
        model: The first model.
        other: The second.
        difference: Mean of (first − second) over the shared instructions, in points.
        standard_error: Of the difference, paired, in points; None for one shared instruction.
        interval: 95 % interval of the difference; None where the standard error is.
        p_value: Two-sided, normal; 1 where all differences are 0; None where the standard error is.
        n_shared: Instructions both have a score for.
        n_better: Of these, where the first scored higher.
        n_worse: Where it scored lower.
        n_equal: Where both scored the same.
        n_only_model: Instructions only the first has a score for; in no figure.
        n_only_other: Instructions only the second has a score for; in no figure.
        unpaired_standard_error: What the error would be without the pairing.
    """

    model: str
    other: str
    difference: float
    standard_error: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    n_shared: int
    n_better: int
    n_worse: int
    n_equal: int
    n_only_model: int
    n_only_other: int
    unpaired_standard_error: float | None

    @property
    def is_real(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def to_row(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        row = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**row, "is_real": self.is_real}


def scores_by_instruction(keys: Sequence[str], scores: Sequence[float | None]) -> dict[str, float]:
    """Mean score of each instruction; instructions without any score are not in it."""
    found: dict[str, list[float]] = {}
    for key, score in zip(keys, scores, strict=True):
        if score is not None:
            found.setdefault(key, []).append(score)
    return {key: math.fsum(values) / len(values) for key, values in found.items()}


def compare(model: str, scores: Mapping[str, float], other: str, other_scores: Mapping[str, float]) -> PairedComparison:
    """Compare two models by their scores in [0, 1] on shared instructions.

    Raises:
        DataError: they share none.
    """
    shared = [key for key in scores if key in other_scores]
    if not shared:
        raise DataError(
            f"{model} ({len(scores)} instructions) and {other} ({len(other_scores)}) share no annotated instruction.",
            "Compare models that were evaluated on the same instructions.",
        )
    differences = [scores[key] - other_scores[key] for key in shared]
    mean, error = mean_and_standard_error(differences)
    errors = [mean_and_standard_error([one[key] for key in shared])[1] for one in (scores, other_scores)]
    assert mean is not None
    return PairedComparison(
        model=model,
        other=other,
        difference=100 * mean,
        standard_error=None if error is None else 100 * error,
        interval=None if error is None else (100 * (mean - Z95 * error), 100 * (mean + Z95 * error)),
        p_value=None if error is None else two_sided_p(mean, error),
        n_shared=len(shared),
        n_better=sum(difference > 0 for difference in differences),
        n_worse=sum(difference < 0 for difference in differences),
        n_equal=sum(difference == 0 for difference in differences),
        n_only_model=len(scores) - len(shared),
        n_only_other=len(other_scores) - len(shared),
        unpaired_standard_error=None if error is None else 100 * math.hypot(*(one or 0.0 for one in errors)),
    )


def two_sided_p(difference: float, standard_error: float) -> float:
    """Chance of a difference at least this large when there is none: 2·(1 − Φ(|d|/se))."""
    if standard_error == 0:
        return 1.0 if difference == 0 else 0.0
    return math.erfc(abs(difference) / standard_error / math.sqrt(2))
