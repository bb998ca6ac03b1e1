"""The stage `best_of_n`: policy, reward model and dataset in, the best answers out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.best_of_n.config import BestOfNConfig
from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import decoding_memory


def run(context: StageContext) -> StageResult:
    """Sample, score, choose."""
    from alpaca_farm_core.methods.best_of_n.select import select

    return select(context)


STAGE = Stage(
    name="best_of_n",
    version=1,
    config_class=BestOfNConfig,
    inputs={"policy": "policy", "reward_model": "reward_model", "data": "dataset"},
    output="outputs",
    run=run,
    memory=decoding_memory,
    summary="Sample n answers per instruction and keep the one with the highest reward.",
)

METHOD = Method.of_stage(STAGE, "Best-of-n", "No training: the best of n samples by the reward model.")
