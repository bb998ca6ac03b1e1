"""`alpaca-farm evaluate`: files, outputs and policies on either side; nothing is bought twice."""

import json

import pytest

from alpaca_farm_core.artifacts.store import Store
from tests.annotators.judge_server import JudgeServer, longer, shorter
from tests.evaluation.annotation_rows import write_json
from tests.tiny import TINY

_TINY = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def outputs(path, texts, **more):
    rows = [{"instruction": f"Instruction {i}", "output": text, **more} for i, text in enumerate(texts)]
    return write_json(path, rows)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPACA_FARM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    ours = outputs(tmp_path / "ours.json", ["aaaa", "b", "same", "dddd", "alone"], generator="mine")
    theirs = outputs(tmp_path / "theirs.json", ["aa", "bb", "same", "dd"])
    return ("--model-outputs", ours, "--reference-outputs", theirs, "--annotator", "greedy")


def test_files_are_judged_and_only_what_is_missing_is_bought(alpaca_farm, files, tmp_path, monkeypatch):
    with JudgeServer(taste=longer) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        first = alpaca_farm("evaluate", *files, "-o", tmp_path / "out", "--json")
        assert first.code == 0, first
        assert "mine against theirs: 4 pairs, 1 of them equal, judged by greedy with 3 calls, about $" in first.err
        assert first.json["estimate"]["n_unmatched"] == 1
        metrics = first.json["metrics"]
        assert (metrics["n_wins"], metrics["n_wins_base"], metrics["n_draws"]) == (2, 1, 1)
        assert json.loads((tmp_path / "out" / "annotations.json").read_text())[0]["generator_2"] == "mine"
        assert len(judge.bodies) == 3
        again = alpaca_farm("evaluate", *files, "--json")
        assert (again.json["cached"], again.json["reference"]) == (True, first.json["reference"])
        outputs(tmp_path / "ours.json", ["aaaa", "b", "same", "other", "alone"], generator="mine")
        changed = alpaca_farm("evaluate", *files, "--json")
        assert (changed.json["estimate"]["api_calls"], changed.json["estimate"]["n_kept"]) == (1, 2)
        assert changed.json["cached"] is False
        assert len(judge.bodies) == 4  # one answer changed, one question more
    scored = alpaca_farm("score", tmp_path / "out" / "annotations.json", "--json").json
    assert scored[0]["win_rate"] == metrics["win_rate"] == 62.5


def test_the_same_file_elsewhere_is_the_same_evaluation(alpaca_farm, files, tmp_path, monkeypatch):
    with JudgeServer(taste=shorter) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        first = alpaca_farm("evaluate", *files, "--json").json
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        copies = [moved / word.name if hasattr(word, "name") else word for word in files]
        for old, new in zip(files, copies, strict=True):
            if old != new:
                new.write_bytes(old.read_bytes())
        assert alpaca_farm("evaluate", *copies, "--json").json["reference"] == first["reference"]


def test_a_dry_run_asks_nobody(alpaca_farm, files):
    done = alpaca_farm("evaluate", *files, "--dry-run", "--json")
    assert (done.code, done.json["api_calls"], done.json["n_ties"]) == (0, 3, 1)


def test_the_price_is_told_first(alpaca_farm, files, tmp_path):
    # Prompts free, a token of the answer a dollar, 16 tokens at most: three calls are $48.
    table = tmp_path / "prices.yaml"
    table.write_text("models:\n  judge-x: {prompt: 0, completion: 1000000}\n")
    words = ("evaluate", *files, "--dry-run", "--set", f"execution.price_table={table}", "--set")
    assert "3 calls, about $48.00" in alpaca_farm(*words, "evaluate.annotator.model=judge-x").err
    assert alpaca_farm(*words, "evaluate.annotator.model=judge-x", "--json").json["usd"] == pytest.approx(48)
    unknown = alpaca_farm(*words, "evaluate.annotator.model=judge-y", "--json")
    assert "3 calls, at a price not known (judge-y)" in unknown.err
    assert (unknown.json["usd"], unknown.json["unpriced"]) == (None, ["judge-y"])


def test_a_policy_is_decoded_and_compared_with_another(alpaca_farm, tiny_store):
    names = {a.reference for a in Store(tiny_store).artifacts("policy")}
    assert {"policy/tiny-sft@v1", "policy/tiny-ppo@v1"} <= names
    sides = ("--model-outputs", "policy/tiny-ppo@v1", "--reference-outputs", "policy/tiny-sft@v1")
    done = alpaca_farm("evaluate", *sides, *_TINY, "--json")
    assert done.code == 0, done
    # The run's own evaluation: same policies, data, settings and judge.
    assert done.json["cached"] is True
    outputs_side = alpaca_farm(
        "evaluate", "--model-outputs", "outputs/tiny-ppo@v1", "--reference-outputs", "policy/tiny-sft@v1",
        *_TINY, "--json"
    )  # fmt: skip
    assert outputs_side.json["reference"] == done.json["reference"]


def test_the_flow_takes_artifacts_too(alpaca_farm, tiny_store):
    words = ("run", "evaluate", "--reference", "outputs/tiny-sft@v1", *_TINY, "--run-name", "named", "--dry-run")
    plan = alpaca_farm(*words, "--model", "policy/tiny-ppo@v1", "--json").json
    assert {row["stage"]: row["plan"] for row in plan if row["stage"] != "leaderboard"} == {
        "decode tiny-ppo": "cached",
        "evaluate tiny-ppo": "cached",
    }
    alone = alpaca_farm(*words)
    assert (alone.code, "has two sides" in alone.err) == (2, True)
    wrong = alpaca_farm(*words, "--model", "dataset/tiny-dataset@v1")
    assert (wrong.code, "is of kind dataset" in wrong.err) == (2, True)
    outside = alpaca_farm(*words, "--model", "../artifacts")
    assert (outside.code, "There is no artifact '../artifacts'" in outside.err) == (2, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "holds a JSON dict, not a list of outputs"),
        ("[]", "holds no outputs"),
        ("[1]", "row 1 (from 1): expected an object"),
        ('[{"instruction": "a"}]', "row 1 (from 1): field 'output' is missing"),
        ('[{"instruction": "a", "output": ["b"]}]', "field 'output' is list, expected a text"),
        ('[{"instruction": "a", "output": "b", "generator": 3}]', "field 'generator' is int"),
        ('[{"instruction": "from elsewhere", "output": "b"}]', "no instruction in common"),
        (
            '[{"instruction": "a", "output": "b", "generator": "x"}, {"instruction": "c", "output": "d"}]',
            "must come from one generator",
        ),
    ],
)
def test_what_is_no_file_of_outputs(alpaca_farm, files, tmp_path, content, said):
    (tmp_path / "bad.json").write_text(content)
    done = alpaca_farm("evaluate", "--model-outputs", tmp_path / "bad.json", *files[2:], "--dry-run")
    assert (done.code, done.out) == (2, "")
    assert said in done.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("named", "said"),
    [("absent.json", "There is no file absent.json"), ("policy/nobody", "There is no artifact 'policy/nobody'")],
)
def test_sides_that_are_not_there(alpaca_farm, files, named, said):
    done = alpaca_farm("evaluate", "--model-outputs", named, *files[2:], "--dry-run")
    assert done.code == 2
    assert said in done.err


def test_an_artifact_of_another_kind(alpaca_farm, tiny_store):
    sides = ("--model-outputs", "dataset/tiny-dataset@v1", "--reference-outputs", "policy/tiny-sft@v1")
    done = alpaca_farm("evaluate", *sides, "--dry-run")
    assert done.code == 2
    assert "is of kind dataset" in done.err
