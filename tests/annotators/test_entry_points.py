"""Annotating from Python: lists and frames in, the same out; order, repeats and gaps kept."""

import subprocess
import sys

import pandas as pd
import pytest

from alpaca_farm_core.annotators.entry_points import annotate_head2head, annotate_pairs, annotate_samples
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Pair
from tests.annotators.parts import llm, make_pairs
from tests.annotators.scripted import ScriptedJudge


def greedy(tmp_path, pairs, **options):
    return llm(tmp_path / "calls", ScriptedJudge(pairs, **options))


def rows_of(pairs):
    return [{"instruction": p.instruction, "output_1": p.output_1, "output_2": p.output_2} for p in pairs]


def test_frames_come_back_as_frames_with_their_index(tmp_path):
    pairs = make_pairs(4)
    frame = pd.DataFrame(rows_of(pairs), index=[7, 5, 5, 9])
    frame["input"] = [None, "", float("nan"), None]
    frame["note"] = list("wxyz")
    done = annotate_pairs(frame, greedy(tmp_path, pairs))
    assert list(done.index) == [7, 5, 5, 9]
    assert list(done["note"]) == list("wxyz")
    assert list(done["preference"]) == [1.0, 2.0, 1.0, 2.0]
    assert "preference" not in frame.columns
    empty = annotate_pairs(frame[:0], greedy(tmp_path, pairs))
    assert list(empty.columns) == list(frame.columns)


def test_a_gap_in_a_frame_is_named(tmp_path):
    frame = pd.DataFrame([*rows_of(make_pairs(1)), {"instruction": "i", "output_1": "a", "output_2": float("nan")}])
    with pytest.raises(DataError, match="Row 2: 'output_2' is nan"):
        annotate_pairs(frame, greedy(tmp_path, []))


def test_missing_labels_keep_their_rows(tmp_path):
    pairs = make_pairs(3)
    judge = greedy(tmp_path, pairs, spoil=lambda prompt, letters: "Hm." if "number 1." in prompt else "")
    done = annotate_pairs(rows_of(pairs) + rows_of(pairs)[1:2], judge)
    assert [row["preference"] for row in done] == [1.0, None, 1.0, None]
    assert [row["state"] for row in done] == ["ok", "unparsable", "ok", "unparsable"]
    frame = annotate_pairs(pd.DataFrame(rows_of(pairs)), judge)
    assert list(frame["preference"].isna()) == [False, True, False]


def test_the_instruction_may_stand_in_input_where_there_is_no_other(tmp_path):
    (pair,) = make_pairs(1)
    row = {"input": pair.instruction, "output_1": pair.output_1, "output_2": pair.output_2, "label": 2}
    (done,) = annotate_pairs([row], greedy(tmp_path, [pair]))
    assert (done["preference"], done["label"]) == (1.0, 2)


@pytest.mark.parametrize("data", ["text", {"instruction": "i"}, 3, [1, 2]])
def test_what_are_no_rows_is_said(tmp_path, data):
    with pytest.raises(DataError, match=r"neither a list|not a dictionary"):
        annotate_pairs(data, greedy(tmp_path, []))


def test_samples_of_an_instruction_are_compared_with_each_other(tmp_path):
    rows = [
        {"instruction": "Two.", "output": ["longer than that", "short"]},
        {"instruction": "Same.", "output": ["x", "x"]},
        {"instruction": "Many.", "output": ["a", "bb", "ccc", "dddd"]},
    ]
    pairs = [Pair("Two.", "", "longer than that", "short")]
    known = {"Two.": ("longer than that", "short"), "Many.": ("a", "bb", "ccc", "dddd")}
    judge = greedy(tmp_path, pairs, spoil=lambda prompt, letters: "Output (a)" if "Many." in prompt else "")
    done = annotate_samples(rows, judge, pairs_per_instruction=2)
    assert [row["instruction"] for row in done] == ["Two.", "Same.", "Many.", "Many."]
    assert (done[0]["sample_id_1"], done[0]["sample_id_2"], done[0]["preference"]) == (0, 1, 2.0)
    assert (done[1]["preference"], done[1]["state"]) == (1.5, "tie")
    used = [row[f"sample_id_{k}"] for row in done[2:] for k in (1, 2)]
    assert sorted(used) == [0, 1, 2, 3]
    for row in done[2:]:
        assert (row["output_1"], row["output_2"]) == tuple(known["Many."][row[f"sample_id_{k}"]] for k in (1, 2))
    one_a_row = [{"instruction": "Two.", "output": text} for text in known["Two."]]
    assert annotate_samples(one_a_row, judge) == done[:1]
    frame = annotate_samples(pd.DataFrame(rows), judge)
    assert list(frame["instruction"]) == ["Two.", "Same.", "Many."]
    assert annotate_samples([], judge) == []


def test_a_single_sample_makes_no_pair(tmp_path):
    with pytest.raises(DataError, match="Only one sample"):
        annotate_samples([{"instruction": "One.", "output": ["x"]}], greedy(tmp_path, []))
    with pytest.raises(DataError, match="Row 1: 'output' is an empty list"):
        annotate_samples([{"instruction": "None.", "output": []}], greedy(tmp_path, []))
    with pytest.raises(DataError, match="Row 1: 'output' is None"):
        annotate_samples([{"instruction": "One.", "output": None}], greedy(tmp_path, []))
    with pytest.raises(DataError, match="Row 1 has no 'output'"):
        annotate_samples([{"instruction": "One."}], greedy(tmp_path, []))


def test_two_models_meet_by_instruction_and_input(tmp_path):
    baseline = [
        {"instruction": "A.", "output": "long answer", "generator": "base"},
        {"instruction": "A.", "input": "x", "output": "other", "generator": "base"},
        {"instruction": "B.", "output": "first of two", "generator": "base"},
        {"instruction": "B.", "output": "second of them", "generator": "base"},
        {"instruction": "C.", "output": "nobody answers", "generator": "base"},
    ]
    model = [
        {"instruction": "B.", "output": "1", "generator": "new"},
        {"instruction": "A.", "output": "short", "generator": "new"},
        {"instruction": "D.", "output": "alone", "generator": "new"},
        {"instruction": "B.", "output": "2", "generator": "new"},
    ]
    judge = greedy(tmp_path, [], spoil=lambda prompt, letters: "Output (a)")
    done = annotate_head2head(baseline, model, judge)
    found = [(row["instruction"], row["input"], row["output_1"], row["output_2"], row["state"]) for row in done]
    assert found == [
        ("B.", "", "first of two", "1", "ok"),
        ("A.", "", "long answer", "short", "ok"),
        ("D.", "", None, "alone", "unmatched"),
        ("B.", "", "second of them", "2", "ok"),
        ("A.", "x", "other", None, "unmatched"),
        ("C.", "", "nobody answers", None, "unmatched"),
    ]
    assert [row["preference"] for row in done if row["state"] == "unmatched"] == [None] * 3
    assert (done[0]["generator_1"], done[0]["generator_2"], done[2]["generator_1"]) == ("base", "new", None)
    with pytest.raises(DataError, match="no instruction in common"):
        annotate_head2head(baseline[:1], model[2:3], judge)
    assert isinstance(annotate_head2head(pd.DataFrame(baseline), pd.DataFrame(model[:2]), judge), pd.DataFrame)


def test_pandas_is_loaded_only_for_frames():
    code = (
        "import sys, tempfile, pathlib; from alpaca_farm_core.annotators.entry_points import annotate_pairs\n"
        "rows = [{'instruction': 'i', 'output_1': 'a', 'output_2': 'a'}]\n"
        "print(annotate_pairs(rows, 'greedy', calls=pathlib.Path(tempfile.mkdtemp()))[0]['state'])\n"
        "print([m for m in ('pandas', 'torch', 'transformers', 'prefect') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["tie", "[]"]
