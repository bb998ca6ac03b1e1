"""The length-controlled GLM: features, fit and prediction, on plain arrays.

logit P(model preferred) = φ·tanh((len_baseline − len_model)/σ) + ψ·γ + θ·[row is of the model], no
intercept; σ is the sample standard deviation of the difference, not centred. The fit is AlpacaEval's:
soft labels as two weighted copies of each row, L1-penalised logistic regression (liblinear), C from ten
values by 5-fold cross-validation with both copies in one fold, then on everything. Source: Dubois et al.
2024 (arXiv 2404.04475), section 3, and AlpacaEval 2's metric of that name.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alpaca_farm_core.errors import DataError

Floats = NDArray[np.float64]
C_GRID = np.logspace(-4, 4, 10)
N_FOLDS = 5
SEED = 123
TOLERANCE = 1e-4
MAX_ITERATIONS = 100
# A probability of 0 or 1 would make the log loss infinite.
_EPSILON = 1e-15


@dataclass(frozen=True)
class Fit:
    """Coefficients of the GLM and how they were found.

    Attributes:
        coefficients_D: One per column of the design.
        c: Inverse strength of the penalty that cross-validation chose.
        n_folds: Folds of the cross-validation.
        converged: Whether the last fit reached its tolerance.
    """

    coefficients_D: Floats
    c: float
    n_folds: int
    converged: bool


def length_feature(baseline_lengths: Sequence[int], model_lengths: Sequence[int]) -> Floats:
    """(len_baseline − len_model)/σ per row, in characters, σ with ddof 1; 0 where the difference never varies."""
    difference = np.asarray(baseline_lengths, float) - np.asarray(model_lengths, float)
    spread = difference.std(ddof=1) if len(difference) > 1 else 0.0
    return difference / spread if spread > 0 else np.zeros_like(difference)


def design(length_features: Floats, difficulties: Floats, indicators: Floats) -> Floats:
    """Design matrix [N, 3]: tanh of the length feature, γ, 1 for rows of the model and 0 for gamed ones."""
    return np.column_stack([np.tanh(length_features), difficulties, indicators])


def logistic(logits: Floats) -> Floats:
    """1/(1 + e^−x) without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def fit_cross_validated(design_ND: Any, scores_N: Floats, weights_N: Floats) -> Fit:
    """Fit the L1-penalised logistic regression with soft labels.

    Args:
        design_ND: Design, dense or scipy-sparse.
        scores_N: Labels in [0, 1].
        weights_N: Weight of each row.

    Raises:
        DataError: fewer than two rows, or labels that all go the same way, for which no fit is finite.
    """
    from sklearn.model_selection import GroupKFold

    n = len(scores_N)
    if n < 2:
        raise DataError(f"{n} annotated rows are too few for a fit.", "Annotate more, or score with given weights.")
    if (scores_N == scores_N[0]).all() and scores_N[0] in (0.0, 1.0):
        raise DataError(
            "Every preference goes the same way, for which no fit is finite.",
            "Read the plain win rate and its interval, or give gamed rows, which keep the fit finite.",
        )
    doubled = _Doubled.of(design_ND, scores_N, weights_N)
    n_folds = min(N_FOLDS, n)
    losses = np.zeros((n_folds, len(C_GRID)))
    folds = GroupKFold(n_splits=n_folds).split(doubled.labels, groups=doubled.groups)
    for fold, (train, test) in enumerate(folds):
        # One stream of random numbers per fold, as LogisticRegressionCV draws them: near ties between C depend on it.
        random = np.random.RandomState(SEED)
        for place, c in enumerate(C_GRID):
            coefficients, _ = doubled.fit(c, random, train)
            losses[fold, place] = doubled.loss(coefficients, test)
    best = float(C_GRID[np.argmin(losses.mean(axis=0))])
    coefficients, converged = doubled.fit(best, np.random.RandomState(SEED))
    return Fit(coefficients, best, n_folds, converged)


@dataclass(frozen=True)
class _Doubled:
    """Each row twice: with class 1 and weight s·w, and with class 0 and weight (1 − s)·w."""

    design: Any
    labels: Floats
    scores: Floats
    true_weights: Floats
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, design_ND: Any, scores_N: Floats, weights_N: Floats) -> _Doubled:
        from scipy import sparse

        n = len(scores_N)
        pair = [design_ND, design_ND]
        return cls(
            design=sparse.vstack(pair, format="csr") if sparse.issparse(design_ND) else np.vstack(pair),
            labels=np.repeat([1.0, 0.0], n),
            scores=np.tile(scores_N, 2),
            true_weights=np.tile(weights_N, 2),
            groups=np.tile(np.arange(n), 2),
        )

    def fit(self, c: float, random: np.random.RandomState, rows: Any = slice(None)) -> tuple[Floats, bool]:
        """Coefficients at one C, and whether the solver converged."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        labels, scores = self.labels[rows], self.scores[rows]
        weights = np.where(labels == 1, scores, 1 - scores) * self.true_weights[rows]
        solver = LogisticRegression(
            C=c, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=random,
            tol=TOLERANCE, max_iter=MAX_ITERATIONS,
        )  # fmt: skip
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            solver.fit(self.design[rows], labels, sample_weight=weights)
        return solver.coef_[0], not any(issubclass(one.category, ConvergenceWarning) for one in caught)

    def loss(self, coefficients: Floats, rows: Any) -> float:
        """Mean over rows of weight × log loss of the soft labels."""
        chances = np.clip(logistic(self.design[rows] @ coefficients), _EPSILON, 1 - _EPSILON)
        scores = self.scores[rows]
        losses = scores * np.log(chances) + (1 - scores) * np.log(1 - chances)
        return -float(np.mean(losses * self.true_weights[rows]))


def predict(difficulties: Floats, difficulty_weight: float, model_weight: float) -> tuple[float, float | None]:
    """Length-controlled win rate and its standard error, in percent: mean and sem of σ(ψγ + θ) over instructions."""
    chances = logistic(difficulty_weight * np.asarray(difficulties, float) + model_weight)
    error = float(chances.std(ddof=1) / np.sqrt(len(chances))) if len(chances) > 1 else None
    return 100 * float(chances.mean()), None if error is None else 100 * error
