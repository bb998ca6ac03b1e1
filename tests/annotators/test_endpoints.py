"""Several endpoints and keys at once, Azure's addresses, limits per minute."""

import time

import pytest

from alpaca_farm_core.annotators.client import ApiJudge
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.retry import RetryPolicy
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import AnnotationError, ConfigError
from tests.annotators.judge_server import JudgeServer, Reply, always, status
from tests.annotators.parts import QUICK, llm, make_pairs


def judge_of(**execution):
    return ApiJudge.of(ExecutionConfig.build(execution))


def test_two_servers_share_the_calls_each_with_its_key_and_model_name(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY_A", "sk-a")
    monkeypatch.setenv("KEY_B", "sk-b")
    with JudgeServer(latency_s=0.05) as a, JudgeServer(latency_s=0.05) as b:
        endpoints = [
            {"url": a.base_url, "key_variable": "KEY_A", "concurrency": 4},
            {"url": b.base_url, "key_variable": "KEY_B", "concurrency": 4, "models": {"gpt-4.1": "our-deployment"}},
        ]
        annotations = llm(tmp_path, judge_of(endpoints=endpoints)).annotate(make_pairs(40))
    assert {x.state for x in annotations} == {"ok"}
    assert min(len(a.bodies), len(b.bodies)) >= 10
    assert len(a.bodies) + len(b.bodies) == 40
    assert {headers["authorization"] for headers in a.headers} == {"Bearer sk-a"}
    assert {headers["authorization"] for headers in b.headers} == {"Bearer sk-b"}
    assert {body["model"] for body in b.bodies} == {"our-deployment"}
    assert max(a.peak, b.peak) <= 4


def test_a_throttled_endpoint_leaves_its_calls_to_the_other(tmp_path):
    with JudgeServer(fault=always(status(429, Retry_After="1"))) as full, JudgeServer(latency_s=0.01) as free:
        endpoints = [{"url": full.base_url}, {"url": free.base_url}]
        annotator = llm(tmp_path, judge_of(endpoints=endpoints, concurrency=8))
        assert {a.state for a in annotator.annotate(make_pairs(60))} == {"ok"}
    assert len(free.bodies) == 60
    assert annotator.stats.retries["429"] == annotator.stats.faults["transient"] == len(full.bodies)


def test_azures_older_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_KEY", "az-1")
    with JudgeServer() as judge:
        endpoint = Endpoint(judge.base_url + "/openai/deployments/d", "AZURE_KEY", api_version="2024-10-21")
        llm(tmp_path, ApiJudge(endpoint, 2, QUICK)).annotate(make_pairs(2))
    assert judge.headers[0]["api-key"] == "az-1"
    assert judge.paths[0].endswith("/openai/deployments/d/chat/completions?api-version=2024-10-21")


def test_requests_per_minute(tmp_path):
    with JudgeServer() as judge:
        began = time.monotonic()
        llm(tmp_path, judge_of(base_url=judge.base_url, requests_per_minute=600)).annotate(make_pairs(66))
    assert time.monotonic() - began >= 0.6  # 60 at once, 9 a second after that


def test_tokens_per_minute(tmp_path):
    with JudgeServer() as judge:
        began = time.monotonic()
        llm(tmp_path, judge_of(base_url=judge.base_url, tokens_per_minute=60_000)).annotate(make_pairs(66))
    assert time.monotonic() - began >= 1.0  # a good 200 tokens each, of which 6,000 pass at once, then 900 a second


def test_bad_endpoints_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="not an HTTP address"):
        judge_of(endpoints=[{"url": "localhost:8000"}])
    with pytest.raises(ConfigError, match="beside"):
        judge_of(endpoints=[{"url": "http://a/v1"}], base_url="http://b/v1")
    with pytest.raises(ConfigError, match="url"):
        judge_of(endpoints=[{"url": ""}])
    (endpoint,) = Endpoint.all_of(
        ExecutionConfig.build({"endpoints": [{"url": "http://a/v1", "key_variable": "ABSENT"}]})
    )
    with pytest.raises(AnnotationError, match="ABSENT is not set"):
        endpoint.api_key()
    assert "ABSENT" in endpoint.name


def test_calls_in_flight_follow_what_the_server_takes(tmp_path):
    with JudgeServer(latency_s=0.02) as judge:
        judge.fault = lambda number: status(429) if judge.in_flight > 6 else None
        policy = RetryPolicy(first_delay_s=0.02, max_delay_s=0.1)
        annotator = llm(tmp_path, ApiJudge(Endpoint.find(judge.base_url), 64, policy))
        assert {a.state for a in annotator.annotate(make_pairs(150))} == {"ok"}
    assert annotator.stats.retries["429"] < 150


def test_json_under_a_wrong_content_type_is_an_answer_all_the_same(tmp_path):
    with JudgeServer(fault=always(Reply(content_type="text/plain"))) as judge:
        annotations = llm(tmp_path, judge_of(base_url=judge.base_url)).annotate(make_pairs(3))
    assert ({a.state for a in annotations}, len(judge.bodies)) == ({"ok"}, 3)


def test_one_bad_request_among_good_ones_fails_alone(tmp_path):
    with JudgeServer() as judge:
        judge.fault = lambda number: (
            status(400) if "Instruction number 7." in judge.bodies[number]["messages"][-1]["content"] else None
        )
        annotator = llm(tmp_path, judge_of(base_url=judge.base_url, concurrency=1))
        states = [a.state for a in annotator.annotate(make_pairs(10))]
    assert states == ["ok"] * 7 + ["failed"] + ["ok"] * 2
    assert annotator.stats.faults == {"content": 1}


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "the request exceeds the available context size",
        "prompt is too long: 9000 tokens > 8192 maximum",
    ],
)
def test_context_overflow_in_words_is_a_state_of_that_example_and_is_not_tried_again(tmp_path, message):
    with JudgeServer(fault=lambda number: status(400, message=message) if number == 0 else None) as judge:
        annotations = llm(tmp_path, judge_of(base_url=judge.base_url, concurrency=1)).annotate(make_pairs(3))
    assert [a.state for a in annotations] == ["failed", "ok", "ok"]
    assert "too long" in annotations[0].explanation
    assert len(judge.bodies) == 3
