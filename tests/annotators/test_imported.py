"""Annotation files of AlpacaFarm and AlpacaEval: labels paid for elsewhere are not paid for again."""

import json

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.imported import import_annotations, imported_labels
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Pair
from tests.annotators.judge_server import JudgeServer
from tests.annotators.parts import api_judge, llm, make_pairs


def rows_of(pairs, annotator="greedy", **more):
    return [
        {"instruction": p.instruction, "output_1": p.output_1, "output_2": p.output_2, "annotator": annotator, **more}
        for p in pairs
    ]


def write(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_imported_labels_need_no_call_whichever_way_round(tmp_path):
    pairs = make_pairs(6)
    rows = rows_of(pairs[:4], preference=2.0, preference_price_per_example=0.01)
    counts = import_annotations(CallCache(tmp_path / "calls"), write(tmp_path / "annotations.json", rows))
    assert counts == {"new": 4, "known": 0}
    turned = [Pair(p.instruction, p.input, p.output_2, p.output_1) for p in pairs[:2]]
    with JudgeServer() as judge:
        annotations = llm(tmp_path / "calls", api_judge(judge.base_url)).annotate([*pairs, *turned])
    assert [a.preference for a in annotations] == [2, 2, 2, 2, 1, 2, 1, 1]
    assert [a.explanation for a in annotations] == ["imported"] * 4 + ["", ""] + ["imported"] * 2
    assert len(judge.bodies) == 2


def test_ties_missing_labels_inputs_and_repeats(tmp_path):
    pairs = make_pairs(4)
    rows = rows_of(pairs, annotator="theirs")
    for row, preference in zip(rows, [0, None, -1, 1.25], strict=True):
        row["preference"] = preference
    rows.append(dict(rows[3], preference=1.75))  # said twice: the first stands
    rows.append({"instruction": "Translate.", "input": "oui", "output_1": "a", "output_2": "b",
                 "annotator": "theirs", "preference": 2})  # fmt: skip
    cache = CallCache(tmp_path / "calls")
    file = write(tmp_path / "annotations.json", rows)
    assert import_annotations(cache, file, annotator="ours") == {"new": 3, "known": 1, "missing": 2}
    assert import_annotations(cache, file, annotator="ours") == {"new": 0, "known": 4, "missing": 2}
    merged = Pair("Translate.\n\noui", "", "a", "b")  # as AlpacaEval writes it
    found = imported_labels(cache, "ours", [*pairs, merged])
    assert {pair: label.preference for pair, label in found.items()} == {pairs[0]: 1.5, pairs[3]: 1.25, merged: 2.0}
    assert imported_labels(cache, "theirs", pairs) == {}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"a": 1}, "no list"),
        ([1], "row 1: no 'instruction'"),
        ([{"instruction": "a", "output_1": "b", "output_2": 3, "annotator": "x", "preference": 1}], "'output_2'"),
        ([{"instruction": "a", "output_1": "b", "output_2": "c", "annotator": "x", "preference": "1"}], "not a number"),
        ([{"instruction": "a", "output_1": "b", "output_2": "c", "annotator": "x", "preference": 3}], "outside"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, rows, said):
    cache = CallCache(tmp_path / "calls")
    with pytest.raises(DataError, match=said):
        import_annotations(cache, write(tmp_path / "a.json", rows))
    assert len(cache) == 0
