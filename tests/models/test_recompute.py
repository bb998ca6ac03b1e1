"""Activation checkpointing changes what is kept, and no bit of what is computed."""

import copy

import pytest
import torch
from torch import nn

from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.models.heads import ValueHead
from alpaca_farm_core.models.recompute import recompute_activations

IDS = torch.arange(24).reshape(2, 12) % 16


def gradients(model):
    model.zero_grad()
    torch.manual_seed(0)  # dropout, where the model has it
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def kept_bytes(model):
    """Bytes of the distinct tensors that the graph of a forward pass keeps, weights aside."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    del loss
    return sum(kept.values())


@pytest.mark.parametrize("training", [True, False])
def test_loss_and_gradients_are_the_same_bits_and_less_is_kept(causal_lm, training):
    plain, again = causal_lm.train(training), copy.deepcopy(causal_lm).train(training)
    recompute_activations(again)
    assert all(torch.equal(a, b) for a, b in zip(gradients(plain), gradients(again), strict=True))
    assert kept_bytes(again) < 0.7 * kept_bytes(plain)


def test_blocks_run_again_in_the_backward_pass_only(causal_lm):
    recompute_activations(causal_lm)
    calls = []
    name, block = next((n, m) for n, m in causal_lm.named_modules() if n.endswith("mlp"))
    block.register_forward_pre_hook(lambda *_: calls.append(name))
    with torch.no_grad():
        causal_lm(IDS)
    assert len(calls) == 1
    gradients(causal_lm)
    assert len(calls) == 3


def test_a_copy_has_blocks_of_its_own(causal_lm):
    recompute_activations(causal_lm)
    other = copy.deepcopy(causal_lm)
    before = gradients(other)
    with torch.no_grad():
        for parameter in causal_lm.parameters():
            parameter.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(other), strict=True))


def test_a_head_is_left_as_it_is_and_a_model_without_blocks_is_refused(causal_lm):
    recompute_activations(ValueHead(causal_lm))
    with pytest.raises(ModelError, match="no blocks"):
        recompute_activations(nn.Sequential(nn.Linear(2, 2)))
