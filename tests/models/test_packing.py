"""Packed rows: the same hidden states and gradients as the padded pass; each shared prefix once."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from alpaca_farm_core.models.backbone import hidden_states, plain_hidden_states
from alpaca_farm_core.models.packing import Piece, lay_out, micro_batches, packed_hidden_states, packing_obstacle

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
PROMPT = [7, 3, 9, 9, 1, 4, 22, 41, 5, 6]
ROWS = [
    [*PROMPT, 11, 12, 13],
    [50, 51],
    [*PROMPT, 11, 30],
    [*PROMPT, 59, 58, 57, 56, 55],
    [44] * 12,
]


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(3)
    config = LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=64)
    return LlamaForCausalLM(config).eval()


def padded(rows, left=False):
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        ids[index, place], mask[index, place] = torch.tensor(row), 1
    return ids, mask


def test_a_prefix_lies_there_once_and_short_ones_are_not_shared():
    order, pieces = lay_out(ROWS)
    assert order == [0, 2, 3, 4, 1]  # lexicographic
    # the common prefix of rows 0 and 2 is one token longer than the prompt
    assert pieces == [Piece(0, 13), Piece(31, 2), Piece(13, 1, 0, 11), Piece(14, 5, 0, 10), Piece(19, 12)]


def test_equal_rows_keep_a_last_token_of_their_own():
    order, pieces = lay_out([[1] * 9, [1] * 9])
    assert (order, pieces) == ([0, 1], [Piece(0, 9), Piece(9, 1, 0, 8)])


@pytest.mark.parametrize("left", [False, True])
def test_states_and_gradients_are_those_of_each_row_alone(llama, left):
    ids, mask = padded(ROWS, left)
    weights = torch.linspace(-1, 1, 32)

    def gradients(states):
        llama.zero_grad()
        sum((part @ weights).square().sum() for part in states).backward()
        return [parameter.grad.clone() for parameter in llama.model.parameters()]

    packed = packed_hidden_states(llama.model, ids, mask)
    ours = [packed[index][mask[index].bool()] for index in range(len(ROWS))]
    alone = [plain_hidden_states(llama.model, torch.tensor([row]), torch.ones(1, len(row)).long())[0] for row in ROWS]
    for mine, theirs in zip(ours, alone, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(gradients(ours), gradients(alone), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))
    assert not packed[~mask.bool()].any()


def test_the_linear_layers_see_real_tokens_only_and_each_prefix_once(llama):
    seen = []
    feed = llama.model.layers[0].mlp
    hook = feed.gate_proj.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    packing_obstacle(llama)  # its own probe is over
    seen.clear()
    hidden_states(llama, *padded(ROWS))
    hook.remove()
    assert seen == [(13 + 1 + 5 + 12 + 2, 32)]


def test_models_whose_attention_is_another_are_padded():
    torch.manual_seed(0)
    window = MistralConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, sliding_window=4)
    assert "window" in packing_obstacle(MistralForCausalLM(window))
    eager = LlamaConfig(**SIZES, intermediate_size=48, attn_implementation="eager")
    assert "eager" in packing_obstacle(LlamaForCausalLM(eager))
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    ids, mask = padded(ROWS)
    wanted = plain_hidden_states(gpt2.base_model, ids, mask)
    torch.testing.assert_close(hidden_states(gpt2, ids, mask)[mask.bool()], wanted[mask.bool()], rtol=1e-4, atol=1e-4)


def test_micro_batches_count_padding_only_where_there_is_any(llama):
    lengths = [10, 1, 9, 1, 1]
    assert micro_batches(llama, lengths, 12) == [[0, 1, 3], [2, 4]]
    eager = LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=48, attn_implementation="eager"))
    assert micro_batches(eager, lengths, 12) == [[0], [2], [1, 3, 4]]
