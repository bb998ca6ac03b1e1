"""The studies, as plain compositions of stages: each reads like figure 1 of the paper.

A composition takes a runner and returns the handles of what it made, by name. It knows no Prefect:
the same functions run as flows, in plain Python, and as a dry run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.config.study import differences_from_defaults
from alpaca_farm_core.errors import UsageError
from alpaca_farm_core.evaluation.report.config import ReportConfig
from alpaca_farm_core.pipeline.runner import Runner
from flows.overoptimisation import overoptimisation
from flows.reevaluation import reevaluate

Handles = Mapping[str, Any]
Composition = Callable[[Runner], Handles]

_REPORTED = ("data", "sft", "samples", "preferences", "reward_model", "leaderboard")


def sft(run: Runner) -> Handles:
    """Instructions → supervised fine-tuning."""
    data = run("dataset")
    return {"data": data, "sft": run("sft", data=data)}


def simulate_preferences(run: Runner) -> Handles:
    """… → pairs sampled from the SFT model → simulated preferences; or labels of people, where the study names some."""
    made = sft(run)
    if run.study.human_preferences.source:
        return {**made, "preferences": run("human_preferences")}
    samples = run("sample", policy=made["sft"], data=made["data"])
    return {**made, "samples": samples, "preferences": run("preferences", samples=samples)}


def reward_model(run: Runner) -> Handles:
    """… → reward model."""
    made = simulate_preferences(run)
    model = run("reward_model", policy=made["sft"], preferences=made["preferences"])
    return {**made, "reward_model": model}


def ppo(run: Runner) -> Handles:
    """… → policy trained with PPO against the reward model."""
    made = reward_model(run)
    policy = run("ppo", policy=made["sft"], reward_model=made["reward_model"], data=made["data"])
    return {**made, "ppo": policy}


def evaluate(run: Runner, method: str = "ppo") -> Handles:
    """… → answers of both policies → judged against the SFT model's → leaderboard."""
    made = METHODS[method](run)
    policies = {"sft": made["sft"], method: made[method]}
    answers = {name: run("decode", label=name, policy=policy, data=made["data"]) for name, policy in policies.items()}
    judged = run("evaluate", label=method, outputs=answers[method], reference=answers["sft"])
    board = run("leaderboard", **{f"evaluation_{method}": judged})
    return {**made, "answers": answers, "evaluation": judged, "leaderboard": board}


def rlhf(run: Runner, method: str = "ppo") -> Handles:
    """Run the whole flow: … → report."""
    made = evaluate(run, method)
    report = run(
        "report",
        config=ReportConfig(
            title=run.run_name,
            method=method,
            settings=run.study.model_dump(mode="json"),
            differs=differences_from_defaults(run.study),
        ),
        **{f"outputs_{name}": answers for name, answers in made["answers"].items()},
        **{f"evaluation_{method}": made["evaluation"]},
        method=made[method],
        **{role: made[role] for role in _REPORTED if role in made},
    )
    return {**made, "report": report}


METHODS: dict[str, Composition] = {"ppo": ppo}
"""Methods of learning from preferences: each composition makes a policy under its own name."""

COMPOSITIONS: dict[str, Composition] = {
    "rlhf": rlhf,
    "sft": sft,
    "simulate-preferences": simulate_preferences,
    "reward-model": reward_model,
    "ppo": ppo,
    "evaluate": evaluate,
    "reevaluate": reevaluate,
    "overoptimisation": partial(overoptimisation, train=ppo),
}


def composition_named(name: str) -> Composition:
    """Look a flow's composition up.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in COMPOSITIONS:
        raise UsageError(f"There is no flow '{name}'.", did_you_mean(name, COMPOSITIONS))
    return COMPOSITIONS[name]
