"""The Batch API over real HTTP: half price, per-item fall-back, and nothing paid for twice after a kill."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from alpaca_farm_core.annotators.batch_judge import BatchJudge
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.factory import build_annotator
from alpaca_farm_core.annotators.prices import PriceTable
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import AnnotationError, BudgetReachedError, StoreError
from tests.annotators.batch_server import BatchServer, failed, wait_for
from tests.annotators.parts import QUICK, api_judge, llm, make_pairs

CALL = 232_000_000  # 100 + 4 tokens at 2 and 8 dollars per million
PURSE = Purse(PriceTable.load(), "batch")


def annotator(calls, server, purse=PURSE):
    judge = BatchJudge(Endpoint.find(server.base_url), api_judge(server.base_url), QUICK, poll_s=0.01)
    return llm(calls, judge, purse=purse)


def pending(calls):
    return list((calls / "batches").glob("*.json"))


def test_answers_come_by_batch_at_half_the_price(tmp_path):
    with BatchServer() as server:
        ours = annotator(tmp_path, server)
        annotations = ours.annotate(make_pairs(12))
        direct = llm(tmp_path / "direct", api_judge(server.base_url)).annotate(make_pairs(12))
        assert [replace(one, passport=None) for one in annotations] == [replace(one, passport=None) for one in direct]
        assert [len(calls) for calls in server.submitted] == [12]
        assert len(server.bodies) == 12  # the direct run's
        assert server.submitted[0][0]["body"] in server.bodies
        again = annotator(tmp_path, server)
        again.annotate(make_pairs(12))
        assert (len(server.submitted), again.stats.n_cached) == (1, 12)
    balance = CallCache(tmp_path).ledger.balance("batch")
    assert (balance.spent, balance.held, balance.lost) == (12 * CALL // 2, 0, 0)
    assert ours.stats.spent_usd == pytest.approx(12 * 0.000116)
    assert pending(tmp_path) == []


def test_the_settings_lead_to_it(tmp_path):
    with BatchServer() as server:
        execution = ExecutionConfig(base_url=server.base_url, batch_api=True, batch_poll_seconds=0.01)
        build_annotator(AnnotatorConfig(name="greedy"), tmp_path, execution).annotate(make_pairs(3))
        assert (len(server.submitted), server.bodies) == (1, [])


def test_what_the_batch_left_unanswered_is_asked_by_itself_at_full_price(tmp_path):
    outcomes = {
        2: failed(500),
        3: failed(429),
        5: failed(400, "content_filter"),
        6: failed(400, "context_length_exceeded"),
        7: {"status_code": 200, "body": {"choices": []}},
    }
    with BatchServer(outcome=outcomes.get) as server:
        server.drop_lines = 1
        annotations = annotator(tmp_path, server).annotate(make_pairs(10))
    states = [annotation.state for annotation in annotations]
    assert states == ["ok"] * 5 + ["refused", "failed"] + ["ok"] * 3
    assert len(server.bodies) == 4  # two faults, one damaged, one missing
    assert len(server.submitted) == 1
    balance = CallCache(tmp_path).ledger.balance("batch")
    assert (balance.spent, balance.held) == (4 * CALL + 4 * CALL // 2, 0)


def test_an_expired_batch_is_asked_for_call_by_call(tmp_path):
    with BatchServer(status="expired") as server:
        server.drop_lines = 3
        annotations = annotator(tmp_path, server).annotate(make_pairs(4))
    assert {a.state for a in annotations} == {"ok"}
    assert (len(server.submitted), len(server.bodies)) == (1, 3)


def test_a_refused_batch_says_why_and_holds_nothing(tmp_path):
    with BatchServer(status="failed") as server, pytest.raises(AnnotationError, match="model does not exist") as caught:
        annotator(tmp_path, server).annotate(make_pairs(4))
    assert "execution.batch_api=false" in caught.value.next_action
    balance = CallCache(tmp_path).ledger.balance("batch")
    assert (balance.spent, balance.held, balance.lost) == (0, 0, 0)
    assert pending(tmp_path) == []


@pytest.mark.parametrize("moment", ["waiting", "before its id is known"])
def test_a_killed_run_collects_its_batch_instead_of_paying_again(tmp_path, moment):
    with BatchServer(looks=10**9) as server:
        command = [sys.executable, "-m", "tests.annotators.run_batch", str(tmp_path), server.base_url, "6"]
        process = subprocess.Popen(command)
        wait_for(lambda: server.n_looks > 1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        held = CallCache(tmp_path).ledger.balance("batch")
        assert held.held > 0
        if moment != "waiting":
            (path,) = pending(tmp_path)
            path.write_text(json.dumps({**json.loads(path.read_text()), "batch_id": ""}))
        server.looks = 1
        annotations = annotator(tmp_path, server).annotate(make_pairs(8))  # two more than before
    assert {a.state for a in annotations} == {"ok"}
    assert [len(calls) for calls in server.submitted] == [6, 2]
    assert server.bodies == []
    balance = CallCache(tmp_path).ledger.balance("batch")
    assert (balance.spent, balance.held, balance.lost) == (8 * CALL // 2, 0, 0)
    assert pending(tmp_path) == []


def test_a_batch_whose_making_was_cut_off_is_found_by_its_token(tmp_path):
    with BatchServer() as server:
        server.die_after_create = True
        annotations = annotator(tmp_path, server).annotate(make_pairs(3))
    assert {a.state for a in annotations} == {"ok"}
    assert (len(server.submitted), server.bodies) == (1, [])


def test_a_record_of_a_batch_never_sent_is_dropped(tmp_path):
    with BatchServer() as server:
        folder = tmp_path / "batches"
        folder.mkdir(parents=True)
        key = llm(tmp_path, api_judge(server.base_url)).requests(make_pairs(1))[0].key
        record = {"token": "t", "url": server.base_url, "keys": [key], "batch_id": ""}
        (folder / "t.json").write_text(json.dumps(record))
        annotator(tmp_path, server).annotate(make_pairs(2))
        assert [len(calls) for calls in server.submitted] == [2]
    assert pending(tmp_path) == []


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "x.json").write_text('{"token": 1}')
    with BatchServer() as server, pytest.raises(StoreError, match=r"x\.json is damaged"):
        annotator(tmp_path, server).annotate(make_pairs(2))


def test_a_budget_holds_for_batches_too(tmp_path):
    purse = Purse(PriceTable.load(), "batch", 10 * CALL)
    with BatchServer() as server:
        with pytest.raises(BudgetReachedError):
            annotator(tmp_path, server, purse).annotate(make_pairs(200))
        bought = sum(len(calls) for calls in server.submitted)
        assert 0 < bought * CALL // 2 <= 10 * CALL
    balance = CallCache(tmp_path).ledger.balance("batch")
    assert (balance.spent, balance.held, balance.lost) == (bought * CALL // 2, 0, 0)


def test_faults_of_the_batch_endpoints(tmp_path):
    class Refusing(BatchServer):
        def make(self, body):
            raise ConnectionError

    with Refusing() as server, pytest.raises(AnnotationError, match="gives no answers"):
        annotator(tmp_path, server).annotate(make_pairs(2))
    judge = BatchJudge(Endpoint.find("http://127.0.0.1:9/v1"), api_judge("http://127.0.0.1:9/v1"), QUICK)
    with pytest.raises(AnnotationError, match="gives no answers"):
        llm(tmp_path / "two", judge, purse=PURSE).annotate(make_pairs(2))
