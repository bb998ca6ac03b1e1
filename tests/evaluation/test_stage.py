import csv
import io
import json
import subprocess
import sys
from collections import Counter

import pytest

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.errors import ConfigError, DataError, MissingAnnotationsError
from alpaca_farm_core.evaluation import judge
from alpaca_farm_core.evaluation.config import EvaluationConfig, LeaderboardConfig
from alpaca_farm_core.evaluation.matching import generator_name, match
from alpaca_farm_core.evaluation.scoring import score_annotations
from alpaca_farm_core.evaluation.stage import STAGE_EVALUATE, STAGE_LEADERBOARD
from alpaca_farm_core.types import Output
from tests.evaluation.fake_run import JUDGED, Scripted, outputs, publish_outputs, run, world


def texts(generator, answers):
    return [Output(f"instruction {n}", "", text, generator, "made up") for n, text in enumerate(answers)]


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    def run_it(ours, theirs, silent=(), **config):
        monkeypatch.setattr(judge, "build_annotator", lambda *_: Scripted(silent))
        inputs = {
            "outputs": publish_outputs(tmp_path / "ours", ours, {}),
            "reference": publish_outputs(tmp_path / "theirs", theirs, {}),
        }
        return run(STAGE_EVALUATE, EvaluationConfig.build({"seed": 0, **config}), inputs, tmp_path / "evaluation")

    return run_it


def test_writes_alpacaevals_schema_with_the_reference_first(evaluate):
    artifact = evaluate(texts("ppo", ["long answer", "a", "same"]), texts("sft", ["short", "bbb", "same"]))
    rows = read_json(artifact.path / "annotations.json")
    assert rows[0] == {
        "instruction": "instruction 0",
        "input": "",
        "output_1": "short",
        "output_2": "long answer",
        "generator_1": "sft",
        "generator_2": "ppo",
        "annotator": "longer",
        "preference": 2.0,
        "dataset": "made up",
        "state": "ok",
        "explanation": "counted",
    }
    assert [row["preference"] for row in rows] == [2.0, 1.0, 1.5]
    assert not (artifact.path / "gold.json").exists()


def test_metrics_are_those_of_the_annotations_file(evaluate):
    artifact = evaluate(texts("ppo", ["long answer", "a", "same"]), texts("sft", ["short", "bbb", "same"]))
    metrics = read_json(artifact.path / "metrics.json")
    (scored,) = score_annotations(artifact.path / "annotations.json")
    for name in ("model", "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"):
        assert metrics[name] == scored[name], name
    assert metrics["states"] == {"ok": 2, "tie": 1}
    assert metrics["avg_length_reference"] == 4
    assert artifact.metrics["win_rate"] == 50.0


def test_outputs_are_matched_by_instruction_and_the_rest_is_counted(evaluate):
    ours = [*texts("ppo", ["xx", "x", "xxx"])[::-1], Output("only ours", "", "x", "ppo"), *texts("ppo", ["again"])]
    theirs = [
        *texts("sft", ["x", "xx", "x"]),
        Output("only theirs", "", "x", "sft"),
        Output("theirs too", "", "x", "sft"),
    ]
    metrics = read_json(evaluate(ours, theirs).path / "metrics.json")
    assert (metrics["n_wins"], metrics["n_wins_base"]) == (2, 1)
    assert (metrics["n_unmatched_model"], metrics["n_unmatched_reference"], metrics["n_repeated"]) == (1, 2, 1)


def test_the_same_instruction_with_another_input_is_another_one():
    ours, theirs = [Output("Rewrite.", "a", "A", "m")], [Output("Rewrite.", "b", "B", "n")]
    with pytest.raises(DataError, match="no instruction in common"):
        match(ours, theirs)


@pytest.mark.parametrize("rows", [[], [*texts("a", ["x"]), *texts("b", ["x"])]])
def test_outputs_come_from_one_generator(rows):
    with pytest.raises(DataError, match="one generator"):
        generator_name(rows, "outputs")


def test_few_missing_are_counted_and_bounded(evaluate):
    answers = texts("ppo", ["xx"] * 100)
    artifact = evaluate(answers, texts("sft", ["x"] * 100), silent={"instruction 3"})
    metrics = read_json(artifact.path / "metrics.json")
    assert (metrics["n_missing"], metrics["n_total"], artifact.manifest.n_missing) == (1, 99, 1)
    assert metrics["bounds"] == [99.0, 100.0]
    assert read_json(artifact.path / "annotations.json")[3]["preference"] is None


def test_too_many_missing_fail_the_stage(evaluate):
    with pytest.raises(MissingAnnotationsError, match="2 of 10 pairs"):
        evaluate(texts("p", ["xx"] * 10), texts("s", ["x"] * 10), silent={"instruction 3", "instruction 4"})


def test_label_noise_is_refused_unless_forced():
    with pytest.raises(ConfigError, match=r"label_flip=0\.25 belongs to training labels"):
        EvaluationConfig.build({"annotator": {"label_flip": 0.25}})
    forced = EvaluationConfig.build({"annotator": {"label_flip": 0.25}, "allow_label_noise": True, "seed": 7})
    assert forced.seeded_annotator().seed == 7
    assert EvaluationConfig.build({"annotator": {"seed": 3}, "seed": 7}).seeded_annotator().seed == 3


def test_the_embedded_world_adds_gold(made_run):
    evaluation = made_run["evaluation_ppo"]
    gold, metrics = read_json(evaluation.path / "gold.json"), read_json(evaluation.path / "metrics.json")
    assert evaluation.metrics["gold_win_rate"] == gold["win_rate"]["win_rate"]
    assert metrics["annotator"] == "oracle"
    assert gold["win_rate"]["n"] == metrics["n_total"] == 60


def test_rerun_is_bit_identical(made_run, tmp_path):
    inputs = {"outputs": made_run["outputs_ppo"], "reference": made_run["outputs_sft"]}
    again = run(STAGE_EVALUATE, JUDGED, inputs, tmp_path / "again")
    assert again.manifest.content == made_run["evaluation_ppo"].manifest.content


# Leaderboard ------------------------------------------------------------------------------------


@pytest.fixture
def board(made_run, tmp_path):
    """Leaderboard of two models against sft."""
    weak = publish_outputs(tmp_path / "weak", outputs(world(60), "weak|model", 0.95), {})
    inputs = {"outputs": weak, "reference": made_run["outputs_sft"]}
    other = run(
        STAGE_EVALUATE, EvaluationConfig(annotator={"oracle_temperature": 0.05}, seed=0), inputs, tmp_path / "e"
    )
    evaluations = {"evaluation_ppo": made_run["evaluation_ppo"], "evaluation_weak": other}
    return run(STAGE_LEADERBOARD, LeaderboardConfig(), evaluations, tmp_path / "board")


def test_leaderboard_is_sorted_with_the_baseline_at_50(board):
    rows = read_json(board.path / "leaderboard.json")
    assert [row["model"] for row in rows] == ["ppo", "sft", "weak|model"]
    assert [row["win_rate"] for row in rows] == sorted((row["win_rate"] for row in rows), reverse=True)
    baseline = rows[1]
    assert (baseline["win_rate"], baseline["standard_error"], baseline["is_baseline"]) == (50.0, 0.0, True)
    assert baseline["gold_utility"] is not None
    assert baseline["n_total"] is None
    assert board.metrics["best"] == "ppo"


def test_leaderboard_says_the_same_in_csv_and_markdown(board):
    rows = read_json(board.path / "leaderboard.json")
    table = list(csv.DictReader(io.StringIO((board.path / "leaderboard.csv").read_text())))
    assert [row["model"] for row in table] == [row["model"] for row in rows]
    assert float(table[0]["interval_low"]) == rows[0]["interval"][0]
    assert table[1]["n_total"] == ""
    lines = (board.path / "leaderboard.md").read_text().splitlines()
    assert len(lines) == 5
    assert lines[4].startswith("| weak\\|model |")
    assert "sft (baseline)" in lines[3]
    assert Counter(line.replace("\\|", "").count("|") for line in lines).keys() == {11}


def test_models_of_one_name_are_told_apart(made_run, tmp_path):
    evaluation = made_run["evaluation_ppo"]
    evaluations = {"evaluation_seed1": evaluation, "evaluation_seed2": evaluation}
    board = run(STAGE_LEADERBOARD, LeaderboardConfig(), evaluations, tmp_path / "board")
    assert {row["model"] for row in read_json(board.path / "leaderboard.json")} == {"ppo (seed1)", "ppo (seed2)", "sft"}


def test_a_baseline_that_was_evaluated_itself_is_not_added_twice(made_run, tmp_path):
    inputs = {"outputs": made_run["outputs_sft"], "reference": made_run["outputs_sft"]}
    itself = run(STAGE_EVALUATE, EvaluationConfig(seed=0), inputs, tmp_path / "itself")
    assert itself.metrics["n_draws"] == 60
    board = run(STAGE_LEADERBOARD, LeaderboardConfig(), {"evaluation_sft": itself}, tmp_path / "board")
    (row,) = read_json(board.path / "leaderboard.json")
    assert (row["model"], row["win_rate"], row["is_baseline"], row["interval"][0] < 50) == ("sft", 50.0, True, True)


def test_other_judges_and_other_baselines_do_not_mix(made_run, tmp_path, monkeypatch):
    inputs = {"outputs": made_run["outputs_ppo"], "reference": made_run["outputs_ppo"]}
    other = run(STAGE_EVALUATE, EvaluationConfig(seed=0), inputs, tmp_path / "other")
    evaluations = {"evaluation_a": made_run["evaluation_ppo"], "evaluation_b": other}
    with pytest.raises(DataError, match="2 different sets of reference outputs"):
        run(STAGE_LEADERBOARD, LeaderboardConfig(), evaluations, tmp_path / "board")
    monkeypatch.setattr(judge, "build_annotator", lambda *_: Scripted())
    inputs["reference"] = made_run["outputs_sft"]
    evaluations["evaluation_b"] = run(STAGE_EVALUATE, EvaluationConfig(seed=0), inputs, tmp_path / "longer")
    with pytest.raises(DataError, match="different annotators: longer, oracle"):
        run(STAGE_LEADERBOARD, LeaderboardConfig(), evaluations, tmp_path / "board2")
    with pytest.raises(DataError, match="at least one evaluation"):
        run(STAGE_LEADERBOARD, LeaderboardConfig(), {}, tmp_path / "board3")


def test_importing_the_stages_loads_nothing_heavy():
    heavy = ("torch", "transformers", "pandas", "matplotlib", "numpy", "openai", "prefect", "jinja2", "datasets")
    code = (
        "import alpaca_farm_core.evaluation.stage, alpaca_farm_core.evaluation.win_rate, sys, json\n"
        "import alpaca_farm_core.evaluation.report.stage\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
