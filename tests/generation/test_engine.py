import math
import types

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.models.logprobs import response_logprobs

PAD, EOS, VOCABULARY = 0, 1, 40


class UniformModel(torch.nn.Module):
    """Gives every token the same logit and counts the rows it is run on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.config = LlamaConfig(num_hidden_layers=1, vocab_size=8)
        self.config._attn_implementation = "sdpa"
        self.dtype = torch.float32
        self.rows: list[int] = []

    def forward(self, input_ids, past_key_values: DynamicCache, **_):
        self.rows.append(len(input_ids))
        states = torch.zeros(len(input_ids), 1, input_ids.shape[1], 2)
        past_key_values.update(states, states, 0)
        return types.SimpleNamespace(logits=torch.zeros(len(input_ids), 1, 8))


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=2,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def some_prompts(n=9, longest=12):
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, longest, (n,), generator=generator).tolist()
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def test_a_uniform_model_draws_every_token_and_reports_its_logprob():
    completions = generate(UniformModel(), [[3]] * 400, list(range(400)), SamplingParams(5), EOS, PAD, batch_size=400)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in completions]), minlength=8)
    assert counts[PAD] == 0
    assert (counts[1:] > 30).all()
    assert all(lp == pytest.approx(-math.log(8)) for c in completions for lp in c.logprobs)
    for completion in completions:
        assert len(completion.token_ids) == len(completion.logprobs) <= 5
        assert (completion.token_ids[-1] == EOS) == completion.finished
        assert EOS not in completion.token_ids[:-1]


def test_finished_rows_leave_the_batch_and_it_stops_when_all_are_done():
    model = UniformModel()
    completions = generate(model, [[3]] * 64, list(range(64)), SamplingParams(200), EOS, PAD, batch_size=64)
    longest = max(len(c.token_ids) for c in completions)
    assert model.rows[0] == 1  # one prefill for 64 samples of one prompt
    assert model.rows[1:] == sorted(model.rows[1:], reverse=True)
    assert model.rows[-1] < 8
    assert len(model.rows) == longest < 200
    assert all(c.finished for c in completions)


@pytest.mark.parametrize("params", [SamplingParams(20), SamplingParams(20, temperature=0.7, top_p=0.9, top_k=10)])
def test_tokens_of_a_row_do_not_depend_on_its_neighbours(llama, params):
    prompts, seeds = some_prompts(), list(range(100, 109))
    together = generate(llama, prompts, seeds, params, EOS, PAD, batch_size=9)
    for batch_size in (1, 2, 4):
        assert [c.token_ids for c in generate(llama, prompts, seeds, params, EOS, PAD, batch_size)] == [
            c.token_ids for c in together
        ]
    order = [5, 2, 8, 0]
    some = generate(llama, [prompts[i] for i in order], [seeds[i] for i in order], params, EOS, PAD)
    assert [c.token_ids for c in some] == [together[i].token_ids for i in order]


def test_looking_seldom_at_what_is_finished_changes_nothing(llama, monkeypatch):
    arguments = (llama, some_prompts(), list(range(9)), SamplingParams(120), EOS, PAD)
    expected = generate(*arguments)
    assert len({len(c.token_ids) for c in expected}) > 3
    monkeypatch.setattr("alpaca_farm_core.generation.engine.LOOK_EVERY_ON_CPU", 8)
    assert [c.token_ids for c in generate(*arguments)] == [c.token_ids for c in expected]


def test_same_call_same_bits(llama):
    prompts = some_prompts()
    first, second = (generate(llama, prompts, list(range(9)), SamplingParams(10), EOS, PAD, 4) for _ in range(2))
    assert first == second


def greedy_reference(model, prompts, n):
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=PAD,
            eos_token_id=EOS, suppress_tokens=[PAD],
        )  # fmt: skip
        expected.append(output[0, len(prompt) :].tolist())
    return expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_greedy_equals_transformers_generate(llama, attention):
    llama.set_attn_implementation(attention)
    prompts = some_prompts()
    ours = generate(llama, prompts, [0] * 9, SamplingParams(30, temperature=0), EOS, PAD, batch_size=5)
    assert [c.token_ids for c in ours] == greedy_reference(llama, prompts, 30)
    llama.set_attn_implementation("sdpa")


def test_greedy_equals_transformers_generate_with_a_sliding_window():
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, sliding_window=6, pad_token_id=PAD, eos_token_id=EOS,
        initializer_range=0.3,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    prompts = some_prompts()
    ours = generate(model, prompts, [0] * 9, SamplingParams(12, temperature=0), EOS, PAD, batch_size=9)
    assert [c.token_ids for c in ours] == greedy_reference(model, prompts, 12)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_full_forward_pass(llama, temperature):
    prompts = some_prompts()
    params = SamplingParams(20, temperature=temperature, top_p=0.9)
    for prompt, completion in zip(prompts, generate(llama, prompts, list(range(9)), params, EOS, PAD), strict=True):
        ids = torch.tensor([prompt + completion.token_ids])
        mask = torch.arange(ids.shape[1])[None] >= len(prompt)
        with torch.no_grad():
            scores = response_logprobs(llama, ids, torch.ones_like(ids), mask, temperature).logprobs_BT
        torch.testing.assert_close(torch.tensor(completion.logprobs), scores[0, len(prompt) :], atol=1e-5, rtol=1e-5)


def test_samples_of_one_prompt_share_a_prefill_and_equal_those_of_single_calls(llama):
    prompts = [p for p in some_prompts(3) for _ in range(4)]
    together = generate(llama, prompts, list(range(12)), SamplingParams(15), EOS, PAD, batch_size=12)
    alone = [generate(llama, [p], [s], SamplingParams(15), EOS, PAD)[0] for s, p in enumerate(prompts)]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert len({tuple(c.token_ids) for c in together[:4]}) > 1


def test_more_tokens_than_one_block_of_the_cache(llama):
    params = SamplingParams(150, temperature=0)
    (ours,) = generate(llama, [[5, 6]], [0], params, eos_id=-1, pad_id=PAD)
    assert len(ours.token_ids) == 150
    assert not ours.finished
    ids = torch.tensor([[5, 6]])
    theirs = llama.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=150, do_sample=False, suppress_tokens=[PAD],
        eos_token_id=None, pad_token_id=PAD,
    )  # fmt: skip
    assert ours.token_ids == theirs[0, 2:].tolist()


def test_progress_hears_of_every_row(llama):
    heard = []
    generate(
        llama, some_prompts(), [0] * 9, SamplingParams(2), EOS, PAD, 4, on_done=lambda done: heard.append(len(done))
    )
    assert heard == [4, 4, 1]


def test_an_empty_prompt_is_refused(llama):
    with pytest.raises(ValueError, match="empty"):
        generate(llama, [[]], [0], SamplingParams(2), EOS, PAD)
