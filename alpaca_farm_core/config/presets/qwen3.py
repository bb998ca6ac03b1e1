"""The preset `qwen3-0.6b`: a current small hub model on one GPU."""

from __future__ import annotations

from alpaca_farm_core.config.presets.preset import COMPUTING, ON_POLICY, Preset, each, group

QWEN3 = Preset(
    "qwen3-0.6b",
    "A current small hub model on one GPU, with AlpacaFarm's data.",
    {
        **group("AlpacaFarm's own splits", dataset__source="tatsu-lab/alpaca_farm"),
        **group("a current base model that fits one GPU", sft__model__source="Qwen/Qwen3-0.6B-Base"),
        **each(COMPUTING, "bf16 arithmetic", precision="bfloat16"),
        **group(
            "a small model learns at a higher rate than 7 B", reward_model__learning_rate=1e-5, dpo__learning_rate=5e-6
        ),
        **each(ON_POLICY, "one GPU holds this many", rollout_batch_size=256, minibatch_size=128, steps=80),
        **group(
            "one strong judge",
            preferences__annotator__name="greedy",
            evaluate__annotator__name="greedy",
        ),
    },
)
