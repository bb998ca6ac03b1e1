"""The preset `alpaca-7b`: AlpacaFarm's own recipe. The defaults are its values; here is what they leave open."""

from __future__ import annotations

from alpaca_farm_core.config.presets.preset import COMPUTING, Preset, each, group

ALPACA_7B = Preset(
    "alpaca-7b",
    "The paper's recipe: LLaMA-7B and the hub's AlpacaFarm data, on 8 GPUs.",
    {
        **group("AlpacaFarm's own splits", dataset__source="tatsu-lab/alpaca_farm"),
        **group(
            "the paper's base model; set your own folder if you have converted weights",
            sft__model__source="huggyllama/llama-7b",
        ),
        **each(COMPUTING, "bf16, as in AlpacaFarm's scripts", precision="bfloat16"),
        **group("AlpacaFarm's rewards are read without EOS", reward_model__eos=False),
        **group("a quarter of the labels flipped, as people disagree", preferences__annotator__label_flip=0.25),
        **group(
            "the paper's pool of thirteen annotators, on current models",
            preferences__annotator__name="pool",
            evaluate__annotator__name="pool",
        ),
        **group("the best checkpoints lie between steps 20 and 80", ppo__steps=80),
        **group("the paper's table is of best-of-1024; its README recipe takes 16", best_of_n__n=1024),
        **group("the paper's own model and data", comparison__paper_table=True),
    },
)
