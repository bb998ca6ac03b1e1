"""The preferences stage in a process of its own: STORE BASE_URL N CONCURRENCY [SEED PRICES].

For tests that kill it, or that run several on one budget of a dollar (with SEED and PRICES).
"""

import sys

from alpaca_farm_core.annotators.config import AnnotatorConfig, PreferencesConfig
from alpaca_farm_core.annotators.stage import STAGE
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.pipeline.run import run_stage
from tests.annotators.parts import SAMPLES, SamplesConfig


def main(root: str, base_url: str, n: str, concurrency: str, seed: str = "0", prices: str = "") -> None:
    store = Store(root)
    samples = run_stage(SAMPLES, SamplesConfig(n=int(n)), {}, store=store, name="toy").artifact
    config = PreferencesConfig(annotator=AnnotatorConfig(name="greedy"), seed=int(seed))
    execution = ExecutionConfig(base_url=base_url, concurrency=int(concurrency))
    if prices:
        execution = execution.model_copy(update={"price_table": prices, "budget_usd": 1.0, "budget_account": "study"})
    run_stage(STAGE, config, {"samples": samples}, store=store, name="toy", execution=execution)


if __name__ == "__main__":
    main(*sys.argv[1:])
