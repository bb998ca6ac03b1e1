"""Calls in flight that adapt, and limits per minute, by a clock of the test's own."""

import random

import pytest

from alpaca_farm_core.annotators.limits import Pace, Window


def run(window, capacity, n, latency_s=0.2, chance=0.0, seed=0):
    """Let `n` calls end at a server that throttles all beyond `capacity`, and others by chance; return the limits."""
    draw, now, limits, done = random.Random(seed), 0.0, [], 0
    while done < n:
        eras = [window.begin(now) for _ in range(window.n_free)]
        throttled = [i >= capacity or draw.random() < chance for i in range(len(eras))]
        now += latency_s
        for era, bad in zip(eras, throttled, strict=True):
            window.end(era, bad, now)
        limits.append(window.limit)
        done += len(eras)
    return limits


def test_slow_start_doubles_up_to_the_ceiling():
    assert run(Window(100), capacity=1000, n=200) == [64, 100, 100, 100]
    assert Window(4).limit == 4


def test_slow_start_ends_when_more_calls_bring_no_more_answers():
    window, now = Window(256), 0.0
    for _ in range(40):  # a server that answers 10 a second, however many wait
        eras = [window.begin(now) for _ in range(window.n_free)]
        now += len(eras) / 10
        for era in eras:
            window.end(era, False, now)
    assert window.limit < 256 + 1
    assert Window(256).limit == 32
    early = Window(256)
    for end in (3.2, 9.6):
        for era in [early.begin(0.0) for _ in range(early.n_free)]:
            early.end(era, False, end)
    assert early.limit == 64 + 16  # doubled once, then by a sixteenth of the ceiling


@pytest.mark.parametrize("capacity", [4, 20, 50])
def test_limit_settles_around_what_the_server_takes(capacity):
    limits = run(Window(64), capacity, n=4000)[20:]
    assert capacity / 2 - 1 <= min(limits)
    assert max(limits) <= capacity / 0.75 + 5


def test_a_tenth_throttled_by_chance_is_not_a_reason_to_crawl():
    limits = run(Window(64), capacity=1000, n=4000, chance=0.1)
    assert sum(limits) / len(limits) > 55


def test_everything_throttled_goes_down_to_one_call():
    assert run(Window(64), capacity=0, n=200)[-1] == 1


def test_one_storm_cuts_once():
    window = Window(64)
    eras = [window.begin(0.0) for _ in range(32)]
    cuts = [window.end(era, True, 1.0) for era in eras]
    assert (sum(cuts), window.limit, window.in_flight) == (1, 16, 0)


@pytest.mark.parametrize("limit", [1, 7, 60, 500, 10_000])
def test_no_minute_sees_more_than_the_limit(limit):
    pace, now, passed = Pace(limit, 0.0), 0.0, []
    while now < 200:
        wait = pace.wait_s(1, now)
        if wait <= 0:
            pace.take(1, now)
            passed.append(now)
        else:
            now += max(wait, 1e-4)
        if len(passed) > 40_000:
            break
    for start in passed:
        assert sum(start <= at < start + 60 for at in passed[:2000]) <= limit + 1e-9
    assert len(passed) >= min(40_000, 0.85 * limit * 200 / 60 - 1)


def test_no_limit_and_amounts_beyond_the_bucket():
    assert Pace(0, 0.0).wait_s(1e9, 0.0) == 0
    pace = Pace(600, 0.0)
    assert pace.wait_s(1000, 0.0) == 0  # lets it pass when the bucket is full
    pace.take(1000, 0.0)
    assert pace.wait_s(1, 0.0) == pytest.approx((1000 - 60 + 1) / 9)  # a bucket of 60, refilled by 540 a minute
