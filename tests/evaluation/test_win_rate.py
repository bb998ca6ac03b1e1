import json
import random
import statistics

import pytest

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.intervals import mean_and_standard_error, normal, wilson
from alpaca_farm_core.evaluation.scoring import score_annotations
from alpaca_farm_core.evaluation.win_rate import to_score, win_rate


def second_implementation(preferences):
    """AlpacaEval's metrics as its documentation states them, written without looking at ours."""
    n_draws = sum(p in (0, 1.5) for p in preferences if p is not None)
    kept = [1.5 if p == 0 else p for p in preferences if p is not None]
    rounded = [p if p == 1.5 else (1 if p < 1.5 else 2) for p in kept]
    return {
        "win_rate": statistics.mean(p - 1 for p in kept) * 100,
        "standard_error": statistics.stdev(p - 1 for p in kept) / len(kept) ** 0.5 * 100,
        "discrete_win_rate": statistics.mean(p - 1 for p in rounded) * 100,
        "n_wins": sum(p > 1.5 for p in kept),
        "n_wins_base": sum(p < 1.5 for p in kept),
        "n_draws": n_draws,
        "n_total": len(kept),
        "n_missing": sum(p is None for p in preferences),
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_second_implementation(seed, weighted):
    rng = random.Random(seed)
    draw = (lambda: 1 + rng.random()) if weighted else (lambda: rng.choice([1, 2, 1.0, 2.0, 1.5, 0]))
    preferences = [None if rng.random() < 0.05 else draw() for _ in range(805)]
    ours = win_rate(preferences).to_row()
    for name, value in second_implementation(preferences).items():
        assert ours[name] == pytest.approx(value, abs=1e-8), name


def test_literal_example():
    found = win_rate([2, 2, 1, 0, 1.5, 1.25, None], lengths=[10, 11])
    # s = 1, 1, 0, 0.5, 0.5, 0.25: sum 3.25 of 6; squared deviations sum to 0.8020833…
    assert found.win_rate == pytest.approx(54.1666667)
    assert found.standard_error == pytest.approx(100 * (0.8020833333 / 5 / 6) ** 0.5)
    assert found.discrete_win_rate == pytest.approx(50.0)
    assert (found.n_wins, found.n_wins_base, found.n_draws, found.n_total, found.n_missing) == (2, 2, 2, 6, 1)
    assert found.avg_length == 10
    assert found.bounds == pytest.approx((100 * 3.25 / 7, 100 * 4.25 / 7))
    assert found.interval_method == "normal"
    assert found.interval == pytest.approx(
        (54.1666667 - 1.959964 * found.standard_error, 54.1666667 + 1.959964 * found.standard_error)
    )


def test_all_draws_have_an_interval_all_the_same():
    found = win_rate([1.5] * 10)
    assert (found.win_rate, found.standard_error, found.n_draws) == (50.0, 0.0, 10)
    assert found.interval_method == "wilson"
    assert found.interval == pytest.approx((23.659309, 76.340691), abs=1e-5)


def test_one_row_has_no_standard_error():
    found = win_rate([2])
    assert (found.win_rate, found.standard_error, found.interval_method) == (100.0, None, "wilson")


@pytest.mark.parametrize(("preferences", "bounds"), [([None, None], (0.0, 100.0)), ([], None)])
def test_nothing_annotated_is_a_state_not_a_number(preferences, bounds):
    found = win_rate(preferences)
    assert (found.win_rate, found.standard_error, found.discrete_win_rate, found.interval) == (None, None, None, None)
    assert found.n_missing == len(preferences)
    assert found.bounds == bounds


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1, 0.5, 2.01, 3, "2", True, [2]])
def test_values_off_the_scale_name_their_row(bad):
    with pytest.raises(DataError, match=r"row 3 \(from 1\): preference"):
        win_rate([1, 2, bad])


def test_scores_of_the_scale():
    assert [to_score(p, 0) for p in (1, 2, 0, 1.5, 1.25, None)] == [0.0, 1.0, 0.5, 0.5, 0.25, None]


def test_wilson_on_a_published_example():
    # Newcombe 1998, table I: 81 of 263 → 0.2553 to 0.3662.
    assert wilson(81 / 263, 263) == pytest.approx((25.53, 36.62), abs=0.005)
    assert wilson(0.0, 20) == pytest.approx((0.0, 16.11), abs=0.005)


def test_intervals_stay_on_the_scale():
    assert normal(0.99, 0.05)[1] == 100.0
    assert mean_and_standard_error([]) == (None, None)


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def row(preference, model="ppo", instruction="Say hi.", output="hi"):
    outputs = {"output_1": "hello", "output_2": output, "generator_1": "sft", "generator_2": model}
    return {"instruction": instruction, "preference": preference, "annotator": "judge", **outputs}


def test_scores_one_object_per_model_best_first(tmp_path):
    rows = [row(2, "b"), row(1, "a"), row(2, "b", "Say ho."), row(None, "a", "Say ho.", "four")]
    found = score_annotations(write(tmp_path / "annotations.json", rows))
    assert [one["model"] for one in found] == ["b", "a"]
    assert [one["win_rate"] for one in found] == [100.0, 0.0]
    assert (found[1]["n_missing"], found[1]["avg_length"]) == (1, 3)
    documented = (
        "model win_rate standard_error discrete_win_rate n_wins n_wins_base n_draws n_total n_missing avg_length"
    )
    assert {*documented.split(), "length_controlled_winrate", "lc_standard_error"} <= set(found[0])
    assert found[0]["length_controlled_winrate"] is None


def test_duplicates_count_as_in_alpacaeval_and_are_stated(tmp_path):
    (found,) = score_annotations(write(tmp_path / "a.json", [row(2), row(2), row(1, instruction="x")]))
    assert (found["n_total"], found["n_duplicates"]) == (3, 1)


@pytest.mark.parametrize(("name", "model"), [("annotations.json", "alpaca-7b"), ("gpt.json", "gpt")])
def test_without_generator_the_place_names_the_model(tmp_path, name, model):
    folder = tmp_path / "alpaca-7b"
    folder.mkdir()
    assert score_annotations(write(folder / name, [{"preference": 1.5}]))[0]["model"] == model


def test_jsonl_is_read_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row(p)) + "\n" for p in (1, 2)))
    assert score_annotations(path)[0]["win_rate"] == 50.0


def test_lengths_of_zero_are_lengths(tmp_path):
    (found,) = score_annotations(write(tmp_path / "a.json", [row(1, output=""), row(1, output="", instruction="b")]))
    assert found["avg_length"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds no annotations"),
        ('{"preference": 1}', "JSON dict, not a list"),
        ("[1]", r"row 1 \(from 1\): expected an object"),
        ('[{"preference": 1}, {"instruction": "x"}]', r"row 2 \(from 1\): there is no field 'preference'"),
        ('[{"preference": NaN}]', r"row 1 \(from 1\): preference nan"),
        ('[{"preference": 7}]', r"row 1 \(from 1\): preference 7"),
        ('[{"preference": 1, "output_2": ["a"]}]', "field 'output_2': expected text, got list"),
    ],
)
def test_malformed_files_say_where(tmp_path, content, message):
    path = tmp_path / "annotations.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        score_annotations(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*nowhere\.json"):
        score_annotations(tmp_path / "nowhere.json")
