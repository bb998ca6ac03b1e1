"""Win rate of a model over a baseline from preferences, with AlpacaEval's formulas.

In: preferences in [1, 2] (1: the baseline's answer is better, 2: the model's; 0 or 1.5: a draw;
None: no annotation). Out: rates in percent, counts, intervals, and the bounds had the missing gone
either way. A value outside the scale is an error that names the row, never a dropped row. Pure
Python: no pandas, numpy or torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.intervals import Interval, mean_and_standard_error, normal, wilson

IntervalMethod = Literal["normal", "wilson", "bootstrap"]


@dataclass(frozen=True)
class WinRate:
    """Win rate of one model and what is needed to trust it; rates and errors in percent.

    Attributes:
        win_rate: 100 · mean(s), s = preference − 1, draws 0.5; None when nothing was annotated.
        standard_error: 100 · sd(s, ddof 1) / √n; None when fewer than two rows were annotated.
        discrete_win_rate: The same after rounding each preference to 1, 1.5 or 2.
        n_wins: Rows with s > 0.5.
        n_wins_base: Rows with s < 0.5.
        n_draws: Rows with preference 0 or 1.5.
        n_total: Annotated rows.
        n_missing: Rows without annotation; in no rate.
        avg_length: Mean characters of the model's outputs, cut to an integer; None when unknown.
        interval: 95 % interval of `win_rate`.
        interval_method: "normal" (mean ± 1.96 standard errors), "wilson" where it was asked for, or
            where all preferences are equal or there is only one, so that the standard error says
            nothing, or "bootstrap".
        discrete_interval: 95 % Wilson interval of `discrete_win_rate`, draws as half a win.
        bounds: `win_rate` if all missing rows had been lost, and if all had been won.
    """

    win_rate: float | None
    standard_error: float | None
    discrete_win_rate: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    n_missing: int
    avg_length: int | None
    interval: Interval | None
    interval_method: IntervalMethod | None
    discrete_interval: Interval | None
    bounds: Interval | None

    def to_row(self) -> dict[str, Any]:
        """Plain dictionary for JSON; intervals as two-element lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def to_score(preference: object, row: int, source: str = "preferences") -> float | None:
    """Map one preference to s in [0, 1] (None stays None); errors name `row`, the place counted from 0, as row + 1.

    Raises:
        DataError: not a number, NaN, or neither 0 nor in [1, 2].
    """
    if preference is None:
        return None
    if isinstance(preference, (int, float)) and not isinstance(preference, bool):
        if 1 <= preference <= 2:
            return float(preference) - 1.0
        if preference == 0:
            return 0.5
    raise DataError(
        f"{source}, row {row + 1} (from 1): preference {preference!r} is not in [1, 2].",
        "Use 1 (first answer better) to 2 (second better), 0 or 1.5 for a draw, null for a missing annotation.",
    )


def to_scores(preferences: Sequence[object], row_numbers: Sequence[int], source: str) -> list[float | None]:
    """Map the preferences of rows; see `to_score`."""
    # The common case first: a call per row would be half the time of a large file.
    return [
        value - 1.0 if type(value) is float and 1.0 <= value <= 2.0 else to_score(value, row, source)
        for row, value in zip(row_numbers, preferences, strict=True)
    ]


def win_rate(
    preferences: Iterable[object], lengths: Sequence[int] | None = None, source: str = "preferences"
) -> WinRate:
    """Score one model.

    Args:
        preferences: One value per instruction; see `to_score`.
        lengths: Characters of the model's outputs (all of them, annotated or not).
        source: Name of the data for error messages.

    Raises:
        DataError: a preference is off the scale.
    """
    scores = [to_score(preference, row, source) for row, preference in enumerate(preferences)]
    return win_rate_of_scores(scores, lengths)


def win_rate_of_scores(scores: Sequence[float | None], lengths: Sequence[int] | None = None) -> WinRate:
    """Score one model from s values in [0, 1] (0.5 a draw, None missing)."""
    kept = [score for score in scores if score is not None]
    n, n_missing = len(kept), len(scores) - len(kept)
    mean, error = mean_and_standard_error(kept)
    n_wins, n_draws = sum(score > 0.5 for score in kept), sum(score == 0.5 for score in kept)
    discrete = (n_wins + 0.5 * n_draws) / n if n else None
    interval, method = _interval(mean, error, n)
    won = mean * n if mean is not None else 0.0
    return WinRate(
        win_rate=None if mean is None else 100 * mean,
        standard_error=None if error is None else 100 * error,
        discrete_win_rate=None if discrete is None else 100 * discrete,
        n_wins=n_wins,
        n_wins_base=n - n_wins - n_draws,
        n_draws=n_draws,
        n_total=n,
        n_missing=n_missing,
        avg_length=int(sum(lengths) / len(lengths)) if lengths else None,
        interval=interval,
        interval_method=method,
        discrete_interval=None if discrete is None else wilson(discrete, n),
        bounds=(100 * won / len(scores), 100 * (won + n_missing) / len(scores)) if scores else None,
    )


def _interval(mean: float | None, error: float | None, n: int) -> tuple[Interval | None, IntervalMethod | None]:
    if mean is None:
        return None, None
    if not error:
        return wilson(mean, n), "wilson"
    return normal(mean, error), "normal"
