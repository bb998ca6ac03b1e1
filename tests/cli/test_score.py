"""`alpaca-farm score` and `alpaca-farm leaderboard`: options, JSON, exit codes, and what goes to standard error."""

import csv
import json
import subprocess
import sys

import pytest

from tests.evaluation.annotation_rows import GAMED_HEADER, gamed_table, made_up, row, write_csv, write_json


@pytest.fixture
def two_models(tmp_path):
    rows, _ = made_up(60, "good", strength=1.5)
    others, gammas = made_up(60, "weak", strength=-1.5)
    others[0]["preference"] = None
    return {
        "annotations": write_json(tmp_path / "a.json", [*rows, *others]),
        "difficulty": write_csv(tmp_path / "d.csv", ["instruction", "instruction_difficulty"], gammas.items()),
        "gamed": write_csv(tmp_path / "g.csv", GAMED_HEADER, gamed_table(gammas)),
    }


def test_json_is_a_list_with_one_object_per_model(alpaca_farm, two_models):
    done = alpaca_farm("score", two_models["annotations"], "--json")
    assert (done.code, [r["model"] for r in done.json]) == (0, ["good", "weak"])
    assert list(done.json[1])[:10] == [
        *("model", "win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base"),
        *("n_draws", "n_total", "n_missing", "avg_length"),
    ]
    assert done.json[1]["length_controlled_winrate"] is None
    assert "weak: 1 rows without annotation" in done.err


def test_length_controlled_by_the_documented_options(alpaca_farm, two_models):
    files = ("--instruction-difficulty", two_models["difficulty"], "--gamed", two_models["gamed"])
    done = alpaca_farm("score", two_models["annotations"], "--length-controlled", *files, "--json")
    assert {r["lc_method"] for r in done.json} == {"length_controlled_v1"}
    assert all(0 < r["length_controlled_winrate"] < 100 for r in done.json)
    positional = alpaca_farm(
        "score", two_models["annotations"], *("--gamed", two_models["gamed"]), "--compat", "positional", "--json"
    )
    assert [r["length_controlled_winrate"] for r in positional.json] == pytest.approx(
        [r["length_controlled_winrate"] for r in done.json]
    )


def test_weights_need_no_fit(alpaca_farm, two_models, tmp_path):
    weights = write_csv(tmp_path / "w.csv", ["", "l", "d", "m"], [["good", -1, 0, 0.0], ["weak", 0, 0, 0]])
    done = alpaca_farm("score", two_models["annotations"], "--length-controlled", "--weights", weights, "--json")
    assert [r["length_controlled_winrate"] for r in done.json] == [50.0, 50.0]


def test_all_tables_at_once(alpaca_farm, two_models):
    extras = ("--by", "dataset", "--power", 805, "--compare", "good", "weak", "--length-controlled")
    done = alpaca_farm("score", two_models["annotations"], *extras, "--interval", "bootstrap")
    assert done.code == 0
    for part in ("LC %", "good: dataset", "made up", "805 instructions give", "a real difference", "59 shared"):
        assert part in done.out, part
    found = alpaca_farm("score", two_models["annotations"], "--compare", "weak", "good", "--json").json
    assert (len(found["models"]), found["comparison"]["is_real"]) == (2, True)
    assert found["comparison"]["difference"] < 0


def test_difficulties_are_estimated_and_saved(alpaca_farm, two_models, tmp_path):
    path = tmp_path / "estimated.csv"
    done = alpaca_farm("score", two_models["annotations"], "--estimate-difficulty", "--save-difficulty", path)
    assert done.code == 0
    assert len(list(csv.DictReader(path.read_text().splitlines()))) == 60


def test_power_without_files(alpaca_farm):
    assert alpaca_farm("score", "--power", 1068, "--json").json["half_width"] == pytest.approx(3.0, abs=1e-2)
    assert "± 3.0 points" in alpaca_farm("score", "--power", 1068).out


def test_no_length_control_for_any_model_is_a_failure(alpaca_farm, tmp_path):
    path = write_json(tmp_path / "a.json", [row(None), row(None, instruction="b")])
    done = alpaca_farm("score", path, "--length-controlled", "--json")
    assert (done.code, done.json[0]["lc_problem"]) == (1, "no row is annotated")
    assert "ppo: length control: no row is annotated" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["score"], "Missing argument 'FILES...'"),
        (["score", "A", "--interval", "wilson", "--cluster", "dataset"], "knows no clusters"),
        (["score", "A", "--annotator", "nobody"], "has no row of the annotator 'nobody'"),
        (["score", "A", "--by", "topic"], "has the field 'topic'"),
        (["score", "A", "--compare", "good", "best"], "no annotations of the model 'best'"),
        (["score", "A", "--gamed", "G"], "by row number alone"),
        (["score", "A", "--save-difficulty", "x.csv"], "needs --estimate-difficulty"),
        (["score", "A", "--weights", "absent.csv"], "no file absent.csv"),
        (["score", "G"], "not valid JSON"),
        (["leaderboard", "show", "A"], "is not a leaderboard"),
        (["leaderboard", "show", "absent.json"], "no file absent.json"),
        (["leaderboard", "add", "board.csv", "A"], "A leaderboard is kept as JSON"),
        (["leaderboard", "export", "A", "--format", "xls"], "'xls' is not one of"),
    ],
    ids=lambda value: " ".join(value)[:50],
)
def test_mistakes_are_usage_errors(alpaca_farm, two_models, words, said):
    places = {"A": two_models["annotations"], "G": two_models["gamed"]}
    done = alpaca_farm(*(places.get(word, word) for word in words))
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_leaderboard_from_first_to_last(alpaca_farm, two_models, tmp_path):
    board = tmp_path / "board.json"
    added = alpaca_farm("leaderboard", "add", board, two_models["annotations"], "--length-controlled", "--json")
    assert added.json == {"good": "added", "weak": "added"}
    assert "kept good as it is; --overwrite" in alpaca_farm("leaderboard", "add", board, two_models["annotations"]).out
    published = tmp_path / "alpaca_eval.csv"
    published.write_text(",win_rate,standard_error,avg_length\nalpaca-7b,2.59,0.49,396\n")
    assert alpaca_farm("leaderboard", "import", board, published).out.startswith("added alpaca-7b")
    rows = alpaca_farm("leaderboard", "show", board, "--json").json
    assert [(r["model"], r["rank_interval"]) for r in rows] == [
        *(("good", [1, 1]), ("weak", [2, 2]), ("alpaca-7b", [3, 3]))
    ]
    shown = alpaca_farm("leaderboard", "show", board, "--sort", "avg_length", "--reverse").out
    assert "rank" in shown
    assert "really" not in alpaca_farm("leaderboard", "compare", board, "good", "weak").err
    assert alpaca_farm("leaderboard", "compare", board, "good", "weak", "--json").json["n_shared"] == 59
    for kind in ("csv", "json", "md", "html"):
        out = tmp_path / f"out.{kind}"
        assert alpaca_farm("leaderboard", "export", board, "-o", out).code == 0
        assert alpaca_farm("leaderboard", "export", board, "--format", kind).out == out.read_text()
        assert "alpaca-7b" in out.read_text()
    assert json.loads((tmp_path / "out.json").read_text()) == rows


def test_scoring_loads_no_training_stack():
    code = (
        "from flows.cli.main import main\n"
        "try: main(['score', '--power', '10'])\nexcept SystemExit: pass\n"
        "import flows.cli.evaluate, flows.cli.leaderboard, alpaca_farm_core.evaluation.scoring, sys\n"
        "heavy = ('torch', 'transformers', 'pandas', 'sklearn', 'scipy', 'numpy', 'prefect', 'openai')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
