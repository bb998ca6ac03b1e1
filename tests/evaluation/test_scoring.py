"""What `score` adds to the win rate: whose rows, clusters, tables, comparison, power, and what is counted out."""

import json
import math
import random
import statistics

import numpy as np
import pytest

from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation.annotation_file import read_annotations
from alpaca_farm_core.evaluation.clustered import Clusters
from alpaca_farm_core.evaluation.paired import compare, scores_by_instruction, two_sided_p
from alpaca_farm_core.evaluation.power import WIDEST_SD, instructions_needed, power, spread
from alpaca_farm_core.evaluation.scoring import ScoreOptions, compare_models, score_annotations, score_files
from tests.evaluation.annotation_rows import row, write_json


def rows_of(model, preferences, **more):
    return [row(p, model, f"Instruction {i}", **more) for i, p in enumerate(preferences)]


# Whose rows.


def test_a_pool_shares_the_pairs_out_and_is_one_row(tmp_path):
    rows = rows_of("ppo", [2, 1, 2, 2])
    for one, name in zip(rows, ["a", "b", "a", None], strict=True):
        one["annotator"] = name
    (found,) = score_annotations(write_json(tmp_path / "a.json", rows))
    assert (found["win_rate"], found["annotators"]) == (75.0, {"": 1, "a": 2, "b": 1})


@pytest.fixture
def two_judges(tmp_path):
    """Both judge the same three pairs, the second also a fourth."""
    first = rows_of("ppo", [2, 2, 1])
    second = [{**one, "annotator": "other"} for one in rows_of("ppo", [1, 1, 1, 2])]
    return write_json(tmp_path / "a.json", [*first, *second])


def test_two_judgements_of_one_pair_do_not_mix_silently(two_judges):
    with pytest.raises(DataError, match=r"several annotators \(judge, other\) judged the same pair of ppo"):
        score_annotations(two_judges)


@pytest.mark.parametrize(
    ("annotator", "expected"),
    [
        ("judge", [("ppo", 200 / 3, 3, 4)]),
        ("other", [("ppo", 25.0, 4, 3)]),
        ("pool", [("ppo", 300 / 7, 7, 0)]),
        ("each", [("ppo (judge)", 200 / 3, 3, 0), ("ppo (other)", 25.0, 4, 0)]),
    ],
)
def test_annotators_are_chosen_and_the_others_counted(two_judges, annotator, expected):
    found = score_annotations(two_judges, options=ScoreOptions(annotator=annotator))
    figures = [(r["model"], pytest.approx(r["win_rate"]), r["n_total"], r["n_other_annotators"]) for r in found]
    assert figures == expected


def test_a_model_without_rows_of_the_annotator_stays_in_the_list(tmp_path):
    rows = [*rows_of("a", [2, 1]), *({**one, "annotator": "other"} for one in rows_of("b", [2, 2, 2]))]
    path = write_json(tmp_path / "a.json", rows)
    found = score_annotations(path, options=ScoreOptions(annotator="judge"))
    assert [(r["model"], r["win_rate"], r["n_total"], r["n_other_annotators"]) for r in found] == [
        ("a", 50.0, 2, 0),
        ("b", None, 0, 3),
    ]


def test_rows_without_text_by_several_annotators_are_a_pool(tmp_path):
    rows = [{"preference": 2, "annotator": "a"}, {"preference": 1, "annotator": "b"}]
    assert score_annotations(write_json(tmp_path / "m.json", rows))[0]["n_total"] == 2


def test_an_unknown_annotator_names_those_there_are(two_judges):
    with pytest.raises(UsageError, match="no row of the annotator 'third'") as caught:
        score_annotations(two_judges, options=ScoreOptions(annotator="third"))
    assert caught.value.next_action == "It has: judge, other."


def test_one_model_in_two_files_is_refused(tmp_path):
    paths = [write_json(tmp_path / name, rows_of("ppo", [1])) for name in ("a.json", "b.json")]
    with pytest.raises(DataError, match=r"ppo is in .*a\.json and in .*b\.json"):
        score_annotations(*paths)


def test_a_model_against_two_baselines_is_refused(tmp_path):
    rows = [*rows_of("ppo", [1]), {**row(2, instruction="x"), "generator_1": "another"}]
    with pytest.raises(DataError, match="compared with 2 baselines: another, sft"):
        score_annotations(write_json(tmp_path / "a.json", rows))


# What is counted out.


def test_values_off_the_scale_become_missing_only_when_asked(tmp_path):
    path = tmp_path / "a.json"
    values = ["NaN", "3", "null", "2", "1", '"2"']
    path.write_text("[" + ",".join(f'{{"preference": {v}, "generator_2": "m"}}' for v in values) + "]")
    with pytest.raises(DataError, match=r"row 1 \(from 1\): preference nan"):
        score_annotations(path)
    (found,) = score_annotations(path, options=ScoreOptions(invalid_as_missing=True))
    assert (found["win_rate"], found["n_total"], found["n_missing"], found["n_invalid"]) == (50.0, 2, 4, 3)


def test_duplicates_go_only_when_asked(tmp_path):
    rows = [row(2), row(1, instruction="b"), row(2), row(2)]
    path = write_json(tmp_path / "a.json", rows)
    (kept,), (dropped,) = (score_annotations(path, options=ScoreOptions(drop_duplicates=d)) for d in (False, True))
    assert (kept["win_rate"], kept["n_duplicates"], kept["n_duplicates_dropped"]) == (75.0, 2, 0)
    assert (dropped["win_rate"], dropped["n_duplicates"], dropped["n_duplicates_dropped"]) == (50.0, 2, 2)


def test_many_models_keep_their_rows_apart(tmp_path):
    rng = random.Random(0)
    truth = {f"m{k}": [rng.choice([1, 2, 1.5]) for _ in range(20)] for k in range(7)}
    rows = [one for model, preferences in truth.items() for one in rows_of(model, preferences)]
    rng.shuffle(rows)
    found = {r["model"]: r["win_rate"] for r in score_annotations(write_json(tmp_path / "a.json", rows))}
    assert found == {m: pytest.approx(100 * statistics.mean(p - 1 for p in ps)) for m, ps in truth.items()}
    group = next(g for g in read_annotations(tmp_path / "a.json") if g.model == "m3")
    assert [rows[place]["preference"] for place in group.row_numbers] == group.preferences


# Clusters.


def test_clusters_of_one_row_give_the_plain_standard_error():
    scores = [0.0, 1.0, 1.0, 0.25]
    expected = statistics.stdev(scores) / 2
    assert Clusters.of(scores).standard_error() == pytest.approx(expected)
    assert Clusters.of(scores, "abcd").standard_error() == pytest.approx(expected)


def test_clustered_standard_error_by_hand():
    # Clusters a: 1, 1; b: 0, 0; c: 1. Mean 0.6; residual sums 0.8, −1.2, 0.4: squares 2.24; · 3/2 = 3.36; √ / 5.
    found = Clusters.of([1, 0, 1, 0, 1], ["a", "b", "a", "b", "c"])
    assert found.mean == pytest.approx(0.6)
    assert found.standard_error() == pytest.approx(math.sqrt(3.36) / 5)
    assert Clusters.of([1.0, 0.0], ["a", "a"]).standard_error() is None


def test_copied_rows_narrow_the_interval_unless_clustered(tmp_path):
    once = rows_of("ppo", [2, 1, 2, 2, 1, 1.5, 2, 2, 1, 2])
    many = write_json(tmp_path / "a.json", once * 9)
    (plain,) = score_annotations(many)
    (clustered,) = score_annotations(many, options=ScoreOptions(cluster="instruction"))
    (honest,) = score_annotations(write_json(tmp_path / "b.json", once))
    assert clustered["clustered_standard_error"] == pytest.approx(honest["standard_error"])
    assert clustered["interval"] == pytest.approx(honest["interval"])
    assert clustered["n_clusters"] == 10
    assert plain["interval"][0] > clustered["interval"][0]


def test_bootstrap_agrees_with_the_normal_interval_and_its_seed():
    rng = np.random.default_rng(0)
    clusters = Clusters.of(rng.random(800).tolist(), [i // 4 for i in range(800)])
    low, high = clusters.bootstrap(samples=4000, seed=1)
    assert (low, high) == clusters.bootstrap(samples=4000, seed=1)
    assert (low, high) != clusters.bootstrap(samples=4000, seed=2)
    error = clusters.standard_error()
    assert low == pytest.approx(100 * (clusters.mean - 1.96 * error), abs=0.25)
    assert high == pytest.approx(100 * (clusters.mean + 1.96 * error), abs=0.25)


def test_bootstrap_of_equal_scores_is_a_point_and_of_too_many_is_refused():
    assert Clusters.of([0.5] * 10).bootstrap() == (50.0, 50.0)
    scores = np.linspace(0, 1, 200_001).tolist()
    with pytest.raises(UsageError, match="takes minutes"):
        Clusters.of(scores).bootstrap()


@pytest.mark.parametrize("interval", ["normal", "wilson", "bootstrap"])
def test_the_interval_asked_for_is_the_one_given(tmp_path, interval):
    rows = rows_of("ppo", [2] * 60 + [1] * 40, dataset="one")
    (found,) = score_annotations(write_json(tmp_path / "a.json", rows), options=ScoreOptions(interval=interval))
    assert found["interval_method"] == interval
    assert found["interval"] == pytest.approx([50, 70], abs=1.0)


def test_one_dataset_is_no_cluster_to_learn_from(tmp_path):
    rows = rows_of("ppo", [2, 1, 2], dataset="one")
    (found,) = score_annotations(write_json(tmp_path / "a.json", rows), options=ScoreOptions(cluster="dataset"))
    assert (found["interval"], found["n_clusters"], found["clustered_standard_error"]) == (None, 1, None)
    with pytest.raises(UsageError, match="knows no clusters"):
        ScoreOptions(interval="wilson", cluster="dataset")


def test_clusters_need_instructions(tmp_path):
    path = write_json(tmp_path / "a.json", [{"preference": 1}, {"preference": 2}])
    with pytest.raises(DataError, match=r"row 1 \(from 1\): there is no instruction"):
        score_annotations(path, options=ScoreOptions(cluster="instruction"))


# Tables.


def test_a_table_by_any_field(tmp_path):
    rows = rows_of("ppo", [2, 1, 2, None])
    for one, category in zip(rows, ["poem", "code", "code", None], strict=True):
        one["category"] = category
    path = write_json(tmp_path / "a.json", rows)
    (found,) = score_annotations(path, options=ScoreOptions(by="category"))
    assert found["by"]["field"] == "category"
    figures = [(g["group"], g["win_rate"], g["n_total"], g["n_missing"]) for g in found["by"]["groups"]]
    assert figures == [("", None, 0, 1), ("code", 50.0, 2, 0), ("poem", 100.0, 1, 0)]
    with pytest.raises(UsageError, match="has the field 'topic'"):
        score_annotations(path, options=ScoreOptions(by="topic"))


# Two models.


def test_paired_comparison_by_hand():
    first = {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.0, "only first": 1.0}
    second = {"d": 0.0, "c": 0.0, "b": 0.0, "a": 1.0, "x": 0.0, "y": 1.0}
    found = compare("m", first, "n", second)
    # Differences 0, 1, 0.5, 0: mean 0.375, sd √(0.6875/3), over √4.
    error = math.sqrt(0.6875 / 3) / 2
    assert found.difference == pytest.approx(37.5)
    assert found.standard_error == pytest.approx(100 * error)
    assert found.interval == pytest.approx((37.5 - 195.9964 * error, 37.5 + 195.9964 * error))
    assert (found.n_shared, found.n_better, found.n_worse, found.n_equal) == (4, 2, 0, 2)
    assert (found.n_only_model, found.n_only_other) == (1, 2)
    assert not found.is_real
    assert compare("n", second, "m", first).difference == pytest.approx(-37.5)


def test_pairing_finds_what_two_intervals_hide():
    rng = random.Random(0)
    base = {str(i): float(rng.random() < 0.5) for i in range(200)}
    better = {key: 1.0 if i < 12 else value for i, (key, value) in enumerate(base.items())}
    found = compare("better", better, "base", base)
    assert found.is_real
    assert found.unpaired_standard_error > 2 * found.standard_error
    assert abs(found.difference) < 1.96 * found.unpaired_standard_error


@pytest.mark.parametrize(
    ("difference", "error", "p"), [(1.959964, 1, 0.05), (-2.575829, 1, 0.01), (0, 0, 1), (1, 0, 0), (0, 1, 1)]
)
def test_p_values_of_the_normal_table(difference, error, p):
    assert two_sided_p(difference, error) == pytest.approx(p, abs=1e-6)


def test_models_of_a_file_are_compared_by_instruction(tmp_path):
    rows = rows_of("a", [2, 2, 1, None]) + rows_of("b", [1, 2, 1, 2])[::-1]
    scored = score_files([write_json(tmp_path / "a.json", rows)], ScoreOptions())
    found = compare_models(scored, "a", "b")
    assert (found.difference, found.n_shared, found.n_only_other) == (pytest.approx(100 / 3), 3, 1)
    with pytest.raises(DataError, match="no annotations of the model 'c'"):
        compare_models(scored, "a", "c")


def test_what_cannot_be_compared_is_said(tmp_path):
    other_set = [row(2, "b", "From elsewhere."), row(1, "b", "This too.")]
    other_base = [{**one, "generator_1": "gpt"} for one in rows_of("c", [1, 2])]
    scored = score_files(
        [write_json(tmp_path / "a.json", [*rows_of("a", [2, 1]), *other_set, *other_base])], ScoreOptions()
    )
    with pytest.raises(DataError, match=r"a \(2 instructions\) and b \(2\) share no annotated instruction"):
        compare_models(scored, "a", "b")
    with pytest.raises(DataError, match="a was compared with sft and c with gpt"):
        compare_models(scored, "a", "c")


def test_repeated_instructions_count_once():
    assert scores_by_instruction(["a", "a", "b", "c"], [1.0, 0.0, 0.5, None]) == {"a": 0.5, "b": 0.5}


# Power.


def test_power_by_the_textbook():
    found = power(805)
    assert found["half_width"] == pytest.approx(1.959964 * 50 / math.sqrt(805), abs=1e-4)
    # Two-sided 5 %, 80 % power: (1.95996 + 0.84162) · sd / √n.
    assert found["detectable_difference"] == pytest.approx(2.80159 * 50 / math.sqrt(805), abs=1e-3)
    assert instructions_needed(3.0) == 1068  # the pollster's number
    assert power(instructions_needed(2.5))["half_width"] <= 2.5 < power(instructions_needed(2.5) - 1)["half_width"]


def test_power_uses_the_spread_there_is():
    assert spread([0.0, 1.0, None, 1.0]) == pytest.approx(statistics.stdev([0, 1, 1]))
    assert spread([0.5, 0.5]) == spread([1.0]) == spread([]) == WIDEST_SD
    for wrong in (lambda: power(0), lambda: instructions_needed(0)):
        with pytest.raises(UsageError):
            wrong()


def test_power_comes_true(tmp_path):
    """The half width foretold from 200 rows is the one that 800 such rows have."""
    rng = random.Random(0)
    preferences = [1 + rng.random() for _ in range(800)]
    small = write_json(tmp_path / "a.json", rows_of("m", preferences[:200]))
    (foretold,) = score_annotations(small, options=ScoreOptions(power=800))
    (had,) = score_annotations(write_json(tmp_path / "b.json", rows_of("m", preferences)))
    assert foretold["power"]["standard_error"] == pytest.approx(had["standard_error"], rel=0.05)


def test_rows_survive_json(tmp_path):
    """Everything in a row is plain and finite."""
    path = write_json(tmp_path / "a.json", rows_of("m", [1, 2, None]))
    options = ScoreOptions(by="annotator", power=10, cluster="instruction")
    (found,) = score_annotations(path, options=options)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
