"""Length-controlled win rates of models: where the difficulties and gamed rows come from, fit or prediction.

In: a model's annotations and their scores. Out: the win rate the model would have if its answers were as
long as the baseline's, with AlpacaEval's standard error, the coefficients, and what is to be doubted.
Instructions are identified by content; `positional=True` takes the rows of each model in the order of the
evaluation set, as AlpacaEval does. A pool of annotators and any baseline will do. Needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation.annotation_file import ModelAnnotations
from alpaca_farm_core.evaluation.length_control.difficulty import estimate_difficulties
from alpaca_farm_core.evaluation.length_control.files import Difficulties, GamedRows, Weights
from alpaca_farm_core.evaluation.length_control.glm import design, fit_cross_validated, length_feature, predict

Floats = NDArray[np.float64]
REGULARISATION = 0.2
"""λ: total weight of the gamed rows of all gamed baselines, in rows of the model."""
NO_WEIGHTS = Weights(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class LengthControlled:
    """One model's length-controlled win rate, in percent.

    Attributes:
        win_rate: 100 · mean σ(ψγ + θ); None where there is none, `problem` says why.
        standard_error: Of that mean over instructions, as AlpacaEval states it (not of the fit); None without
            difficulties, when all instructions have the same chance.
        method: `length_controlled_v1`, with `_noreg` without gamed rows and `_minimal` without difficulties;
            `given weights`; `baseline` for the baseline itself.
        weights: φ, ψ, θ.
        c: What cross-validation chose; None without a fit.
        n_predicted: Rows in the mean.
        n_fitted: Annotated rows in the fit; 0 without one.
        n_without_difficulty: Rows left out because their instruction has no difficulty.
        warning: What to doubt; empty when nothing.
        problem: Why there is no win rate; empty when there is one.
    """

    win_rate: float | None
    standard_error: float | None = None
    method: str = ""
    weights: Weights | None = None
    c: float | None = None
    n_predicted: int = 0
    n_fitted: int = 0
    n_without_difficulty: int = 0
    warning: str = ""
    problem: str = ""

    def to_row(self) -> dict[str, Any]:
        """Columns for a row of scores."""
        known = self.weights
        return {
            "length_controlled_winrate": self.win_rate,
            "lc_standard_error": self.standard_error,
            "lc_method": self.method,
            "lc_weights": vars(known) if known else None,
            "lc_c": self.c,
            "lc_n_predicted": self.n_predicted,
            "lc_n_fitted": self.n_fitted,
            "lc_n_without_difficulty": self.n_without_difficulty,
            "lc_warning": self.warning,
            "lc_problem": self.problem,
        }


class LengthControl:
    """How to control for length.

    Args:
        difficulties: γ per instruction; None takes those of the gamed rows, else none.
        gamed: Rows of the gamed baselines; None fits without the regulariser.
        weights: Model → coefficients; given, nothing is fitted.
        positional: Identify instructions by their row number within a model.
        unknown: What to do with rows whose instruction has no difficulty.
        estimate: Estimate the difficulties jointly from all models.

    Raises:
        UsageError: settings that contradict each other.
    """

    def __init__(
        self,
        difficulties: Difficulties | None = None,
        gamed: GamedRows | None = None,
        weights: dict[str, Weights] | None = None,
        positional: bool = False,
        unknown: Literal["refuse", "leave-out"] = "refuse",
        estimate: bool = False,
    ) -> None:
        if estimate and (difficulties is not None or positional):
            raise UsageError("Difficulties are either given or estimated.", "Leave one of the two options out.")
        self.difficulties = difficulties or (_difficulties_of(gamed) if gamed and not estimate else None)
        self.gamed = gamed
        self.weights = weights
        self.positional = positional
        self.unknown = unknown
        self.estimate = estimate
        if not positional and self.difficulties and not self.difficulties.by_key:
            raise UsageError(
                "The difficulties identify instructions by row number alone.",
                "Add --instructions FILE, in whose order they are, or --compat positional if the annotations "
                "are in that order too.",
            )

    def prepare(self, models: Sequence[tuple[ModelAnnotations, Sequence[float | None]]]) -> None:
        """Estimate difficulties from all models, where that was asked for.

        Raises:
            DataError: fewer than two models, or rows without outputs.
        """
        if self.estimate:
            features = [_length_features(group) for group, _ in models]
            keys = [group.keys for group, _ in models]
            estimated = estimate_difficulties(keys, features, [scores for _, scores in models])
            self.difficulties = Difficulties(by_key=estimated, by_index={})

    def score(
        self, group: ModelAnnotations, scores: Sequence[float | None], win_rate: float | None
    ) -> LengthControlled:
        """Length-controlled win rate of one model.

        Args:
            group: Its annotations.
            scores: s in [0, 1] per row; None missing.
            win_rate: Its plain win rate in percent, for the warning of a large change.

        Raises:
            DataError: an instruction has no difficulty, or a row no outputs.
        """
        if not scores:
            return LengthControlled(None, problem="there is no row")
        if group.model == group.baseline:
            n = len(scores)
            return LengthControlled(50.0, 0.0 if n > 1 else None, "baseline", NO_WEIGHTS, n_predicted=n)
        known, gammas = self._gammas(group)
        if not known.any():
            return LengthControlled(None, problem="no instruction has a difficulty", n_without_difficulty=len(known))
        found = (
            self._predicted(group, gammas) if self.weights is not None else self._fitted(group, scores, known, gammas)
        )
        changed = _large_change(win_rate, found.win_rate)
        warning = "; ".join(text for text in (found.warning, changed) if text)
        return LengthControlled(**{**vars(found), "warning": warning, "n_without_difficulty": int((~known).sum())})

    def _predicted(self, group: ModelAnnotations, gammas: Floats) -> LengthControlled:
        assert self.weights is not None
        if group.model not in self.weights:
            return LengthControlled(None, problem=f"the weights have no row '{group.model}'")
        own, base = self.weights[group.model], self.weights.get(group.baseline or "", NO_WEIGHTS)
        difference = Weights(*(getattr(own, name) - getattr(base, name) for name in ("length", "difficulty", "model")))
        if self.difficulties is None and difference.difficulty:
            return LengthControlled(
                None, problem=f"the weights of {group.model} need difficulties: give --instruction-difficulty"
            )
        rate, error = predict(gammas, difference.difficulty, difference.model)
        error = None if self.difficulties is None else error
        return LengthControlled(rate, error, "given weights", difference, n_predicted=len(gammas))

    def _fitted(
        self, group: ModelAnnotations, scores: Sequence[float | None], known: NDArray[np.bool_], gammas: Floats
    ) -> LengthControlled:
        labels = np.array([np.nan if score is None else score for score in scores])
        annotated = ~np.isnan(labels)
        # σ is the spread over all rows, annotated or not.
        features = _length_features(group)[known]
        used = annotated[known]
        blocks = [(features[used], gammas[used], np.ones(int(used.sum())), labels[known][used])]
        if self.gamed is not None:
            blocks.insert(0, self._gamed_block(self.gamed))
        columns = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
        matrix = design(columns[0], columns[1], columns[2])
        minimal = self.difficulties is None
        if not used.any():
            return LengthControlled(None, problem="no row is annotated")
        gamed_models = self.gamed.n_models if self.gamed else 1
        weights = np.where(columns[2] == 1, 1.0, REGULARISATION / gamed_models)
        try:
            fit = fit_cross_validated(matrix[:, [0, 2]] if minimal else matrix, columns[3], weights)
        except DataError as error:
            return LengthControlled(None, n_fitted=int(used.sum()), problem=error.headline)
        length, *difficulty, model = map(float, fit.coefficients_D)
        found = Weights(length, difficulty[0] if difficulty else 0.0, model)
        rate, sem = predict(gammas, found.difficulty, found.model)
        return LengthControlled(
            win_rate=rate,
            standard_error=None if minimal else sem,
            method="length_controlled_v1" + ("_noreg" if self.gamed is None else "") + ("_minimal" if minimal else ""),
            weights=found,
            c=fit.c,
            n_predicted=len(gammas),
            n_fitted=int(used.sum()),
            warning="" if fit.converged else "the fit did not converge",
        )

    def _gammas(self, group: ModelAnnotations) -> tuple[NDArray[np.bool_], Floats]:
        """Which rows have a difficulty, and theirs; all rows and zeros where there are no difficulties."""
        n = len(group.preferences)
        if self.difficulties is None:
            return np.ones(n, bool), np.zeros(n)
        table: Any = self.difficulties.by_index if self.positional else self.difficulties.by_key
        keys: Sequence[Any] = range(n) if self.positional else group.keys
        found = [table.get(key) for key in keys]
        if None in found and self.unknown == "refuse":
            place = found.index(None)
            what = f"index {place}" if self.positional else repr(keys[place][:60])
            raise DataError(
                f"{group.source}: {found.count(None)} of the {n} instructions of {group.model} have no difficulty, "
                f"the first {what}.",
                "Give difficulties of this instruction set, estimate them (--estimate-difficulty), or leave such rows "
                "out of the length-controlled win rate (--unknown-difficulty leave-out).",
            )
        known = np.array([value is not None for value in found])
        return known, np.array([value for value in found if value is not None])

    def _gamed_block(self, gamed: GamedRows) -> tuple[Floats, Floats, Floats, Floats]:
        """Annotated gamed rows: length features, difficulties, indicators, labels."""
        kept = [place for place, score in enumerate(gamed.scores) if score is not None]
        values = [self._gamed_difficulty(gamed, place) for place in kept]
        if None in values:
            raise DataError(
                f"{values.count(None)} of the {len(kept)} gamed rows have no difficulty.",
                "Give the column 'instruction_difficulty', or difficulties of their instructions.",
            )
        features = np.array([gamed.length_features[place] for place in kept])
        indicators = np.array([gamed.indicators[place] for place in kept])
        labels = np.array([gamed.scores[place] for place in kept], dtype=float)
        return features, np.array(values, dtype=float), indicators, labels

    def _gamed_difficulty(self, gamed: GamedRows, place: int) -> float | None:
        """Of one gamed row: its own, else its instruction's."""
        if self.difficulties is None:
            return 0.0
        own, index = gamed.difficulties[place], gamed.indices[place]
        if own is not None and not self.estimate:
            return own
        by_key = self.difficulties.by_key.get(gamed.keys[place])
        return by_key if by_key is not None or index is None else self.difficulties.by_index.get(index)


def _difficulties_of(gamed: GamedRows) -> Difficulties | None:
    """Difficulties that stand in the gamed rows themselves; the first of an instruction counts."""
    by_key: dict[str, float] = {}
    by_index: dict[int, float] = {}
    for key, index, value in zip(gamed.keys, gamed.indices, gamed.difficulties, strict=True):
        if value is not None and key:
            by_key.setdefault(key, value)
        if value is not None and index is not None:
            by_index.setdefault(index, value)
    return Difficulties(by_key, by_index) if by_key or by_index else None


def _length_features(group: ModelAnnotations) -> Floats:
    return length_feature(*group.both_lengths())


def _large_change(before: float | None, after: float | None) -> str:
    """AlpacaEval's warning: the rate moved by more than 10 points and a quarter of the way to 0 or 100."""
    if before is None or after is None:
        return ""
    if after < min(0.75 * before, before - 10) or after > max(before + (100 - before) / 4, before + 10):
        return f"length control moved the win rate from {before:.1f} to {after:.1f}, which may be a failed fit"
    return ""
