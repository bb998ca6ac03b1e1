"""kill -9 at random moments, and several processes at once: no committed answer is bought again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Request
from tests.annotators.judge_server import JudgeServer

CALL = 232_000_000  # picodollars: 100 + 4 tokens at 2 and 8 dollars per million
CONCURRENCY = 8


def start(calls, judge, n):
    command = [sys.executable, "-m", "tests.annotators.run_annotate", str(calls), judge.base_url, str(n)]
    return subprocess.Popen([*command, str(CONCURRENCY)])


def key_of(body):
    sampling = {key: value for key, value in body.items() if key not in ("model", "messages")}
    return Request(body["model"], tuple(body["messages"]), sampling).key


def committed(calls):
    """Keys in the cache; ledger and cache must agree to the last picodollar at any moment."""
    cache = CallCache(calls)
    with cache.transaction():
        kept = {key: answer for answers in cache.walk() for key, answer in answers.items()}
        balance = cache.ledger.balance("killed")
        assert balance.spent == sum(round(answer.price_usd * 10**12) for answer in kept.values()) == CALL * len(kept)
        assert sum(row[4] for row in cache.ledger.spending()) == balance.spent
    cache.close()
    return set(kept)


def kill_and_check(tmp_path, n_kills, per_kill, seed):
    draw, n = random.Random(seed), n_kills * per_kill
    with JudgeServer(latency_s=0.02) as judge:
        for _ in range(n_kills):
            known, n_before = committed(tmp_path) if tmp_path.exists() else set(), len(judge.bodies)
            process = start(tmp_path, judge, n)
            goal = n_before + draw.randint(1, per_kill)
            while len(judge.bodies) < goal:
                assert process.poll() is None
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.02))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.1)
            assert not known & {key_of(body) for body in judge.bodies[n_before:]}
        known, n_before = committed(tmp_path), len(judge.bodies)
        assert start(tmp_path, judge, n).wait() == 0
        asked = Counter(key_of(body) for body in judge.bodies[n_before:])
        assert not known & set(asked)
        assert len(committed(tmp_path)) == n
        assert len(judge.bodies) <= n + n_kills * CONCURRENCY
        balance = CallCache(tmp_path).ledger.balance("killed")
        assert balance.held == 0
        assert balance.n_lost <= n_kills * CONCURRENCY


def test_three_kills_repeat_no_committed_call_and_keep_ledger_and_cache_equal(tmp_path):
    kill_and_check(tmp_path / "calls", n_kills=3, per_kill=25, seed=3)


@pytest.mark.slow
def test_twenty_kills_repeat_no_committed_call_and_keep_ledger_and_cache_equal(tmp_path):
    kill_and_check(tmp_path / "calls", n_kills=20, per_kill=25, seed=20)


def test_four_processes_make_each_call_once(tmp_path):
    with JudgeServer(latency_s=0.02) as judge:
        processes = [start(tmp_path, judge, 120) for _ in range(4)]
        assert [process.wait() for process in processes] == [0] * 4
        assert Counter(Counter(key_of(body) for body in judge.bodies).values()) == {1: 120}
    assert len(committed(tmp_path)) == 120
    assert CallCache(tmp_path).ledger.balance("killed").lost == 0


def test_threads_of_one_process_make_each_call_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from tests.annotators.parts import api_judge, llm, make_pairs

    with JudgeServer(latency_s=0.02) as judge, ThreadPoolExecutor(4) as pool:
        annotators = [llm(tmp_path, api_judge(judge.base_url, 4)) for _ in range(4)]
        done = list(pool.map(lambda annotator: annotator.annotate(make_pairs(40)), annotators))
    assert all(annotations == done[0] for annotations in done)
    assert len(judge.bodies) == 40
