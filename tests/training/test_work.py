"""How much work a training step is: matrix products of the real tokens and no others, no logits of all positions.

Counts, not times: they are the same on every machine. Whoever brings back padding, a second pass over a prompt that
two answers share, or logits of every position, fails here.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alpaca_farm_core.data.pairs import TokenisedPairs
from alpaca_farm_core.data.tokenise import TokenisedRows
from alpaca_farm_core.methods.dpo.config import DPOConfig
from alpaca_farm_core.methods.dpo.objective import PreferenceLoss
from alpaca_farm_core.methods.dpo.pairs import ReferredPairs
from alpaca_farm_core.methods.reward_model.objective import PairLoss
from alpaca_farm_core.methods.sft.objective import DemonstrationLoss
from alpaca_farm_core.models import logprobs
from alpaca_farm_core.models.heads import ValueModel
from alpaca_farm_core.models.packing import micro_batches
from alpaca_farm_core.training.rollouts import Passes, Responses
from alpaca_farm_core.types import Preference

D, V, FEED, LAYERS, HEADS, PAIRS_OF_HEADS = 32, 200, 48, 2, 4, 2
WEIGHTS = LAYERS * (2 * D * D + 2 * D * D * PAIRS_OF_HEADS // HEADS + 3 * D * FEED)
WIDE = D * D + 3 * D * FEED  # of a block, behind attention: the last one runs it for the states that are read
PROMPTS = [[3 + (i * 7 + j) % 190 for j in range(length)] for i, length in enumerate((9, 30, 14, 55, 8, 21))]
FIRST = [[5 + (i * 11 + j) % 190 for j in range(length)] for i, length in enumerate((40, 3, 12, 7, 90, 25))]
SECOND = [[9 + (i * 5 + j) % 190 for j in range(length)] for i, length in enumerate((5, 60, 17, 30, 2, 11))]
N_PROMPTS, N_FIRST, N_SECOND = (sum(map(len, rows)) for rows in (PROMPTS, FIRST, SECOND))
BUDGET = 128


class Widest(TorchDispatchMode):
    """Notes the largest tensor that has one column per token of the vocabulary."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.ndim and result.shape[-1] == V:
            self.rows = max(self.rows, result.numel() // V)
        return result


def config(**more):
    return LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=FEED, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=PAIRS_OF_HEADS, pad_token_id=0, tie_word_embeddings=True, **more,
    )  # fmt: skip


@pytest.fixture
def llama():
    torch.manual_seed(0)
    model = LlamaForCausalLM(config())
    micro_batches(model, [1], 1)  # the probe of the model is no part of a step
    logprobs.head_obstacle(model)
    return model


def products(run) -> int:
    """Multiplications (times two) in matrix products of `run`, attention left out."""
    with FlopCounterMode(display=False) as counter:
        run()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for name, count in counts.items() if str(name) in ("aten.mm", "aten.addmm"))


def backbone(n_tokens, n_read):
    """Products of one pass."""
    return 2 * (WEIGHTS * n_tokens - WIDE * (n_tokens - n_read))


def step(model, objective):
    """All micro-batches of one step over all rows, as the loop runs them."""
    tokens = [objective.tokens(row) for row in range(len(objective))]
    for rows in micro_batches(model, tokens, BUDGET):
        objective.loss(rows).loss.backward()


def pairs():
    rows = [Preference("a", "", "b", "c", 1.0, "test") for _ in PROMPTS]
    return TokenisedPairs(rows, list(range(len(rows))), PROMPTS, FIRST, SECOND)


def test_sft_computes_real_tokens_and_the_head_on_responses(llama):
    rows = TokenisedRows(PROMPTS, FIRST, list(range(len(PROMPTS))))
    objective = DemonstrationLoss(llama, rows, rows, 0, BUDGET)
    wanted = 3 * backbone(N_PROMPTS + N_FIRST, N_FIRST) + 6 * D * V * N_FIRST
    assert products(lambda: step(llama, objective)) == pytest.approx(wanted, rel=0.01)


def test_dpo_computes_a_prompt_once_for_both_answers(llama):
    objective = PreferenceLoss(
        llama, ReferredPairs(pairs(), [(0.0, 0.0)] * 6), ReferredPairs(pairs(), []), DPOConfig(), 0, BUDGET
    )
    answers = N_FIRST + N_SECOND
    # the state behind a prompt predicts the first token of both answers
    wanted = 3 * backbone(N_PROMPTS + answers, answers - len(PROMPTS)) + 6 * D * V * answers
    assert products(lambda: step(llama, objective)) == pytest.approx(wanted, rel=0.01)


def test_a_reward_model_computes_a_prompt_once_for_both_answers():
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(config(num_labels=1))
    objective = PairLoss(model, pairs(), pairs(), 0, BUDGET)
    objective.tokens(0)
    wanted = 3 * backbone(N_PROMPTS + N_FIRST + N_SECOND, 2 * len(PROMPTS))
    assert products(lambda: step(model, objective)) == pytest.approx(wanted, rel=0.01)


def test_ppo_updates_and_scores_are_passes_over_real_tokens(llama):
    critic = ValueModel.from_model(llama)
    micro_batches(critic.backbone, [1], 1)
    responses = Responses(PROMPTS, FIRST, [True] * len(FIRST))
    passes = Passes(torch.device("cpu"), 0, BUDGET, contextlib.nullcontext, padded=False)
    trunk, head, n = backbone(N_PROMPTS + N_FIRST, N_FIRST), 2 * D * V * N_FIRST, responses.width()
    scoring = products(lambda: passes.all_token_scores(llama, responses, 1.0, n))
    assert scoring == pytest.approx(trunk + head, rel=0.01)
    valuing = products(lambda: passes.all_values(critic, responses, n))
    assert valuing == pytest.approx(trunk, rel=0.02)  # the value head sees the grid

    def update():
        for part in passes.micro_batches(responses):
            passes.token_scores(llama, part, 1.0, entropies=False).logprobs_BT.sum().backward()
            passes.values(critic, part).sum().backward()

    assert products(update) == pytest.approx(2 * 3 * trunk + 3 * head, rel=0.02)


def test_answers_to_one_prompt_share_it(llama):
    prompts = [PROMPTS[1], PROMPTS[3], PROMPTS[1], PROMPTS[3], PROMPTS[1], PROMPTS[3]]
    responses = Responses(prompts, FIRST, [True] * len(FIRST))
    passes = Passes(torch.device("cpu"), 0, BUDGET, contextlib.nullcontext, padded=False)
    groups = [part.rows for part in passes.micro_batches(responses)]
    assert groups == [[4], [1, 3, 5], [0, 2]]  # 30 + 90 tokens, 55 + 35, 30 + 52: 90 more would not fit
    scoring = products(lambda: passes.all_token_scores(llama, responses, 1.0, responses.width()))
    read = N_FIRST - 3  # the state behind a prompt predicts the first tokens of all answers that share it
    wanted = backbone(55 + 30 + 30 + N_FIRST, read) + 2 * D * V * N_FIRST
    assert scoring == pytest.approx(wanted, rel=0.01)


def test_padding_would_be_seen(llama):
    rows = TokenisedRows(PROMPTS, FIRST, list(range(len(PROMPTS))))
    llama.set_attn_implementation("eager")  # such a model is padded
    from alpaca_farm_core.models import packing

    packing._known_obstacles.clear()
    objective = DemonstrationLoss(llama, rows, rows, 0, 10**6)
    wanted = 6 * WEIGHTS * (N_PROMPTS + N_FIRST) + 6 * D * V * N_FIRST
    assert products(lambda: objective.loss(list(range(6))).loss.backward()) > 1.5 * wanted


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_logits_are_held_a_chunk_at_a_time(llama, kind, monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 16 * V)
    rows = TokenisedRows(PROMPTS, FIRST, list(range(len(PROMPTS))))
    objective = DemonstrationLoss(llama, rows, rows, 0, BUDGET)
    if kind == "dpo":
        referred = ReferredPairs(pairs(), [(0.0, 0.0)] * 6)
        objective = PreferenceLoss(llama, referred, referred, DPOConfig(), 0, BUDGET)
    with Widest() as widest:
        step(llama, objective)
    assert 0 < widest.rows <= max(16, D)  # the transposed weight of the head has D rows
