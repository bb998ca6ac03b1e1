"""A critic on the policy's trunk: one backbone, one pass, one joint loss; and one frozen base under all adapters."""

from dataclasses import replace

import pytest
import torch

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.models.config import LoraConfig
from alpaca_farm_core.models.heads import ValueModel
from alpaca_farm_core.models.loading import LoadedModel, reward_model_from_policy
from alpaca_farm_core.models.lora import adapt, read_adapters, save_adapters, sharing_weights
from tests.methods import toy
from tests.methods.test_ppo import prepare, update
from tests.models.test_smollm2 import real_model

SHARED = {"critic": "shared_trunk"}
ROWS = list(range(12))


def stir_head(algorithm):
    torch.manual_seed(0)
    torch.nn.init.normal_(algorithm.value_head.weight, std=0.3)
    torch.nn.init.constant_(algorithm.value_head.bias, 0.1)


def straightforward(setup, algorithm, judged, targets, row, config):
    """The joint loss of one response from whole logits, every formula written out."""
    prompt, response = judged.responses.prompt_ids[row], judged.responses.response_ids[row]
    n = len(response)
    output = setup.policy.model(torch.tensor([prompt + response]), output_hidden_states=True)
    before = slice(len(prompt) - 1, -1)
    logprobs = torch.log_softmax(output.logits[0, before], -1)[torch.arange(n), torch.tensor(response)]
    values = output.hidden_states[-1][0, before] @ algorithm.value_head.weight[0] + algorithm.value_head.bias
    advantages, old = targets.advantages_NR[row, :n], judged.logprobs_NR[row, :n]
    ratio = (logprobs - old).exp()
    actor = -torch.minimum(advantages * ratio, advantages * ratio.clamp(0.8, 1.2)).sum()
    old_values, returns = targets.values_NR[row, :n], targets.returns_NR[row, :n]
    near = old_values + (values - old_values).clamp(-0.2, 0.2)
    critic = 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2).sum()
    return actor + config.vf_coef * critic


def test_the_gradient_is_that_of_the_joint_loss_written_out(world, tmp_path):
    algorithm, setup, judged, objective = prepare(world, tmp_path, vf_coef=0.7, **SHARED)
    stir_head(algorithm)  # the values of the rollout are 0: the clipped branch is met too
    trained = [*setup.policy.parameters, *algorithm.learners["critic"].parameters]
    update(algorithm, setup, objective).accumulate(ROWS)
    found = [parameter.grad.clone() for parameter in trained]
    loss = sum(straightforward(setup, algorithm, judged, objective.targets, row, algorithm.config) for row in ROWS)
    expected = torch.autograd.grad(loss / judged.mask_NR.sum(), trained)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)
    assert any(gradient.abs().max() > 1e-3 for gradient in found)


@pytest.mark.parametrize("budget", [1, 200])
def test_micro_batches_do_not_change_the_gradient(world, tmp_path, budget):
    def gradients(tokens):
        execution = toy.EXECUTION.model_copy(update={"micro_batch_tokens": tokens})
        algorithm, setup, _, objective = prepare(world, tmp_path, execution, **SHARED)
        stir_head(algorithm)
        update(algorithm, setup, objective).accumulate(ROWS)
        return [parameter.grad for learner in algorithm.learners.values() for parameter in learner.parameters]

    for mine, theirs in zip(gradients(budget), gradients(10_000), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_values_of_the_rollout_are_the_head_on_the_policys_states(world, tmp_path):
    algorithm, setup, judged, _ = prepare(world, tmp_path, **SHARED)
    assert (judged.values_NR == 0).all()
    stir_head(algorithm)
    model, responses = setup.policy.model, judged.responses
    scores, values = setup.passes.all_scores_and_values(model, algorithm.value_head, responses, 1.0, responses.width())
    assert torch.equal(scores.logprobs_BT, judged.logprobs_NR)
    for row in ROWS:
        prompt, response = responses.prompt_ids[row], responses.response_ids[row]
        with torch.no_grad():
            states = model(torch.tensor([prompt + response]), output_hidden_states=True).hidden_states[-1][0]
            expected = algorithm.value_head(states[len(prompt) - 1 : -1])
        torch.testing.assert_close(values[row, : len(response)], expected, atol=1e-5, rtol=1e-5)
        assert (values[row, len(response) :] == 0).all()


def test_the_backbone_runs_once_per_micro_batch(world, tmp_path):
    algorithm, setup, judged, objective = prepare(world, tmp_path, **SHARED)
    backbone, calls = setup.policy.model.base_model, []
    backbone.embed_tokens.register_forward_hook(lambda *_: calls.append(1))
    parts = list(setup.passes.micro_batches(judged.responses, ROWS))
    update(algorithm, setup, objective).accumulate(ROWS)
    assert len(calls) == len(parts) > 1


def test_killed_it_resumes_to_the_same_bits_and_learns(world, store_pair):
    one, other = store_pair
    whole = toy.ppo(one, world, **SHARED)
    with pytest.raises(toy.Killed):
        toy.ppo(other, world, progress=toy.KillAt(2), **SHARED)
    assert toy.ppo(other, world, **SHARED).manifest.semantic() == whole.manifest.semantic()
    rows = list(read_jsonl(whole.path / "metrics.jsonl"))
    assert rows[0]["kl"] == 0
    assert rows[-1]["value_error"] < rows[0]["value_error"]


def test_rewards_without_a_model_need_no_other_setting():
    reward = {"kind": "function", "name": "x"}
    assert PPOConfig.build({"reward": reward, **SHARED}).critic_init == "reward_model"


@pytest.fixture
def store_pair(tmp_path):
    return Store(tmp_path / "one"), Store(tmp_path / "other")


# --- copies


def held(*models):
    """Distinct stored numbers of models: those of the frozen base, and all others."""
    frozen, trained = {}, {}
    for model in models:
        for parameter in model.parameters():
            (trained if parameter.requires_grad else frozen)[parameter.data_ptr()] = parameter.numel()
    return sum(frozen.values()), sum(trained.values())


@pytest.fixture
def lora_reward_world(world, tmp_path):
    """The toy world with a reward model of adapters over its policy."""
    store = Store(tmp_path / "lora")
    reward = toy.reward_model(store, world.policy, world.preferences, lora={"rank": 2})
    return replace(world, reward_model=reward)


@pytest.mark.parametrize("critic", ["separate", "shared_trunk"])
def test_adapters_of_policy_critic_and_reward_model_lie_over_one_base(lora_reward_world, tmp_path, critic):
    algorithm, setup, *_ = prepare(lora_reward_world, tmp_path, critic=critic, lora={"rank": 2})
    base = sum(parameter.numel() for parameter in setup.reference.parameters())  # tied embeddings count once
    critic_model = algorithm.critic or algorithm.value_head
    frozen, trained = held(setup.reference, setup.policy.model, setup.reward_model, critic_model)
    reward_own = sum(
        p.numel() for name, p in setup.reward_model.named_parameters() if "lora_" in name or "score" in name
    )
    assert frozen == base + reward_own
    assert trained == sum(p.numel() for learner in algorithm.learners.values() for p in learner.parameters)


def test_without_adapters_a_shared_trunk_adds_a_head_only(world, tmp_path):
    algorithm, setup, *_ = prepare(world, tmp_path, **SHARED)
    _, trained = held(setup.policy.model, algorithm.value_head)
    assert trained == sum(p.numel() for p in setup.policy.model.parameters()) + 32 + 1


@pytest.mark.slow
@real_model
def test_smollm2_with_its_tied_embeddings_is_held_once(tmp_path):
    from alpaca_farm_core.models.smollm2 import load_smollm2

    model, tokenizer = load_smollm2(torch.float32)
    base = sum(parameter.numel() for parameter in model.parameters())
    assert base == 134_515_008
    lora = LoraConfig(rank=4)
    reference = model.requires_grad_(False)
    policy = sharing_weights(reference)
    adapt(policy, lora, seed=0)
    reward = reward_model_from_policy(LoadedModel(reference, tokenizer, None), seed=0).model
    adapt(reward, lora, seed=1)
    save_adapters(reward, lora, tmp_path)
    plain = reward_model_from_policy(LoadedModel(reference, tokenizer, None), seed=0).model
    read_adapters(plain, tmp_path, reference)
    plain.requires_grad_(False)
    critic = ValueModel.from_model(plain, share=True).requires_grad_(True)
    adapt(critic.backbone, lora, seed=2)
    frozen, trained = held(reference, policy, plain, critic)
    adapters = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    assert frozen == base + adapters + 576  # the reward model's adapters and head
    assert trained == 2 * adapters + 577  # policy, critic, value head
    assert policy.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
