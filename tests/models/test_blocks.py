"""Blocks as this project runs them: their formulas, states and gradients of transformers' blocks, what is spared."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from alpaca_farm_core.models.backbone import before, hidden_states, plain_hidden_states
from alpaca_farm_core.models.blocks import runs_blocks
from alpaca_farm_core.models.config import LoraConfig
from alpaca_farm_core.models.fused import chosen_logprobs, gated, rms_norm, rotate
from alpaca_farm_core.models.lora import adapt
from alpaca_farm_core.models.packing import packing_obstacle
from alpaca_farm_core.models.recompute import recompute_activations

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64,
}  # fmt: skip
KINDS = {
    "llama": LlamaConfig(**SIZES),
    "llama 3's angles": LlamaConfig(
        **SIZES,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama with another activation": LlamaConfig(**SIZES, hidden_act="gelu"),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),  # biases of queries, keys and values
    "qwen3": Qwen3Config(**SIZES, head_dim=16),  # norms of queries and keys, heads wider than hidden / heads
}  # fmt: skip
ROWS = [[7, 3, 9, 9, 1, 4, 22, 41, 5, 6, 11, 12, 13], [50, 51], [7, 3, 9, 9, 1, 4, 22, 41, 5, 6, 11, 30], [44] * 12]


def make(config):
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


@pytest.fixture(params=KINDS)
def model(request):
    return make(KINDS[request.param])


def padded():
    width = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in ROWS])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ROWS])


def test_the_norm_is_the_formula_and_its_gradient_the_numerical_one():
    torch.manual_seed(0)
    x, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 5, 8), (8,)))
    wanted = weight * x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), wanted)
    assert torch.autograd.gradcheck(lambda *both: rms_norm(*both, 1e-5), (x, weight))


@pytest.mark.parametrize("trained", [(True, False), (False, True)])
def test_a_norm_gives_the_gradient_that_is_asked_for(trained):
    torch.manual_seed(0)
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 8), (8,)))
    parts = [part.requires_grad_(asked) for part, asked in zip((x, weight), trained, strict=True)]
    assert torch.autograd.gradcheck(lambda *both: rms_norm(*both, 1e-5), parts)


def test_a_gate_is_the_formula_and_its_gradient_the_numerical_one():
    torch.manual_seed(0)
    gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    wanted = gate / (1 + torch.exp(-gate)) * up
    torch.testing.assert_close(gated(gate, up), wanted)
    with torch.no_grad():
        torch.testing.assert_close(gated(gate, up), wanted)
    assert torch.autograd.gradcheck(gated, (gate, up))


def test_a_watched_activation_is_called():
    model = make(KINDS["llama"])
    ids, mask = padded()
    hidden_states(model, ids, mask)  # the probe is over
    for block in model.base_model.layers:
        block.mlp.act_fn.register_forward_hook(lambda module, inputs, output: output * 0)
    assert runs_blocks(model.base_model)
    agree(model, hidden_states(model, ids, mask), plain_hidden_states(model.base_model, ids, mask), mask)


def test_a_norm_in_bfloat16_is_taken_in_float32():
    torch.manual_seed(0)
    x, weight = torch.randn(4, 64, dtype=torch.bfloat16), torch.randn(64, dtype=torch.bfloat16)
    exact = x.float() / torch.sqrt((x.float() ** 2).mean(-1, keepdim=True) + 1e-5)
    assert torch.equal(rms_norm(x, weight, 1e-5), exact.bfloat16() * weight)


def test_rotation_is_a_complex_product_and_its_gradient_turns_back():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(3, 1, 4, dtype=torch.float64)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
    rotated = rotate(x, angles.cos(), angles.sin())
    torch.testing.assert_close(rotated, torch.cat([turned.real, turned.imag], -1))
    assert torch.autograd.gradcheck(lambda x: rotate(x, angles.cos(), angles.sin()), (x,))


def test_chosen_log_probabilities_and_their_gradient_are_those_of_the_softmax():
    logits = torch.tensor([[0.0, 1.0, -2.0], [3.0, 3.0, 3.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([1, 0])
    chosen = chosen_logprobs(logits, targets)
    normaliser = math.log(1 + math.e + math.exp(-2))
    assert chosen.tolist() == pytest.approx([1 - normaliser, -math.log(3)])
    (chosen * torch.tensor([2.0, -1.0])).sum().backward()
    p = [math.exp(z - normaliser) for z in (0, 1, -2)]
    expected = [[-2 * p[0], 2 - 2 * p[1], -2 * p[2]], [-1 + 1 / 3, 1 / 3, 1 / 3]]
    torch.testing.assert_close(logits.grad, torch.tensor(expected, dtype=torch.float64))


def test_a_second_backward_pass_over_them_is_refused():
    chosen = chosen_logprobs(torch.randn(2, 3, requires_grad=True), torch.tensor([1, 0])).sum()
    chosen.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        chosen.backward()


def gradients(model, states, mask):
    model.zero_grad()
    (states[mask.bool()] * torch.linspace(-1, 1, states.shape[-1])).sum(-1).square().sum().backward()
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


def agree(model, ours, plain, mask):
    torch.testing.assert_close(ours[mask.bool()], plain[mask.bool()], rtol=1e-5, atol=1e-5)
    mine, theirs = gradients(model, ours, mask), gradients(model, plain, mask)
    assert mine.keys() == theirs.keys()
    largest = max(float(part.abs().max()) for part in theirs.values())
    for name, part in theirs.items():
        torch.testing.assert_close(mine[name], part, rtol=0, atol=1e-5 * largest)


def test_states_and_gradients_are_those_of_transformers(model):
    ids, mask = padded()
    assert not packing_obstacle(model)
    assert runs_blocks(model.base_model)
    agree(model, hidden_states(model, ids, mask), plain_hidden_states(model.base_model, ids, mask), mask)


def test_so_they_are_with_blocks_that_run_again():
    model, again = make(KINDS["llama"]), make(KINDS["llama"])
    recompute_activations(again)
    ids, mask = padded()
    for name, part in gradients(model, hidden_states(model, ids, mask), mask).items():
        assert torch.equal(part, gradients(again, hidden_states(again, ids, mask), mask)[name])


def test_so_they_are_with_adapters():
    pytest.importorskip("peft")
    model = make(KINDS["qwen3"])
    adapt(model, LoraConfig(rank=2), seed=1)
    for name, part in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(part, std=0.1)
    ids, mask = padded()
    assert runs_blocks(model.base_model)
    agree(model, hidden_states(model, ids, mask), plain_hidden_states(model.base_model, ids, mask), mask)


def test_wanted_states_and_their_gradients_are_the_same_and_the_others_are_spared():
    model = make(KINDS["llama"])
    ids, mask = padded()
    response = torch.zeros_like(mask, dtype=torch.bool)
    response[0, 10:13] = response[1, 1] = response[2, 10:12] = response[3, 7:12] = True
    wanted = before(response)
    assert wanted[1].nonzero().tolist() == [[0]]
    hidden_states(model, ids, mask)  # the probes are over
    with FlopCounterMode(display=False) as counter:
        some = hidden_states(model, ids, mask, wanted)
    with FlopCounterMode(display=False) as all_of_them:
        every = hidden_states(model, ids, mask)
    assert torch.equal(some[wanted], every[wanted])
    agree(model, some, plain_hidden_states(model.base_model, ids, mask), wanted)
    # Rows 0 and 2 share eleven tokens: 13 + 2 + 1 + 12 in all, of which 3 + 1 + 0 + 5 states are read.
    spared = 2 * (32 * 32 + 3 * 32 * 48) * (28 - 9)
    assert all_of_them.get_total_flops() - counter.get_total_flops() == spared


def test_transformers_own_switch_for_running_blocks_again_is_honoured():
    model = make(KINDS["llama"])
    assert runs_blocks(model.base_model)
    model.base_model.layers[1].gradient_checkpointing = True  # what it sets on every block
    assert not runs_blocks(model.base_model)


def test_a_row_without_tokens_among_others():
    model = make(KINDS["llama"])
    ids, mask = padded()
    mask[1] = 0
    plain = plain_hidden_states(model.base_model, ids, mask)
    torch.testing.assert_close(hidden_states(model, ids, mask)[mask.bool()], plain[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64),
        GemmaConfig(**SIZES, head_dim=8),  # scales embeddings; its norms are 1 + w
        MistralConfig(**SIZES, sliding_window=4),
        SmolLM3Config(**SIZES, pad_token_id=0, initializer_range=0.002),  # Llama but for layers without positions
    ],
    ids=["gpt2", "gemma", "window", "smollm3"],
)
def test_other_models_run_as_transformers_has_them(config):
    model = make(config)
    ids, mask = padded()
    assert packing_obstacle(model) or not runs_blocks(model.base_model)
    plain = plain_hidden_states(model.base_model, ids, mask)
    torch.testing.assert_close(hidden_states(model, ids, mask)[mask.bool()], plain[mask.bool()], rtol=1e-4, atol=1e-4)
