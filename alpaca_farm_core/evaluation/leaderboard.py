"""The leaderboard of several evaluations against one baseline, as JSON, CSV and Markdown.

In: evaluation artifacts that share annotator and baseline. Out: rows sorted by win rate, the baseline
among them with 50. Columns are AlpacaEval's, then the gold figures of the embedded world.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import read_json, write_json, write_text_atomic
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.board_formats import to_csv, to_markdown
from alpaca_farm_core.evaluation.files import GOLD, METRICS
from alpaca_farm_core.pipeline.stage import StageContext, StageResult

ROLE_PREFIX = "evaluation_"
COUNTS = ("n_wins", "n_wins_base", "n_draws", "n_total", "n_missing")
COLUMNS = (
    *("model", "win_rate", "standard_error", "interval", "discrete_win_rate", *COUNTS, "avg_length"),
    *("length_controlled_winrate", "lc_standard_error", "length_matched_win_rate", "length_matched_interval"),
    *("gold_win_rate", "gold_interval", "gold_length_matched_win_rate", "gold_utility", "gold_utility_se"),
    *("well_formed_share", "annotator", "is_baseline"),
)
_GOLD_COLUMNS = tuple(name for name in COLUMNS if name.startswith("gold") or name == "well_formed_share")


def build_leaderboard(context: StageContext) -> StageResult:
    """Body of the stage `leaderboard`.

    Raises:
        DataError: no evaluation, or evaluations by other annotators or against other baselines.
    """
    evaluations = {
        role.removeprefix(ROLE_PREFIX): artifact
        for role, artifact in sorted(context.inputs.items())
        if role.startswith(ROLE_PREFIX)
    }
    rows = leaderboard_rows(evaluations)
    write_json(context.output / "leaderboard.json", rows)
    write_text_atomic(context.output / "leaderboard.csv", to_csv(rows, COLUMNS))
    write_text_atomic(context.output / "leaderboard.md", to_markdown(rows))
    best = rows[0]
    return StageResult(
        metrics={"n_models": len(rows), "best": best["model"], "best_win_rate": best["win_rate"]},
        n_missing=sum(row["n_missing"] or 0 for row in rows),
    )


def leaderboard_rows(evaluations: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Rows of all evaluations (name of the evaluation → artifact) and of their baseline, best first."""
    figures = {name: read_json(artifact.path / METRICS) for name, artifact in evaluations.items()}
    _check_comparable(evaluations, figures)
    golds = {name: _gold(artifact.path) for name, artifact in evaluations.items()}
    clashes = Counter(metrics["model"] for metrics in figures.values())
    rows = []
    for name, metrics in figures.items():
        model = metrics["model"] if clashes[metrics["model"]] == 1 else f"{metrics['model']} ({name})"
        rows.append({**_model_row(model, metrics), **_gold_columns(golds[name], "model")})
    if not any(row["is_baseline"] for row in rows):
        first = next(iter(figures))
        rows.append({**_baseline_row(figures[first]), **_gold_columns(golds[first], "reference")})
    return sorted(rows, key=lambda row: (row["win_rate"] is None, -(row["win_rate"] or 0.0), row["model"]))


def _check_comparable(evaluations: Mapping[str, Artifact], figures: Mapping[str, Mapping[str, Any]]) -> None:
    if not figures:
        raise DataError("A leaderboard needs at least one evaluation.", "Evaluate a model first.")
    annotators = sorted({metrics["annotator"] for metrics in figures.values()})
    if len(annotators) > 1:
        raise DataError(
            f"The evaluations were judged by different annotators: {', '.join(annotators)}.",
            "Make one leaderboard per annotator.",
        )
    baselines = {artifact.manifest.input_contents["reference"] for artifact in evaluations.values()}
    if len(baselines) > 1:
        names = ", ".join(sorted({metrics["reference"] for metrics in figures.values()}))
        raise DataError(
            f"The evaluations compare with {len(baselines)} different sets of reference outputs ({names}).",
            "Evaluate all models against the same reference outputs.",
        )


def _model_row(model: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    matched = metrics["length_matched"]
    own = {
        "model": model,
        "is_baseline": metrics["model"] == metrics["reference"],
        "length_matched_win_rate": matched["win_rate"],
        "length_matched_interval": matched["interval"],
    }
    return {name: own.get(name, metrics.get(name)) for name in COLUMNS}


def _baseline_row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    own = {
        "model": metrics["reference"],
        "annotator": metrics["annotator"],
        "win_rate": 50.0,
        "standard_error": 0.0,
        "discrete_win_rate": 50.0,
        "length_matched_win_rate": 50.0,
        "avg_length": metrics["avg_length_reference"],
        "is_baseline": True,
    }
    return {name: own.get(name) for name in COLUMNS}


def _gold(folder: Path) -> dict[str, Any] | None:
    path = folder / GOLD
    return read_json(path) if path.exists() else None


def _gold_columns(gold: Mapping[str, Any] | None, side: str) -> dict[str, Any]:
    if gold is None:
        return dict.fromkeys(_GOLD_COLUMNS)
    baseline = side == "reference"
    return {
        "gold_win_rate": 50.0 if baseline else gold["win_rate"]["win_rate"],
        "gold_interval": None if baseline else gold["win_rate"]["interval"],
        "gold_length_matched_win_rate": 50.0 if baseline else gold["length_matched"]["win_rate"],
        "gold_utility": gold[side]["utility"],
        "gold_utility_se": gold[side]["utility_se"],
        "well_formed_share": gold[side]["well_formed_share"],
    }
