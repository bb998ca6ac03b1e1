"""Chunked log-probabilities against literal numbers and against the plain computation, gradients included."""

import math

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from alpaca_farm_core.models import logprobs
from alpaca_farm_core.models.logprobs import head_obstacle, response_logprobs, token_logprobs


def plain(model, ids, attention, mask, temperature=1.0):
    """The textbook computation over all of [B, T, V]."""
    positions = (attention.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=attention, position_ids=positions).logits[:, :-1].float() / temperature
    everything = torch.distributions.Categorical(logits=logits)
    chosen = everything.log_prob(ids[:, 1:])
    zero = torch.zeros(())
    wanted = mask[:, 1:]
    pad = torch.nn.functional.pad
    return (
        pad(torch.where(wanted, chosen, zero), (1, 0)),
        pad(torch.where(wanted, everything.entropy(), zero), (1, 0)),
    )


def batch(side="right"):
    """Three rows of 9, 6 and 4 tokens; the responses are their last 4, 3 and 1 tokens."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(3, 9, dtype=torch.long)
    attention, mask = torch.zeros_like(ids), torch.zeros(3, 9, dtype=torch.bool)
    for row, (length, response) in enumerate([(9, 4), (6, 3), (4, 1)]):
        start = 0 if side == "right" else 9 - length
        ids[row, start : start + length] = torch.randint(3, 50, (length,), generator=generator)
        attention[row, start : start + length] = 1
        mask[row, start + length - response : start + length] = True
    return ids, attention, mask


def test_literal_logprobs_and_entropies():
    # The head is the identity, so the hidden states are the logits.
    hidden = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [math.log(3.0), 0.0, -math.inf, -math.inf]]])
    scores = token_logprobs(hidden, lambda x: x, torch.tensor([[2, 0]]))
    torch.testing.assert_close(scores.logprobs_BT, torch.tensor([[-math.log(4), math.log(0.75)]]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(scores.entropies_BT, torch.tensor([[math.log(4), entropy]]))


def test_temperature_divides_the_logits():
    hidden = torch.tensor([[[math.log(9.0), 0.0]]])
    scores = token_logprobs(hidden, torch.eye(2), torch.tensor([[0]]), temperature=2.0)
    torch.testing.assert_close(scores.logprobs_BT, torch.tensor([[math.log(0.75)]]))  # 9 ** (1 / 2) = 3
    with pytest.raises(ValueError, match="must be positive"):
        token_logprobs(hidden, torch.eye(2), torch.tensor([[0]]), temperature=0.0)


def test_nothing_under_the_mask_is_read():
    hidden = torch.full((1, 3, 4), math.nan)
    hidden[0, 1] = 0.0
    mask = torch.tensor([[False, True, False]])
    scores = token_logprobs(hidden, torch.eye(4), torch.tensor([[-100, 1, 10**6]]), mask)
    torch.testing.assert_close(scores.logprobs_BT, torch.tensor([[0.0, -math.log(4), 0.0]]))


def test_an_empty_mask_gives_zeros():
    scores = token_logprobs(torch.zeros(2, 3, 4), torch.eye(4), torch.zeros(2, 3).long(), torch.zeros(2, 3).bool())
    assert scores.logprobs_BT.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("chunk", [0, 1, 3, 8])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_plain_computation_with_gradients(causal_lm, side, chunk, temperature):
    ids, attention, mask = batch(side)
    expected, expected_entropy = plain(causal_lm, ids, attention, mask, temperature)
    (expected * torch.arange(9.0)).sum().backward()
    wanted = {name: weights.grad.clone() for name, weights in causal_lm.named_parameters()}
    causal_lm.zero_grad()
    scores = response_logprobs(causal_lm, ids, attention, mask, temperature, chunk)
    torch.testing.assert_close(scores.logprobs_BT, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.entropies_BT, expected_entropy, rtol=1e-5, atol=1e-5)
    (scores.logprobs_BT * torch.arange(9.0)).sum().backward()
    for name, weights in causal_lm.named_parameters():
        torch.testing.assert_close(weights.grad, wanted[name], rtol=1e-4, atol=2e-4, msg=name)


def test_entropy_has_a_gradient_only_when_asked(causal_lm):
    ids, attention, mask = batch()
    assert not response_logprobs(causal_lm, ids, attention, mask).entropies_BT.requires_grad
    _, expected = plain(causal_lm, ids, attention, mask)
    head = causal_lm.get_output_embeddings().weight
    wanted = torch.autograd.grad(expected.sum(), head)[0]
    for chunk in (0, 2):
        scores = response_logprobs(causal_lm, ids, attention, mask, chunk=chunk, entropy_grad=True)
        found = torch.autograd.grad(scores.entropies_BT.sum(), head)[0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_padding_side_and_neighbours_do_not_matter(causal_lm):
    ids, attention, mask = batch("right")
    together = response_logprobs(causal_lm, ids, attention, mask).logprobs_BT
    left = response_logprobs(causal_lm, *batch("left")).logprobs_BT
    for row, (length, response) in enumerate([(9, 4), (6, 3), (4, 1)]):
        alone = response_logprobs(
            causal_lm, ids[row : row + 1, :length], attention[row : row + 1, :length], mask[row : row + 1, :length]
        ).logprobs_BT[0, -response:]
        torch.testing.assert_close(together[row, length - response : length], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(left[row, -response:], alone, rtol=1e-5, atol=1e-5)


def test_no_more_logits_than_a_chunk_are_ever_alive(causal_lm):
    ids, attention, mask = batch()
    seen = []
    head = causal_lm.get_output_embeddings()
    head_obstacle(causal_lm)
    hook = head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda kept: saved.append(tuple(kept.shape)) or kept, lambda kept: kept
    ):
        scores = response_logprobs(causal_lm, ids, attention, mask, chunk=3)
    scores.logprobs_BT.sum().backward()
    hook.remove()
    # Three chunks of the eight positions; the backward pass begins with the last one and computes the others again.
    assert seen[:3] == [(2, 50), (3, 50), (3, 50)]
    assert seen[3:] == [(3, 50), (2, 50)]
    assert (3, 50) in saved
    assert not {(2, 50), (8, 50)} & set(saved)


def test_one_chunk_runs_the_head_once(causal_lm):
    head_obstacle(causal_lm)
    seen = []
    hook = causal_lm.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[2].shape[0]))
    response_logprobs(causal_lm, *batch()).logprobs_BT.sum().backward()
    hook.remove()
    assert seen == [8]


@pytest.mark.parametrize(("chunk", "sizes"), [(7, [8]), (6, [2, 6]), (4, [4, 4]), (9, [8])])
def test_a_small_rest_goes_with_the_last_chunk(causal_lm, chunk, sizes):
    head_obstacle(causal_lm)
    seen = []
    hook = causal_lm.get_output_embeddings().register_forward_hook(lambda *call: seen.append(call[2].shape[0]))
    with torch.no_grad():
        response_logprobs(causal_lm, *batch(), chunk=chunk)
    hook.remove()
    assert seen == sizes


def test_large_logits_are_no_obstacle_to_the_chunked_head():
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()
    with torch.no_grad():
        model.lm_head.weight *= 1000
    assert head_obstacle(model) == ""


def soft_capped():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.5,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config).eval()


@pytest.mark.parametrize("chunk", [0, 9])
def test_a_model_that_caps_its_logits_goes_through_its_own_forward(chunk):
    model = soft_capped()
    assert "final_logit_softcapping" in head_obstacle(model)
    ids, attention, mask = batch()
    expected, entropy = plain(model, ids, attention, mask)
    expected.sum().backward()
    wanted = {name: weights.grad.clone() for name, weights in model.named_parameters()}
    model.zero_grad()
    scores = response_logprobs(model, ids, attention, mask, chunk=chunk)
    torch.testing.assert_close(scores.logprobs_BT, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.entropies_BT, entropy, rtol=1e-5, atol=1e-5)
    scores.logprobs_BT.sum().backward()
    for name, weights in model.named_parameters():
        torch.testing.assert_close(weights.grad, wanted[name], rtol=1e-4, atol=1e-4, msg=name)


def test_an_unknown_change_of_the_logits_is_found_by_the_probe(monkeypatch):
    monkeypatch.setattr(logprobs, "_CHANGES_LOGITS", ())
    model = soft_capped()
    model.train()
    model.model.eval()
    assert head_obstacle(model) == "the model's logits are not those of its head"
    assert model.training
    assert not model.model.training


def test_ordinary_models_need_no_detour(causal_lm):
    assert head_obstacle(causal_lm) == ""
