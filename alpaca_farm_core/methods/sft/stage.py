"""The stage `sft`: dataset in, policy out."""

from __future__ import annotations

from collections.abc import Mapping

from alpaca_farm_core.methods.sft.config import SFTConfig
from alpaca_farm_core.models.config import model_external
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import supervised_memory
from alpaca_farm_core.training.room import BASE


def _external(config: SFTConfig) -> Mapping[str, str]:
    return model_external(config.model)


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.sft.train import train

    return train(context)


STAGE = Stage(
    name="sft",
    version=1,
    config_class=SFTConfig,
    inputs={"data": "dataset"},
    output="policy",
    run=_run,
    trains=True,
    memory=lambda config, execution, models: supervised_memory(
        config, execution, models[BASE], config.model.max_length
    ),
    external=_external,
    summary="Fine-tune the base model on demonstrations.",
)
