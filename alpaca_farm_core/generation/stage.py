"""The stages that answer the instructions of a split: by a policy (`sample`, `decode`) or an API (`api_outputs`)."""

from __future__ import annotations

from collections.abc import Mapping

from alpaca_farm_core.generation.config import ApiOutputsConfig, DecodeConfig, SampleConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import decoding_memory


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.generation.answers import answer_split

    return answer_split(context)


def _run_api(context: StageContext) -> StageResult:
    from alpaca_farm_core.generation.api import ask_split

    return ask_split(context)


def _api_external(config: ApiOutputsConfig) -> Mapping[str, str]:
    from alpaca_farm_core.models.external import template_hash

    return {"template": template_hash(config.template)}


STAGE_SAMPLE = Stage(
    name="sample",
    version=1,
    config_class=SampleConfig,
    inputs={"policy": "policy", "data": "dataset"},
    output="outputs",
    run=_run,
    memory=decoding_memory,
    summary="Sample several answers per instruction, to be compared.",
)

STAGE_DECODE = Stage(
    name="decode",
    version=1,
    config_class=DecodeConfig,
    inputs={"policy": "policy", "data": "dataset"},
    output="outputs",
    run=_run,
    memory=decoding_memory,
    summary="Answer the held-out instructions.",
)

STAGE_API = Stage(
    name="api_outputs",
    version=1,
    config_class=ApiOutputsConfig,
    inputs={"data": "dataset"},
    output="outputs",
    run=_run_api,
    external=_api_external,
    summary="Let a model behind an API answer the held-out instructions.",
)
