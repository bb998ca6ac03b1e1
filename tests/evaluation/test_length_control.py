"""Length-controlled win rate: agreement with AlpacaEval's recipe spelled out here, and what can go wrong."""

import csv
import math
import random

import numpy as np
import pytest

from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation.length_control.build import length_control_from_files
from alpaca_farm_core.evaluation.length_control.difficulty import difficulties_csv
from alpaca_farm_core.evaluation.length_control.glm import length_feature
from alpaca_farm_core.evaluation.scoring import ScoreOptions, score_annotations, score_files
from tests.evaluation.annotation_rows import GAMED_HEADER, gamed_table, logistic, made_up, row, write_csv, write_json


def score(path, **files):
    (found,) = score_annotations(path, options=ScoreOptions(length_control=length_control_from_files(**files)))
    return found


def difficulty_csv(path, gammas, by="instruction"):
    names = gammas if by == "instruction" else range(len(gammas))
    return write_csv(path, [by, "instruction_difficulty"], zip(names, gammas.values(), strict=True))


@pytest.fixture
def case(tmp_path):
    """805 rows of one model with a difficulty, two gamed baselines, and three rows without annotation."""
    rows, gammas = made_up(805)
    for place in (3, 77, 500):
        rows[place]["preference"] = None
    rows[10]["preference"] = 0
    return {
        "rows": rows,
        "gammas": gammas,
        "annotations": write_json(tmp_path / "a.json", rows),
        "difficulty": difficulty_csv(tmp_path / "d.csv", gammas),
        "gamed": write_csv(tmp_path / "g.csv", GAMED_HEADER, gamed_table(gammas)),
        "path": tmp_path,
    }


# The second implementation: scikit-learn's own cross-validation on a design matrix written out.


def second_implementation(rows, gammas, gamed):
    """AlpacaEval's fit with LogisticRegressionCV; returns coefficients and predictions per row."""
    import sklearn
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    differences = np.array([len(r["output_1"]) - len(r["output_2"]) for r in rows], float)
    scaled = differences / np.std(differences, ddof=1)
    gamma = np.array([gammas[r["instruction"]] for r in rows])
    model_rows = np.array([[math.tanh(d), g, 1.0] for d, g in zip(scaled, gamma, strict=True)])
    gamed_rows = np.array([[math.tanh(line[3]), line[4], 0.0] for line in gamed])
    y = np.array([line[1] for line in gamed] + [_s(r["preference"]) for r in rows])
    x = np.vstack([gamed_rows, model_rows])
    weight = np.array([0.1] * len(gamed) + [1.0] * len(rows))
    there = ~np.isnan(y)
    x, y, weight = x[there], y[there], weight[there]
    n = len(y)

    def loss(y_true, y_pred, true_prob, true_sample_weight):
        p = np.clip(y_pred, 1e-15, 1 - 1e-15)
        s = np.where(y_true == 1, true_prob, 1 - true_prob)
        return -np.mean((s * np.log(p) + (1 - s) * np.log(1 - p)) * true_sample_weight)

    probability, weights = np.concatenate([y, 1 - y]), np.concatenate([weight, weight])
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(loss, response_method="predict_proba", greater_is_better=False)
        scorer = scorer.set_score_request(true_prob=True, true_sample_weight=True)
        model = LogisticRegressionCV(
            Cs=10, cv=GroupKFold(5), scoring=scorer, l1_ratios=(1.0,), solver="liblinear", fit_intercept=False,
            random_state=123, use_legacy_attributes=False,
        ).set_fit_request(sample_weight=True)  # fmt: skip
        model.fit(
            np.vstack([x, x]),
            np.concatenate([np.ones(n), np.zeros(n)]),
            sample_weight=probability * weights,
            groups=np.concatenate([np.arange(n), np.arange(n)]),
            true_prob=probability,
            true_sample_weight=weights,
        )
    coefficients = model.coef_[0]
    chances = [logistic(coefficients[1] * g + coefficients[2]) for g in gamma]
    return coefficients, chances


def _s(preference):
    return math.nan if preference is None else 0.5 if preference == 0 else preference - 1


@pytest.mark.parametrize("soft", [True, False], ids=["log-prob weighted", "ranking"])
def test_refit_agrees_with_scikit_learns_own_cross_validation(tmp_path, soft):
    rows, gammas = made_up(805, soft=soft)
    gamed = gamed_table(gammas)
    coefficients, chances = second_implementation(rows, gammas, gamed)
    found = score(
        write_json(tmp_path / "a.json", rows),
        difficulty=difficulty_csv(tmp_path / "d.csv", gammas),
        gamed=write_csv(tmp_path / "g.csv", GAMED_HEADER, gamed),
    )
    ours = found["lc_weights"]
    assert [ours["length"], ours["difficulty"], ours["model"]] == pytest.approx(coefficients.tolist(), abs=1e-6)
    assert found["length_controlled_winrate"] == pytest.approx(100 * np.mean(chances), abs=1e-6)
    assert found["lc_standard_error"] == pytest.approx(100 * np.std(chances, ddof=1) / math.sqrt(805), abs=1e-6)
    assert found["lc_method"] == "length_controlled_v1"


def test_refit_with_missing_rows_predicts_all(case):
    _, chances = second_implementation(case["rows"], case["gammas"], gamed_table(case["gammas"]))
    found = score(case["annotations"], difficulty=case["difficulty"], gamed=case["gamed"])
    assert found["length_controlled_winrate"] == pytest.approx(100 * np.mean(chances), abs=1e-6)
    assert (found["lc_n_fitted"], found["lc_n_predicted"], found["n_missing"]) == (802, 805, 3)


def test_prediction_from_given_weights(case):
    weights = write_csv(
        case["path"] / "w.csv",
        ["", "np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)"],
        [["ppo", -1.7, 0.9, 0.35], ["other", 0, 0, 9]],
    )
    found = score(case["annotations"], difficulty=case["difficulty"], weights=weights)
    chances = [1 / (1 + math.exp(-(0.9 * gamma + 0.35))) for gamma in case["gammas"].values()]
    mean = math.fsum(chances) / 805
    sem = math.sqrt(math.fsum((c - mean) ** 2 for c in chances) / 804 / 805)
    assert found["length_controlled_winrate"] == pytest.approx(100 * mean, abs=1e-9)
    assert found["lc_standard_error"] == pytest.approx(100 * sem, abs=1e-9)
    assert (found["lc_method"], found["lc_weights"]) == (
        "given weights",
        {"length": -1.7, "difficulty": 0.9, "model": 0.35},
    )


def test_weights_of_another_baseline_are_subtracted(case):
    weights = write_csv(
        case["path"] / "w.csv", ["model", "a", "b", "c"], [["ppo", -1.7, 0.9, 0.35], ["sft", -1, 0.4, 0.15]]
    )
    found = score(case["annotations"], difficulty=case["difficulty"], weights=weights)
    chances = [logistic(0.5 * gamma + 0.2) for gamma in case["gammas"].values()]
    assert found["length_controlled_winrate"] == pytest.approx(100 * np.mean(chances), abs=1e-9)


def test_the_fit_recovers_known_coefficients(tmp_path):
    rows, gammas = made_up(20_000, length=-1.2, strength=0.6, difficulty=0.8, soft=False)
    found = score(
        write_json(tmp_path / "a.json", rows), difficulty=difficulty_csv(tmp_path / "d.csv", gammas)
    )["lc_weights"]  # fmt: skip
    assert found == pytest.approx({"length": -1.2, "difficulty": 0.8, "model": 0.6}, abs=0.06)


def test_the_gamed_rows_pull_the_length_coefficient(tmp_path):
    """Where a model is long exactly when it is good, only the gamed rows tell length from quality."""
    rng = random.Random(1)
    rows = [
        row(2 if rng.random() < 0.75 else 1, instruction=f"Instruction {i}", output="m" * 300, output_1="b" * 100)
        for i in range(300)
    ]
    rows += [row(2 if rng.random() < 0.4 else 1, instruction=f"Instruction {i}", output="m" * 90, output_1="b" * 100)
             for i in range(300, 600)]  # fmt: skip
    gammas = {f"Instruction {i}": 0.0 for i in range(600)}
    path = write_json(tmp_path / "a.json", rows)
    difficulty = difficulty_csv(tmp_path / "d.csv", gammas)
    gamed = write_csv(tmp_path / "g.csv", GAMED_HEADER, gamed_table(gammas, length=0.0))
    free, pulled = score(path, difficulty=difficulty), score(path, difficulty=difficulty, gamed=gamed)
    assert abs(pulled["lc_weights"]["length"]) < abs(free["lc_weights"]["length"])
    assert (free["lc_method"], pulled["lc_method"]) == ("length_controlled_v1_noreg", "length_controlled_v1")


# Identity of instructions.


def test_order_does_not_matter_by_content_and_does_by_position(case):
    shuffled = list(case["rows"])
    random.Random(0).shuffle(shuffled)
    other = write_json(case["path"] / "shuffled.json", shuffled)
    by_index = difficulty_csv(case["path"] / "i.csv", case["gammas"], by="index")
    files = {"difficulty": case["difficulty"], "gamed": case["gamed"]}
    first, second = score(case["annotations"], **files), score(other, **files)
    assert second["length_controlled_winrate"] == pytest.approx(first["length_controlled_winrate"], abs=0.02)
    positional = {"difficulty": by_index, "gamed": case["gamed"], "positional": True}
    published, wrong = score(case["annotations"], **positional), score(other, **positional)
    assert published["length_controlled_winrate"] == pytest.approx(first["length_controlled_winrate"], abs=1e-9)
    assert abs(wrong["lc_weights"]["difficulty"]) < 0.5 * first["lc_weights"]["difficulty"]


def test_row_numbers_get_their_instruction_from_a_list(case):
    by_index = difficulty_csv(case["path"] / "i.csv", case["gammas"], by="index")
    order = write_json(case["path"] / "set.json", [{"instruction": name} for name in case["gammas"]])
    weights = write_csv(case["path"] / "w.csv", ["m", "a", "b", "c"], [["ppo", 0, 1, 0]])
    rows = write_json(case["path"] / "back.json", case["rows"][::-1])
    named = score(rows, difficulty=by_index, weights=weights, instructions=order)
    assert named["length_controlled_winrate"] == pytest.approx(
        score(rows, difficulty=case["difficulty"], weights=weights)["length_controlled_winrate"], abs=1e-9
    )
    with pytest.raises(UsageError, match="by row number alone"):
        score(rows, difficulty=by_index, weights=weights)


def test_an_input_merged_into_the_instruction_is_the_same_instruction(tmp_path):
    path = write_json(tmp_path / "a.json", [row(2, instruction="Rewrite.", input="a b")])
    difficulty = difficulty_csv(tmp_path / "d.csv", {"Rewrite.\n\na b": 2.0})
    weights = write_csv(tmp_path / "w.csv", ["m", "a", "b", "c"], [["ppo", 0, 1, 0]])
    found = score(path, difficulty=difficulty, weights=weights)
    assert found["length_controlled_winrate"] == pytest.approx(100 * logistic(2.0))
    assert found["lc_standard_error"] is None


def test_the_gamed_file_brings_the_difficulties_along(case):
    positional = score(case["annotations"], gamed=case["gamed"], positional=True)
    both = score(case["annotations"], difficulty=case["difficulty"], gamed=case["gamed"])
    assert positional["length_controlled_winrate"] == pytest.approx(both["length_controlled_winrate"], abs=1e-9)


def test_gamed_rows_from_annotations_of_gamed_baselines(case):
    """Two gamed baselines in AlpacaEval's JSON give the same fit as the table of their features."""
    verbose, _ = made_up(805, "verbose", length=-1.5, strength=0, difficulty=0)
    concise, _ = made_up(805, "concise", length=-1.5, strength=0, difficulty=0, longer=-200)
    table = []
    for name, rows in (("verbose", verbose), ("concise", concise)):
        features = length_feature([len(r["output_1"]) for r in rows], [len(r["output_2"]) for r in rows])
        for r, feature in zip(rows, features, strict=True):
            table.append([name, r["preference"] - 1, r["instruction"], feature])
    header = ["model", "preference", "instruction", "std_delta_len"]
    from_table = write_csv(case["path"] / "t.csv", header, table)
    from_rows = write_json(case["path"] / "gamed.json", [*verbose, *concise])
    files = {"difficulty": case["difficulty"]}
    first = score(case["annotations"], gamed=from_table, **files)
    second = score(case["annotations"], gamed=from_rows, **files)
    assert first["lc_weights"] == pytest.approx(second["lc_weights"], abs=1e-9)


@pytest.mark.parametrize("n", [100, 1000])
def test_fewer_and_more_than_805_rows_and_a_pool(tmp_path, n):
    rows, gammas = made_up(n)
    for place, one in enumerate(rows):
        one["annotator"] = f"judge {place % 3}"
    files = {"difficulty": difficulty_csv(tmp_path / "d.csv", gammas, by="index"), "positional": True}
    found = score(write_json(tmp_path / "a.json", rows), **files)
    expected = 100 * np.mean([logistic(gamma + 0.4) for gamma in gammas.values()])
    assert found["length_controlled_winrate"] == pytest.approx(expected, abs=1.0)
    assert found["annotators"] == {f"judge {k}": len(range(k, n, 3)) for k in range(3)}


# Difficulty from several models.


def test_difficulties_estimated_from_several_models(tmp_path):
    models = {f"m{k}": made_up(150, f"m{k}", strength=0.3 * k, soft=True)[0] for k in range(4)}
    _, gammas = made_up(150)
    path = write_json(tmp_path / "a.json", [one for rows in models.values() for one in rows])
    control = length_control_from_files(estimate=True)
    scored = score_files([path], ScoreOptions(length_control=control))
    estimated = control.difficulties.by_key
    ours, truth = [estimated[name] for name in gammas], list(gammas.values())
    assert np.corrcoef(ours, truth)[0, 1] > 0.95
    given = length_control_from_files(difficulty=difficulty_csv(tmp_path / "true.csv", gammas))
    known = {r["model"]: r for r in score_annotations(path, options=ScoreOptions(length_control=given))}
    for one in scored:
        expected = known[one.row["model"]]["length_controlled_winrate"]
        assert one.row["length_controlled_winrate"] == pytest.approx(expected, abs=0.5)
    saved = tmp_path / "estimated.csv"
    saved.write_text(difficulties_csv(estimated), encoding="utf-8")
    again = score_annotations(
        path, options=ScoreOptions(length_control=length_control_from_files(difficulty=saved))
    )  # fmt: skip
    assert [r["length_controlled_winrate"] for r in again] == pytest.approx(
        [one.row["length_controlled_winrate"] for one in scored]
    )


def test_one_model_is_too_few_to_estimate_difficulties(case):
    with pytest.raises(DataError, match="cannot be estimated from 1 model"):
        score(case["annotations"], estimate=True)


# What can go wrong.


def test_another_instruction_set_is_refused_or_left_out(case):
    rows = [*case["rows"], row(2, instruction="From elsewhere."), row(1, instruction="This one too.")]
    path = write_json(case["path"] / "more.json", rows)
    files = {"difficulty": case["difficulty"], "gamed": case["gamed"]}
    with pytest.raises(DataError, match=r"2 of the 807 instructions of ppo have no difficulty, the first 'From"):
        score(path, **files)
    found = score(path, **files, unknown="leave-out")
    assert (found["lc_n_predicted"], found["lc_n_without_difficulty"]) == (805, 2)
    nothing = score(write_json(case["path"] / "x.json", rows[-2:]), **files, unknown="leave-out")
    assert (nothing["length_controlled_winrate"], nothing["lc_problem"]) == (
        None,
        "no instruction has a difficulty",
    )


def test_more_rows_than_positions(case):
    rows = write_json(case["path"] / "more.json", [*case["rows"], row(2, instruction="806th")])
    with pytest.raises(DataError, match=r"1 of the 806 instructions of ppo have no difficulty, the first index 805"):
        score(rows, gamed=case["gamed"], positional=True)


@pytest.mark.parametrize(
    ("preferences", "rate", "problem"),
    [
        ([1.5] * 20, 50.0, ""),
        ([None] * 20, None, "no row is annotated"),
        ([2] * 20, None, "Every preference goes the same way"),
        ([2], None, "1 annotated rows are too few"),
        ([1, 2, 1], pytest.approx(36, abs=15), ""),
    ],
)
def test_little_or_lopsided_data_is_a_state(tmp_path, preferences, rate, problem):
    rows = [row(p, instruction=f"Instruction {i}", output="m" * (i + 1)) for i, p in enumerate(preferences)]
    found = score(write_json(tmp_path / "a.json", rows))
    assert found["length_controlled_winrate"] == rate
    assert found["lc_problem"].startswith(problem)
    assert bool(found["lc_problem"]) == bool(problem)
    assert found["lc_method"] == ("length_controlled_v1_noreg_minimal" if not problem else "")


@pytest.mark.parametrize("preference", [1, 2])
def test_gamed_rows_keep_a_lopsided_fit_finite(tmp_path, preference):
    rows, gammas = made_up(60)
    for one in rows:
        one["preference"] = preference
    found = score(
        write_json(tmp_path / "a.json", rows),
        gamed=write_csv(tmp_path / "g.csv", GAMED_HEADER, gamed_table(gammas)),
        positional=True,
    )
    assert abs(found["length_controlled_winrate"] - 100 * (preference - 1)) < 5
    assert all(math.isfinite(value) for value in found["lc_weights"].values())


@pytest.mark.parametrize("length", [0, 7])
def test_lengths_that_never_vary_control_nothing(tmp_path, length):
    rows = [row(1 + (i % 4 > 0), instruction=f"Instruction {i}", output="m" * length, output_1="") for i in range(400)]
    found = score(write_json(tmp_path / "a.json", rows))
    assert found["lc_weights"]["length"] == 0
    assert found["length_controlled_winrate"] == pytest.approx(75, abs=1)


def test_the_baseline_against_itself_is_50(tmp_path):
    rows = [row(1.5, model="sft", instruction=f"Instruction {i}", output="hello") for i in range(5)]
    found = score(write_json(tmp_path / "a.json", rows))
    assert (found["length_controlled_winrate"], found["lc_standard_error"], found["lc_method"]) == (50, 0, "baseline")


def test_a_fit_that_does_not_converge_says_so(case, monkeypatch):
    monkeypatch.setattr("alpaca_farm_core.evaluation.length_control.glm.MAX_ITERATIONS", 1)
    found = score(case["annotations"], difficulty=case["difficulty"], gamed=case["gamed"])
    assert found["lc_warning"].startswith("the fit did not converge")
    assert found["length_controlled_winrate"] is not None


def test_a_large_change_is_warned_of(case):
    weights = write_csv(case["path"] / "w.csv", ["m", "a", "b", "c"], [["ppo", 0, 0, -3]])
    found = score(case["annotations"], weights=weights)
    assert "which may be a failed fit" in found["lc_warning"]


def test_weights_without_the_model_or_the_difficulties(case):
    weights = write_csv(case["path"] / "w.csv", ["m", "a", "b", "c"], [["another", 0, 1, 1]])
    assert score(case["annotations"], weights=weights)["lc_problem"] == "the weights have no row 'ppo'"
    weights = write_csv(case["path"] / "w2.csv", ["m", "a", "b", "c"], [["ppo", 0, 1, 1]])
    assert "need difficulties" in score(case["annotations"], weights=weights)["lc_problem"]


def test_a_row_without_an_output_cannot_be_controlled(tmp_path):
    rows = [row(2), row(1, instruction="b")]
    rows[1]["output_1"] = None
    with pytest.raises(DataError, match=r"row 2 \(from 1\): there is no 'output_1'"):
        score(write_json(tmp_path / "a.json", rows))


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("difficulty", "a,b\n1,2\n", "Difficulties need 'instruction_difficulty'|has the columns a, b"),
        ("difficulty", "index,instruction_difficulty\n", "holds no rows"),
        ("difficulty", "instruction,instruction_difficulty\nx,much\n", "'much', not a finite number"),
        ("difficulty", "instruction,instruction_difficulty\nx,inf\n", "'inf', not a finite number"),
        ("difficulty", "instruction,instruction_difficulty\nx,1\nx,2\n", "'x' has two difficulties"),
        ("difficulty", "index,instruction_difficulty\n0,1\n0,2\n", "index 0 has two difficulties"),
        ("difficulty", "index,instruction_difficulty\n0.5,1\n", "index 0.5 is no row number"),
        ("difficulty", "instruction,instruction_difficulty\nx\n", r"row 1 .*: 1 cells under 2 columns"),
        ("gamed", "index,preference\n0,1\n", "has the columns index, preference"),
        ("gamed", "index,preference,std_delta_len\n0,7,1\n", "preference 7 is off the scale"),
        ("gamed", "index,preference,std_delta_len\n0,1,\n", "column 'std_delta_len' is empty"),
        ("weights", "model,a\nm,1\n", "has the columns model, a"),
    ],
)
def test_malformed_files_say_where(tmp_path, option, content, message):
    path = tmp_path / "file.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        length_control_from_files(**{option: path})


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*absent\.csv"):
        length_control_from_files(difficulty=tmp_path / "absent.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        length_control_from_files(weights=tmp_path / "b.csv")


def test_gamed_preferences_may_be_in_one_to_two(case):
    table = [[*line[:1], line[1] + 1, *line[2:]] for line in gamed_table(case["gammas"])]
    other = write_csv(case["path"] / "g2.csv", GAMED_HEADER, table)
    first = score(case["annotations"], difficulty=case["difficulty"], gamed=case["gamed"])
    second = score(case["annotations"], difficulty=case["difficulty"], gamed=other)
    assert second["lc_weights"] == pytest.approx(first["lc_weights"], abs=1e-9)


def test_estimated_difficulties_are_written_as_they_are_read():
    lines = list(csv.reader(difficulties_csv({"a, b": 0.5, 'c "d"\ne': -1.25}).splitlines(keepends=True)))
    assert lines == [["instruction", "instruction_difficulty"], ["a, b", "0.5"], ['c "d"\ne', "-1.25"]]
