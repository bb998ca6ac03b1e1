"""The stages `measure` (one method's proxy reward and KL) and `comparison` (all methods and seeds in one table).

Roles of `comparison` are `<what>_<seed>_<method>`: `evaluation`, `measured` and `answers`, `made` for what the
method yields, and `own` for what it made on the way (`own_0_dpo.1` …).
"""

from __future__ import annotations

from alpaca_farm_core.evaluation.comparison.config import ComparisonConfig, MeasureConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _measure(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.comparison.measure import measure

    return measure(context)


def _compare(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.comparison.write import write_comparison

    return write_comparison(context)


STAGE_MEASURE = Stage(
    name="measure",
    version=1,
    config_class=MeasureConfig,
    inputs={
        "outputs": "outputs",
        "reward_model": "reward_model",
        "policy*": "policy",
        "reference*": "policy",
        "data*": "dataset",
    },
    output="measurement",
    run=_measure,
    summary="Proxy reward of a method's answers and KL of its policy.",
)

STAGE_COMPARISON = Stage(
    name="comparison",
    version=1,
    config_class=ComparisonConfig,
    inputs={
        "evaluation_*": "evaluation",
        "measured_*": "measurement",
        "answers_*": "outputs",
        "made_*": "policy",
        "own_*": "policy",
    },
    output="comparison",
    run=_compare,
    volatile_files=("comparison.html", "cost.json"),
    summary="All methods and seeds in one table.",
)
