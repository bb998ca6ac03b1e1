"""`annotate` and `agreement` as commands: files in, files out, exit codes."""

import json

import pytest

from tests.annotators.judge_server import JudgeServer, Reply, longer
from tests.annotators.parts import make_pairs

PAIRS = make_pairs(8)
ROWS = [{"instruction": p.instruction, "output_1": p.output_1, "output_2": p.output_2} for p in PAIRS]


@pytest.fixture
def files(tmp_path):
    people = [{**row, "preference": 1 + (k % 2 if k else 1)} for k, row in enumerate(ROWS)]
    samples = [{"instruction": p.instruction, "output": [p.output_1, p.output_2]} for p in PAIRS]
    sides = {name: [{"instruction": p.instruction, "output": getattr(p, name)} for p in PAIRS]
             for name in ("output_1", "output_2")}  # fmt: skip
    for name, rows in {"pairs": ROWS, "people": people, "samples": samples, **sides}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def labels(path):
    return [row["preference"] for row in json.loads(path.read_text())]


@pytest.mark.parametrize("words", [["pairs", "pairs"], ["samples", "samples"], ["head2head", "output_1", "output_2"]])
def test_the_three_entry_points(alpaca_farm, files, monkeypatch, words):
    with JudgeServer() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        command, *inputs = words
        paths = [files / f"{name}.json" for name in inputs]
        done = alpaca_farm("annotate", command, *paths, "--annotator", "greedy", "-o", files / "out.json", "--json")
    assert done.code == 0
    assert labels(files / "out.json") == [1.0, 2.0] * 4
    assert done.json["n_total"] == 8
    assert done.json["parse_rate"] == 1.0


def test_settings_reach_the_annotator(alpaca_farm, files, monkeypatch):
    with JudgeServer() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        done = alpaca_farm(
            "annotate", "pairs", files / "pairs.json", "--annotator", "greedy", "-o", files / "out.json",
            "--model", "m", "--set", "both_orders=true", "--set", "execution.concurrency=2", "--seed", "3", "--json",
        )  # fmt: skip
        assert {body["model"] for body in judge.bodies} == {"m"}
        assert len(judge.bodies) == 16
    assert done.json["consistency"] == 1.0


def test_missing_labels_have_an_exit_code_of_their_own(alpaca_farm, files, monkeypatch):
    with JudgeServer(fault=lambda number: Reply(text="Hm.") if number == 0 else None) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        done = alpaca_farm("annotate", "pairs", files / "pairs.json", "--annotator", "greedy", "-o", files / "out.json")
    assert done.code == 4
    assert "7 of 8 pairs labelled" in done.out
    assert "1 of 8 pairs have no annotation (1 unparsable). The judge said for example: 'Hm.'" in done.err
    assert "take another judge or prompt" in done.err
    assert labels(files / "out.json").count(None) == 1


def test_what_cannot_be_annotated_is_said_in_two_lines(alpaca_farm, files):
    out = ["-o", files / "out.json"]
    done = alpaca_farm("annotate", "pairs", files / "none.json", "--annotator", "greedy", *out)
    assert (done.code, "There is no data file" in done.err) == (2, True)
    done = alpaca_farm("annotate", "pairs", files / "samples.json", "--annotator", "greedy", *out)
    assert (done.code, "Row 1: no 'output_1'" in done.err) == (2, True)
    done = alpaca_farm("annotate", "pairs", files / "pairs.json", "--annotator", "greddy", *out)
    assert (done.code, "Did you mean 'greedy'?" in done.err) == (2, True)
    done = alpaca_farm("annotate", "pairs", files / "pairs.json", "--annotator", "greedy", "--set", "bth=1", *out)
    assert (done.code, "Unknown setting 'annotator.bth'" in done.err) == (2, True)
    assert not (files / "out.json").exists()


def test_anchors_flag_a_judge_that_changed(alpaca_farm, files, monkeypatch):
    command = ["annotate", "anchors", "--annotator", "greedy", "-o", files / "anchors.json", "--fail-on-change"]
    with JudgeServer() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        assert alpaca_farm(*command, files / "pairs.json").code == 0
        same = alpaca_farm(*command)
        assert (same.code, "No change" in same.out) == (0, True)
    with JudgeServer(taste=longer) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        changed = alpaca_farm(*command, "--json")
    assert changed.code == 1
    assert changed.json["n_changed"] == 8


def test_agreement_with_people_and_between_judges(alpaca_farm, files, monkeypatch):
    with JudgeServer() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        alpaca_farm("annotate", "pairs", files / "pairs.json", "--annotator", "greedy", "-o", files / "judge.json")
    done = alpaca_farm("agreement", files / "judge.json", "--human", files / "people.json", "--json", "--draws", 200)
    assert done.code == 0
    report = done.json["judge"]
    assert (report["n_pairs"], report["accuracy"]["value"]) == (8, 7 / 8)
    assert report["kappa"]["value"] == pytest.approx(0.75)
    shown = alpaca_farm("agreement", files / "judge.json", "--human", files / "people.json", "-o", files / "report")
    assert "agrees with the majority" in shown.out
    assert "87.5" in shown.out
    assert (files / "report" / "agreement.svg").read_text().startswith("<svg")
    assert json.loads((files / "report" / "agreement.json").read_text())["judge"]["n_pairs"] == 8
    between = alpaca_farm("agreement", files / "judge.json", files / "people.json", "--json")
    assert list(between.json) == ["people with judge"]
    alone = alpaca_farm("agreement", files / "judge.json")
    assert (alone.code, "nobody to agree with" in alone.err) == (2, True)


def test_a_dry_run_counts_calls_and_dollars_and_asks_nobody(alpaca_farm, files, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    command = ["annotate", "pairs", files / "pairs.json", "--annotator", "greedy", "-o", files / "out.json"]
    said = alpaca_farm(*command, "--dry-run").out
    assert "8 pairs; 8 calls to make, 0 answered already\nThey cost about $0.0" in said
    assert "The price of house is not known" in alpaca_farm(*command, "--dry-run", "--model", "house").out
    flipped = alpaca_farm(*command, "--dry-run", "--label-flip", "0.5", "--json").json
    assert (flipped["n_pairs"], flipped["n_calls"], flipped["usd"]) == (8, 0, 0)
    assert not (files / "out.json").exists()
    with JudgeServer() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        alpaca_farm(*command)
    found = alpaca_farm(*command, "--dry-run", "--json").json
    assert (found["n_pairs"], found["n_calls"], found["n_kept"]) == (8, 0, 8)


def test_a_budget_stops_with_its_own_exit_code_and_a_higher_one_goes_on(alpaca_farm, files, monkeypatch):
    command = ["annotate", "pairs", files / "pairs.json", "--annotator", "greedy"]
    with JudgeServer() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        stopped = alpaca_farm(*command, "-o", files / "a.json", "--budget-usd", "0.003")
        n = len(judge.bodies)
        assert (stopped.code, 0 < n < 8) == (3, True)
        assert "The budget of $0.003 is reached" in stopped.err
        assert "--budget-usd" in stopped.err
        assert not (files / "a.json").exists()
        again = alpaca_farm(*command, "-o", files / "a.json", "--budget-usd", "0.003")
        assert (again.code, len(judge.bodies)) == (3, n)  # the same account
        assert alpaca_farm(*command, "-o", files / "a.json", "--budget-usd", "1").code == 0
        bodies = [json.dumps(body, sort_keys=True) for body in judge.bodies]
        assert len(set(bodies)) == len(bodies) == 8
    (account,) = alpaca_farm("cache", "stats", "--json").json["accounts"]
    assert account == f"annotate {files / 'a.json'}"
