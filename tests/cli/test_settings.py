"""`presets`, `config show`, `doctor`, `score` and the dry run: what people and programs read."""

import json

import pytest

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import PRESETS
from tests.tiny import TINY

SCORE_KEYS = {
    "model", "win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total",
    "n_missing", "avg_length", "length_controlled_winrate", "lc_standard_error",
}  # fmt: skip


def test_presets(alpaca_farm):
    assert [row["name"] for row in alpaca_farm("presets", "--json").json] == list(PRESETS)
    shown = alpaca_farm("presets").out
    assert all(f"{name} " in shown for name in PRESETS)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_explained_settings_give_a_reason_for_what_differs(alpaca_farm, preset):
    rows = alpaca_farm("config", "show", "--preset", preset, "--explain", "--json").json
    differing = [row for row in rows if row["value"] != row["default"]]
    assert differing
    assert all(row["reason"] and row["description"] for row in differing)
    text = alpaca_farm("config", "show", "--preset", preset, "--explain").out
    assert f"{differing[0]['key']} = " in text
    assert "why: " in text


def test_a_set_value_wins_over_the_file_and_the_preset(alpaca_farm, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("ppo:\n  kl_coef: 0.3\nsft.epochs: 7\n")
    values = alpaca_farm("config", "show", "--config", file, "--set", "ppo.kl_coef=0.4", "--json").json
    assert (values["ppo.kl_coef"], values["sft.epochs"]) == (0.4, 7)
    assert "ppo.kl_coef=0.4\n" in alpaca_farm("config", "show", "--set", "ppo.kl_coef=0.4").out


def tiny(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(TINY))
    return ["--config", file, "--run-name", "tiny"]


def test_the_dry_run_tells_hits_from_misses(alpaca_farm, tiny_store, tmp_path):
    before = sorted(tiny_store.rglob("*"))
    plan = alpaca_farm("run", "rlhf", *tiny(tmp_path), "--dry-run", "--json").json
    assert {row["plan"] for row in plan if row["stage"] != "report"} == {"cached"}
    plan = alpaca_farm("run", "rlhf", *tiny(tmp_path), "--set", "ppo.kl_coef=0.7", "--dry-run", "--json").json
    missed = {row["stage"]: row for row in plan if row["plan"] == "run"}
    assert set(missed) == {"ppo", "decode ppo", "evaluate ppo", "leaderboard", "report"}
    assert "ppo.kl_coef" in missed["ppo"]["reason"]
    assert "0.7" in missed["ppo"]["reason"]
    assert missed["ppo"]["last_seconds"] > 0
    assert sorted(tiny_store.rglob("*")) == before
    assert "About" in alpaca_farm("run", "rlhf", *tiny(tmp_path), "--set", "ppo.kl_coef=0.7", "--dry-run").out


def test_the_dry_run_counts_calls(alpaca_farm, tmp_path):
    plan = alpaca_farm("run", "rlhf", *tiny(tmp_path), "--annotator", "greedy", "--dry-run", "--json").json
    calls = {row["stage"]: row["api_calls"] for row in plan if row["api_calls"]}
    assert calls == {"preferences": "≤ 32", "evaluate ppo": "≤ 16"}


def test_the_dry_run_prices_calls(alpaca_farm, tmp_path):
    # A made-up price: prompts are free, a token of the answer costs a dollar. A call of `greedy` has 16 at most.
    table = tmp_path / "prices.yaml"
    table.write_text("models:\n  judge-x: {prompt: 0, completion: 1000000}\n")
    words = (
        *tiny(tmp_path),
        "--annotator",
        "greedy",
        "--dry-run",
        "--json",
        "--set",
        "execution.price_table=" + str(table),
    )
    models = [word for stage in ("preferences", "evaluate") for word in ("--set", f"{stage}.annotator.model=judge-x")]
    plan = alpaca_farm("run", "rlhf", *words, *models).json
    costs = {row["stage"]: row["usd"] for row in plan if row["usd"]}
    assert costs == pytest.approx({"preferences": 32 * 16.0, "evaluate ppo": 16 * 16.0})
    models[-1] = "evaluate.annotator.model=judge-y"
    plan = alpaca_farm("run", "rlhf", *words, *models).json
    assert [row["usd"] for row in plan if row["stage"] == "evaluate ppo"] == [None]


def test_score(alpaca_farm, finished_run):
    artifact = Store(finished_run).get("evaluation/tiny-ppo@v1")
    file = artifact.path / "annotations.json"
    rows = alpaca_farm("score", file, "--json").json
    assert len(rows) == 1
    assert set(rows[0]) >= SCORE_KEYS
    assert rows[0]["win_rate"] == pytest.approx(artifact.metrics["win_rate"])
    assert rows[0]["n_total"] == 16
    assert "win %" in alpaca_farm("score", file).out


def test_one_model_cannot_be_ranked_twice(alpaca_farm, finished_run):
    file = Store(finished_run).get("evaluation/tiny-ppo@v1").path / "annotations.json"
    done = alpaca_farm("score", file, file)
    assert done.code == 2
    assert "rename generator_2 in one of them" in " ".join(done.err.split())


@pytest.mark.parametrize("content", ["", "{", "[]", '[{"preference": "x"}]', '[{"instruction": 3}]'])
def test_annotations_that_cannot_be_scored(alpaca_farm, tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    done = alpaca_farm("score", tmp_path / "bad.json")
    assert done.code == 2
    assert "bad.json" in done.err


def test_doctor(alpaca_farm, tiny_store):
    done = alpaca_farm("doctor", "--json")
    checks = {check["name"]: check for check in done.json}
    assert done.code == 0
    expected = {"python", "torch", "GPU", "attention", "apex", "LoRA", "methods", "SmolLM2", "judge API", "store"}
    assert expected <= set(checks)
    assert "best-of-n, expert-iteration, ppo" in checks["methods"]["finding"]
    assert str(tiny_store) in checks["store"]["finding"]
    assert "store" in alpaca_farm("doctor").out


def test_doctor_finds_a_store_that_cannot_be_used(alpaca_farm, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = alpaca_farm("doctor", "--json", "--store", tmp_path / "file")
    assert done.code == 1
    assert [check["name"] for check in done.json if check["state"] == "problem"] == ["store"]
