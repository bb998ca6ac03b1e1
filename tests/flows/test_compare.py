"""The comparison of methods on tiny settings: what is shared, what runs again, what the table holds."""

import io
import json
import math

import pytest
from rich.console import Console

from alpaca_farm_core.artifacts.files import read_json, read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import UsageError
from alpaca_farm_core.pipeline.runner import LocalRunner, Planner
from flows.cli.console import print_comparison
from flows.cli.options import composition_options, read_seeds
from flows.compositions import COMPARED, compare
from tests.tiny import TINY

METHODS = ("sft", "best-of-n", "dpo", "reward-conditioning")
SETTINGS = {**TINY, "execution.threads": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("compare") / "store")
    runner = LocalRunner(build_study("meadow", SETTINGS), "tiny", store)
    return store, compare(runner, METHODS, (0, 1))["comparison"]


def test_one_row_per_method_with_everything_in_it(finished):
    _, made = finished
    facts = read_json(made.path / "comparison.json")
    rows = {row["method"]: row for row in facts["rows"]}
    assert set(rows) == set(METHODS)
    assert facts["seeds"] == [0, 1]
    for name, row in rows.items():
        for figure in ("win_rate", "gold_win_rate", "gold_gain", "reward", "kl", "tokens_mean"):
            assert math.isfinite(row[figure]), (name, figure)
        assert (row["win_rate_interval"] is None) == (name == "sft")
    assert rows["sft"]["win_rate"] == 50
    assert rows["best-of-n"]["kl"] == pytest.approx(math.log(4) - 0.75)
    golds = [row["gold_win_rate"] for row in facts["rows"]]
    assert golds == sorted(golds, reverse=True)
    assert facts["rows"][-1]["over_next"] is None
    assert [row["n"] for row in facts["best_of_n"]] == [1, 2, 3, 4]


def test_the_judged_win_rate_is_the_mean_of_the_seeds(finished):
    store, made = finished
    facts = read_json(made.path / "comparison.json")
    row = next(row for row in facts["rows"] if row["method"] == "dpo")
    rates = [store.get(f"evaluation/tiny-seed-{seed}-dpo@v1").metrics["win_rate"] for seed in (0, 1)]
    assert row["win_rate"] == pytest.approx(sum(rates) / 2)


def test_the_terminal_shows_one_line_per_method_in_80_columns(finished):
    _, made = finished
    facts = read_json(made.path / "comparison.json")
    console = Console(width=80, file=io.StringIO())
    print_comparison(facts, console)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["method", *(row["method"] for row in facts["rows"])]
    row = next(row for row in facts["rows"] if row["method"] == "dpo")
    low, high = row["gold_win_rate_interval"]
    assert (low + high) / 2 == pytest.approx(row["gold_win_rate"])
    line = next(line for line in lines if line.startswith("dpo"))
    assert f"{row['gold_win_rate']:.1f} ± {(high - low) / 2:4.1f}" in line


def test_times_and_money_are_outside_of_what_is_compared(finished):
    _, made = finished
    assert set(made.manifest.volatile["volatile_files"]) == {"comparison.html", "cost.json"}
    cost = read_json(made.path / "cost.json")
    assert cost["dpo"]["seconds"] > 0
    assert cost["dpo"]["cost_usd"] == 0
    assert cost["sft"]["seconds"] == cost["sft"]["cpu_hours"] == 0  # shared by all
    assert cost["dpo"]["cpu_hours"] > 0
    assert cost["dpo"]["gpu_hours"] == 0
    page = (made.path / "comparison.html").read_text()
    assert all(name in page for name in METHODS)
    assert f"{cost['dpo']['cpu_hours']:.4f} CPU-h" in page
    assert "<script" not in page


def test_one_changed_setting_runs_that_method_again_and_the_table(finished):
    store, _ = finished
    plan = Planner(build_study("meadow", {**SETTINGS, "dpo.beta": 0.3}), "tiny", store)
    compare(plan, METHODS, (0, 1))
    missed = {planned.step.stage.name for planned in plan.steps if planned.hit is None}
    assert missed == {"dpo", "decode", "evaluate", "measure", "comparison"}
    again = [planned.step.label for planned in plan.steps if planned.hit is None]
    assert set(again) == {"dpo", "comparison"}


def test_a_plan_holds_shared_stages_once(finished):
    store, _ = finished
    plan = Planner(build_study("meadow", SETTINGS), "tiny", store)
    compare(plan, COMPARED, (0, 1))
    titles = [planned.step.title for planned in plan.steps]
    assert titles.count("dataset, seed 0") == 1
    assert "dataset, seed 1" not in titles  # the world of every seed is the same
    assert len(set(titles)) == len(titles)


def test_measured_kl_of_the_conditioned_policy_is_that_of_its_prompt(finished):
    store, _ = finished
    measured = store.get("measurement/tiny-seed-0-reward-conditioning@v1").metrics
    assert measured["n_kl_samples"] + measured["n_unscorable"] == 16
    assert measured["kl_se"] > 0


def test_best_of_n_curve_with_gold_is_that_of_the_samples(finished):
    store, made = finished
    facts = read_json(made.path / "comparison.json")
    rewards = [
        row["reward"]
        for seed in (0, 1)
        for row in read_jsonl(store.get(f"outputs/tiny-seed-{seed}-best-of-n@v1").path / "samples.jsonl")
    ]
    assert facts["best_of_n"][0]["reward"] == pytest.approx(sum(rewards) / len(rewards))
    assert all(row["gold_utility"] is not None for row in facts["best_of_n"])


@pytest.mark.parametrize(("methods", "seeds"), [(("sft",), (0,)), (("dpo",), ()), (("dppo",), (0,))])
def test_nothing_to_compare(store, methods, seeds):
    with pytest.raises(UsageError) as error:
        compare(Planner(build_study("meadow", SETTINGS), "tiny", store), methods, seeds)
    assert error.value.next_action


def test_options_of_flows():
    assert composition_options("compare", methods=("dpo",), seeds=(0,)) == {"methods": ("dpo",), "seeds": (0,)}
    assert composition_options("rlhf", method="dpo", methods=None) == {"method": "dpo"}
    with pytest.raises(UsageError, match="no option --seeds"):
        composition_options("rlhf", seeds=(1,))
    with pytest.raises(UsageError, match="not a list of whole numbers"):
        read_seeds("0,x")


def test_the_dry_run_of_a_comparison(finished, capsys):
    from flows.cli.main import main

    store, _ = finished
    words = ["run", "compare", "--methods", "sft,dpo", "--seeds", "0", "--dry-run", "--json", "--store", store.root]
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 0
    stages = [row["stage"] for row in json.loads(capsys.readouterr().out)]
    assert "dpo, seed 0" in stages
    assert stages[-1] == "comparison"


def test_all_seeds_spend_from_one_budget(tmp_path):
    runner = Planner(build_study("meadow", SETTINGS), "arm", Store(tmp_path))
    assert {runner.with_seed(seed).execution.budget_account for seed in (0, 1)} == {"arm"}


def test_labels_of_people_serve_all_methods(tmp_path):
    people = tmp_path / "people.json"
    people.write_text(json.dumps([{"instruction": "a", "output_1": "b", "output_2": "c", "preference": 1}]))
    planner = Planner(
        build_study("meadow", {**SETTINGS, "human_preferences.source": str(people)}), "arm", Store(tmp_path)
    )
    compare(planner, METHODS, (0,))
    stages = {planned.step.stage.name for planned in planner.steps}
    assert "human_preferences" in stages
    assert not {"sample", "preferences"} & stages
