"""A trace of AlpacaFarm's numerics on literal inputs: clamped KL, whitening and GAE over all positions.

Expected numbers are worked out here with plain Python floats, from the published description: rewards −β·max(0, k)
plus the score at the last token; divided by the population std (ε 1e-8) after centring, mean added back;
advantages with γ = λ = 1 over the whole window and 0 behind it; returns before advantages are whitened.
"""

import math

import pytest
import torch

from alpaca_farm_core.methods.ppo.advantages import learnable, shape
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.training.on_policy.judged import Judged

BETA = 0.5
#             KL per token          length  score
KL = [[0.4, -0.2, 0.0], [-0.6, 0.0, 0.0]]
LENGTHS, SCORES = [2, 1], [1.0, -2.0]
VALUES = [[0.1, 0.3, 0.0], [-0.4, 0.0, 0.0]]


def whitened(rows, shift_mean):
    flat = [x for row in rows for x in row]
    mean = sum(flat) / len(flat)
    variance = sum((x - mean) ** 2 for x in flat) / len(flat)
    return [[(x - mean) / math.sqrt(variance + 1e-8) + (0 if shift_mean else mean) for x in row] for row in rows]


def run(**values):
    mask = torch.tensor([[t < length for t in range(3)] for length in LENGTHS])
    reference = torch.zeros(2, 3)
    judged = Judged(
        None, mask, torch.tensor(SCORES), torch.tensor(SCORES), torch.tensor(KL), torch.zeros(2, 3), reference
    )
    config = PPOConfig.build({"paper_compat": True, **values})
    return learnable(shape(judged, config, BETA), torch.tensor(VALUES))


def test_the_whole_trace():
    found = run()
    # −β max(0, k), and the score at the last token
    shaped = [[-0.2, 1.0, 0.0], [-2.0, 0.0, 0.0]]
    rewards = whitened(shaped, shift_mean=False)
    assert rewards[0][2] != 0  # the padding gets a reward of its own
    advantages = [[sum(row[t:]) - VALUES[i][t] for t in range(3)] for i, row in enumerate(rewards)]
    returns = [[a + v for a, v in zip(*rows, strict=True)] for rows in zip(advantages, VALUES, strict=True)]
    torch.testing.assert_close(found.returns_NR, torch.tensor(returns), atol=1e-6, rtol=1e-6)
    expected = torch.tensor(whitened(advantages, shift_mean=True))
    torch.testing.assert_close(found.advantages_NR, expected, atol=1e-6, rtol=1e-6)


def test_the_whitened_rewards_are_these_numbers():
    """mean −0.2, variance (0 + 1.44 + 0.04 + 3.24 + 0.04 + 0.04) / 6 = 0.8."""
    found = run(gamma=1e-9, lam=0.0)  # advantages are then reward − value, returns the rewards themselves
    scale = 1 / math.sqrt(0.8)
    expected = [
        [-0.2, 1.2 * scale - 0.2, 0.2 * scale - 0.2],
        [-1.8 * scale - 0.2, 0.2 * scale - 0.2, 0.2 * scale - 0.2],
    ]
    torch.testing.assert_close(found.returns_NR, torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_without_paper_compat_the_kl_is_not_clamped_and_padding_is_nothing():
    found = run(paper_compat=False, whiten_rewards=False, gamma=1e-9, lam=0.0)
    #          −0.2  1 + 0.1        0.3 − 2
    expected = [[-0.2, 1.1, 0.0], [-1.7, 0.0, 0.0]]
    torch.testing.assert_close(found.returns_NR, torch.tensor(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("paper_compat", [True, False])
def test_equal_rewards_make_no_nan(paper_compat, monkeypatch):
    monkeypatch.setitem(globals(), "SCORES", [0.0, 0.0])
    monkeypatch.setitem(globals(), "KL", [[0.0] * 3] * 2)
    found = run(paper_compat=paper_compat)
    assert all(torch.isfinite(x).all() for x in (found.advantages_NR, found.returns_NR))
