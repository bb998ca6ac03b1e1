"""Log-probability weighted labels against a scripted server that gives log-probs, over real HTTP."""

import json
import math

import pytest

from alpaca_farm_core.annotators.summary import summarise
from tests.annotators.judge_server import JudgeServer, Reply, always
from tests.annotators.parts import api_judge, llm, make_pairs


def body(tokens):
    """A completion whose one token has these probabilities."""
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in tokens.items()]
    message = {"role": "assistant", "content": top[0]["token"] if top else "", "refusal": None}
    logprobs = {"content": [{**top[0], "top_logprobs": top}] if top else []}
    choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": logprobs}
    return json.dumps({"model": "m", "choices": [choice], "usage": {"total_tokens": 9}}).encode()


def weighted(tmp_path, tokens, pairs, **options):
    with JudgeServer(fault=always(Reply(raw=body(tokens)))) as judge:
        annotator = llm(tmp_path, api_judge(judge.base_url), "weighted", **options)
        return annotator, annotator.annotate(pairs), judge.bodies


def test_the_preference_is_two_minus_the_share_of_the_first_answer(tmp_path):
    pairs = make_pairs(12)
    # 0.6 of 0.6 + 0.2 on the output shown first: P = 0.75, so 1.25, turned round where the order was.
    annotator, annotations, bodies = weighted(tmp_path, {"a": 0.6, "b": 0.2, "A": 0.1}, pairs)
    wanted = [1.25 if annotator.shown_first(pair) == 1 else 1.75 for pair in pairs]
    assert [a.preference for a in annotations] == pytest.approx(wanted)
    assert [a.passport.prefers_first for a in annotations] == pytest.approx([0.75] * 12)
    assert summarise(annotations)["first_position_preference"] == pytest.approx(0.75)
    assert (bodies[0]["logprobs"], bodies[0]["top_logprobs"], bodies[0]["max_tokens"]) == (True, 5, 1)


def test_an_answer_beyond_the_top_tokens_counts_nothing(tmp_path):
    _annotator, annotations, _ = weighted(tmp_path, {"b": 0.9}, make_pairs(4))
    assert [a.passport.prefers_first for a in annotations] == [0.0] * 4


def test_both_orders_of_a_torn_judge_are_a_tie(tmp_path):
    _, annotations, _ = weighted(tmp_path, {"a": 0.5, "b": 0.5}, make_pairs(3), both_orders=True)
    assert [a.preference for a in annotations] == [1.5] * 3
    assert {a.passport.consistent for a in annotations} == {True}


@pytest.mark.parametrize("tokens", [{"Sure": 0.9, "The": 0.1}, {}])
def test_without_either_answer_there_is_no_label(tmp_path, tokens):
    _, annotations, _ = weighted(tmp_path, tokens, make_pairs(2))
    assert {a.state for a in annotations} == {"unparsable"}


def test_a_server_without_logprobs_gives_no_label(tmp_path):
    pairs = make_pairs(2)
    with JudgeServer() as judge:
        annotations = llm(tmp_path, api_judge(judge.base_url), "weighted").annotate(pairs)
    assert {a.state for a in annotations} == {"unparsable"}
