"""The best-of-n curve against every subset of the samples, one by one."""

import itertools
import math
import random

import pytest

from alpaca_farm_core.methods.best_of_n.estimator import best_of_n_curve, choose, kl_of_best_of_n, subset_weights


def brute_force(rewards, figures, n):
    """Mean figure of the chosen sample over all subsets of n; the first of equal rewards is chosen."""
    chosen = [max(subset, key=lambda i: (rewards[i], -i)) for subset in itertools.combinations(range(len(rewards)), n)]
    return sum(figures[i] for i in chosen) / len(chosen)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_the_mean_over_all_subsets(ties):
    draw = random.Random(1)
    for size in (1, 2, 5, 9):
        rewards = [float(draw.randrange(3)) if ties else draw.gauss(0, 1) for _ in range(size)]
        figures = [draw.gauss(0, 1) for _ in range(size)]
        for found, values in (
            (best_of_n_curve(rewards), rewards),
            (best_of_n_curve(rewards, figures), figures),
        ):
            expected = [brute_force(rewards, values, n) for n in range(1, size + 1)]
            assert found == pytest.approx(expected, abs=1e-12)


def test_literals():
    # rewards 1, 2, 4: pairs {1,2} {1,4} {2,4} have best 2, 4, 4
    assert best_of_n_curve([4.0, 1.0, 2.0]) == pytest.approx([7 / 3, 10 / 3, 4.0])
    assert subset_weights(3, 2) == pytest.approx([0, 1 / 3, 2 / 3])
    assert kl_of_best_of_n(1) == 0
    assert kl_of_best_of_n(16) == pytest.approx(math.log(16) - 15 / 16)


def test_equal_rewards_choose_the_first():
    assert choose([1.0, 3.0, 3.0]) == 1
    assert choose([2.0, 2.0]) == 0


def test_weights_sum_to_one_even_for_large_n():
    assert sum(subset_weights(1024, 77)) == pytest.approx(1)


@pytest.mark.parametrize("n", [0, 4])
def test_n_outside_the_samples(n):
    with pytest.raises(ValueError, match="not in 1"):
        subset_weights(3, n)
