"""One budget on machines with disks of their own: never exceeded, wholly usable, whoever dies."""

import json
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import replace

import pytest

from alpaca_farm_core.annotators import allowance as allowances
from alpaca_farm_core.annotators.allowance import Allowance
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.ledger import Entry
from alpaca_farm_core.annotators.prices import PriceTable
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.artifacts.bucket import Bucket
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import BudgetReachedError
from tests.annotators.judge_server import JudgeServer
from tests.annotators.parts import api_judge, llm, make_pairs
from tests.artifacts.s3_server import s3_server

CALL, DOLLAR = 2_400_000_000, 10**12


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Open the call cache of a machine of that name."""
    url = f"memory://{uuid.uuid4().hex}/farm"

    def opened(name):
        monkeypatch.setenv("ALPACA_FARM_CACHE", str(tmp_path / name))
        return CallCache(Store(url).calls)

    return opened


def granted(cache):
    """The grants of the newest table, the smallest first."""
    bucket = Bucket(json.loads((cache.folder / "store.json").read_text())["url"])
    return sorted(json.loads(bucket.read(max(bucket.list("budgets"))))["grants"].values())


def hold(cache, amount, budget):
    """Hold money as a call does; tell whether it could be had."""
    allowance = Allowance.of(cache, "study")
    for _ in range(2):
        with cache.transaction():
            if cache.ledger.hold("study", "me", [(uuid.uuid4().hex, amount)], allowance.cap(budget)):
                return True
        if not allowance.extend(budget, amount):
            return False
    return False


def test_a_store_of_one_machine_has_no_table(tmp_path):
    assert Allowance.of(CallCache(Store(tmp_path / "store").calls), "study") is None


def test_grants_grow_by_steps_and_never_exceed_the_budget(machine):
    a, b = machine("a"), machine("b")
    assert hold(a, 300, 1000)
    assert granted(a) == [320]  # 300 and a fiftieth of 1000
    assert hold(a, 15, 1000)
    assert granted(a) == [320]
    assert hold(b, 600, 1000)
    assert granted(a) == [320, 620]
    assert not hold(b, 90, 1000)
    assert hold(b, 80, 1000)  # all that is left
    assert granted(a) == [320, 680]
    assert not hold(a, 10, 1000)
    assert hold(a, 5, 1000)
    assert not hold(a, 1, 1000)
    assert hold(a, 1, 1001)  # the budget was raised


def test_what_a_machine_does_not_need_is_given_back_and_what_it_spent_stays(machine):
    a, b = machine("a"), machine("b")
    assert hold(a, 900, 1000)
    (key,) = [row[0] for row in a.sql()("SELECT key FROM Held")]
    a.commit({}, [Entry("study", "judge", "m", key, 100, {})])
    assert not hold(b, 800, 1000)
    Allowance.of(a, "study").settle()
    assert granted(a) == [100]
    assert hold(b, 800, 1000)
    assert Allowance.of(b, "study").look() == 100


def test_money_spent_without_a_budget_counts_when_there_is_one(machine):
    a, b = machine("a"), machine("b")
    a.commit({}, [Entry("study", "judge", "m", "k", 700, {})])
    Allowance.of(a, "study").settle()
    assert not hold(b, 301, 1000)
    assert hold(b, 300, 1000)


def test_a_dead_machine_keeps_its_grant_until_it_comes_back(machine):
    a, b = machine("a"), machine("b")
    assert hold(a, 500, 1000)  # and then it dies
    assert not hold(b, 500, 1000)
    with a.transaction():
        a.ledger.lose_all("me")  # what a new process there does first: the call may have been paid for
    Allowance.of(a, "study").settle()
    assert hold(b, 500, 1000)


def test_a_writer_so_late_that_its_entry_was_removed_counts_for_nothing(machine, monkeypatch):
    monkeypatch.setattr(allowances, "_KEPT", 1)
    a, b = machine("a"), machine("b")
    assert hold(a, 10, 1000)
    late = Allowance.of(b, "study")
    newest, turns = late._newest, []

    def stalled():
        seen = newest()
        if not turns:  # what it has read gets old: a writes four entries, of which the last stays
            turns.append(seen)
            for _ in range(4):
                assert hold(a, 150, 1000)
        return seen

    late._newest = stalled
    assert not late.extend(1000, 500)
    assert granted(a) == [630]


def test_machines_and_processes_in_a_race_hold_the_whole_budget_and_no_more(machine):
    caches, held = [machine("a"), machine("a"), machine("b"), machine("c")], []

    def spend(cache):
        while hold(cache, 7, 1000):
            held.append(7)
        cache.close()

    threads = [threading.Thread(target=spend, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1000 - 3 * (7 + 1000 // 50) <= sum(held) <= 1000
    assert sum(granted(caches[0])) <= 1000


def test_two_machines_with_one_budget_and_a_judge_over_http(machine, tmp_path):
    own = tmp_path / "prices.yaml"
    own.write_text("models: {gpt-4.1: {prompt: 20, completion: 100}}")
    purse = Purse(PriceTable.load(str(own)), "study", DOLLAR // 4)
    pairs = make_pairs(150)
    with JudgeServer() as judge:
        said = []
        for name, part in (("a", pairs[:75]), ("b", pairs[75:])):
            folder = machine(name).folder
            annotator = llm(folder, api_judge(judge.base_url, 16), purse=purse)
            if name == "a":
                annotator.annotate(part)
                continue
            with pytest.raises(BudgetReachedError, match="to other machines") as caught:
                annotator.annotate(part)
            said.append(caught.value.headline)
        assert 0.9 * DOLLAR < 4 * judge.n_answered * CALL <= DOLLAR
        assert "$0.18 spent by or granted to other machines" in said[0]
        llm(folder, api_judge(judge.base_url, 16), purse=replace(purse, budget=DOLLAR)).annotate(pairs[75:])
        assert judge.n_answered == 150


@pytest.mark.slow
def test_two_processes_with_separate_disks_on_s3_share_one_dollar(tmp_path):
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed (extra: slow)")
    own = tmp_path / "prices.yaml"
    own.write_text("models: {gpt-4.1: {prompt: 20, completion: 100}}")
    url = f"s3://studies/{uuid.uuid4().hex}"
    with s3_server() as environment, JudgeServer(latency_s=0.01) as judge:
        command = [sys.executable, "-m", "tests.annotators.run_preferences", url, judge.base_url, "500", "16"]
        running = [
            subprocess.Popen(
                [*command, str(seed), str(own)],
                env={
                    **os.environ, **environment, "ALPACA_FARM_CACHE": str(tmp_path / str(seed)),
                    "PYTHONPATH": os.getcwd(), "OPENAI_API_KEY": "test",
                },
                stderr=subprocess.PIPE, text=True,
            )
            for seed in (0, 1)
        ]  # fmt: skip
        said = [process.communicate(timeout=240)[1] for process in running]
        assert 0.9 * DOLLAR < judge.n_answered * CALL <= DOLLAR
    assert all("BudgetReachedError" in text for text in said), said
