"""RLOO, GRPO and Quark on the loop that they share with PPO."""

import pytest
import torch
from transformers import AutoTokenizer

from alpaca_farm_core.artifacts.files import read_json, read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import ConfigError
from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.methods.registry import methods
from alpaca_farm_core.models.loading import load_policy
from alpaca_farm_core.pipeline.stage import StageContext
from alpaca_farm_core.training.on_policy.setup import set_up
from tests.methods import toy

CONDITIONED = {"train_on": "all", "clear_pool": False, "gradient_steps": 2}
CASES = [("rloo", {}), ("grpo", {}), ("quark", {}), ("quark", CONDITIONED)]
IDS = ["rloo", "grpo", "quark", "quark conditioned"]


@pytest.mark.parametrize(("method", "values"), CASES, ids=IDS)
def test_killed_anywhere_it_resumes_to_the_same_bits(world, store, tmp_path, method, values):
    expected = toy.on_policy(method, store, world, **values)
    for kill_at in (0, 1, 3):
        other = Store(tmp_path / f"killed {kill_at}")
        with pytest.raises(toy.Killed):
            toy.on_policy(method, other, world, progress=toy.KillAt(kill_at), **values)
        progress = toy.KillAt(1000)
        again = toy.on_policy(method, other, world, progress=progress, **values)
        assert f"Resuming after step {kill_at + 1} of 4." in progress.said
        assert again.manifest.semantic() == expected.manifest.semantic()


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_critic_free_methods_hold_no_critic(world, store, method):
    with pytest.raises(toy.Killed):
        toy.on_policy(method, store, world, progress=toy.KillAt(0))
    (checkpoint,) = store.root.rglob("step_00000001/tensors.pt")
    tensors = torch.load(checkpoint, weights_only=True)
    assert set(tensors) == {"policy", "algorithm", "rng"}
    assert tensors["algorithm"] == {}


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_answers_of_a_group_share_their_prompt_and_differ(world, store, method):
    artifact = toy.on_policy(method, store, world, steps=1, log_rollouts=12, temperature=1.5)
    rows = list(read_jsonl(artifact.path / "rollouts.jsonl"))
    groups = [rows[start : start + 3] for start in range(0, 12, 3)]
    assert all(len({row["instruction"] for row in group}) == 1 for group in groups)
    assert len({row["instruction"] for row in rows}) == 4
    assert any(len({row["output"] for row in group}) > 1 for group in groups)


@pytest.mark.parametrize(("method", "values"), [("ppo", {}), *CASES], ids=["ppo", *IDS])
def test_nothing_breaks_when_no_answer_ends_and_all_rewards_are_equal(world, store, method, values):
    """One token at random is not EOS here: all get the penalty, and there is nothing to tell them apart."""
    artifact = toy.on_policy(method, store, world, max_new_tokens=1, temperature=50.0, steps=2, **values)
    rows = list(read_jsonl(artifact.path / "metrics.jsonl"))
    assert [row["unfinished_share"] for row in rows] == [1, 1]
    assert [row["penalised_reward"] for row in rows] == [-1, -1]
    if method in ("rloo", "grpo"):
        assert rows[0]["equal_groups_share"] == 1
        assert rows[0]["policy_grad_norm"] < 1e-4
    if method == "quark":
        assert rows[0]["empty_quantiles"] == 3


def test_a_conditioned_policy_asks_for_the_best_and_never_answers_with_a_reward_token(world, store):
    artifact = toy.on_policy("quark", store, world, **CONDITIONED)
    assert read_json(artifact.path / "prompt_template.json")["without_input"].endswith("<|reward_0|>")
    tokenizer = AutoTokenizer.from_pretrained(artifact.path)
    best = tokenizer.convert_tokens_to_ids("<|reward_0|>")
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Say eagle."}], tokenize=True)["input_ids"]
    assert chat[-1] == best
    loaded = load_policy(artifact.path, toy.EXECUTION)
    loaded.model.lm_head.weight.data[best:] = loaded.model.lm_head.weight.data[:1].sign()
    params = SamplingParams(20, temperature=5.0)
    drawn = generate(loaded.model, [[5, best]] * 8, list(range(8)), params, tokenizer.eos_token_id, 0)
    assert max(token for completion in drawn for token in completion.token_ids) < best
    rows = list(read_jsonl(artifact.path / "metrics.jsonl"))
    assert [row["pool_size"] for row in rows] == [12, 24, 36, 48]


def test_quark_keeps_only_the_best_quantile_and_the_newest_answers(world, store):
    artifact = toy.on_policy("quark", store, world, unfinished_penalty=None)
    rows = list(read_jsonl(artifact.path / "metrics.jsonl"))
    assert [row["pool_size"] for row in rows] == [12] * 4
    assert [row["learnt_share"] for row in rows] == [0.25] * 4
    assert all(row["learnt_reward"] > row["reward"] for row in rows)


def test_the_sampled_kl_and_the_original_numerics_run(world, store):
    sampled = toy.on_policy("quark", store, world, kl="sampled", entropy_coef=0.01, steps=2)
    rows = list(read_jsonl(sampled.path / "metrics.jsonl"))
    assert rows[0]["kl_loss"] == 0  # nothing has moved yet
    assert rows[1]["kl_loss"] > 0
    original = toy.on_policy("quark", store, world, paper_compat=True, train_on="all", steps=2)
    rows = list(read_jsonl(original.path / "metrics.jsonl"))
    assert rows[0]["empty_quantiles"] == 0


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("rloo", {"group_size": 5}, "multiple of group_size 5"),
        ("grpo", {"group_size": 1}, "group_size"),
        ("quark", {"n_quantiles": 13}, "cannot fill n_quantiles 13"),
        ("quark", {"train_on": "all", "lora": {"rank": 2}}, "embeddings"),
        ("ppo", {"reward": {"kind": "http", "name": "x"}}, "critic_init = 'policy'"),
        ("rloo", {"reward": {"kind": "function"}}, "needs reward.name"),
    ],
)
def test_contradictions_in_the_config(method, values, message):
    base = {"ppo": toy.PPO_VALUES, "quark": toy.QUARK_VALUES}.get(method, toy.GROUP_VALUES)
    with pytest.raises(ConfigError, match=message):
        methods()[method].stages[-1].config_class.build({**base, **values})


def test_a_prompt_with_a_token_on_top_still_fits(world, tmp_path):
    config = methods()["quark"].stages[-1].config_class.build({**toy.QUARK_VALUES, "max_new_tokens": 226})
    inputs = {"policy": world.policy, "reward_model": world.reward_model, "data": world.data}
    context = StageContext(config, inputs, tmp_path, tmp_path, tmp_path, toy.EXECUTION)
    for tokens in ((), ("<|reward_0|>",)):
        setup = set_up(context, tokens)
        room = setup.reference.config.max_position_embeddings - 226 - len(tokens)
        assert max(map(len, setup.prompts.token_ids)) <= room < 40
