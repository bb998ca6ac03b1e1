"""The presets of the embedded world: `meadow`, with values measured on it, and `meadow-stress`."""

from __future__ import annotations

from alpaca_farm_core.config.presets.preset import CONTINUED, ON_POLICY, SAMPLING, Preset, each, group

_ROOM = "prompts of few tokens; the world needs no more room"
_UNFINISHED = "an answer that does not end is no answer"

MEADOW = Preset(
    "meadow",
    "The embedded default: a small world with a known gold utility and a nano model. Minutes on 2 CPU cores.",
    {
        # the world and lengths
        **group(
            "one world for every seed of a run, so that seeds differ in training alone",
            dataset__seed=0,
            dataset__meadow__seed=0,
        ),
        **group(_ROOM, sft__model__template="plain", sft__model__max_length=128),
        **each(SAMPLING, _ROOM, max_new_tokens=48),
        **each(("sft", "dpo", *CONTINUED), _ROOM, sample_max_new_tokens=48),
        **each(("reference_logprobs", *CONTINUED), _ROOM, max_length=128),
        **each(ON_POLICY, _ROOM, max_prompt_tokens=64, max_new_tokens=48),
        # the model
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
        # SFT and preferences
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
            "the oracle errs on about one pair in eight",
            preferences__annotator__oracle_temperature=0.07,
            evaluate__annotator__oracle_temperature=0.07,
        ),
        # methods that learn from samples
        **each(
            ON_POLICY,
            "a minute or two on 2 CPU cores",
            steps=30,
            rollout_batch_size=128,
            minibatch_size=64,
            learning_rate=4e-4,
            eval_prompts=200,
        ),
        **group("a critic learns at a higher rate than the policy", ppo__critic_learning_rate=1e-3),
        **each((*ON_POLICY, "best_of_n", "expert_samples"), _UNFINISHED, unfinished_penalty=-3.0),
        **group("keeps the policy within about a nat of the SFT model, where rewards still hold", ppo__kl_coef=0.3),
        **group("ends where PPO ends, about 0.8 nats from the SFT model", rloo__kl_coef=0.05),
        **group("a quarter of each rollout batch is learnt; four steps make up for it", quark__gradient_steps=4),
        # methods that choose or learn from fixed rows
        **each(
            ("best_of_n", "expert_samples"),
            "the whole distribution of the policy, so that KL(n) is the KL from the policy itself",
            top_p=1.0,
        ),
        **each(
            ("best_of_n", "expert_samples"),
            "the temperature of the answers it is compared with: at 1.0 most of the choice undoes sampling errors "
            "(seed 2: gold win rate 56 % against 66 %)",
            temperature=0.7,
        ),
        **group("a minute of sampling on 2 CPU cores", expert_samples__n=8, expert_samples__limit=2000),
        **each(
            CONTINUED,
            "a fine-tuned nano model moves on at a lower rate than it was trained from scratch with",
            learning_rate=1e-3,
            batch_size=32,
            epochs=2,
            eval_every=100,
        ),
        **group(
            "many small steps: a nano model has a long way to go",
            dpo__learning_rate=3e-4,
            dpo__batch_size=32,
            dpo__epochs=1,
            dpo__eval_every=50,
        ),
        # execution
        **group("a process of its own would cost more than its stages", execution__own_process="when_needed"),
        **group("layers this narrow gain nothing from a second thread", execution__threads=1),
        **group("a second core is for another method or seed of a comparison", execution__branches=2),
        **group("short rows: many of them fill a decoding step", execution__decode_batch_size=256),
    },
)

MEADOW_STRESS = Preset(
    "meadow-stress",
    "Over-optimisation on purpose: the embedded world with few noisy pairs, little KL penalty and a long run.",
    {
        **MEADOW.settings,
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
