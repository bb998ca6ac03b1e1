"""Proxy, judge and gold against KL: intervals, the turning point and what is no turn, and a tiny study of two seeds."""

import itertools
import json
import math
import re
from statistics import fmean

import pytest

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import ConfigError, DataError
from alpaca_farm_core.evaluation.overoptimisation.config import CheckpointConfig
from alpaca_farm_core.evaluation.overoptimisation.curve import Point, curve, turn
from alpaca_farm_core.evaluation.overoptimisation.samples import Group, curve_rows
from alpaca_farm_core.evaluation.overoptimisation.write import pictures, study_facts
from alpaca_farm_core.meadow.gold import utility
from alpaca_farm_core.pipeline.runner import LocalRunner, Planner
from alpaca_farm_core.seeding import stable_random
from flows.compositions import composition_named
from tests.tiny import TINY

IDS = [f"instruction {i}" for i in range(400)]


def run(seed, golds, noise=0.05):
    """Points whose mean gold utilities are `golds`; proxy rises by 1 a step."""
    random = stable_random("run", seed)
    points = []
    for step, gold in enumerate(golds):
        utilities = {key: gold + noise * random.gauss(0, 1) for key in IDS}
        mean = sum(utilities.values()) / len(utilities)
        points.append(Point(step, 2.0 * step, float(step + seed), 50.0 + step, 2.0, mean, utilities))
    return points


def test_means_and_students_intervals_over_runs():
    runs = {
        seed: [Point(0, 0.0, 10.0 * seed, 50.0, 0.0), Point(5, kl, 10.0 * seed + gain, 60.0, 2.0)]
        for seed, kl, gain in ((0, 1.0, 1.0), (1, 2.0, 2.0), (2, 3.0, 6.0))
    }
    start, row = curve(runs)
    assert (start["proxy"], start["proxy_interval"]) == (0.0, [0.0, 0.0])
    assert (row["step"], row["kl"], row["proxy"], row["win_rate"]) == (5, 2.0, 3.0, 60.0)
    # sd of 1, 2, 6 is √7; t(0.975, 2) = 4.302653
    half = 4.302653 * math.sqrt(7 / 3)
    assert row["proxy_interval"] == pytest.approx([3 - half, 3 + half], rel=1e-5)
    assert (row["gold"], row["gold_interval"]) == (None, None)
    alone = curve({0: runs[0]})[1]
    assert alone["proxy_interval"] is None
    assert alone["win_rate_interval"] == pytest.approx([60 - 1.959964 * 2, 60 + 1.959964 * 2], rel=1e-6)


def test_a_turn_is_found_and_measured():
    found = turn({seed: run(seed, [0.2, 0.4, 0.6, 0.5, 0.4]) for seed in range(3)})
    assert (found["step"], found["kl"], found["turns"], found["proxy_rises"]) == (2, 4.0, True, True)
    assert found["gold_change"] == pytest.approx(-0.2, abs=0.01)
    assert found["gold_change_interval"][0] < -0.2 < found["gold_change_interval"][1] < 0
    assert found["proxy_change"] == pytest.approx(2)
    assert (found["n_proxy_rises"], found["n_runs"]) == (3, 3)
    assert found["verdict"].endswith(": a turn.")
    alone = turn({0: run(0, [0.2, 0.4, 0.6, 0.5, 0.4])})
    assert alone["turns"]
    assert alone["gold_change_interval"] == alone["gold_change_interval_instructions"]
    assert alone["proxy_change_interval"] is None


def test_what_only_rises_does_not_turn():
    found = turn({seed: run(seed, [0.2, 0.4, 0.6]) for seed in range(3)})
    assert (found["step"], found["turns"], found["gold_change"]) == (2, False, 0)
    assert found["verdict"] == "No turn: gold utility is highest at the last step."


def test_what_only_falls_says_so():
    runs = {seed: run(seed, [0.6, 0.4, 0.2]) for seed in range(3)}
    found = turn(runs)
    assert (found["step"], found["turns"]) == (0, True)
    assert found["verdict"].startswith("Gold utility is highest at the start and changes by -0.4")
    assert found["verdict"].endswith(": a fall from the first look on.")
    assert "ppo falls" in pictures(study_facts({"ppo": runs}))["gold"]


def test_noise_alone_is_rarely_a_turn():
    # Fifteen equal policies: the highest of fifteen noisy means always lies above the last one. Measured where it was
    # chosen it would look like a fall in most runs; measured on the other half it does so in about one of forty.
    false = [turn({0: run(seed, [0.5] * 15, noise=0.3)})["turns"] for seed in range(100)]
    assert sum(false) <= 8


def test_a_study_without_gold_has_no_turn():
    assert turn({0: [Point(0, 0.0, 0.0, 50.0, 0.0), Point(1, 1.0, 1.0, 60.0, 1.0)]}) is None


def test_pictures_mark_the_turn_and_take_other_curves_beside():
    runs = {seed: run(seed, [0.2, 0.6, 0.4]) for seed in range(2)}
    bare = {"kl": 1.0, "proxy": 2.0, "win_rate": None, "gold": 0.3, "proxy_interval": None, "gold_interval": None}
    facts = study_facts({"ppo": runs})
    facts["curves"]["best-of-n"] = [bare]
    drawn = pictures(facts)
    assert set(drawn) == {"proxy", "win_rate", "gold"}
    assert "ppo turns, step 1" in drawn["gold"]
    assert "best-of-n" in drawn["gold"]
    assert "best-of-n" not in drawn["win_rate"]
    assert drawn["proxy"].count('stroke-dasharray="4 3"') == 2  # the two runs, faint


def test_a_tiny_study_of_two_seeds(store):
    settings = {**TINY, "ppo.steps": 4, "ppo.save_every": 2, "ppo.eval_every": 2, "overoptimisation.seeds": [0, 1]}
    study = build_study("meadow", settings)
    made = composition_named("overoptimisation")(LocalRunner(study, "tiny", store))["overoptimisation"]
    facts = json.loads((made.path / "overoptimisation.json").read_text())
    assert facts["seeds"] == [0, 1]
    assert [point["step"] for point in facts["curves"]["ppo"]] == [0, 2, 4]
    policy = store.get("policy/tiny-seed-1-ppo")
    rows = {row["step"]: row for row in map(json.loads, (policy.path / "metrics.jsonl").read_text().splitlines())}
    point = facts["runs"]["ppo"]["1"][1]
    measured = store.get("measurement/tiny-seed-1-step-2").metrics["reward"]
    assert (point["kl"], point["proxy"]) == (rows[2]["heldout_kl"], measured)
    judged = store.get("evaluation/tiny-seed-1-step-2")
    best_rows = json.loads((store.get("measurement/tiny-seed-1-best-of-n").path / "curve.json").read_text())
    assert point["win_rate"] == judged.metrics["win_rate"]
    assert point["gold"] == pytest.approx(judged.metrics["gold_utility"])
    assert facts["runs"]["ppo"]["1"][0]["gold"] == pytest.approx(judged.metrics["gold_utility_reference"])
    assert [row["n"] for row in best_rows] == [1, 2, 4]
    check_best_of_n(store, best_rows)
    taken = store.get("policy/tiny-seed-1-step-2").path / "model.safetensors"
    assert taken.samefile(policy.path / "checkpoints" / "step_0002" / "model.safetensors")
    page = (made.path / "overoptimisation.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"(src|href)=", page)
    planner = Planner(study, "tiny", store)
    composition_named("overoptimisation")(planner)
    assert all(step.hit for step in planner.steps)
    with pytest.raises(DataError, match=r"kept no step 3 \(it has: step_0002, step_0004\)"):
        LocalRunner(study, "tiny", store)("checkpoint", config=CheckpointConfig(step=3), policy=policy)


def check_best_of_n(store, rows):
    """Expected gold and reward of the best of n by reward, over all subsets of the four samples, spelled out."""
    samples = read_jsonl(store.get("outputs/tiny-seed-1-best-of-n").path / "samples.jsonl")
    groups = {}
    for row in samples:
        answer = utility(row["instruction"], row["input"], row["output"], row["finished"]).total
        groups.setdefault((row["instruction"], row["input"]), []).append((row["reward"], answer))
    for found in rows:
        best = [
            [max(subset, key=lambda one: one[0]) for subset in itertools.combinations(group, found["n"])]
            for group in groups.values()
        ]
        golds = sorted(fmean(gold for _, gold in chosen) for chosen in best)
        assert sorted(found["utilities"].values()) == pytest.approx(golds)
        assert found["proxy"] == pytest.approx(fmean(fmean(reward for reward, _ in chosen) for chosen in best))
        assert found["kl"] == pytest.approx(math.log(found["n"]) - (found["n"] - 1) / found["n"])


def test_best_of_n_of_judged_samples_by_hand():
    # Three samples, rewards 1 < 2 < 3, judged 0, ½, 1: the best of one is any of them, of two the last in 2 of 3 pairs.
    group = Group("a", [3.0, 1.0, 2.0], [1.0, 0.0, 0.5], [0.9, 0.1, 0.2])
    missing = Group("b", [1.0, 2.0, 3.0], [None, 1.0, 0.0], [0.0, 0.0, 0.0])
    one, two, three = curve_rows([group, missing])
    assert [row["n"] for row in (one, two, three)] == [1, 2, 3]
    assert [row["win_rate"] for row in (one, two, three)] == pytest.approx([50, (2 * 100 + 50) / 3, 100])
    assert two["utilities"] == pytest.approx({"a": (2 * 0.9 + 0.2) / 3, "b": 0.0})
    assert two["proxy"] == pytest.approx((2 * 3 + 2) / 3)
    assert one["win_rate_se"] is None  # one instruction is left


@pytest.mark.parametrize("missing", ["ppo.steps", "ppo.save_every"])
def test_steps_that_are_not_kept_cannot_be_looked_at(store, missing):
    with pytest.raises(ConfigError, match="No checkpoints to look at"):
        composition_named("overoptimisation")(Planner(build_study("meadow", {**TINY, missing: 0}), "x", store))


def test_the_stress_preset_looks_at_every_tenth_step(tmp_path):
    planner = Planner(build_study("meadow-stress"), "stress", Store(tmp_path))
    composition_named("overoptimisation")(planner)
    titles = [step.step.title for step in planner.steps]
    assert [title for title in titles if "evaluate step-150" in title] == [
        f"evaluate step-150, seed {seed}" for seed in (0, 1, 2)
    ]
    assert sum(title.startswith("evaluate step") for title in titles) == 45
