"""The stage `history`: one more line of what every model is worth, and the alarms it raises.

In: the history so far, this check's evaluations, the earlier ones they are compared with, and the judge's
last round. Out: history.json (all lines, newest last) and its pictures. A line holds figures with their
errors; what is not comparable (another judge or reference) is noted and never compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alpaca_farm_core.artifacts.files import canonical_json, read_json, sha256_text, write_json, write_text_atomic
from alpaca_farm_core.artifacts.manifest import Artifact, Recipe
from alpaca_farm_core.evaluation.reevaluation.alarms import judge_alarms, model_alarm
from alpaca_farm_core.evaluation.reevaluation.config import CompareWith, HistoryConfig
from alpaca_farm_core.evaluation.reevaluation.picture import history_pictures
from alpaca_farm_core.evaluation.reevaluation.recheck import ANCHORS
from alpaca_farm_core.pipeline.stage import StageContext, StageResult

HISTORY = "history.json"
EVALUATION, BEFORE = "evaluation_", "before_"
_FIGURES = (
    *("win_rate", "standard_error", "interval", "n_total", "n_missing", "avg_length", "gold_win_rate", "gold_utility"),
    *("n_wins", "n_wins_base", "n_draws", "discrete_win_rate", "annotator"),
)
_ANCHOR_FIGURES = ("n_anchors", "n_rounds", "n_changed", "changed_share", "mean_shift", "flags")
Entry = Mapping[str, Any]


def note_check(context: StageContext) -> StageResult:
    """Body of the stage `history`."""
    config: HistoryConfig = context.config
    inputs = context.inputs
    entries = read_history(inputs["previous"]) if "previous" in inputs else []
    models, alarms, notes = {}, [], []
    for role, evaluation in sorted(inputs.items()):
        if not role.startswith(EVALUATION):
            continue
        name = role.removeprefix(EVALUATION)
        models[name] = _model(evaluation, config.models.get(name, ""))
        before, note = before_of(entries, name, models[name], config.compare_with)
        notes += [note] if note else []
        if before is not None and before["evaluation"] != evaluation.fingerprint:
            alarm = model_alarm(name, before, models[name], inputs.get(BEFORE + name), evaluation, config)
            alarms += [alarm] if alarm else []
    anchors = read_json(inputs["anchors"].path / ANCHORS) if "anchors" in inputs else None
    if anchors is not None:
        alarms += judge_alarms(anchors)
    notes += [f"{name} was not evaluated: {reason}" for name, reason in sorted(config.skipped.items())]
    entry = {"at": config.at, "models": models, "anchors": _anchors(inputs), "alarms": alarms, "notes": notes}
    entries = [*entries, entry]
    write_json(context.output / HISTORY, entries)
    for name, picture in history_pictures(entries).items():
        write_text_atomic(context.output / f"{name}.svg", picture)
    for alarm in alarms:
        context.progress.say(f"ALARM: {alarm['text']}")
    rates = {f"win_rate_{name}": model["win_rate"] for name, model in models.items()}
    return StageResult(
        metrics={"n_checks": len(entries), "n_models": len(models), "n_alarms": len(alarms), **rates},
        n_missing=sum(model["n_missing"] for model in models.values()),
    )


def read_history(artifact: Artifact) -> list[dict[str, Any]]:
    """All lines of a history, oldest first."""
    entries: list[dict[str, Any]] = read_json(artifact.path / HISTORY)
    return entries


def before_of(
    entries: Sequence[Entry], name: str, model: Mapping[str, Any], how: CompareWith
) -> tuple[Mapping[str, Any] | None, str]:
    """The earlier figures of a model that the present ones are compared with, and a note where they cannot be.

    Args:
        entries: The history before this check.
        name: The model.
        model: Its present `judge` and `against`.
        how: The last comparable figures, or the best.
    """
    known = [entry["models"][name] for entry in entries if name in entry["models"]]
    same = [one for one in known if (one["judge"], one["against"]) == (model["judge"], model["against"])]
    rated = [one for one in same if one["win_rate"] is not None]
    if not rated:
        return None, f"{name} has another judge or reference than before: not compared" if known and not same else ""
    return (rated[-1] if how == "previous" else max(rated, key=lambda one: one["win_rate"])), ""


def judge_of(recipe: Recipe) -> str:
    """What two comparable evaluations have in common of their judge: settings and files, as a hash."""
    return sha256_text(canonical_json([recipe.stage_version, recipe.config, dict(recipe.external)]))


def table_rows(entry: Entry) -> list[dict[str, Any]]:
    """One line as a table, best model first."""
    order = sorted(entry["models"].items(), key=lambda item: -(item[1]["win_rate"] or 0.0))
    return [{"model": name, **{key: one[key] for key in (*_FIGURES, "policy") if key in one}} for name, one in order]


def _model(evaluation: Artifact, policy: str) -> dict[str, Any]:
    recipe = evaluation.manifest.recipe
    return {
        "policy": policy,
        "evaluation": evaluation.fingerprint,
        "judge": judge_of(recipe),
        "against": recipe.inputs["reference"],
        **{name: evaluation.metrics[name] for name in _FIGURES if name in evaluation.metrics},
    }


def _anchors(inputs: Mapping[str, Artifact]) -> dict[str, Any] | None:
    if "anchors" not in inputs:
        return None
    metrics = inputs["anchors"].metrics
    return {name: metrics[name] for name in _ANCHOR_FIGURES}
