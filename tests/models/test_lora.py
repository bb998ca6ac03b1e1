"""Adapters: the same outputs at first, one base for several models, merged on export, refused where they cannot be."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.models.config import LoraConfig
from alpaca_farm_core.models.loading import reward_model_from_policy
from alpaca_farm_core.models.lora import (
    adapt,
    linear_layers,
    load_trained_state,
    merged,
    read_adapters,
    save_adapters,
    sharing_weights,
    trained_state,
)

peft = pytest.importorskip("peft")
LORA = LoraConfig(rank=2)
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def base(nano):
    return nano.model.requires_grad_(False)


@pytest.fixture
def adapted(base):
    model = sharing_weights(base)
    adapt(model, LORA, seed=1)
    return model


def stir(model):
    """Change the adapters as training would."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_fresh_adapters_change_nothing_and_are_all_that_is_trained(base, adapted):
    assert torch.equal(logits(adapted), logits(base))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_the_base_is_shared_and_stays_as_it_was(base, adapted):
    before = copy.deepcopy(base.state_dict())
    other = sharing_weights(base)
    adapt(other, LORA, seed=2)
    stir(adapted)
    assert not torch.allclose(logits(adapted), logits(base))
    assert torch.equal(logits(other), logits(base))
    places = {parameter.data_ptr() for parameter in base.parameters()}
    mine = {p.data_ptr() for p in adapted.parameters() if not p.requires_grad}
    assert mine == places
    assert all(torch.equal(base.state_dict()[name], tensor) for name, tensor in before.items())


def test_the_seed_decides_the_adapters_and_nothing_else_is_drawn(base):
    state = torch.get_rng_state()
    first, second, third = (sharing_weights(base) for _ in range(3))
    for model, seed in ((first, 1), (second, 1), (third, 2)):
        adapt(model, LORA, seed)
    assert torch.equal(torch.get_rng_state(), state)
    a, b, c = (torch.cat([t.flatten() for t in trained_state(m).values()]) for m in (first, second, third))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_merged_computes_the_same_and_is_a_plain_model(base, adapted, tmp_path):
    stir(adapted)
    whole = merged(adapted)
    torch.testing.assert_close(logits(whole), logits(adapted), atol=1e-5, rtol=1e-5)
    assert whole.state_dict().keys() == base.state_dict().keys()
    whole.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(whole))
    assert merged(base) is base


def test_the_trained_state_is_small_and_comes_back(base, adapted):
    stir(adapted)
    state = copy.deepcopy(trained_state(adapted))
    assert sum(t.numel() for t in state.values()) < 0.2 * sum(t.numel() for t in base.state_dict().values())
    expected = logits(adapted)
    stir(adapted)
    load_trained_state(adapted, state)
    assert torch.equal(logits(adapted), expected)
    assert trained_state(base.requires_grad_(True)).keys() == base.state_dict().keys()


@pytest.mark.parametrize(
    ("targets", "message"), [(("qq_proj",), "names qq_proj"), (("q_proj", "lm_head"), "names lm_head")]
)
def test_target_modules_that_do_not_exist(base, targets, message):
    with pytest.raises(ModelError, match=message) as caught:
        adapt(base, LoraConfig(rank=2, targets=targets), seed=0)
    assert "q_proj" in caught.value.next_action


def test_all_linear_means_the_backbone(base):
    assert linear_layers(base) == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_a_reward_model_of_adapters_comes_back_over_the_policys_base(nano, tmp_path):
    reward = reward_model_from_policy(nano, seed=1).model
    adapt(reward, LORA, seed=1)
    reward.score.requires_grad_(True)
    stir(reward)
    save_adapters(reward, LORA, tmp_path)
    whole = merged(reward)
    expected = logits(whole)
    read_adapters(whole, tmp_path, nano.model)
    torch.testing.assert_close(logits(whole), expected, atol=1e-5, rtol=1e-5)
    assert next(whole.model.parameters()).data_ptr() == next(nano.model.model.parameters()).data_ptr()
