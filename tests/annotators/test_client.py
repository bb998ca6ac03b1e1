"""Faults of a judge's server, each over real HTTP: retried, refused, or a state of one example."""

import time
from random import Random

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.factory import check_annotator
from alpaca_farm_core.annotators.retry import Fault, RetryPolicy
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import AnnotationError, ConfigError
from tests.annotators.judge_server import (
    HALF,
    HTML,
    NO_CHOICES,
    NOT_JSON,
    NOT_UTF8,
    RESET,
    JudgeServer,
    Reply,
    always,
    every,
    first,
    status,
)  # fmt: skip
from tests.annotators.parts import QUICK, api_judge, llm, make_pairs

CANARY = "sk-canary-4f1d9a7be2"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (status(429, Retry_After="0.05"), "429"),
        (status(429), "429"),
        (status(408), "408"),
        (status(409), "409"),
        (status(500), "5xx"),
        (status(503), "5xx"),
        (status(529), "5xx"),
        (HALF, "connection"),
        (RESET, "connection"),
        (HTML, "body"),
        (NO_CHOICES, "body"),
        (NOT_JSON, "body"),
        (NOT_UTF8, "body"),
        (Reply(raw=b'{"error": {"message": "overloaded"}}'), "body"),
        (Reply(raw=b"[]"), "body"),
    ],
)
def test_transient_faults_are_tried_again(tmp_path, reply, kind):
    pairs = make_pairs(12)
    patient = RetryPolicy(first_delay_s=0.01, max_delay_s=0.05)  # a call may meet the fault several times
    with JudgeServer(fault=every(4, reply)) as judge:
        annotator = llm(tmp_path, api_judge(judge.base_url, 3, patient))
        annotations = annotator.annotate(pairs)
    assert {a.state for a in annotations} == {"ok"}
    assert annotator.stats.retries[kind] == len(judge.bodies) - 12 >= 4


@pytest.mark.parametrize("reply", [Reply(hang_s=0.6), Reply(trickle_s=0.05)])
def test_a_judge_that_takes_too_long_is_tried_again(tmp_path, reply):
    policy = RetryPolicy(tries=4, first_delay_s=0.01, timeout_s=0.3)
    with JudgeServer(fault=first(2, reply)) as judge:
        annotator = llm(tmp_path, api_judge(judge.base_url, 2, policy))
        annotations = annotator.annotate(make_pairs(4))
    assert {a.state for a in annotations} == {"ok"}
    assert annotator.stats.retries["timeout"] == 2


def test_retry_after_is_honoured(tmp_path):
    with JudgeServer(fault=first(1, status(429, Retry_After="0.7"))) as judge:
        began = time.monotonic()
        llm(tmp_path, api_judge(judge.base_url)).annotate(make_pairs(1))
    assert time.monotonic() - began >= 0.7


def test_backoff_grows_is_jittered_and_bounded():
    policy, fault = RetryPolicy(first_delay_s=1, max_delay_s=8), Fault("transient", "5xx", "")
    delays = [[policy.delay_s(attempt, fault, Random(seed)) for seed in range(50)] for attempt in (1, 2, 3, 4, 9)]
    for middle, drawn in zip([1, 2, 4, 8, 8], delays, strict=True):
        assert 0.5 * middle <= min(drawn) < max(drawn) <= 1.5 * middle
    assert policy.delay_s(1, Fault("transient", "429", "", retry_after_s=60), Random(0)) == 60


class Diary(RetryPolicy):
    """Writes down after which try each pause was reckoned."""

    def delay_s(self, attempt, fault, random):
        self.__dict__.setdefault("attempts", []).append(attempt)
        return 0.0


def test_pauses_grow_when_the_server_fails_and_not_when_one_call_is_unlucky(tmp_path):
    pairs, unlucky, down = make_pairs(60), "Instruction number 50.", Diary(tries=8)
    with JudgeServer() as judge:
        judge.fault = lambda number: status(500) if unlucky in judge.bodies[number]["messages"][-1]["content"] else None
        well = Diary(tries=4)
        annotations = llm(tmp_path, api_judge(judge.base_url, 1, well)).annotate(pairs)
        assert [a.state for a in annotations].count("failed") == 1
        assert well.attempts[:3] == [1, 1, 1]
        judge.fault = lambda number: status(500) if len(judge.bodies) > 100 else None  # fails in the middle
        llm(tmp_path / "other", api_judge(judge.base_url, 1, down)).annotate(pairs[:42])
    assert down.attempts[0] == 1  # the first call finds a server that was well until now
    assert {5, 6, 7, 8} <= set(down.attempts)


def test_a_call_that_never_succeeds_fails_alone_and_is_asked_again_next_time(tmp_path):
    pairs = make_pairs(6)
    unlucky = pairs[2].output_1
    with JudgeServer() as judge:
        judge.fault = lambda number: status(500) if unlucky in judge.bodies[number]["messages"][-1]["content"] else None
        annotations = llm(tmp_path, api_judge(judge.base_url)).annotate(pairs)
        assert [a.state for a in annotations] == ["ok", "ok", "failed", "ok", "ok", "ok"]
        assert annotations[2].preference is None
        assert len(judge.bodies) == 5 + QUICK.tries
        judge.fault, judge.bodies = (lambda number: None), []
        again = llm(tmp_path, api_judge(judge.base_url)).annotate(pairs)
    assert {a.state for a in again} == {"ok"}
    assert len(judge.bodies) == 1


@pytest.mark.parametrize(
    ("reply", "headline", "action"),
    [
        (status(401, message=f"Incorrect API key: {CANARY}"), "refused the API key", "OPENAI_API_KEY"),
        (status(403), "forbids", "annotator.model"),
        (status(404, "model_not_found"), "no model 'gpt-4.1'", "annotator.model"),
        (status(400), r"refuses the request .*\(400\)", "completions_kwargs"),
        (status(422), r"refuses the request .*\(422\)", "completions_kwargs"),
        (status(429, "insufficient_quota"), "no credit left", "Top it up"),
    ],
)
def test_permanent_faults_stop_at_once_and_say_what_to_do(tmp_path, monkeypatch, reply, headline, action):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with JudgeServer(fault=always(reply)) as judge, pytest.raises(AnnotationError, match=headline) as caught:
        llm(tmp_path, api_judge(judge.base_url, 2)).annotate(make_pairs(50))
    assert action in caught.value.next_action
    assert len(judge.bodies) <= 2
    assert CANARY not in str(caught.value)


def test_what_was_answered_before_a_permanent_fault_is_kept(tmp_path):
    with JudgeServer(fault=lambda number: status(401) if number >= 10 else None) as judge:
        with pytest.raises(AnnotationError):
            llm(tmp_path, api_judge(judge.base_url, 2)).annotate(make_pairs(50))
        assert len(CallCache(tmp_path)) == judge.n_answered == 10
        judge.fault, judge.bodies = (lambda number: None), []
        llm(tmp_path, api_judge(judge.base_url, 2)).annotate(make_pairs(50))
    assert len(judge.bodies) == 40


@pytest.mark.parametrize(("code", "state"), [("context_length_exceeded", "failed"), ("content_filter", "refused")])
def test_a_request_refused_for_its_content_is_a_state_of_that_example(tmp_path, code, state):
    with JudgeServer(fault=every(5, status(400, code))) as judge:
        annotations = llm(tmp_path, api_judge(judge.base_url, 1)).annotate(make_pairs(10))
    assert [a.state for a in annotations].count(state) == 2
    assert len(judge.bodies) == 10


def test_a_server_that_is_not_there_is_reported_soon(tmp_path):
    with pytest.raises(AnnotationError, match=r"http://127.0.0.1:9/v1 gives no answers \(connection\)"):
        llm(tmp_path, api_judge("http://127.0.0.1:9/v1")).annotate(make_pairs(100))


def test_a_server_that_only_fails_stops_the_run(tmp_path):
    with JudgeServer(fault=always(status(500))) as judge, pytest.raises(AnnotationError, match=r"no answers \(5xx\)"):
        llm(tmp_path, api_judge(judge.base_url)).annotate(make_pairs(100))
    asked = {body["messages"][-1]["content"] for body in judge.bodies}
    assert len(asked) <= QUICK.stop_after + 8  # those given up, and what is under way at concurrency 8
    assert len(judge.bodies) <= len(asked) * QUICK.tries <= 64


def test_the_key_goes_into_the_request_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with JudgeServer(fault=every(3, status(400, "content_filter", f"no, {CANARY}"))) as judge:
        llm(tmp_path / "calls", api_judge(judge.base_url)).annotate(make_pairs(9))
    assert judge.headers[0]["authorization"] == f"Bearer {CANARY}"
    cache = CallCache(tmp_path / "calls")
    kept = [repr(cache._disk[key]) for key in cache._disk]
    assert len(kept) == 9
    assert not any(CANARY in text for text in kept)
    for path in (tmp_path / "calls").iterdir():
        assert CANARY.encode() not in path.read_bytes()


def test_no_key_is_an_error_for_openai_alone(monkeypatch):
    with pytest.raises(AnnotationError, match="OPENAI_API_KEY is not set") as caught:
        check_annotator(AnnotatorConfig(name="greedy"), ExecutionConfig())
    assert "execution.base_url" in caught.value.next_action
    check_annotator(AnnotatorConfig(name="greedy"), ExecutionConfig(base_url="http://localhost:8000/v1"))
    check_annotator(AnnotatorConfig(), ExecutionConfig())
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert Endpoint.find().url == "http://localhost:8000/v1"
    check_annotator(AnnotatorConfig(name="greedy"), ExecutionConfig())
    with pytest.raises(ConfigError, match="not an HTTP address"):
        check_annotator(AnnotatorConfig(name="greedy"), ExecutionConfig(base_url="localhost:8000"))
