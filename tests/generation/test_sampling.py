import math

import pytest
import torch

from alpaca_farm_core.generation.sampling import SamplingParams, draw, uniforms

MASK64 = (1 << 64) - 1


def splitmix(state: int) -> int:
    """SplitMix64's finaliser on Python integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK64
    return state ^ (state >> 31)


def test_uniforms_agree_with_the_algorithm_on_python_integers():
    seeds = [0, 1, 2**63 - 1, 123456789]
    numbers = uniforms(torch.tensor(seeds), 5)
    for row, seed in enumerate(seeds):
        for step in range(5):
            state = (splitmix(seed) + (step + 1) * 0x9E3779B97F4A7C15) & MASK64
            assert float(numbers[row, step]) == (splitmix(state) >> 32) / 2**32


def test_uniforms_are_uniform_and_uncorrelated_between_neighbouring_seeds():
    numbers = uniforms(torch.arange(2000), 20)
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(numbers.var()) == pytest.approx(1 / 12, abs=0.003)
    correlation = torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.02


PROBABILITIES = torch.tensor([[0.5, 0.2, 0.2, 0.1]])


@pytest.mark.parametrize(
    ("u", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.71, 2), (0.89, 2), (0.91, 3), (1 - 2**-32, 3)]
)
def test_inverse_cdf(u, token):
    drawn = draw(PROBABILITIES.log(), torch.tensor([u], dtype=torch.float64), SamplingParams(1))
    assert drawn.tokens_B.tolist() == [token]
    assert float(drawn.logprobs_B) == pytest.approx(math.log(PROBABILITIES[0, token]), abs=1e-6)


def tokens_drawn(params, banned=(), n=4000):
    numbers = torch.linspace(0, 1 - 1e-6, n, dtype=torch.float64)
    drawn = draw(PROBABILITIES.log().expand(n, -1), numbers, params, banned)
    shares = torch.bincount(drawn.tokens_B, minlength=4) / n
    return shares, drawn


def test_shares_follow_the_temperature():
    shares, drawn = tokens_drawn(SamplingParams(1, temperature=0.5))
    squared = PROBABILITIES[0].square()
    torch.testing.assert_close(shares, squared / squared.sum(), atol=1e-3, rtol=0)
    expected = (squared / squared.sum()).log()[drawn.tokens_B]
    torch.testing.assert_close(drawn.logprobs_B, expected)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(1, top_k=1), [1.0, 0, 0, 0]),
        (SamplingParams(1, top_k=2), [5 / 9, 2 / 9, 2 / 9, 0]),  # a tie at the border stays whole
        (SamplingParams(1, top_p=0.5), [1.0, 0, 0, 0]),
        (SamplingParams(1, top_p=0.6), [5 / 7, 2 / 7, 0, 0]),
        (SamplingParams(1, top_p=0.95), [0.5, 0.2, 0.2, 0.1]),
    ],
)
def test_cuts_renormalise_but_logprobs_are_those_of_the_uncut_policy(params, expected):
    shares, drawn = tokens_drawn(params)
    torch.testing.assert_close(shares, torch.tensor(expected), atol=1e-3, rtol=0)
    torch.testing.assert_close(drawn.logprobs_B, PROBABILITIES[0].log()[drawn.tokens_B])


def test_greedy_takes_the_likeliest():
    shares, _ = tokens_drawn(SamplingParams(1, temperature=0))
    assert shares.tolist() == [1.0, 0, 0, 0]


def test_a_banned_token_is_never_drawn():
    shares, _ = tokens_drawn(SamplingParams(1), banned=[0])
    assert float(shares[0]) == 0
    assert tokens_drawn(SamplingParams(1, temperature=0), banned=[0])[0].tolist() == [0, 1.0, 0, 0]
