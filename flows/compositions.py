"""The studies, as plain compositions of stages: each reads like figure 1 of the paper.

A composition takes a runner and returns the handles of what it made, by name. It knows no Prefect:
the same functions run as flows, in plain Python, and as a dry run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.config.study import differences_from_defaults
from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation.report.config import ReportConfig
from alpaca_farm_core.evaluation.sides import trained_on
from alpaca_farm_core.generation.stage import STAGE_API
from alpaca_farm_core.methods.method import Call, Method
from alpaca_farm_core.methods.registry import method_named, methods
from alpaca_farm_core.pipeline.runner import Runner
from flows.overoptimisation import overoptimisation
from flows.reevaluation import reevaluate

Handles = dict[str, Any]
Composition = Callable[..., Mapping[str, Any]]

COMPARED = ("sft", *methods())
"""Methods of a comparison when none are named."""

# Figure 1, up to where the methods part: what all of them share.
SHARED_CALLS: dict[str, Call] = {
    "data": Call("dataset", {}),
    "sft": Call("sft", {"data": "data"}),
    "samples": Call("sample", {"policy": "sft", "data": "data"}),
    "preferences": Call("preferences", {"samples": "samples"}),
    "reward_model": Call("reward_model", {"policy": "sft", "preferences": "preferences"}),
}
_OF_PEOPLE = Call("human_preferences", {})


def shared(run: Runner, *names: str, made: Handles | None = None) -> Handles:
    """Make shared artifacts and what they need, each once; preferences of people where the study names some.

    Args:
        run: The runner.
        names: Keys of `SHARED_CALLS`.
        made: What is there already; added to in place.
    """
    made = {} if made is None else made
    for name in names:
        if name not in made:
            of_people = name == "preferences" and run.study.human_preferences.source
            call = _OF_PEOPLE if of_people else SHARED_CALLS[name]
            shared(run, *call.inputs.values(), made=made)
            made[name] = run(call.stage, **{role: made[source] for role, source in call.inputs.items()})
    return made


def sft(run: Runner) -> Handles:
    """Instructions → supervised fine-tuning."""
    return shared(run, "sft")


def simulate_preferences(run: Runner) -> Handles:
    """… → pairs sampled from the SFT model → simulated preferences; or labels of people, where the study names some."""
    return shared(run, "sft", "preferences")


def reward_model(run: Runner) -> Handles:
    """… → reward model."""
    return shared(run, "reward_model")


def learn(run: Runner, method: Method, made: Handles | None = None) -> Handles:
    """Make what a method needs, then what it yields, under the method's name."""
    made = {} if made is None else made
    calls = method.calls_of(run.study)
    own: Handles = {}
    for place, call in enumerate(calls, start=1):
        shared(run, *(source for source in call.inputs.values() if source not in own), made=made)
        inputs = {role: own.get(source, made.get(source)) for role, source in call.inputs.items()}
        label = method.name if place == len(calls) else call.name
        own[call.name] = run(call.stage, label=label, config=call.config, **inputs)
    *_, last = own
    made.update({method.name if name == last else name: handle for name, handle in own.items()})
    return made


def answers_of(run: Runner, method: Method, made: Handles) -> Any:
    """Answers to the evaluation split: decoded from a policy, or what the method yields itself."""
    if method.yields == "outputs":
        return made[method.name]
    return run("decode", label=method.name, policy=made[method.name], data=made["data"])


def evaluate(run: Runner, method: str = "ppo", model: str = "", reference: str = "") -> Handles:
    """… → answers of the method and of the SFT model → judged against the SFT model's → leaderboard.

    With `model` and `reference`, two policies or outputs in the store, nothing is trained: the one's answers are judged
    against the other's.
    """
    if model or reference:
        return evaluate_named(run, model, reference)
    chosen = method_named(method)
    made = learn(run, chosen)
    answers = {
        "sft": run("decode", label="sft", policy=made["sft"], data=made["data"]),
        method: answers_of(run, chosen, made),
    }
    judged = run("evaluate", label=method, outputs=answers[method], reference=answers["sft"])
    board = run("leaderboard", **{f"evaluation_{method}": judged})
    return {**made, "answers": answers, "evaluation": judged, "leaderboard": board}


def evaluate_named(run: Runner, model: str, reference: str) -> Handles:
    """Artifacts of the store → their answers → judged → leaderboard.

    Raises:
        UsageError: only one of them is named.
        DataError: one is neither a policy nor outputs.
        ArtifactNotFoundError: one is not there, or a policy's dataset is not.
    """
    if not (model and reference):
        raise UsageError("An evaluation has two sides.", "Name both a model and a reference: policies or outputs.")
    sides = [run.store.get(name) for name in (model, reference)]
    policies = [side for side in sides if side.kind == "policy"]
    data = run.held(trained_on(policies[0], run.store)) if policies else None
    answers = []
    for side in sides:
        if side.kind not in ("policy", "outputs"):
            raise DataError(f"{side.reference} is of kind {side.kind}.", "Name an outputs artifact or a policy.")
        held = run.held(side)
        answers.append(run("decode", label=side.name, policy=held, data=data) if side.kind == "policy" else held)
    judged = run("evaluate", label=sides[0].name, outputs=answers[0], reference=answers[1])
    return {"evaluation": judged, "leaderboard": run("leaderboard", **{f"evaluation_{sides[0].name}": judged})}


def rlhf(run: Runner, method: str = "ppo") -> Handles:
    """Run the whole flow: … → report."""
    made = evaluate(run, method)
    shown = {role: made[role] for role in (*SHARED_CALLS, "leaderboard") if role in made}
    if method_named(method).yields == "policy":
        shown["method"] = made[method]
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
        **shown,
    )
    return {**made, "report": report}


def compare(
    run: Runner, methods: Sequence[str] = COMPARED, seeds: Sequence[int] = (0, 1), api_models: Sequence[str] = ()
) -> Handles:
    """Any methods, seed by seed on the same data, preferences and reward model → one table and page.

    A seed is the whole chain from SFT on. What methods share is made once; methods that do not depend on each
    other may run at the same time. API models answer the same instructions once, whatever the seed.
    """
    chosen = [method_named(name) for name in dict.fromkeys(methods) if name != "sft"]
    chosen += [api_model(name) for name in dict.fromkeys(api_models)]
    if not chosen or not seeds:
        raise UsageError("A comparison needs at least one method besides sft, and one seed.", "Give --methods.")
    chains = {seed: run.with_seed(seed) for seed in dict.fromkeys(seeds)}
    bases = dict(zip(chains, run.together([partial(_baseline, chain) for chain in chains.values()]), strict=True))
    roles: Handles = {}
    for seed, base in bases.items():
        roles[f"measured_{seed}_sft"] = base["measured"]
        roles[f"answers_{seed}_sft"] = base["answers"]
    branches = [
        partial(_contender, chain, method, bases[seed], seed) for seed, chain in chains.items() for method in chosen
    ]
    for part in run.together(branches):
        roles |= part
    settings = run.study.section("comparison").model_copy(
        update={"title": run.run_name, "methods": ("sft", *(m.name for m in chosen)), "seeds": tuple(chains)}
    )
    return {"comparison": run("comparison", config=settings, **roles)}


def api_model(name: str) -> Method:
    """A model behind an API as a row of a comparison: it learns nothing and answers the instructions as it is."""

    def calls(study: Any) -> tuple[Call, ...]:
        config = study.section(STAGE_API.name).model_copy(update={"model": name})
        return (Call(STAGE_API.name, {"data": "data"}, config=config),)

    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return Method(f"api-{word}", name, "A model behind an API, as it is.", (STAGE_API,), calls)


def _baseline(run: Runner) -> Handles:
    """What all methods of a seed share, and the SFT model's own answers and figures."""
    made = shared(run, "data", "sft", "preferences", "reward_model")
    answers = run("decode", label="sft", policy=made["sft"], data=made["data"])
    measured = run("measure", label="sft", outputs=answers, reward_model=made["reward_model"])
    return {**made, "answers": answers, "measured": measured}


def _contender(run: Runner, method: Method, base: Handles, seed: int) -> Handles:
    """One method of one seed: learn, answer, judge, measure; handles by the roles of the comparison."""
    made = learn(run, method, {name: base[name] for name in SHARED_CALLS if name in base})
    answers = answers_of(run, method, made)
    judged = run("evaluate", label=method.name, outputs=answers, reference=base["answers"])
    moved = {"policy": made[method.name], "reference": base["sft"], "data": base["data"]}
    measured = run(
        "measure",
        label=method.name,
        outputs=answers,
        reward_model=base["reward_model"],
        **(moved if method.yields == "policy" else {}),
    )
    on_the_way = [handle for name, handle in made.items() if name not in SHARED_CALLS and name != method.name]
    return {
        f"made_{seed}_{method.name}": made[method.name],
        f"evaluation_{seed}_{method.name}": judged,
        f"measured_{seed}_{method.name}": measured,
        f"answers_{seed}_{method.name}": answers,
        **{f"own_{seed}_{method.name}.{number}": handle for number, handle in enumerate(on_the_way, start=1)},
    }


def compositions() -> dict[str, Composition]:
    """Flow name → composition: the whole flow, its parts, and each method up to its policy or answers."""
    parts: dict[str, Composition] = {
        "rlhf": rlhf,
        "sft": sft,
        "simulate-preferences": simulate_preferences,
        "reward-model": reward_model,
        "evaluate": evaluate,
        "compare": compare,
        "reevaluate": reevaluate,
        "overoptimisation": partial(overoptimisation, train=partial(learn, method=method_named("ppo"))),
    }
    return parts | {name: partial(learn, method=method) for name, method in methods().items()}


def composition_named(name: str) -> Composition:
    """Look a flow's composition up.

    Raises:
        UsageError: there is none of that name.
    """
    known = compositions()
    if name not in known:
        raise UsageError(f"There is no flow '{name}'.", did_you_mean(name, known))
    return known[name]
