"""Gathers what the report says, as plain data without times or machines.

In: the report's config and input artifacts. Out: the content of report.json. The page is drawn from
these facts; nothing is computed while drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.data.rows import read_outputs
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.ceiling import reward_model_figures
from alpaca_farm_core.evaluation.files import GOLD, METRICS
from alpaca_farm_core.evaluation.leaderboard import ROLE_PREFIX, leaderboard_rows
from alpaca_farm_core.evaluation.report.config import ReportConfig
from alpaca_farm_core.evaluation.report.curves import build_curves
from alpaca_farm_core.evaluation.report.judged import judged_figures
from alpaca_farm_core.evaluation.report.lineage import build_lineage
from alpaca_farm_core.evaluation.report.samples import pick_samples

OUTPUTS_PREFIX = "outputs_"


def build_facts(config: ReportConfig, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Everything the report states.

    Raises:
        DataError: there is no evaluation to report on, or not the one of `config.method`.
    """
    evaluations = {r.removeprefix(ROLE_PREFIX): a for r, a in sorted(inputs.items()) if r.startswith(ROLE_PREFIX)}
    primary = primary_evaluation(config.method, evaluations)
    golds = {name: _gold(artifact) for name, artifact in evaluations.items()}
    metrics = read_json(evaluations[primary].path / METRICS)
    return {
        "title": config.title,
        "method": config.method or primary,
        "headline": headline(metrics, golds[primary], kl_of(inputs.get("method"))),
        "evaluation": metrics,
        "leaderboard": _leaderboard(inputs, evaluations),
        "judged": judged_figures(evaluations[primary]),
        "curves": build_curves(inputs),
        "reward_model": reward_model_figures(inputs.get("reward_model"), inputs.get("preferences")),
        "gold": {name: _without_rows(gold) for name, gold in golds.items() if gold},
        "answers": [answer_figures(r, a) for r, a in sorted(inputs.items()) if r.startswith(OUTPUTS_PREFIX)],
        "samples": pick_samples(evaluations[primary], golds[primary], config.n_samples),
        "lineage": build_lineage(inputs),
        "missing": {role: a.manifest.n_missing for role, a in sorted(inputs.items()) if a.manifest.n_missing},
        "settings": config.settings,
        "differs": {key: list(values) for key, values in sorted(config.differs.items())},
    }


def primary_evaluation(method: str, evaluations: Mapping[str, Artifact]) -> str:
    """Name of the evaluation that the page is about.

    Raises:
        DataError: none fits.
    """
    if method in evaluations:
        return method
    if not method and len(evaluations) == 1:
        return next(iter(evaluations))
    known = ", ".join(evaluations) or "none"
    raise DataError(f"There is no evaluation of '{method}' to report on (there are: {known}).", "Set report.method.")


def headline(metrics: Mapping[str, Any], gold: Mapping[str, Any] | None, kl: float | None) -> dict[str, Any]:
    """Who won, by how much, how surely: by gold utility where there is one, else by the judge."""
    judged = gold is None
    found = metrics if gold is None else gold["win_rate"]
    low, high = found["interval"] or (0.0, 100.0)
    verdict = "wins" if low > 50 else "loses" if high < 50 else "undecided"
    return {
        "model": metrics["model"],
        "reference": metrics["reference"],
        "verdict": verdict,
        "basis": "judge" if judged else "gold",
        "win_rate": found["win_rate"],
        "interval": found["interval"],
        "n": found["n_total"] if judged else found["n"],
        "judged_win_rate": metrics["win_rate"],
        "judged_interval": metrics["interval"],
        "length_matched": (metrics if gold is None else gold)["length_matched"],
        "kl": kl,
    }


def kl_of(method: Artifact | None) -> float | None:
    """KL (nats per response) of the published policy from the SFT policy, where its stage tells it.

    Taken on held-out prompts (`heldout_kl`, of the step that was published) before rollouts (`kl`, of
    the last step).
    """
    stated = [method.metrics.get(name) for name in ("heldout_kl", "kl")] if method is not None else []
    return next((float(value) for value in stated if isinstance(value, (int, float))), None)


def answer_figures(role: str, artifact: Artifact) -> dict[str, Any]:
    """Length and completeness of one model's answers."""
    outputs = read_outputs(artifact.path / "outputs.jsonl")
    n = len(outputs)
    return {
        "name": role.removeprefix(OUTPUTS_PREFIX),
        "generator": outputs[0].generator if outputs else None,
        "n": n,
        "mean_characters": sum(len(o.output) for o in outputs) / n if n else None,
        "mean_tokens": sum(o.n_tokens for o in outputs) / n if n else None,
        "share_finished": sum(o.finished for o in outputs) / n if n else None,
        "n_empty": sum(not o.output.strip() for o in outputs),
    }


def _leaderboard(inputs: Mapping[str, Artifact], evaluations: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    if "leaderboard" in inputs:
        rows: list[dict[str, Any]] = read_json(inputs["leaderboard"].path / "leaderboard.json")
        return rows
    return leaderboard_rows(evaluations)


def _gold(evaluation: Artifact) -> dict[str, Any] | None:
    path = evaluation.path / GOLD
    return read_json(path) if path.exists() else None


def _without_rows(gold: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in gold.items() if key != "rows"}
