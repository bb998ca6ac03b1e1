"""A judge asked about the same pairs again and again: the record, and what counts as a change."""

import json

import pytest

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.agreement.anchors import compare_rounds, judge_anchors
from tests.annotators.judge_server import longer, shorter
from tests.annotators.parts import llm, make_pairs
from tests.annotators.scripted import ScriptedJudge

PAIRS = make_pairs(40)
ROWS = [{"instruction": p.instruction, "input": "", "output_1": p.output_1, "output_2": p.output_2} for p in PAIRS]


class Checks:
    """Rounds of one record; each may meet another judge."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []

    def round(self, taste=shorter, rows=(), settings=None, spoil=None):
        judge = ScriptedJudge(PAIRS, taste, spoil)

        def build(draw):
            return llm(self.folder / "calls", judge, draw=draw)

        record = judge_anchors(self.folder / "anchors.json", rows, settings or {"name": "greedy"}, build)
        self.asked.append(len(judge.requests))
        return record


def test_each_round_asks_anew_and_nothing_changed(tmp_path):
    checks = Checks(tmp_path)
    checks.round(rows=ROWS)
    checks.round()
    record = checks.round(rows=ROWS)
    assert checks.asked == [40, 40, 40]
    found = compare_rounds(record)
    assert (found["n_rounds"], found["n_compared"], found["n_changed"], found["flags"]) == (3, 40, 0, [])
    assert json.loads((tmp_path / "anchors.json").read_text()) == record


def test_another_taste_is_flagged(tmp_path):
    checks = Checks(tmp_path)
    checks.round(rows=ROWS)
    found = compare_rounds(checks.round(longer))
    assert found["n_changed"] == 40
    assert found["changed"] == ROWS
    assert any("40 of 40 anchors changed sides, surely more than 10%" in flag for flag in found["flags"])


def test_another_build_is_flagged_though_the_labels_are_the_same(tmp_path):
    checks = Checks(tmp_path)
    record = checks.round(rows=ROWS)
    record = checks.round()
    for label in record["rounds"][1]["labels"]:
        label["passport"]["fingerprint"] = "fp_2"
    found = compare_rounds(record)
    assert found["flags"] == ["the server now says 'gpt-4.1-build7 fp_2'; it said 'gpt-4.1-build7 fp_1'"]


def test_a_shift_to_one_side_and_lost_labels_are_flagged(tmp_path):
    checks = Checks(tmp_path)
    checks.round(rows=ROWS)

    def spoil(prompt, letters):
        return "Hm." if "number 3." in prompt else ""

    record = checks.round(spoil=spoil)
    found = compare_rounds(record)
    assert found["flags"] == ["1 anchors are without label; before it were 0"]
    for label in record["rounds"][1]["labels"][:10]:
        label["preference"] = 2.0
    # Of the first ten five were at 1; number 3 was lost and is back at 2, which it was before.
    found = compare_rounds(record, tolerance=0.5)
    assert (found["n_changed"], found["mean_shift"]) == (5, pytest.approx(5 / 40))
    assert found["flags"] == ["the mean preference moved by +0.125"]


def test_a_round_that_was_cut_off_goes_on(tmp_path):
    checks = Checks(tmp_path)
    checks.round(rows=ROWS)

    def die(prompt, letters):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.round(spoil=die)
    begun = json.loads((tmp_path / "anchors.json").read_text())["rounds"][1]
    assert begun["labels"] is None
    record = checks.round()
    assert record["rounds"][1]["draw"] == begun["draw"] > 0
    assert len(record["rounds"]) == 2


def test_records_of_something_else_are_refused(tmp_path):
    checks = Checks(tmp_path)
    with pytest.raises(DataError, match="no pairs to begin one"):
        checks.round()
    record = checks.round(rows=ROWS)
    with pytest.raises(DataError, match="one round only"):
        compare_rounds(record)
    with pytest.raises(DataError, match="record of other pairs"):
        checks.round(rows=ROWS[:3])
    with pytest.raises(DataError, match=r"other settings of the annotator \(name\)"):
        checks.round(settings={"name": "explained"})
    (tmp_path / "anchors.json").write_text("[]")
    with pytest.raises(DataError, match="is no record"):
        checks.round()
