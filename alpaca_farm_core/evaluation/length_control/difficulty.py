"""Instruction difficulties estimated jointly from several models on the same instructions.

One logistic regression over all models: a length slope and an intercept per model and an effect per
instruction that all models share (the first instruction's is 0); the effects are the difficulties. Labels,
penalty and cross-validation as in `glm`. Source: AlpacaEval's account of how its difficulties were made.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.length_control.glm import fit_cross_validated

Floats = NDArray[np.float64]


def estimate_difficulties(
    keys: Sequence[Sequence[str]], length_features: Sequence[Floats], scores: Sequence[Sequence[float | None]]
) -> dict[str, float]:
    """Estimate γ of every instruction with an annotation.

    Args:
        keys: Per model, the content of each row's instruction.
        length_features: Per model, (len_baseline − len_model)/σ of each row.
        scores: Per model, s in [0, 1] of each row; None missing.

    Returns:
        Instruction's content → γ; above 0 the models win more than on the first instruction.

    Raises:
        DataError: fewer than two models, or nothing annotated.
    """
    from scipy import sparse

    if len(keys) < 2:
        raise DataError(
            f"Difficulties cannot be estimated from {len(keys)} model: its wins would be explained one by one.",
            "Give annotations of several models on the same instructions, or difficulties from a file.",
        )
    places: dict[str, int] = {}
    models, instructions, features, labels = [], [], [], []
    for model, (names, lengths, values) in enumerate(zip(keys, length_features, scores, strict=True)):
        for key, feature, score in zip(names, lengths, values, strict=True):
            if score is not None:
                models.append(model)
                instructions.append(places.setdefault(key, len(places)))
                features.append(feature)
                labels.append(score)
    if not labels:
        raise DataError("No row of any model is annotated.", "Annotate some pairs first.")
    rows, n, m = np.arange(len(labels)), len(places), len(keys)
    at_model, at_instruction = np.array(models), np.array(instructions)
    effects = at_instruction > 0
    matrix = sparse.csr_matrix(
        (
            np.concatenate([np.tanh(features), np.ones(len(rows)), np.ones(int(effects.sum()))]),
            (
                np.concatenate([rows, rows, rows[effects]]),
                np.concatenate([at_model, m + at_model, 2 * m + at_instruction[effects] - 1]),
            ),
        ),
        shape=(len(rows), 2 * m + n - 1),
    )
    fit = fit_cross_validated(matrix, np.array(labels, dtype=float), np.ones(len(rows)))
    effect_N = np.concatenate([[0.0], fit.coefficients_D[2 * m :]])
    return {key: float(effect_N[place]) for key, place in places.items()}


def difficulties_csv(difficulties: Mapping[str, float]) -> str:
    """The file that `--instruction-difficulty` reads."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["instruction", "instruction_difficulty"])
    writer.writerows(difficulties.items())
    return stream.getvalue()
