"""RLOO and GRPO on numbers worked out by hand; tolerance 1e-6."""

import math

import pytest
import torch

from alpaca_farm_core.methods.grpo.loss import grpo_loss
from alpaca_farm_core.methods.rloo.loss import rloo_loss
from alpaca_farm_core.training.advantages import equal_groups, group_relative, leave_one_out

NAN = float("nan")
MASK = torch.tensor([[True, True], [True, False]])


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=1e-6, rtol=1e-6)


def test_leave_one_out_is_the_reward_minus_the_mean_of_the_others():
    #           1 − 4  2 − 3.5  6 − 1.5   equal rewards
    close(leave_one_out(torch.tensor([1.0, 2.0, 6.0, 0.3, 0.3, 0.3]), 3), [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0])


def test_group_relative_is_centred_and_scaled():
    rewards = torch.tensor([1.0, 3.0, -1.0, -1.0])
    close(group_relative(rewards, 2), [-1 / 1.0001, 1 / 1.0001, 0.0, 0.0])
    close(group_relative(rewards, 2, scale=False), [-1.0, 1.0, 0.0, 0.0])
    assert equal_groups(rewards, 2).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("advantages", [leave_one_out, group_relative])
def test_equal_rewards_teach_nothing_and_make_no_nan(advantages):
    found = advantages(torch.full((8,), 0.1), 4)
    assert torch.isfinite(found).all()
    assert found.abs().max() < 1e-3


def test_rloo_loss_and_gradient():
    """Response ratios 1.5 (over two tokens) and 0.9; A = 2 and −1; ε = 0.2."""
    old = torch.tensor([[-1.0, -2.0], [-1.0, NAN]])
    change = torch.tensor([[0.2, math.log(1.5) - 0.2], [math.log(0.9), 1.0]])
    logprobs = (old + change).requires_grad_()
    result = rloo_loss(logprobs, old, torch.tensor([2.0, -1.0]), MASK, clip_range=0.2)
    close(result.loss, -2.4 + 0.9)  # max(−3, −2.4) + max(0.9, 0.9)
    assert int(result.clipped) == 1
    close(result.approx_kl, 0.5 * (math.log(1.5) ** 2 + math.log(0.9) ** 2))
    result.loss.backward()
    close(logprobs.grad, [[0.0, 0.0], [0.9, 0.0]])  # −A ρ, and nothing where clipped


def test_rloo_at_ratio_one_is_reinforce():
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, NAN]], requires_grad=True)
    rloo_loss(logprobs, logprobs.detach(), torch.tensor([2.0, -3.0]), MASK, 0.2).loss.backward()
    close(logprobs.grad, [[-2.0, -2.0], [3.0, 0.0]])


GRPO_OLD = torch.tensor([[-1.0, -2.0], [-1.0, NAN]])
GRPO_CHANGE = torch.tensor([[1.1, 1.5], [0.5, NAN]]).log()


@pytest.mark.parametrize(
    ("over_tokens", "policy", "kl", "gradient"),
    [
        # mean(−1.1, −1.2) + 0.8; k3 = ½ − 1 + ln 2 at each token
        (False, -1.15 + 0.8, 2 * (math.log(2) - 0.5), [[-0.55, 0.0], [0.0, 0.0]]),
        (True, -1.1 - 1.2 + 0.8, 3 * (math.log(2) - 0.5), [[-1.1, 0.0], [0.0, 0.0]]),
    ],
)
def test_grpo_loss_and_gradient(over_tokens, policy, kl, gradient):
    """Ratios 1.1, 1.5 | 0.5; A = 1 and −1; ε = 0.2; π = 2 π_ref."""
    logprobs = (GRPO_OLD + GRPO_CHANGE).requires_grad_()
    reference = (GRPO_OLD + GRPO_CHANGE) - math.log(2)
    arguments = (GRPO_OLD, reference, torch.tensor([1.0, -1.0]), MASK, 0.2)
    result = grpo_loss(logprobs, *arguments, over_tokens=over_tokens)
    close(result.policy, policy)
    close(result.kl, kl)
    result.policy.backward(retain_graph=True)
    close(logprobs.grad, gradient)
    logprobs.grad = None
    result.kl.backward()
    share = 1.0 if over_tokens else 0.5
    close(logprobs.grad, [[0.5 * share, 0.5 * share], [0.5, 0.0]])  # 1 − π_ref / π
