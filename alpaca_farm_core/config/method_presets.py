"""What the presets set for the methods beyond PPO, by preset and dotted key; each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from alpaca_farm_core.config.on_policy_presets import ON_POLICY_SETTINGS
from alpaca_farm_core.config.setting import Setting, group

_BFLOAT16 = {
    "best_of_n__precision": "bfloat16",
    "measure__precision": "bfloat16",
    "expert_samples__precision": "bfloat16",
    "expert_iteration__precision": "bfloat16",
    "reference_logprobs__precision": "bfloat16",
    "dpo__precision": "bfloat16",
    "feedme__precision": "bfloat16",
    "reward_conditioning__precision": "bfloat16",
}

_MEADOW = {
    **group(
        "prompts of few tokens; the world needs no more room",
        best_of_n__max_new_tokens=48,
        measure__max_new_tokens=48,
        expert_samples__max_new_tokens=48,
        expert_iteration__sample_max_new_tokens=48,
        dpo__sample_max_new_tokens=48,
        feedme__sample_max_new_tokens=48,
        reward_conditioning__sample_max_new_tokens=48,
        expert_iteration__max_length=128,
        feedme__max_length=128,
        reward_conditioning__max_length=128,
        reference_logprobs__max_length=128,
    ),
    **group(
        "an answer that does not end is no answer",
        best_of_n__unfinished_penalty=-3.0,
        expert_samples__unfinished_penalty=-3.0,
    ),
    **group(
        "the whole distribution of the policy, so that KL(n) is the KL from the policy itself",
        best_of_n__top_p=1.0,
        expert_samples__top_p=1.0,
    ),
    **group(
        "the temperature of the answers it is compared with: at 1.0 most of the choice undoes sampling errors "
        "(seed 2: gold win rate 56 % against 66 %)",
        best_of_n__temperature=0.7,
        expert_samples__temperature=0.7,
    ),
    **group("a minute of sampling on 2 CPU cores", expert_samples__n=8, expert_samples__limit=2000),
    **group(
        "a fine-tuned nano model moves on at a lower rate than it was trained from scratch with",
        expert_iteration__learning_rate=1e-3,
        expert_iteration__batch_size=32,
        expert_iteration__epochs=2,
        expert_iteration__eval_every=100,
        feedme__learning_rate=1e-3,
        feedme__batch_size=32,
        feedme__epochs=2,
        feedme__eval_every=100,
        reward_conditioning__learning_rate=1e-3,
        reward_conditioning__batch_size=32,
        reward_conditioning__epochs=2,
        reward_conditioning__eval_every=100,
    ),
    **group(
        "many small steps: a nano model has a long way to go",
        dpo__learning_rate=3e-4,
        dpo__batch_size=32,
        dpo__epochs=1,
        dpo__eval_every=50,
    ),
}

_SMOLLM2 = {
    **group(
        "up to twice as fast as float32 on GPUs and on CPUs with avx512_bf16; set float32 on older ones",
        **_BFLOAT16,
    ),
    **group(
        "short answers keep the run on 2 CPU cores well under an hour",
        best_of_n__max_new_tokens=48,
        measure__max_new_tokens=48,
        expert_samples__max_new_tokens=48,
        expert_iteration__sample_max_new_tokens=48,
        dpo__sample_max_new_tokens=48,
        feedme__sample_max_new_tokens=48,
        reward_conditioning__sample_max_new_tokens=48,
    ),
    **group("few samples for few instructions", best_of_n__n=8, expert_samples__n=4, expert_samples__limit=100),
    **group(
        "a few hundred pairs: few steps, so a higher rate",
        dpo__batch_size=8,
        dpo__learning_rate=2e-5,
        dpo__epochs=1,
        dpo__eval_size=60,
        dpo__eval_every=0,
        dpo__warmup_ratio=0.1,
        expert_iteration__batch_size=8,
        expert_iteration__learning_rate=3e-5,
        expert_iteration__epochs=1,
        feedme__batch_size=8,
        feedme__learning_rate=3e-5,
        feedme__epochs=1,
        reward_conditioning__batch_size=8,
        reward_conditioning__learning_rate=3e-5,
        reward_conditioning__epochs=1,
    ),
}

_PAPER = {
    **group("bf16, as in AlpacaFarm's scripts", **_BFLOAT16),
    **group("the paper's own model and data", comparison__paper_table=True),
    **group("the paper's table is of best-of-1024; its README recipe takes 16", best_of_n__n=1024),
}

_QWEN = {
    **group("bf16 arithmetic", **_BFLOAT16),
    **group("a small model learns at a higher rate than 7 B", dpo__learning_rate=5e-6),
}

METHOD_SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "meadow": {**_MEADOW, **ON_POLICY_SETTINGS["meadow"]},
    "meadow-stress": {**_MEADOW, **ON_POLICY_SETTINGS["meadow"]},
    "smollm2": {**_SMOLLM2, **ON_POLICY_SETTINGS["smollm2"]},
    "alpaca-7b": {**_PAPER, **ON_POLICY_SETTINGS["alpaca-7b"]},
    "qwen3-0.6b": {**_QWEN, **ON_POLICY_SETTINGS["qwen3-0.6b"]},
}
