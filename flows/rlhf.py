"""The flow of the paper, whole and by parts, as Prefect flows with one short form.

Every flow takes a preset, an annotator, a run name and dotted overrides; what they compose is in
`flows.compositions`.
"""

from __future__ import annotations

from typing import Any

from prefect import Flow, flow
from prefect.client.schemas.objects import State

from alpaca_farm_core.methods.registry import methods
from flows.launch import NO_OVERRIDES, ComparedName, MethodName, PresetName, launch
from flows.reevaluate import reevaluate


@flow(name="rlhf", persist_result=False)
def rlhf(
    preset: PresetName = "meadow",
    method: MethodName = "ppo",
    annotator: str | None = None,
    run_name: str | None = None,
    overrides: dict[str, Any] = NO_OVERRIDES,
    budget_usd: float | None = None,
    retry_missing: bool = False,
) -> State:
    """Instructions → SFT → simulated preferences → reward model → policy → evaluation → report.

    Args:
        preset: Settings to start from. `meadow` runs anywhere in minutes.
        method: How the policy learns from the preferences.
        annotator: Judge of preferences and evaluation: `oracle` (embedded world only), a built-in LLM annotator,
            or the folder of your own. Empty keeps the preset's.
        run_name: Prefix of the artifacts' names. Empty takes the preset's name.
        overrides: Settings by dotted key, for example {"ppo.kl_coef": 0.02}. `alpaca-farm config show` lists them.
        budget_usd: Most that this run may spend on API calls; it stops cleanly there. Empty keeps the preset's.
        retry_missing: Ask again for annotations that an earlier run could not get.
    """
    return launch("rlhf", preset, annotator, run_name, overrides, retry_missing, budget_usd, method=method)


# Prefect's form takes the descriptions of its fields from here.
_ARGUMENTS = """Args:
    preset: Settings to start from. `meadow` runs anywhere in minutes.
    annotator: Judge of preferences and evaluation: `oracle` (embedded world only), a built-in LLM annotator,
        or the folder of your own. Empty keeps the preset's.
    run_name: Prefix of the artifacts' names. Empty takes the preset's name.
    overrides: Settings by dotted key, for example {"sft.epochs": 2}. `alpaca-farm config show` lists them.
    budget_usd: Most that this run may spend on API calls; it stops cleanly there. Empty keeps the preset's.
    retry_missing: Ask again for annotations that an earlier run could not get.
"""


@flow(name="compare", persist_result=False)
def compare(
    methods: list[ComparedName] | None = None,
    seeds: list[int] | None = None,
    preset: PresetName = "meadow",
    annotator: str | None = None,
    run_name: str | None = None,
    overrides: dict[str, Any] = NO_OVERRIDES,
    budget_usd: float | None = None,
    retry_missing: bool = False,
    api_models: list[str] | None = None,
) -> State:
    """Any methods × seeds on the same data, preferences and reward model → one table with intervals, and a page.

    Args:
        methods: Methods to compare with the SFT model; empty takes all.
        seeds: Each is the whole chain from SFT on; empty takes 0 and 1.
        preset: Settings to start from.
        annotator: Judge of preferences and evaluation. Empty keeps the preset's.
        run_name: Prefix of the artifacts' names. Empty takes the preset's name.
        overrides: Settings by dotted key, for example {"dpo.beta": 0.2}.
        budget_usd: Most that this run may spend on API calls, all methods and seeds together. Empty keeps the preset's.
        retry_missing: Ask again for annotations that an earlier run could not get.
        api_models: Models of the OpenAI-compatible server that answer too, as they are. Empty takes none.
    """
    chosen = {"methods": methods, "seeds": seeds, "api_models": api_models}
    options = {name: value for name, value in chosen.items() if value}
    return launch("compare", preset, annotator, run_name, overrides, retry_missing, budget_usd, **options)


@flow(name="evaluate", persist_result=False)
def evaluate(
    preset: PresetName = "meadow",
    method: MethodName = "ppo",
    model: str | None = None,
    reference: str | None = None,
    annotator: str | None = None,
    run_name: str | None = None,
    overrides: dict[str, Any] = NO_OVERRIDES,
    budget_usd: float | None = None,
    retry_missing: bool = False,
) -> State:
    """… → answers judged against the SFT model's → leaderboard; or any two artifacts of the store.

    Args:
        preset: Settings to start from. `meadow` runs anywhere in minutes.
        method: How the policy learns, where no model is named.
        model: Policy or outputs in the store to evaluate, for example policy/meadow-ppo@v1. Trains nothing.
        reference: What that is compared with: a policy or outputs in the store.
        annotator: Judge. Empty keeps the preset's.
        run_name: Prefix of the artifacts' names. Empty takes the preset's name.
        overrides: Settings by dotted key, for example {"decode.temperature": 0.7}.
        budget_usd: Most that this run may spend on API calls; it stops cleanly there. Empty keeps the preset's.
        retry_missing: Ask again for annotations that an earlier run could not get.
    """
    named = {name: value for name, value in (("model", model), ("reference", reference)) if value}
    options = named or {"method": method}
    return launch("evaluate", preset, annotator, run_name, overrides, retry_missing, budget_usd, **options)


def _part(name: str, summary: str) -> Flow[..., State]:
    def part(
        preset: PresetName = "meadow",
        annotator: str | None = None,
        run_name: str | None = None,
        overrides: dict[str, Any] = NO_OVERRIDES,
        budget_usd: float | None = None,
        retry_missing: bool = False,
    ) -> State:
        return launch(name, preset, annotator, run_name, overrides, retry_missing, budget_usd)

    part.__doc__ = f"{summary}\n\n{_ARGUMENTS}"
    return flow(name=name, persist_result=False)(part)


sft = _part("sft", "Instructions → supervised fine-tuning.")
simulate_preferences = _part("simulate-preferences", "… → pairs sampled from the SFT model → simulated preferences.")
reward_model = _part("reward-model", "… → reward model.")
overoptimisation = _part("overoptimisation", "… → PPO → every kept step judged → proxy, judge and gold against KL.")

FLOWS: dict[str, Flow[..., State]] = {
    **{
        made.name: made
        for made in (
            rlhf,
            compare,
            sft,
            simulate_preferences,
            reward_model,
            evaluate,
            reevaluate,
            overoptimisation,
        )
    },
    **{method.name: _part(method.name, f"… → {method.title}. {method.summary}") for method in methods().values()},
}
"""Flow name → flow; the same names as `flows.compositions.compositions`."""


def __getattr__(name: str) -> Flow[..., State]:
    """A method's flow by its name in Python, as deployments ask for it: `flows/rlhf.py:best_of_n`."""
    found = FLOWS.get(name.replace("_", "-"))
    if found is None:
        raise AttributeError(f"flows.rlhf has no flow '{name}'.")
    return found
