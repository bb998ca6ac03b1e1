"""The stage `anchors`: one more round of the same questions to a judge, compared with the first.

In: the round before, or, for a first round, evaluations to draw the anchors from. Out: anchors.json, the
record of `agreement.anchors` without times, and the comparison. A round that is cut off goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.annotators.base import Annotator
from alpaca_farm_core.annotators.factory import build_annotator
from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.evaluation.agreement.anchors import compare_rounds, judge_anchors
from alpaca_farm_core.evaluation.files import ANNOTATIONS
from alpaca_farm_core.evaluation.reevaluation.config import AnchorsConfig
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.seeding import stable_seed, stable_uniform

ANCHORS = "anchors.json"
_PAIR = ("instruction", "input", "output_1", "output_2")
_BUILD = ("served_model", "fingerprint")


def ask_again(context: StageContext) -> StageResult:
    """Body of the stage `anchors`.

    Raises:
        AnnotationError: the judge cannot be used; the next try goes on with this round.
    """
    config: AnchorsConfig = context.config
    record_file = context.scratch / "record.json"
    pairs, earlier = _anchors(config, context.inputs)
    if earlier is not None and not record_file.exists():
        write_json(record_file, earlier)
    judges: list[Annotator] = []

    def build(draw: int) -> Annotator:
        judges.append(build_annotator(config.annotator, context.calls, context.execution, draw))
        return judges[0]

    # The first questions of all were just asked by the evaluations: draw 0 takes their answers.
    fresh = config.series or config.round
    draw = stable_seed("anchors", config.record, config.series, config.round, config.hour) if fresh else 0
    record = judge_anchors(record_file, pairs, {"series": config.series}, build, context.progress, draw)
    compared = compare_rounds(record, config.tolerance) if len(record["rounds"]) > 1 else None
    flags = [f"its settings changed ({', '.join(config.changed)}): win rates from before are not comparable"]
    flags = (flags if config.changed else []) + (compared["flags"] if compared else [])
    write_json(context.output / ANCHORS, {**_without_times(record), "compared": compared, "flags": flags})
    return StageResult(
        metrics={
            "n_anchors": len(record["pairs"]),
            "n_rounds": len(record["rounds"]),
            "n_changed": compared["n_changed"] if compared else 0,
            "changed_share": compared["changed_share"] if compared else None,
            "mean_shift": compared["mean_shift"] if compared else None,
            "flags": flags,
        },
        timings=judges[0].stats.timings() if judges else {},
        cost_usd=judges[0].stats.spent_usd if judges else 0.0,
    )


def _anchors(
    config: AnchorsConfig, inputs: Mapping[str, Artifact]
) -> tuple[list[Mapping[str, Any]], dict[str, Any] | None]:
    """The pairs, and the record that the round continues (None: it is the first of its series)."""
    if "previous" in inputs:
        known: dict[str, Any] = read_json(inputs["previous"].path / ANCHORS)
        record = {name: known[name] for name in ("settings", "pairs", "rounds")}
        return known["pairs"], record if config.round else None
    pairs = {
        tuple(row[name] or "" for name in _PAIR): row
        for evaluation in inputs.values()
        for row in read_json(evaluation.path / ANNOTATIONS)
        if row["output_1"] != row["output_2"]  # equal outputs are ties; no judge reads them
    }
    order = sorted(pairs, key=lambda texts: stable_uniform("anchor", *texts))
    return [dict(zip(_PAIR, texts, strict=True)) for texts in order[: config.count]], None


def _without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as a payload: of a passport only what names the judge's build."""
    rounds = [{**one, "labels": [_label(label) for label in one["labels"]]} for one in record["rounds"]]
    return {**record, "rounds": rounds}


def _label(label: Mapping[str, Any]) -> dict[str, Any]:
    passport = label["passport"]
    return {**label, "passport": {name: passport[name] for name in _BUILD} if passport else None}
