"""What raises an alarm: a model that fell by more than chance explains, a judge that is no longer the same.

In: figures of two evaluations, or a round of anchors. Out: an alarm as plain data, or nothing. Where both
evaluations are at hand their instructions are paired, which sees smaller falls; else the two errors add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.evaluation.files import ANNOTATIONS
from alpaca_farm_core.evaluation.paired import compare, scores_by_instruction
from alpaca_farm_core.evaluation.reevaluation.config import HistoryConfig
from alpaca_farm_core.evaluation.win_rate import to_score


def model_alarm(
    name: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    earlier: Artifact | None,
    evaluation: Artifact,
    config: HistoryConfig,
) -> dict[str, Any] | None:
    """Alarm if the win rate fell by more than `drop_standard_errors` standard errors of the difference.

    Args:
        name: The model.
        before: Its earlier figures.
        now: Its present figures.
        earlier: The evaluation behind the earlier figures, if it is still in the store.
        evaluation: The present evaluation.
        config: What is too much.
    """
    if now["win_rate"] is None:
        return _alarm("model", name, f"{name} has no win rate: none of its answers could be judged", None, None)
    if earlier is not None:
        compared = compare(name, _scores(evaluation), f"{name} before", _scores(earlier))
        difference, error = compared.difference, compared.standard_error
    else:
        difference, error = now["win_rate"] - before["win_rate"], _unpaired(before, now)
    if error is None or difference >= 0 or -difference <= config.drop_standard_errors * error:
        return None
    size = f"{-difference / error:.1f} standard errors" if error else "on every instruction"
    text = (
        f"{name} fell from {before['win_rate']:.1f} to {now['win_rate']:.1f} % ({difference:+.1f} points, {size}; "
        f"{before['policy']} → {now['policy']})"
    )
    return _alarm("model", name, text, difference, error)


def judge_alarms(anchors: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One alarm for each thing that is no longer as it was with the judge."""
    return [_alarm("judge", "judge", f"the judge: {flag}", None, None) for flag in anchors["flags"]]


def _alarm(kind: str, name: str, text: str, difference: float | None, error: float | None) -> dict[str, Any]:
    return {"kind": kind, "name": name, "text": text, "difference": difference, "standard_error": error}


def _unpaired(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    errors = [before["standard_error"], now["standard_error"]]
    return None if None in errors else math.hypot(*errors)


def _scores(evaluation: Artifact) -> dict[str, float]:
    rows = read_json(evaluation.path / ANNOTATIONS)
    keys = [f"{row['instruction']}\x1f{row['input'] or ''}" for row in rows]
    return scores_by_instruction(keys, [to_score(row["preference"], i, "annotations") for i, row in enumerate(rows)])
