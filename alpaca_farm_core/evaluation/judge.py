"""The evaluation of one model: its outputs against a reference, judged pair by pair.

In: two outputs artifacts and an annotator. Out: annotations.json (AlpacaEval's schema),
metrics.json, and gold.json where the instructions come from the embedded world. Fails, keeping every
answer in the call cache, when more than `annotator.max_missing` of the pairs stay without annotation
(identical answers are ties and need none).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alpaca_farm_core.annotators.factory import build_annotator
from alpaca_farm_core.annotators.summary import refuse_too_many_missing
from alpaca_farm_core.artifacts.files import write_json
from alpaca_farm_core.data.rows import read_outputs
from alpaca_farm_core.evaluation.config import EvaluationConfig
from alpaca_farm_core.evaluation.files import ANNOTATIONS, GOLD, METRICS
from alpaca_farm_core.evaluation.gold import compare_gold
from alpaca_farm_core.evaluation.length import length_matched
from alpaca_farm_core.evaluation.matching import Matched, generator_name, match
from alpaca_farm_core.evaluation.win_rate import to_score, win_rate_of_scores
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.types import Annotation


def evaluate(context: StageContext) -> StageResult:
    """Body of the stage `evaluate`.

    Raises:
        DataError: the two sets of outputs have nothing in common.
        MissingAnnotationsError: too many pairs could not be annotated.
    """
    config: EvaluationConfig = context.config
    outputs = read_outputs(context.inputs["outputs"].path / "outputs.jsonl")
    references = read_outputs(context.inputs["reference"].path / "outputs.jsonl")
    names = {"model": generator_name(outputs, "outputs"), "reference": generator_name(references, "reference outputs")}
    matched = match(outputs, references)
    annotator = build_annotator(config.seeded_annotator(), context.calls, context.execution)
    annotations = annotator.annotate(matched.pairs(), context.progress)
    metrics = {**names, "annotator": annotator.name, **summarise(matched, annotations)}
    gold = compare_gold(matched)
    write_json(context.output / ANNOTATIONS, annotation_rows(matched, annotations))
    write_json(context.output / METRICS, metrics)
    if gold is not None:
        write_json(context.output / GOLD, gold)
    n_missing = refuse_too_many_missing(annotations, config.annotator.max_missing)
    return StageResult(
        metrics={**metrics, **_gold_headline(gold)},
        n_missing=n_missing,
        timings=annotator.stats.timings(),
        cost_usd=annotator.stats.spent_usd,
    )


def summarise(matched: Matched, annotations: Sequence[Annotation]) -> dict[str, Any]:
    """Win rate, length-matched win rate, states and counts of one evaluation."""
    scores = [to_score(a.preference, row, "annotations") for row, a in enumerate(annotations)]
    ours = [len(output.output) for output in matched.model]
    theirs = [len(output.output) for output in matched.reference]
    states = [annotation.state for annotation in annotations]
    return {
        **win_rate_of_scores(scores, ours).to_row(),
        "length_controlled_winrate": None,
        "lc_standard_error": None,
        "avg_length_reference": int(sum(theirs) / len(theirs)),
        "share_finished": sum(output.finished for output in matched.model) / len(matched.model),
        "length_matched": length_matched(scores, ours, theirs).to_row(),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "n_unmatched_model": matched.n_unmatched_model,
        "n_unmatched_reference": matched.n_unmatched_reference,
        "n_repeated": matched.n_repeated,
    }


def annotation_rows(matched: Matched, annotations: Sequence[Annotation]) -> list[dict[str, Any]]:
    """Rows of annotations.json: AlpacaEval's fields, and the state and explanation of each judgement."""
    rows = []
    for model, reference, annotation in zip(matched.model, matched.reference, annotations, strict=True):
        rows.append(
            {
                "instruction": model.instruction,
                "input": model.input,
                "output_1": reference.output,
                "output_2": model.output,
                "generator_1": reference.generator,
                "generator_2": model.generator,
                "annotator": annotation.annotator,
                "preference": annotation.preference,
                "dataset": model.dataset,
                "state": annotation.state,
                "explanation": annotation.explanation,
            }
        )
    return rows


def _gold_headline(gold: dict[str, Any] | None) -> dict[str, Any]:
    if gold is None:
        return {}
    return {
        "gold_win_rate": gold["win_rate"]["win_rate"],
        "gold_interval": gold["win_rate"]["interval"],
        "gold_utility": gold["model"]["utility"],
        "gold_utility_reference": gold["reference"]["utility"],
    }
