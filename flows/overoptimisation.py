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

    Where PPO learns from a reward model, best-of-n by that model stands beside it.

    Args:
        run: The runner.
        train: Composition that makes `data`, `sft`, `ppo`, and `reward_model` where it uses one.

    Raises:
        ConfigError: no steps are kept, or how many there are is not known.
    """
    settings = run.study.overoptimisation
    roles: dict[str, Any] = {}
    for seed in settings.seeds or (run.study.seed,):
        chain = run.with_seed(seed) if settings.seeds else run
        made = train(chain)
        reference = chain("decode", label="sft", policy=made["sft"], data=made["data"])
        roles |= {f"method_{seed}": made["ppo"], **_measured(chain, made, reference, "sft", f"{seed}_0")}
        for step in kept_steps(run):
            answers = _answers(chain, made, step)
            judged = chain("evaluate", label=f"step-{step}", outputs=answers, reference=reference)
            roles |= {
                f"evaluation_{seed}_{step}": judged,
                **_measured(chain, made, answers, f"step-{step}", f"{seed}_{step}"),
            }
        if settings.best_of_n and "reward_model" in made:
            roles[f"best_of_n_{seed}"] = _best_of_n(chain, made, reference)
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


def _answers(run: Runner, made: Mapping[str, Any], step: int) -> Any:
    label = f"step-{step}"
    policy = run("checkpoint", label=label, config=CheckpointConfig(step=step), policy=made["ppo"])
    decoding = run.study.section("decode").model_copy(update={"generator": f"ppo step {step}"})
    return run("decode", label=label, config=decoding, policy=policy, data=made["data"])


def _measured(run: Runner, made: Mapping[str, Any], answers: Any, label: str, role: str) -> dict[str, Any]:
    """Proxy reward of the very answers that are judged, where the proxy is a reward model."""
    if "reward_model" not in made:
        return {}
    return {f"measured_{role}": run("measure", label=label, outputs=answers, reward_model=made["reward_model"])}


def _best_of_n(run: Runner, made: Mapping[str, Any], reference: Any) -> Any:
    samples = run(
        "best_of_n", label="best-of-n", policy=made["sft"], reward_model=made["reward_model"], data=made["data"]
    )
    judging = run.study.section("evaluate")
    return run("judge_samples", label="best-of-n", config=judging, samples=samples, reference=reference)
