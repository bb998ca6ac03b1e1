"""The stages `anchors` (is the judge still the same?) and `history` (what has changed since?).

Declarations only: the questions are in `recheck`, the lines and alarms in `history`.
"""

from __future__ import annotations

from collections.abc import Mapping

from alpaca_farm_core.evaluation.reevaluation.config import AnchorsConfig, HistoryConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _anchors(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.reevaluation.recheck import ask_again

    return ask_again(context)


def _annotator_files(config: AnchorsConfig) -> Mapping[str, str]:
    from alpaca_farm_core.annotators.factory import annotator_external

    return annotator_external(config.annotator)


def _history(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.reevaluation.history import note_check

    return note_check(context)


STAGE_ANCHORS = Stage(
    name="anchors",
    version=1,
    config_class=AnchorsConfig,
    inputs={"previous*": "anchors", "evaluation_*": "evaluation"},
    output="anchors",
    run=_anchors,
    external=_annotator_files,
    summary="asks the judge about the same pairs again",
)

STAGE_HISTORY = Stage(
    name="history",
    version=1,
    config_class=HistoryConfig,
    inputs={"previous*": "history", "evaluation_*": "evaluation", "before_*": "evaluation", "anchors*": "anchors"},
    output="history",
    run=_history,
    summary="notes win rates over time and raises alarms",
)
