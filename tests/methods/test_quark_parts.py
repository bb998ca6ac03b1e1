"""Quark's formulas on numbers worked out by hand (tolerance 1e-6), its quantiles and its pool."""

import math

import pytest
import torch

from alpaca_farm_core.methods.quark.loss import original_targets, quark_loss
from alpaca_farm_core.methods.quark.pool import Pool, quantiles
from alpaca_farm_core.models.comparison import compare, from_logits

NAN = float("nan")
LN2 = math.log(2)
# π ∝ 1, 2, 1 and a reward token 4 that the reference lacks; π_ref ∝ 1, 1, 2
POLICY, REFERENCE = torch.tensor([[1.0, 2.0, 1.0, 4.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=1e-6, rtol=1e-6)


def test_terms_on_literals():
    logprob, kl, entropy = from_logits(POLICY, REFERENCE, torch.tensor([1]), 1.0)
    close(logprob, [-2 * LN2])  # 2 / 8
    close(kl, [0.25 * LN2])  # ½ ln 2 − ¼ ln 2
    close(entropy, [1.5 * LN2])


def test_loss_and_gradient_on_literals():
    logits = POLICY.clone().requires_grad_()
    terms = [term[None] for term in from_logits(logits, REFERENCE, torch.tensor([1]), 1.0)]
    result = quark_loss(*terms, torch.tensor([[True]]), kl_coef=0.5, entropy_coef=0.1)
    close(result.loss, 2 * LN2 + 0.5 * 0.25 * LN2 - 0.1 * 1.5 * LN2)
    result.loss.backward()
    likelihood = torch.tensor([0.125, 0.25 - 1, 0.125, 0.5])  # softmax − one-hot, over all four
    kl = torch.tensor([-0.0625, 0.375, -0.3125, 0.0]) * LN2  # p (ln p/q − KL)
    entropy = -torch.tensor([0.25 * -0.5, 0.5 * 0.5, 0.25 * -0.5, 0.0]) * LN2  # −p (ln p + H)
    close(logits.grad[0], likelihood + 0.5 * kl - 0.1 * entropy)


def test_padding_counts_nothing_and_gets_no_gradient():
    logprobs = torch.tensor([[-1.0, NAN]], requires_grad=True)
    result = quark_loss(logprobs, torch.tensor([[2.0, NAN]]), torch.tensor([[3.0, NAN]]), MASK, 0.5, 0.1)
    close(result.loss, 1 + 0.5 * 2 - 0.1 * 3)
    result.loss.backward()
    assert logprobs.grad.tolist() == [[-1.0, 0.0]]


MASK = torch.tensor([[True, False]])


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_chunks_change_nothing(chunk):
    torch.manual_seed(0)
    hidden, other = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)
    head, reference_head = torch.nn.Linear(4, 7), torch.nn.Linear(4, 5)
    targets, mask = torch.randint(0, 5, (2, 3)), torch.tensor([[True, True, False], [True, False, True]])
    found = compare(hidden, head, other, reference_head, targets, mask, 0.7, chunk)
    sum(term.sum() for term in found).backward()
    chunked, hidden.grad = hidden.grad.clone(), None
    whole = from_logits(head(hidden[mask]), reference_head(other[mask]), targets[mask], 0.7)
    sum(term.sum() for term in whole).backward()
    for mine, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(mine[mask], theirs)
        assert (mine[~mask] == 0).all()
    torch.testing.assert_close(chunked, hidden.grad)


def test_quantiles_by_reward():
    assert quantiles([3.0, 9.0, 1.0, 7.0, 5.0], 2) == [1, 0, 1, 0, 1]  # two, and the remainder to the last


def test_equal_rewards_share_a_quantile_and_leave_one_empty():
    assert quantiles([5.0, 5.0, 5.0, 1.0], 4) == [0, 0, 0, 3]
    assert quantiles([2.0] * 4, 4) == [0, 0, 0, 0]
    assert quantiles([2.0] * 4, 4, by_rank=True) == [0, 1, 2, 3]


def test_the_original_trains_neither_eos_nor_the_token_behind_the_padding():
    mask = torch.tensor([[True, True, True, False], [True, True, True, True], [True, False, False, False]])
    found = original_targets(mask, torch.tensor([True, False, True]), max_new_tokens=4)
    assert found.tolist() == [
        [False, True, False, False],  # a b EOS: a stands behind padding
        [True, True, True, True],  # fills the window: nothing is padded
        [False, False, False, False],  # EOS alone
    ]


def test_the_pool_reads_back_what_it_wrote():
    pool = Pool()
    pool.add([[[1, 2], [3], True, 0.1], [[4], [5, 6, 7], False, -2.0]])
    assert Pool.of_state(pool.state()) == pool
    assert Pool.of_state(Pool().state()) == Pool()
