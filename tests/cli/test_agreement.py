"""`alpaca-farm agreement`: judges side by side against people, as table and picture."""

from xml.etree import ElementTree

from tests.evaluation.annotation_rows import row, write_json


def test_two_judges_side_by_side(alpaca_farm, tmp_path):
    people = [row(label, instruction=f"i {n}") for n, label in enumerate([1, 1, 2, 2])]
    write_json(tmp_path / "people.json", people)
    write_json(tmp_path / "good.json", people)
    write_json(tmp_path / "bad.json", [row(label, instruction=f"i {n}") for n, label in enumerate([1, 2, 1, 2])])
    words = ("agreement", tmp_path / "good.json", tmp_path / "bad.json", "--human", tmp_path / "people.json")
    done = alpaca_farm(*words, "-o", tmp_path / "out")
    lines = done.out.splitlines()
    assert lines[0].split()[-2:] == ["good", "bad"]
    (accuracy,) = [line.split() for line in lines if line.startswith("agrees with the majority")]
    assert accuracy[4] == "100.0"
    assert "50.0" in accuracy
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"agreement.json", "agreement.svg"}
    ElementTree.parse(tmp_path / "out" / "agreement.svg")
    found = alpaca_farm(*words, "--json").json
    assert [found[name]["accuracy"]["value"] for name in ("good", "bad")] == [1.0, 0.5]
    # Of the four, "hello" (output 1) is the longer answer: people took it twice, the bad judge too.
    assert [found[name]["judge_prefers_longer"]["value"] for name in ("good", "bad")] == [0.5, 0.5]


def test_nobody_to_agree_with(alpaca_farm, tmp_path):
    done = alpaca_farm("agreement", write_json(tmp_path / "a.json", [row(1)]))
    assert done.code == 2
    assert "nobody to agree with" in done.err
