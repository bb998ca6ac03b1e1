"""Leaderboard files: ranks with intervals, sorting, import of AlpacaEval's CSV, formats."""

import csv
import io
import random

import pytest

from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation.board import Board
from alpaca_farm_core.evaluation.board_formats import to_csv, to_html, to_markdown
from alpaca_farm_core.evaluation.ranks import Entry, ranks
from alpaca_farm_core.evaluation.scoring import ScoreOptions, score_files
from tests.evaluation.annotation_rows import row, write_json

PUBLISHED = """,win_rate,standard_error,n_wins,n_wins_base,n_draws,\
n_total,discrete_win_rate,mode,avg_length,length_controlled_winrate,lc_standard_error
gpt4_turbo,50.0,0.0,0,0,805,805,50.0,minimal,2049,50.0,
alpaca-7b,2.591451,0.491225,16,786,3,805,2.173913,minimal,396,5.875488,
"two, words",15.755503,1.080600,119,686,0,805.0,14.782609,community,1801,25.0,0.44
"""


def model_file(path, models):
    """Models → preferences, in one annotation file."""
    rows = [row(p, model, f"Instruction {i}") for model, ps in models.items() for i, p in enumerate(ps)]
    return write_json(path, rows)


def board_of(path, overwrite=False, board=None):
    board = board or Board()
    done = {one.row["model"]: board.add_scored(one, overwrite) for one in score_files([path], ScoreOptions())}
    return board, done


# Ranks.


def test_ranks_by_standard_errors():
    found = ranks([Entry("a", 60, 1.0), Entry("b", 59, 1.0), Entry("c", 40, 1.0)])
    assert [(r.rank, r.low, r.high) for r in found.values()] == [(1, 1, 2), (2, 1, 2), (3, 3, 3)]
    assert found["a"].really_worse == ("c",)
    assert found["c"].really_better == ("a", "b")


def test_holm_asks_more_of_many_pairs():
    """A difference at p = 0.03 is real among two models and not among three pairs."""
    apart = [Entry("a", 53.07, 1.0), Entry("b", 50, 1.0)]
    assert ranks(apart)["a"].high == 1
    assert ranks([*apart, Entry("c", 50, 1.0)])["a"].high == 3


def test_unknown_errors_and_equal_rates_are_never_real():
    found = ranks([Entry("a", 99, None), Entry("b", 1, 0.1), Entry("c", 1, 0.1)])
    assert [(r.rank, r.low, r.high) for r in found.values()] == [(1, 1, 3), (2, 1, 3), (2, 1, 3)]


def test_false_differences_stay_below_the_level():
    """Ten equal models: at most about one board in twenty states any difference."""
    rng = random.Random(0)
    n_false = 0
    for _ in range(200):
        entries = [Entry(str(k), 50 + rng.gauss(0, 2), 2.0) for k in range(10)]
        n_false += any(r.really_better for r in ranks(entries).values())
    assert n_false <= 18  # 200 · 5 % = 10, and 2.6 standard deviations


def test_shared_instructions_sharpen_ranks():
    rng = random.Random(1)
    base = {str(i): float(rng.random() < 0.5) for i in range(300)}
    better = {key: 1.0 if i < 20 else value for i, (key, value) in enumerate(base.items())}
    rates = [100 * sum(s.values()) / 300 for s in (better, base)]
    assert ranks([Entry("a", rates[0], 2.9), Entry("b", rates[1], 2.9)])["b"].low == 1
    paired = ranks([Entry("a", rates[0], 2.9, better), Entry("b", rates[1], 2.9, base)])
    assert (paired["a"].high, paired["b"].low) == (1, 2)


# The file.


def test_models_are_added_kept_and_updated(tmp_path):
    board, done = board_of(model_file(tmp_path / "a.json", {"a": [2, 2, 1], "b": [1, 1, 1]}))
    assert done == {"a": "added", "b": "added"}
    worse = model_file(tmp_path / "b.json", {"a": [1, 1, 1], "c": [2, 2, 2]})
    assert board_of(worse, board=board)[1] == {"a": "kept", "c": "added"}
    assert board.rows["a"]["n_wins"] == 2
    assert board_of(worse, overwrite=True, board=board)[1] == {"a": "updated", "c": "updated"}
    assert (board.rows["a"]["n_wins"], set(board.scores["a"].values())) == (0, {0.0})


def test_a_saved_board_is_the_same_board(tmp_path):
    board, _ = board_of(model_file(tmp_path / "a.json", {"a": [2, 2, 1], "b": [1, None, 1]}))
    board.save(tmp_path / "board.json")
    again = Board.load(tmp_path / "board.json")
    assert (again.rows, again.scores) == (board.rows, board.scores)
    assert again.compare("a", "b").n_shared == 2


def test_another_baseline_is_refused(tmp_path):
    board, _ = board_of(model_file(tmp_path / "a.json", {"a": [2, 1]}))
    other = write_json(tmp_path / "b.json", [{**row(2, "b"), "generator_1": "gpt"}])
    with pytest.raises(DataError, match="b was compared with gpt, the models of this leaderboard with sft"):
        board_of(other, board=board)


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "leaderboard.csv"
    path.write_text(PUBLISHED, encoding="utf-8")
    return Board.load(path)


def test_alpacaevals_csv_is_read(published):
    alpaca = published.rows["alpaca-7b"]
    assert (alpaca["win_rate"], alpaca["n_wins"], alpaca["mode"]) == (2.591451, 16, "minimal")
    assert alpaca["lc_standard_error"] is None
    assert alpaca["interval"] == pytest.approx([2.591451 - 1.959964 * 0.491225, 2.591451 + 1.959964 * 0.491225])
    assert published.rows["two, words"]["n_total"] == 805


@pytest.mark.parametrize(
    ("column", "reverse", "order"),
    [
        ("win_rate", False, ["gpt4_turbo", "two, words", "alpaca-7b"]),
        ("win_rate", True, ["alpaca-7b", "two, words", "gpt4_turbo"]),
        ("avg_length", False, ["gpt4_turbo", "two, words", "alpaca-7b"]),
        ("n_draws", False, ["gpt4_turbo", "alpaca-7b", "two, words"]),
        ("standard_error", False, ["gpt4_turbo", "alpaca-7b", "two, words"]),
        ("model", False, ["alpaca-7b", "gpt4_turbo", "two, words"]),
        ("model", True, ["two, words", "gpt4_turbo", "alpaca-7b"]),
        ("rank", False, ["gpt4_turbo", "two, words", "alpaca-7b"]),
        ("lc_standard_error", False, ["two, words", "gpt4_turbo", "alpaca-7b"]),
    ],
)
def test_sorting_by_any_column_unknown_last(published, column, reverse, order):
    assert [r["model"] for r in published.sorted_rows(column, reverse)] == order


def test_ranks_follow_the_sorted_rate(published):
    by_rate = {r["model"]: r["rank_interval"] for r in published.sorted_rows("win_rate")}
    assert by_rate == {"gpt4_turbo": [1, 1], "two, words": [2, 2], "alpaca-7b": [3, 3]}
    # Only one model has a standard error of its length-controlled rate: nothing is certain.
    controlled = {r["model"]: r["rank_interval"] for r in published.sorted_rows("length_controlled_winrate")}
    assert set(map(tuple, controlled.values())) == {(1, 3)}


@pytest.mark.parametrize("column", ["win_rat", "interval"])
def test_columns_without_order(published, column):
    with pytest.raises(UsageError, match=f"column '{column}'"):
        published.sorted_rows(column)


def test_comparing_needs_scores(published, tmp_path):
    with pytest.raises(DataError, match="has figures of alpaca-7b but not its scores by instruction"):
        published.compare("alpaca-7b", "gpt4_turbo")
    with pytest.raises(UsageError, match="no model 'alpaca_7b'"):
        published.compare("alpaca_7b", "gpt4_turbo")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.json", '{"a": 1}', "is not a leaderboard"),
        ("b.json", '[{"win_rate": 1}]', "is not a leaderboard"),
        ("b.json", '{"schema_version": 99, "models": []}', "newer version"),
        ("b.json", '[{"model": "a"}, {"model": "a"}]', "has the model a twice"),
        ("b.json", '[{"model": "a", "win_rate": 101}]', "'win_rate' holds 101, not a percentage"),
        ("b.csv", ",win_rate\na,much\n", "'win_rate' holds 'much', not a percentage"),
        ("b.csv", ",win_rate\na\n", "1 cells under 2 columns"),
        ("b.csv", ",win_rate\n", "holds no rows"),
    ],
)
def test_what_is_no_leaderboard(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        Board.load(path)


# Formats.


def test_csv_comes_back(published, tmp_path):
    path = tmp_path / "out.csv"
    rows = published.sorted_rows()
    path.write_text(to_csv(rows, published.columns()), encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [line["model"] for line in lines] == [r["model"] for r in rows]
    assert (lines[1]["rank_interval_low"], lines[1]["lc_standard_error"], lines[0]["lc_standard_error"]) == (
        "2",
        "0.44",
        "",
    )
    again = Board.load(path)
    assert again.rows["alpaca-7b"]["interval"] == published.rows["alpaca-7b"]["interval"]
    assert again.rows["alpaca-7b"]["n_wins_base"] == 786


def test_markdown_and_html_escape_names():
    board = Board()
    board.add({"model": "a|b <script>", "win_rate": 60.0, "standard_error": 2.0, "interval": [56.0, 64.0]}, None, False)
    board.add({"model": "c", "win_rate": 58.0, "standard_error": 2.0, "interval": None}, None, False)
    rows = board.sorted_rows()
    lines = to_markdown(rows).splitlines()
    assert lines[0].startswith("| Model | Rank | Win rate | SE | 95 % interval |")
    assert lines[2].startswith("| a\\|b <script> | 1 (1–2) | 60.0 |")
    page = to_html(rows, "A & B")
    assert "<script>" not in page
    assert "a|b &lt;script&gt;" in page
    assert "<title>A &amp; B</title>" in page
    assert 'style="left:56.00%;width:8.00%"' in page
    assert "http" not in page
