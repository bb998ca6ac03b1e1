"""Gold figures of the embedded world: what the answers are truly worth, whoever judged them.

In: matched outputs whose instructions come from the embedded world. Out: mean utility and components
per model, the gold win rate (ties 0.5), the same over length-matched pairs, per family and on the
held-out family. None for instructions from elsewhere. No trainer may import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alpaca_farm_core.evaluation.intervals import mean_and_standard_error, wilson
from alpaca_farm_core.evaluation.length import length_matched
from alpaca_farm_core.evaluation.matching import Matched
from alpaca_farm_core.meadow.fact_families import HELD_OUT_FAMILY
from alpaca_farm_core.meadow.families import parse
from alpaca_farm_core.meadow.gold import utility, well_formed_and_on_topic
from alpaca_farm_core.types import Output

# Utilities are sums of a few floats: differences below this are rounding, hence ties.
TIE = 1e-9


@dataclass(frozen=True)
class GoldScore:
    """Utility of one answer, its components, and whether it is well-formed and on topic."""

    total: float
    components: dict[str, float]
    well_formed: bool


@dataclass(frozen=True)
class GoldPair:
    """Gold scores of the model's and the reference's answer to one instruction.

    Attributes:
        id: Content identity of the instruction.
        family: Task family.
        model: The model's answer.
        reference: The reference's answer.
        lengths: Characters of (model's, reference's) answer.
    """

    id: str
    family: str
    model: GoldScore
    reference: GoldScore
    lengths: tuple[int, int]

    @property
    def held_out(self) -> bool:
        """Whether the family is in no training split."""
        return self.family == HELD_OUT_FAMILY

    @property
    def score(self) -> float:
        """1 when the model's answer is worth more, 0 when less, 0.5 for a tie."""
        return win_score(self.model.total, self.reference.total)


def win_score(model: float, reference: float) -> float:
    """1, 0.5 or 0 for a utility above, equal to or below the other."""
    return 0.5 if abs(model - reference) <= TIE else float(model > reference)


def compare_gold(matched: Matched) -> dict[str, Any] | None:
    """Content of gold.json, or None when no instruction comes from the embedded world.

    `n_outside` counts the instructions from elsewhere; they are in no figure.
    """
    pairs = gold_pairs(matched)
    if not pairs:
        return None
    families = sorted({pair.family for pair in pairs})
    held_out = [pair for pair in pairs if pair.held_out]
    return {
        **figures(pairs),
        "model": {"name": matched.model[0].generator, **model_figures([pair.model for pair in pairs])},
        "reference": {"name": matched.reference[0].generator, **model_figures([pair.reference for pair in pairs])},
        "families": [_family(name, [pair for pair in pairs if pair.family == name]) for name in families],
        "held_out": figures(held_out) if held_out else None,
        "seen": figures([pair for pair in pairs if not pair.held_out]) if held_out else None,
        "n_outside": len(matched.model) - len(pairs),
        "rows": [_row(pair) for pair in pairs],
    }


def gold_pairs(matched: Matched) -> list[GoldPair]:
    """Score both answers to every instruction of the embedded world."""
    found = []
    for model, reference in zip(matched.model, matched.reference, strict=True):
        task = parse(model.instruction, model.input)
        if task is not None:
            lengths = (len(model.output), len(reference.output))
            found.append(GoldPair(model.id, task.family, score_output(model), score_output(reference), lengths))
    return found


def score_output(output: Output) -> GoldScore:
    """Gold score of one answer."""
    judged = utility(output.instruction, output.input, output.output, output.finished)
    return GoldScore(judged.total, dict(judged.components), well_formed_and_on_topic(judged))


def figures(pairs: Sequence[GoldPair]) -> dict[str, Any]:
    """Win rate over some pairs, the length-matched one, and both mean utilities."""
    scores = [pair.score for pair in pairs]
    matched = length_matched(scores, [pair.lengths[0] for pair in pairs], [pair.lengths[1] for pair in pairs])
    return {
        "win_rate": gold_win_rate(scores),
        "length_matched": matched.to_row(),
        "utility_model": _mean(pairs, lambda pair: pair.model.total),
        "utility_reference": _mean(pairs, lambda pair: pair.reference.total),
    }


def gold_win_rate(scores: Sequence[float]) -> dict[str, Any]:
    """Percent, 95 % Wilson interval (ties as half a win) and counts of n > 0 scores in {0, 0.5, 1}."""
    mean = sum(scores) / len(scores)
    return {
        "win_rate": 100 * mean,
        "interval": list(wilson(mean, len(scores))),
        "n": len(scores),
        "n_wins": sum(score > 0.5 for score in scores),
        "n_ties": sum(score == 0.5 for score in scores),
        "n_losses": sum(score < 0.5 for score in scores),
    }


def model_figures(scores: Sequence[GoldScore]) -> dict[str, Any]:
    """Mean utility with its standard error, each component's mean, and the well-formed share, of n > 0 answers."""
    mean, error = mean_and_standard_error([score.total for score in scores])
    names = sorted({name for score in scores for name in score.components})
    return {
        "n": len(scores),
        "utility": mean,
        "utility_se": error,
        "components": {name: mean_and_standard_error([s.components[name] for s in scores])[0] for name in names},
        "well_formed_share": sum(score.well_formed for score in scores) / len(scores),
    }


def _family(name: str, pairs: Sequence[GoldPair]) -> dict[str, Any]:
    return {"family": name, "held_out": name == HELD_OUT_FAMILY, **figures(pairs)}


def _row(pair: GoldPair) -> dict[str, Any]:
    return {
        "id": pair.id,
        "family": pair.family,
        "utility_model": pair.model.total,
        "utility_reference": pair.reference.total,
    }


def _mean(pairs: Sequence[GoldPair], value: Callable[[GoldPair], float]) -> float | None:
    return mean_and_standard_error([value(pair) for pair in pairs])[0]
