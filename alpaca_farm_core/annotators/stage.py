"""The preferences stage: samples of a policy → annotated pairs.

In: outputs.jsonl with several samples per instruction. Out: preferences.jsonl. Killed and run again, it
asks only for what no answer was committed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

from alpaca_farm_core.annotators.config import PreferencesConfig
from alpaca_farm_core.annotators.factory import annotator_external, build_annotator
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.types import Preference


def _external(config: PreferencesConfig) -> Mapping[str, str]:
    return annotator_external(config.annotator)


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.annotators.pairs import pair_samples
    from alpaca_farm_core.annotators.summary import refuse_too_many_missing, summarise
    from alpaca_farm_core.artifacts.files import write_jsonl
    from alpaca_farm_core.data.rows import read_outputs

    config: PreferencesConfig = context.config
    assert config.seed is not None
    outputs = read_outputs(context.inputs["samples"].path / "outputs.jsonl")
    pairs = pair_samples(outputs, config.pairs_per_instruction, config.seed)
    annotator = build_annotator(config.annotator.seeded(config.seed), context.calls, context.execution)
    began = time.perf_counter()
    annotations = annotator.annotate(pairs, context.progress)
    seconds = time.perf_counter() - began
    n_missing = refuse_too_many_missing(annotations, config.annotator.max_missing)
    rows = [Preference(**asdict(pair), **asdict(label)) for pair, label in zip(pairs, annotations, strict=True)]
    write_jsonl(context.output / "preferences.jsonl", [row.to_row() for row in rows])
    return StageResult(
        metrics=summarise(pairs, annotations, annotator),
        timings={"seconds": seconds, "pairs_per_second": len(pairs) / seconds, **annotator.stats.timings()},
        n_missing=n_missing,
        cost_usd=annotator.stats.spent_usd,
    )


STAGE = Stage(
    name="preferences",
    version=1,
    config_class=PreferencesConfig,
    inputs={"samples": "outputs"},
    output="preferences",
    run=_run,
    external=_external,
    summary="Judge pairs of sampled answers.",
)
