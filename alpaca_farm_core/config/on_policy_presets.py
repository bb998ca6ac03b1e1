"""What the presets set for RLOO, GRPO and Quark, by preset and dotted key; each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.config.setting import Setting, group

_METHODS = ("rloo", "grpo", "quark")


def _all(reason: str, **values: Any) -> dict[str, Setting]:
    """Give each of the three the same values."""
    return group(reason, **{f"{method}__{name}": value for method in _METHODS for name, value in values.items()})


_MEADOW = {
    **_all("prompts of few tokens; the world needs no more room", max_prompt_tokens=64, max_new_tokens=48),
    **_all("as many answers as PPO has", steps=30, rollout_batch_size=128, minibatch_size=64, eval_prompts=200),
    **_all("a nano model learns at a high rate", learning_rate=4e-4),
    **_all("an answer that does not end is no answer", unfinished_penalty=-3.0),
    **group("lets the policy move about two nats from the SFT model, as PPO does", rloo__kl_coef=0.05),
    **group("a quarter of each rollout batch is learnt; four steps make up for it", quark__gradient_steps=4),
}

_SMOLLM2 = {
    **_all("up to twice as fast as float32 on GPUs and on CPUs with avx512_bf16", precision="bfloat16"),
    **_all("short answers keep the run well under an hour", max_prompt_tokens=112, max_new_tokens=48),
    **_all(
        "a short run: few steps, so a higher rate and a short warm-up",
        steps=10,
        rollout_batch_size=32,
        minibatch_size=16,
        eval_prompts=32,
        eval_every=5,
        learning_rate=3e-5,
        warmup_steps=2,
    ),
    **group("lets the policy move a few nats from the SFT model", rloo__kl_coef=0.02),
}

_PAPER = _all("bf16, as in AlpacaFarm's scripts", precision="bfloat16")

_QWEN = {
    **_all("bf16 arithmetic", precision="bfloat16"),
    **_all("one GPU holds this many", rollout_batch_size=256, minibatch_size=128, steps=80),
}

ON_POLICY_SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "meadow": _MEADOW,
    "smollm2": _SMOLLM2,
    "alpaca-7b": _PAPER,
    "qwen3-0.6b": _QWEN,
}
