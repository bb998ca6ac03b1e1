"""Intervals over seeds and instructions, on scores small enough to work out by hand."""

import pytest

from alpaca_farm_core.evaluation.two_way import difference, two_way


def test_two_seeds_two_instructions():
    # mean 0.75; centred 0.25 −0.75 | 0.25 0.25. By seed −0.5, 0.5: 2 · 0.5 / 4² = 0.0625; by instruction the same;
    # single scores: 4/3 · 0.75 / 4² = 0.0625. Together 0.0625, standard error 0.25.
    found = two_way({(0, "a"): 1.0, (0, "b"): 0.0, (1, "a"): 1.0, (1, "b"): 1.0})
    assert found.mean == 0.75
    assert found.standard_error == pytest.approx(0.25)
    assert found.interval == pytest.approx((0.75 - 1.959964 * 0.25, 0.75 + 1.959964 * 0.25))
    assert found.seed_spread == pytest.approx(0.5**0.5 / 2)  # of 0.5 and 1.0
    assert found.scaled(100)["mean"] == 75


def test_seeds_that_agree_leave_the_instructions():
    # Both seeds alike: by instruction ±1 each: 2 · 2 / 16 = 0.25, as for one seed; not less for having two seeds.
    found = two_way({(seed, name): value for seed in (0, 1) for name, value in (("a", 0.0), ("b", 1.0))})
    assert found.standard_error == pytest.approx(0.5)
    assert found.seed_spread == 0


def test_one_seed_is_the_ordinary_standard_error():
    found = two_way({(3, str(i)): value for i, value in enumerate([0.0, 1.0, 1.0, 0.0])})
    assert found.standard_error == pytest.approx((1 / 3) ** 0.5 / 2)  # sd with ddof 1 over √4
    assert found.seed_spread is None


def test_one_score_has_no_interval():
    assert two_way({(0, "a"): 1.0}).interval is None


def test_seeds_that_disagree_widen_the_interval():
    alike = {(seed, str(i)): float(i % 2) for seed in (0, 1) for i in range(100)}
    apart = {(seed, str(i)): float(seed) for seed in (0, 1) for i in range(100)}
    assert two_way(apart).standard_error > 5 * two_way(alike).standard_error


def test_differences_are_paired():
    first = {(0, "a"): 1.0, (0, "b"): 0.5, (1, "a"): 1.0}
    second = {(0, "a"): 0.0, (0, "b"): -0.5, (2, "a"): 7.0}
    found = difference(first, second)
    assert (found.mean, found.standard_error, found.n) == (1.0, 0.0, 2)
    assert difference(first, {(5, "z"): 1.0}) is None
