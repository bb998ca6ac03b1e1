"""Money over real HTTP: a cap that is never exceeded, clean stops, going on without paying again."""

import dataclasses

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.factory import check_annotator
from alpaca_farm_core.annotators.ledger import Balance
from alpaca_farm_core.annotators.prices import PriceTable
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.annotators.retry import RetryPolicy
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import AnnotationError, BudgetReachedError, ConfigError
from alpaca_farm_core.pipeline.progress import SilentProgress
from tests.annotators.judge_server import HALF, HTML, RESET, JudgeServer, Reply, first, status
from tests.annotators.parts import QUICK, api_judge, llm, make_pairs

CALL = 2_400_000_000  # the server's 100 + 4 tokens at 20 and 100 dollars per million: 0.24 cents
DOLLAR = 10**12
PATIENT = RetryPolicy(first_delay_s=0.01, timeout_s=60.0)


@pytest.fixture
def purse(tmp_path):
    own = tmp_path / "prices.yaml"
    own.write_text("models: {gpt-4.1: {prompt: 20, completion: 100}}")
    return Purse(PriceTable.load(str(own)), "study", DOLLAR)


def with_budget(purse, dollars):
    return dataclasses.replace(purse, budget=None if dollars is None else int(dollars * DOLLAR))


def agree(cache, account="study"):
    """Ledger and cache tell the same sum; nothing is held any more."""
    balance = cache.ledger.balance(account)
    kept = [answer.price_usd for answers in cache.walk() for answer in answers.values()]
    assert balance.spent == round(sum(kept) * DOLLAR)
    assert sum(row[4] for row in cache.ledger.spending()) == balance.spent
    assert sum(row[3] for row in cache.ledger.spending()) == len(kept)
    assert balance.held == 0
    return balance


def test_a_dollar_at_64_in_flight_is_never_exceeded_and_a_higher_budget_goes_on(tmp_path, purse):
    pairs = make_pairs(600)
    with JudgeServer(latency_s=0.02) as judge:
        with pytest.raises(BudgetReachedError, match=r"budget of \$1\.00 is reached") as caught:
            llm(tmp_path / "calls", api_judge(judge.base_url, 64, PATIENT), purse=purse).annotate(pairs)
        assert caught.value.exit_code == 3
        assert "higher execution.budget_usd" in caught.value.next_action
        spent = agree(CallCache(tmp_path / "calls")).spent
        assert spent == judge.n_answered * CALL == len(judge.bodies) * CALL
        assert 0.9 * DOLLAR < spent <= DOLLAR
        assert judge.peak > 16
        n_first = len(judge.bodies)
        annotator = llm(tmp_path / "calls", api_judge(judge.base_url, 64, PATIENT), purse=with_budget(purse, 2))
        assert {a.state for a in annotator.annotate(pairs)} == {"ok"}
        assert len(judge.bodies) == 600
    assert agree(CallCache(tmp_path / "calls")).spent == 600 * CALL
    assert annotator.stats.n_cached == n_first
    assert annotator.stats.spent_usd == pytest.approx((600 - n_first) * 0.0024)
    assert annotator.stats.saved_usd == pytest.approx(n_first * 0.0024)


def test_a_budget_of_zero_makes_no_call_but_reads_the_cache(tmp_path, purse):
    pairs = make_pairs(8)
    with JudgeServer() as judge:
        with pytest.raises(BudgetReachedError, match=r"\$0\.00 is reached"):
            llm(tmp_path, api_judge(judge.base_url), purse=with_budget(purse, 0)).annotate(pairs)
        assert judge.bodies == []
        llm(tmp_path, api_judge(judge.base_url), purse=with_budget(purse, None)).annotate(pairs)
        annotations = llm(tmp_path, api_judge("http://127.0.0.1:9/v1"), purse=with_budget(purse, 0)).annotate(pairs)
    assert {a.state for a in annotations} == {"ok"}


def test_free_models_need_no_budget(tmp_path):
    own = tmp_path / "prices.yaml"
    own.write_text("models: {gpt-4.1: {prompt: 0, completion: 0}}")
    purse = Purse(PriceTable.load(str(own)), "free", 0)
    with JudgeServer() as judge:
        annotations = llm(tmp_path / "calls", api_judge(judge.base_url), purse=purse).annotate(make_pairs(8))
    assert {a.state for a in annotations} == {"ok"}


def test_an_unknown_price_is_refused_under_a_budget_only(tmp_path, purse):
    with JudgeServer() as judge:
        with pytest.raises(ConfigError, match="price of 'house-judge' is not known") as caught:
            llm(tmp_path, api_judge(judge.base_url), model="house-judge", purse=purse).annotate(make_pairs(3))
        assert judge.bodies == []
        assert "execution.price_table" in caught.value.next_action
        for ours in (with_budget(purse, None), dataclasses.replace(purse, allow_unknown=True)):
            annotator = llm(tmp_path, api_judge(judge.base_url), model="house-judge", purse=ours)
            assert {a.state for a in annotator.annotate(make_pairs(3))} == {"ok"}
    (row,) = CallCache(tmp_path).ledger.spending()
    assert row[:6] == ("study", "greedy", "house-judge", 3, 0, 3)


def test_an_unknown_price_is_found_before_a_long_run(tmp_path):
    annotator = AnnotatorConfig(name="greedy", model="house-judge")
    execution = ExecutionConfig(base_url="http://localhost:1/v1", budget_usd=1)
    with pytest.raises(ConfigError, match="not known"):
        check_annotator(annotator, execution)
    check_annotator(annotator, execution.model_copy(update={"allow_unknown_price": True}))
    check_annotator(annotator, execution.model_copy(update={"budget_usd": None}))


@pytest.mark.parametrize("reply", [HTML, HALF, RESET])
def test_tries_that_may_have_been_paid_for_count_at_their_worst_case(tmp_path, purse, reply):
    with JudgeServer(fault=first(1, reply)) as judge:
        annotator = llm(tmp_path, api_judge(judge.base_url, 1), purse=purse)
        annotator.annotate(make_pairs(1))
    balance = agree(CallCache(tmp_path))
    assert (balance.spent, balance.n_lost) == (CALL, 1)
    assert balance.lost > CALL
    assert annotator.stats.lost_usd == pytest.approx(balance.lost / DOLLAR)


def test_refused_tries_cost_nothing(tmp_path, purse):
    with JudgeServer(fault=first(3, status(500))) as judge:
        llm(tmp_path, api_judge(judge.base_url, 2), purse=purse).annotate(make_pairs(9))
    assert agree(CallCache(tmp_path)) == Balance(spent=9 * CALL)


def test_calls_that_reached_no_server_cost_nothing(tmp_path, purse):
    with pytest.raises(AnnotationError, match=r"no answers \(connection\)"):
        llm(tmp_path, api_judge("http://127.0.0.1:9/v1", 2), purse=purse).annotate(make_pairs(9))
    assert agree(CallCache(tmp_path)) == Balance()


def test_a_judge_that_always_times_out_cannot_spend_beyond_the_budget(tmp_path, purse):
    policy = RetryPolicy(tries=50, tries_unreached=50, first_delay_s=0.01, max_delay_s=0.01, timeout_s=0.05)
    with JudgeServer(fault=lambda number: Reply(hang_s=0.2)) as judge:
        with pytest.raises(BudgetReachedError, match="calls cut off"):
            llm(tmp_path, api_judge(judge.base_url, 4, policy), purse=with_budget(purse, 0.3)).annotate(make_pairs(30))
        balance = CallCache(tmp_path).ledger.balance("study")
        assert (balance.spent, balance.held) == (0, 0)
        assert balance.lost <= 0.3 * DOLLAR
        assert balance.n_lost >= len(judge.bodies)


def test_answers_without_token_counts_are_booked_at_the_worst_case(tmp_path, purse):
    raw = b'{"choices": [{"message": {"content": "Output (a)"}, "finish_reason": "stop"}]}'
    with JudgeServer(fault=lambda number: Reply(raw=raw)) as judge:
        llm(tmp_path, api_judge(judge.base_url), purse=purse).annotate(make_pairs(2))
    assert agree(CallCache(tmp_path)).spent > 2 * CALL


def test_a_content_filters_refusal_is_free(tmp_path, purse):
    with JudgeServer(fault=lambda number: status(400, "content_filter")) as judge:
        llm(tmp_path, api_judge(judge.base_url), purse=purse).annotate(make_pairs(2))
    assert agree(CallCache(tmp_path)) == Balance()


def test_accounts_are_apart(tmp_path, purse):
    other = dataclasses.replace(purse, account="other", budget=DOLLAR // 10)
    with JudgeServer() as judge:
        llm(tmp_path, api_judge(judge.base_url), purse=purse).annotate(make_pairs(40))
        llm(tmp_path, api_judge(judge.base_url), purse=other, seed=1).annotate(make_pairs(50)[40:])
    accounts = CallCache(tmp_path).ledger.accounts()
    assert {name: balance.spent for name, balance in accounts.items()} == {"study": 40 * CALL, "other": 10 * CALL}


def test_what_a_dead_process_held_is_lost(tmp_path):
    cache = CallCache(tmp_path)
    with cache.transaction():
        assert cache.ledger.hold("study", "ab" * 16, [("k1", 5), ("k2", 7), ("k3", 90)], 100) == 2
    assert cache.ledger.balance("study") == Balance(held=12)
    with JudgeServer() as judge:
        purse = Purse(PriceTable.load(), "study", None)
        llm(tmp_path, api_judge(judge.base_url, policy=QUICK), purse=purse).annotate(make_pairs(1))
    balance = cache.ledger.balance("study")
    assert (balance.held, balance.lost, balance.n_lost) == (0, 12, 2)


class Notes(SilentProgress):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


def test_the_price_is_told_before_the_run(tmp_path, purse):
    notes, pairs = Notes(), make_pairs(60)
    (request,) = llm(tmp_path, api_judge("http://127.0.0.1:9/v1")).requests(pairs[:1])
    tokens = sum(len(message["content"]) // 4 + 4 for message in request.messages)
    with JudgeServer() as judge:
        annotator = llm(tmp_path, api_judge(judge.base_url), purse=purse)
        annotator.annotate(pairs[:1], notes)
        dollars = tokens * 20e-6 + 16 * 100e-6
        text = f"1 calls to gpt-4.1 will cost about ${dollars:.2g}, by the length of the prompts; "
        assert notes.said == [text + "$1.00 of the budget of $1.00 are left"]
        annotator.annotate(pairs[:21], notes)
        text = "20 calls to gpt-4.1 will cost about $0.048, by the mean of such calls so far; "
        assert notes.said[1] == text + "$1.00 of the budget of $1.00 are left"
        poor = llm(tmp_path, api_judge(judge.base_url), purse=with_budget(purse, 0.1))
        with pytest.raises(BudgetReachedError):
            poor.annotate(pairs, notes)
    assert notes.said[2].endswith("$0.0496 of the budget of $0.10 are left; THE BUDGET WILL NOT DO")
    assert annotator.stats.timings()["spent_usd_greedy"] == pytest.approx(21 * 0.0024)
