import math

import pytest
import torch

from alpaca_farm_core.methods.ppo.loss import (
    explained_variance,
    policy_loss,
    shaped_rewards,
    value_loss,
)
from alpaca_farm_core.training.on_policy.judged import penalise_unfinished

NAN = float("nan")
MASK = torch.tensor([[True, True], [True, False]])


def test_policy_loss_on_literals():
    """ρ = 1.5, 0.5 and 1.1; ε = 0.2; A = 2, −1 and −3."""
    old = torch.tensor([[-1.0, -2.0], [-1.0, NAN]])
    logprobs = old + torch.tensor([[1.5, 0.5], [1.1, 1.0]]).log()
    advantages = torch.tensor([[2.0, -1.0], [-3.0, NAN]])
    result = policy_loss(logprobs, old, advantages, MASK, clip_range=0.2)
    #      max(−3, −2.4)  max(0.5, 0.8)  max(3.3, 3.3)
    assert float(result.loss) == pytest.approx(-2.4 + 0.8 + 3.3)
    assert int(result.clipped) == 2
    expected_kl = 0.5 * (math.log(1.5) ** 2 + math.log(0.5) ** 2 + math.log(1.1) ** 2)
    assert float(result.approx_kl) == pytest.approx(expected_kl)


def test_value_loss_on_literals():
    """ε = 0.2. V 1.0 → clipped to 0.7; 0.6 stays; padding counts nothing."""
    values = torch.tensor([[1.0, 0.6], [-1.0, NAN]])
    old = torch.tensor([[0.5, 0.5], [0.0, NAN]])
    returns = torch.tensor([[1.5, 0.0], [-2.0, NAN]])
    result = value_loss(values, old, returns, MASK, clip_range=0.2)
    #  max(0.25, 0.64)  max(0.36, 0.36)  max(1, (−0.2 + 2)² = 3.24)
    assert float(result.loss) == pytest.approx(0.5 * (0.64 + 0.36 + 3.24))
    assert int(result.clipped) == 2
    assert float(result.squared_error) == pytest.approx(0.25 + 0.36 + 1.0)


def test_gradients_on_literals():
    """Policy: −A ρ where the plain branch is the larger one, else 0; value: V − R likewise. ε = 0.2."""
    old = torch.tensor([[-1.0, -2.0], [-1.0, NAN]])
    logprobs = (old + torch.tensor([[1.5, 0.5], [1.1, 1.0]]).log()).requires_grad_()
    advantages = torch.tensor([[2.0, -1.0], [-3.0, NAN]])
    policy_loss(logprobs, old, advantages, MASK, 0.2).loss.backward()
    #                                            clipped  clipped  3 · 1.1
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, 0.0], [3.3, 0.0]]), atol=1e-6, rtol=0)
    values = torch.tensor([[1.0, 0.6], [1.0, NAN]], requires_grad=True)
    returns = torch.tensor([[0.0, 0.0], [1.5, NAN]])
    value_loss(values, torch.full((2, 2), 0.5), returns, MASK, 0.2).loss.backward()
    #                max(1, 0.49): 1 − 0   both: 0.6 − 0   max(0.25, 0.64): stands at the clip
    torch.testing.assert_close(values.grad, torch.tensor([[1.0, 0.6], [0.0, 0.0]]), atol=1e-6, rtol=0)


def test_gradients_are_finite_with_nan_in_the_padding_and_zero_there():
    logprobs = torch.tensor([[-1.0, -2.0], [-1.0, NAN]], requires_grad=True)
    values = torch.tensor([[1.0, 0.6], [-1.0, NAN]], requires_grad=True)
    loss = policy_loss(logprobs, torch.full((2, 2), -1.0), torch.ones(2, 2), MASK, 0.2).loss
    (loss + value_loss(values, torch.zeros(2, 2), torch.ones(2, 2), MASK, 0.2).loss).backward()
    for gradient in (logprobs.grad, values.grad):
        assert torch.isfinite(gradient).all()
        assert gradient[1, 1] == 0


def test_at_ratio_one_the_gradient_is_that_of_the_policy_gradient():
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -1.0]], requires_grad=True)
    advantages = torch.tensor([[2.0, -1.0], [-3.0, 5.0]])
    policy_loss(logprobs, logprobs.detach(), advantages, MASK, 0.2).loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-2.0, 1.0], [3.0, 0.0]]))


def test_reward_lies_on_the_last_token_and_kl_on_every_one():
    kl = torch.tensor([[0.5, -1.0, 2.0], [1.0, NAN, NAN]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    shaped = shaped_rewards(torch.tensor([3.0, -2.0]), kl, mask, kl_coef=0.1)
    torch.testing.assert_close(shaped, torch.tensor([[-0.05, 0.1, 2.8], [-2.1, 0.0, 0.0]]))


def test_unfinished_responses_get_the_penalty_instead_of_their_reward():
    rewards, finished = torch.tensor([3.0, 5.0]), torch.tensor([True, False])
    assert penalise_unfinished(rewards, finished, -1.0).tolist() == [3.0, -1.0]
    assert penalise_unfinished(rewards, finished, None).tolist() == [3.0, 5.0]


def test_explained_variance():
    mask = torch.tensor([[True, True, True, False]])
    returns = torch.tensor([[1.0, 2.0, 3.0, NAN]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.zeros(1, 4), returns, mask) == pytest.approx(0)
    # residuals 0.5, 0, −0.5: variance 1/6 against 2/3
    assert explained_variance(torch.tensor([[0.5, 2.0, 3.5, 9.0]]), returns, mask) == pytest.approx(0.75)
    assert explained_variance(returns, torch.ones(1, 4), mask) == 0
