import math
import random
import types
from functools import partial

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen3Config,
)

from alpaca_farm_core.generation.cache import make_cache
from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.generation.step import _through_blocks, _through_forward, make_step
from alpaca_farm_core.models import products
from alpaca_farm_core.models.logprobs import response_logprobs

PAD, EOS, VOCABULARY = 0, 1, 40
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3,
}  # fmt: skip
KINDS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),  # biases
    "qwen3": Qwen3Config(**SIZES, head_dim=16),  # norms of queries and keys
}


class UniformModel(torch.nn.Module):
    """Gives every token the same logit and counts the prompts of its prefills and the rows of its steps."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.config = LlamaConfig(num_hidden_layers=1, vocab_size=8)
        self.config._attn_implementation = "sdpa"
        self.dtype = torch.float32
        self.prompts: list[int] = []
        self.rows: list[int] = []

    def forward(self, input_ids, past_key_values: DynamicCache, **_):
        (self.rows if past_key_values.get_seq_length() else self.prompts).append(len(input_ids))
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
    assert model.prompts == [1]  # one prefill for 64 samples of one prompt
    assert model.rows == sorted(model.rows, reverse=True)
    assert model.rows[-1] < 8
    assert len(model.rows) == longest - 1 < 199
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


@pytest.mark.parametrize(("attention", "look_every"), [("sdpa", 1), ("eager", 8)])
def test_rows_that_take_the_places_of_others_draw_what_they_draw_alone(llama, attention, look_every, monkeypatch):
    monkeypatch.setattr("alpaca_farm_core.generation.engine.LOOK_EVERY_ON_CPU", look_every)
    llama.set_attn_implementation(attention)
    widths = [1, 2, 2, 3, 3, 3, 9, 40, 90, 4, 5, 60]  # longer prompts than all that is decoded when they come
    limits = [90, 3, 9, 40, 1, 30, 5, 70, 20, 30, 2, 1]
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(2, VOCABULARY, (width,), generator=generator).tolist() for width in widths]
    params, seeds = SamplingParams(90), list(range(50, 62))
    alone = [
        generate(llama, [p], [s], params, -1, PAD, limits=[n])[0]
        for p, s, n in zip(prompts, seeds, limits, strict=True)
    ]
    for batch_size in (2, 9):
        together = generate(llama, prompts, seeds, params, -1, PAD, batch_size, limits=limits)
        assert [c.token_ids for c in together] == [c.token_ids for c in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    llama.set_attn_implementation("sdpa")


def test_a_response_ends_at_its_own_limit_or_before(llama):
    prompts, params = some_prompts(), SamplingParams(80)
    free = generate(llama, prompts, list(range(9)), params, EOS, PAD)
    limit = sorted(len(c.token_ids) for c in free if c.finished)[2]
    cut = generate(llama, prompts, list(range(9)), params, EOS, PAD, limits=[limit] * 9)
    assert {c.finished for c in cut} == {True, False}
    for long, short in zip(free, cut, strict=True):
        assert short.token_ids == long.token_ids[:limit]
        assert short.finished == (EOS in short.token_ids)


def geometric_lengths(n, mean, most):
    """Lengths as those of a trained model's answers: the chance to end is the same after every token."""
    draw = random.Random(0)
    return [min(most, 1 + int(math.log(1 - draw.random()) / math.log(1 - 1 / mean))) for _ in range(n)]


@pytest.mark.parametrize("samples", [1, 16])
def test_decoding_costs_hardly_more_row_steps_than_tokens(samples):
    """Counts, not seconds: rows × decoding steps against drawn tokens, and steps against full batches."""
    batch_size, lengths = 32, geometric_lengths(320, mean=30, most=90)
    prompts = [[3 + row // samples % 5] * (1 + row // samples % 40) for row in range(320)]
    model = UniformModel()
    generate(model, prompts, list(range(320)), SamplingParams(90), -1, PAD, batch_size, limits=lengths)
    needed = sum(lengths) - len(lengths)  # a prefill gives each first token
    assert sum(model.rows) == needed, "rows that are done must leave the batch at once"
    assert len(model.rows) <= 1.45 * needed / batch_size, "free places must be taken by waiting prompts"
    assert sum(model.prompts) == len({tuple(prompt) for prompt in prompts}), "samples of a prompt share its prefill"


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


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_through_our_blocks_give_the_logits_of_the_models_own(kind, copying, monkeypatch):
    monkeypatch.setattr(products, "BEYOND_CACHE", 0)  # a model that no cache holds
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS[kind], attn_implementation="sdpa").eval()
    lengths = torch.tensor([7, 3, 9, 5, 1])
    cache = make_cache(model.config, 5, 20)
    ours = make_step(model, cache, True, steps=20 if copying else 3)
    theirs = partial(_through_forward, model, cache, True)
    assert isinstance(ours.args[2], products.Panels) == copying
    assert ours.func is _through_blocks
    prefilled = DynamicCache(config=model.config)
    mask = torch.arange(9)[None] >= 9 - lengths[:, None]
    ids = torch.randint(2, VOCABULARY, (5, 9))
    with torch.no_grad():
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        model(input_ids=ids, attention_mask=mask.long(), position_ids=positions, past_key_values=prefilled)
        cache.add(prefilled, torch.arange(5), 9)
        for step in range(3):
            seen = torch.nn.functional.pad(mask, (0, step + 1), value=True)
            arguments = torch.randint(2, VOCABULARY, (5,)), lengths + step, seen.float().log().clamp(min=-1e30)
            wanted = theirs(*arguments)
            for layer in cache.past.layers:
                layer._end -= 1  # the same position once more
            torch.testing.assert_close(ours(*arguments), wanted, atol=1e-5, rtol=1e-5)
            cache.width += 1


@pytest.mark.parametrize("place", ["block", "model", "head"])
def test_hooks_that_come_after_the_first_use_steer_every_token(place):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS["llama"], attn_implementation="sdpa").eval()
    arguments = ([[5, 6, 7]], [1], SamplingParams(12), -1, PAD)
    free = generate(model, *arguments)[0]
    module = {"block": model.model.layers[0], "model": model, "head": model.lm_head}[place]
    shift = torch.linspace(-2, 2, VOCABULARY if place != "block" else 32)

    def steer(module, inputs, output):
        if place == "model":
            output.logits = output.logits + shift
            return output
        return output + shift

    module.register_forward_hook(steer)
    (steered,) = generate(model, *arguments)
    assert steered.token_ids != free.token_ids
    ids = torch.tensor([[5, 6, 7, *steered.token_ids]])
    with torch.no_grad():
        wanted = model(input_ids=ids).logits.log_softmax(-1)[0, 2:-1].gather(1, ids[0, 3:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(steered.logprobs), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_full_forward_pass(llama, temperature):
    prompts = some_prompts()
    params = SamplingParams(20, temperature=temperature, top_p=0.9)
    drawn = generate(llama, prompts, list(range(9)), params, EOS, PAD, batch_size=4, entropies=True)
    for prompt, completion in zip(prompts, drawn, strict=True):
        ids = torch.tensor([prompt + completion.token_ids])
        mask = torch.arange(ids.shape[1])[None] >= len(prompt)
        with torch.no_grad():
            scores = response_logprobs(llama, ids, torch.ones_like(ids), mask, temperature)
        for mine, theirs in zip((completion.logprobs, completion.entropies), scores, strict=True):
            torch.testing.assert_close(torch.tensor(mine), theirs[0, len(prompt) :], atol=1e-5, rtol=1e-5)


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


def test_progress_hears_of_every_row_while_others_are_still_going(llama):
    heard = []
    limits = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    completions = generate(
        llama, some_prompts(), [0] * 9, SamplingParams(9), -1, PAD, 4, on_done=heard.append, limits=limits
    )
    assert len(heard) > 2
    assert sorted(len(c.token_ids) for group in heard for c in group) == limits
    assert [len(c.token_ids) for c in completions] == limits
    assert not any(c.finished for c in completions)


def test_rows_still_wait_when_all_others_end_at_once():
    completions = generate(UniformModel(), [[3]] * 5 + [[4]] * 5, list(range(10)), SamplingParams(3), -1, PAD, 7)
    assert [len(c.token_ids) for c in completions] == [3] * 10


def test_an_empty_prompt_is_refused(llama):
    with pytest.raises(ValueError, match="empty"):
        generate(llama, [[]], [0], SamplingParams(2), EOS, PAD)
