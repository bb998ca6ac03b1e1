"""Composition of the over-optimisation study: train for long, judge every kept step, draw all against KL.

Like those of `flows.compositions` it knows no Prefect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from alpaca_farm_core.errors import ConfigError
from alpaca_farm_core.evaluation.overoptimisation.config import CheckpointConfig
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.pipeline.runner import Runner


def overoptimisation(run: Runner, train: Callable[[Runner], Mapping[str, Any]]) -> Mapping[str, Any]:
    """PPO → answers of every kept step → judged against the SFT model's → proxy, judge and gold against KL.

    Args:
        run: The runner.
        train: Composition that makes `data`, `sft` and `ppo`.

    Raises:
        ConfigError: no steps are kept, or how many there are is not known.
    """
    settings = run.study.overoptimisation
    roles: dict[str, Any] = {}
    for seed in settings.seeds or (run.study.seed,):
        chain = run.with_seed(seed) if settings.seeds else run
        made = train(chain)
        roles[f"method_{seed}"] = made["ppo"]
        reference = chain("decode", label="sft", policy=made["sft"], data=made["data"])
        for step in kept_steps(run):
            roles[f"evaluation_{seed}_{step}"] = _judged(chain, made, reference, step)
    return {"overoptimisation": run("overoptimisation", **roles)}


def kept_steps(run: Runner) -> range:
    """Steps whose policies PPO keeps.

    Raises:
        ConfigError: none, or it cannot be told.
    """
    ppo = cast(PPOConfig, run.study.section("ppo"))
    steps = range(ppo.save_every, ppo.steps + 1, ppo.save_every) if ppo.save_every else range(0)
    if not steps:
        raise ConfigError(
            f"No checkpoints to look at: ppo.steps is {ppo.steps}, ppo.save_every {ppo.save_every}.",
            "Set both, as the preset meadow-stress does.",
        )
    return steps


def _judged(run: Runner, made: Mapping[str, Any], reference: Any, step: int) -> Any:
    label = f"step-{step}"
    policy = run("checkpoint", label=label, config=CheckpointConfig(step=step), policy=made["ppo"])
    decoding = run.study.section("decode").model_copy(update={"generator": f"ppo step {step}"})
    answers = run("decode", label=label, config=decoding, policy=policy, data=made["data"])
    return run("evaluate", label=label, outputs=answers, reference=reference)
