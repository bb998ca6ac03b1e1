"""Prices of models, in whole picodollars."""

import json
from decimal import Decimal

import pytest

from alpaca_farm_core.annotators.calls import Request
from alpaca_farm_core.annotators.prices import PriceTable, most_prompt_tokens, to_pico, usd
from alpaca_farm_core.errors import ConfigError

TABLE = PriceTable.load()


def request(text="hi", model="gpt-4.1", **sampling):
    return Request(model, ({"role": "user", "content": text},), sampling)


def test_counts_prompt_cached_and_completion_tokens():
    price = TABLE.find("gpt-4.1")  # 2.00, 0.50 and 8.00 dollars per million
    assert price.of({"prompt_tokens": 1000, "completion_tokens": 10}) == 2_080_000_000
    cached = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 400}}
    assert usd(price.of(cached)) == (600 * 2.0 + 400 * 0.5 + 10 * 8.0) / 1e6
    assert price.of(cached, by_batch=True) == price.of(cached) / 2
    assert TABLE.find("gpt-5-nano").of({"prompt_tokens": 1, "completion_tokens": 0}) == 50_000
    assert to_pico(0.1) == 10**11


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": "12", "completion_tokens": 3},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": 7},
    ],
)
def test_senseless_counts_have_no_price(usage):
    assert TABLE.find("gpt-4.1").of(usage) is None


def test_models_are_found_by_name_or_name_with_date_and_never_by_resemblance():
    assert TABLE.find("gpt-4.1-2025-04-14") == TABLE.find("gpt-4.1")
    assert TABLE.find("gpt-4o-2024-05-13") != TABLE.find("gpt-4o")
    for other in ("gpt-4.1-turbo", "my-gpt-4.1", "gpt-4.1-mini-ft", "gpt-4-0314", "gpt-4.1x", ""):
        assert TABLE.find(other) is None
    assert TABLE.as_of


def test_the_worst_case_bounds_every_tokenizer():
    text = "Größe 🙂 " * 50
    worst = TABLE.find("gpt-4.1").worst(request(text, max_tokens=7))
    assert worst >= (len(text.encode()) * 2 + 7 * 8) * 10**6
    assert most_prompt_tokens(request(text)) >= len(json.dumps([{"role": "user", "content": text}], ensure_ascii=False))
    assert most_prompt_tokens(request("x", response_format={"schema": "y" * 500})) > 500
    assert TABLE.find("gpt-4.1").worst(request(text)) is None
    both = TABLE.find("gpt-4.1").worst(request(text, max_tokens=7, n=3))
    assert both - worst > 2 * 7 * 8 * 10**6


def test_a_users_table_goes_over_the_built_in_one(tmp_path):
    own = tmp_path / "prices.yaml"
    own.write_text(
        "batch_factor: 0.25\nmodels:\n  mine: {prompt: 0, completion: 0}\n  gpt-4.1: {prompt: 1, completion: 2}"
    )
    table = PriceTable.load(str(own))
    assert (table.find("mine").prompt, table.find("gpt-4.1").cached) == (0, 10**6)
    assert table.find("gpt-4.1").batch == Decimal("0.25")
    assert table.find("gpt-4o") == TABLE.find("gpt-4o")
    assert table.find("mine").worst(request(model="mine")) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [1]", "no 'models'"),
        ("model: {}", "no 'models'"),
        ("models: {}\nmodles: {}", "Unknown key 'modles'"),
        ("models: {a: {prompt: 1}}", "'a'"),
        ("models: {a: {prompt: 1, completion: -1}}", "a.completion"),
        ("models: {a: {prompt: cheap, completion: 1}}", "a.prompt"),
        ("models: {a: {prompt: 1, completion: 1, output: 2}}", "'a'"),
        ("models: {", "cannot be read"),
    ],
)
def test_a_broken_table_is_named(tmp_path, text, said):
    own = tmp_path / "prices.yaml"
    own.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        PriceTable.load(str(own))
    assert str(own) in caught.value.headline
    with pytest.raises(ConfigError, match="cannot be read"):
        PriceTable.load(str(tmp_path / "absent.yaml"))
