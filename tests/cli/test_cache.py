"""`alpaca-farm cache`: what is in it, out, in, and taken out on request."""

import json

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.prices import PriceTable
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.artifacts.store import Store
from tests.annotators.judge_server import JudgeServer, Reply
from tests.annotators.parts import api_judge, llm, make_pairs


@pytest.fixture
def judged(tmp_path):
    """A store with ten answers, one of them a refusal."""
    store = Store(tmp_path / "judged")
    refusal = Reply(refusal="No.")
    with JudgeServer(fault=lambda number: refusal if number == 0 else None) as judge:
        purse = Purse(PriceTable.load(), "study")
        llm(store.calls, api_judge(judge.base_url, 1), purse=purse).annotate(make_pairs(10))
    return store


def test_stats(judged, alpaca_farm):
    figures = json.loads(alpaca_farm("cache", "stats", "--store", judged.root, "--json").out)
    assert figures["n_answers"] == 10
    assert figures["models"] == {
        "gpt-4.1-build7": {"answers": 10, "refused": 1, "unpriced": 0, "usd": pytest.approx(0.00232)}
    }
    assert figures["accounts"]["study"]["spent_usd"] == pytest.approx(0.00232)
    (row,) = figures["spending"]
    assert (row["annotator"], row["answers"], row["prompt_tokens"], row["completion_tokens"]) == (
        "greedy",
        10,
        1000,
        40,
    )
    shown = alpaca_farm("cache", "stats", "--store", judged.root).out
    assert "10 answers" in shown
    assert "gpt-4.1-build7" in shown
    assert "study" in shown


def test_prune_removes_only_what_was_named_and_only_with_yes(judged, alpaca_farm):
    place = ("--store", judged.root)
    assert alpaca_farm("cache", "prune", *place).code == 2
    assert "Would remove 1 answers" in alpaca_farm("cache", "prune", "--refused", *place).out
    assert len(CallCache(judged.calls)) == 10
    assert "Removed 1 answers" in alpaca_farm("cache", "prune", "--refused", "--yes", *place).out
    assert len(CallCache(judged.calls)) == 9
    assert "Would remove 0" in alpaca_farm("cache", "prune", "--model", "gpt-4.1", *place).out
    gone = json.loads(alpaca_farm("cache", "prune", "--model", "gpt-4.1-build7", "--yes", "--json", *place).out)
    assert (gone["n"], gone["removed"], len(CallCache(judged.calls))) == (9, True, 0)


def test_export_and_import_carry_answers_to_another_store(judged, alpaca_farm, tmp_path):
    file, other = tmp_path / "answers.jsonl", tmp_path / "other"
    assert "10 answers" in alpaca_farm("cache", "export", file, "--store", judged.root).out
    assert "10 new, 0 known" in alpaca_farm("cache", "import", file, "--store", other).out
    assert "0 new, 10 known" in alpaca_farm("cache", "import", file, "--store", other).out
    annotator = llm(Store(other).calls, api_judge("http://127.0.0.1:9/v1"))
    assert [a.state for a in annotator.annotate(make_pairs(10))].count("ok") == 9
    assert annotator.stats.n_cached == 10


def test_import_of_annotation_files_and_of_other_files(alpaca_farm, tmp_path):
    pair = make_pairs(1)[0]
    row = {"instruction": pair.instruction, "output_1": pair.output_1, "output_2": pair.output_2,
           "annotator": "chatgpt_1", "preference": 2}  # fmt: skip
    file = tmp_path / "annotations_seed0_configs.json"
    file.write_text(json.dumps([row, {**row, "instruction": "b", "preference": None}]))
    place = ("--store", tmp_path / "store")
    assert "1 new, 0 known already, 1 rows without a label" in alpaca_farm("cache", "import", file, *place).out
    counts = json.loads(alpaca_farm("cache", "import", file, "--json", *place).out)
    assert counts == {str(file): {"new": 0, "known": 1, "missing": 1}}
    bad = tmp_path / "bad.jsonl"
    for text, said in [
        ('{"key": 1}', "no key"),
        ('{"key": "a", "answer": {"words": 1}}', "words"),
        ('{"key": "a", "answer": {"text": 1}}', "text or price"),
        ("nonsense", "not valid JSON"),
    ]:
        bad.write_text(text)
        assert said in alpaca_farm("cache", "import", bad, *place).err


def test_a_damaged_cache_is_named(judged, alpaca_farm):
    (judged.calls / "cache.db").write_bytes(b"no database" * 1000)
    done = alpaca_farm("cache", "stats", "--store", judged.root)
    assert done.code == 1
    assert "is damaged" in done.err
    assert "backup" in done.err
