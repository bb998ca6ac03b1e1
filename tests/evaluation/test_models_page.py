"""The page that compares models: its facts, its pictures, and that nothing of a model's text is markup."""

import json
import re

import pytest

from alpaca_farm_core.evaluation.report.models import length_points, models_facts, models_page
from alpaca_farm_core.evaluation.report.scatter import part_means, scatter
from alpaca_farm_core.evaluation.scoring import ScoreOptions, score_files
from tests.evaluation.annotation_rows import made_up, row, write_json


@pytest.fixture
def scored(tmp_path):
    good, _ = made_up(80, "good <b>", strength=1.5)
    weak, _ = made_up(80, "weak", strength=-1.0)
    for place, one in enumerate([*good, *weak]):
        one["dataset"] = f"set {place % 3}"
        one["explanation"] = f"because {place}"
        one["preference_price_per_example"] = 0.001
    weak[5]["preference"] = None
    weak[6] = {**weak[6], "preference": 2, "output_2": "<script>alert(1)</script>", "explanation": {"not": "text"}}
    return score_files([write_json(tmp_path / "a.json", [*good, *weak])], ScoreOptions())


def test_facts_of_the_page(scored):
    facts = models_facts(scored, "Two models", examples=2)
    assert (facts["baseline"], facts["annotators"]) == ("sft", ["judge"])
    assert facts["cost_usd"] == pytest.approx(0.16)
    good, weak = facts["models"]
    assert (good["model"], good["rank"], weak["n_missing"]) == ("good <b>", 1, 1)
    assert [group["group"] for group in good["groups"]] == ["set 0", "set 1", "set 2"]
    assert sum(group["n_total"] for group in weak["groups"]) == weak["n_total"] == 79
    (pair,) = facts["pairs"]
    assert (pair["n_shared"], pair["is_real"]) == (79, True)
    assert json.loads(json.dumps(facts, allow_nan=False))["title"] == "Two models"


def test_examples_are_the_extremes(scored):
    weak = models_facts(scored, "t", examples=2)["models"][1]
    better, worse = weak["examples"]
    scores = [s for s in scored[1].scores if s is not None]
    assert [r["score"] for r in better["rows"]] == sorted(scores, reverse=True)[:2]
    assert [r["score"] for r in worse["rows"]] == sorted(scores)[:2]
    assert (better["rows"][0]["output_2"], better["rows"][0]["explanation"]) == ("<script>alert(1)</script>", "")
    assert worse["rows"][0]["explanation"].startswith("because")


def test_the_page_is_whole_and_escaped(scored):
    page = models_page(models_facts(scored, "A & B"))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "good &lt;b&gt;" in page
    assert "<title>A &amp; B</title>" in page
    assert page.count("<svg") == 4  # win rates, groups, two scatters
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "Model against model" in page


@pytest.mark.parametrize("preferences", [[None, None], [1.5, 1.5], [2]])
def test_little_data_still_makes_a_page(tmp_path, preferences):
    rows = [row(p, instruction=f"Instruction {i}") for i, p in enumerate(preferences)]
    scored = score_files([write_json(tmp_path / "a.json", rows)], ScoreOptions())
    page = models_page(models_facts(scored, "t"))
    assert "1 model" in page
    assert "nan" not in page.lower()


def test_models_of_other_instructions_are_said_not_to_be_comparable(tmp_path):
    rows = [row(2, "a", "One."), row(1, "a", "Two."), row(2, "b", "Three."), row(1, "b", "Four.")]
    scored = score_files([write_json(tmp_path / "a.json", rows)], ScoreOptions())
    facts = models_facts(scored, "t")
    assert "share no annotated instruction" in facts["pairs"][0]["problem"]
    assert "share no annotated instruction" in models_page(facts)


def test_means_of_equal_parts():
    points = [(float(i), float(i >= 20)) for i in range(40)][::-1]
    means = part_means(points, parts=4)
    assert means == [(4.5, 0.0, 10), (14.5, 0.0, 10), (24.5, 1.0, 10), (34.5, 1.0, 10)]
    assert part_means([]) == []
    assert part_means([(1.0, 0.5)]) == [(1.0, 0.5, 1)]


def test_a_scatter_of_many_points_is_thinned_not_its_means():
    picture = scatter([(i % 977, (i % 7) / 6) for i in range(20_000)], "x", "y")
    assert picture.count("<circle") < 1600
    assert "2500 pairs" in picture


def test_length_points_are_model_minus_baseline(tmp_path):
    rows = [row(2, output="four"), row(1, instruction="b", output=""), row(None, instruction="c")]
    (one,) = score_files([write_json(tmp_path / "a.json", rows)], ScoreOptions())
    assert length_points(one) == [(-1.0, 1.0), (-5.0, 0.0)]
