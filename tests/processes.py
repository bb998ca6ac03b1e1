"""Other processes for tests: forked from a clean server, never from pytest itself, which has threads.

What the processes need is imported once, in the server, so that each starts at once.
"""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "openai",
        "alpaca_farm_core.annotators.llm",
        "alpaca_farm_core.generation.answers",
        "alpaca_farm_core.methods.best_of_n.select",
        "alpaca_farm_core.methods.dpo.train",
        "alpaca_farm_core.methods.ppo.train",
        "alpaca_farm_core.methods.reward_model.train",
        "alpaca_farm_core.methods.sft.train",
    ]
)
