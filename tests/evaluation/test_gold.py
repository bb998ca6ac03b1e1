import math

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.oracle import OracleAnnotator
from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.ceiling import (
    accuracy,
    bayes_ceiling,
    oracle_probability,
    read_scored_pairs,
    reward_model_figures,
)
from alpaca_farm_core.evaluation.gold import compare_gold, gold_win_rate, win_score
from alpaca_farm_core.evaluation.matching import match
from alpaca_farm_core.meadow.fact_families import HELD_OUT_FAMILY
from alpaca_farm_core.meadow.gold import utility, well_formed_and_on_topic
from alpaca_farm_core.types import Output, Pair
from tests.evaluation.fake_run import heldout, outputs, publish, world


@pytest.fixture(scope="module")
def rows():
    return world(60)


@pytest.fixture(scope="module")
def gold(rows):
    return compare_gold(match(outputs(rows, "ppo", 0.2), outputs(rows, "sft", 0.7)))


def test_means_agree_with_the_gold_utility_itself(rows, gold):
    for side, answers in (("model", outputs(rows, "ppo", 0.2)), ("reference", outputs(rows, "sft", 0.7))):
        judged = [utility(o.instruction, o.input, o.output, o.finished) for o in answers]
        assert gold[side]["utility"] == pytest.approx(sum(j.total for j in judged) / 60)
        assert gold[side]["components"]["form"] == pytest.approx(sum(j.components["form"] for j in judged) / 60)
        assert gold[side]["well_formed_share"] == sum(map(well_formed_and_on_topic, judged)) / 60
    assert (gold["model"]["name"], gold["reference"]["name"]) == ("ppo", "sft")


def test_win_rate_agrees_with_the_rows(gold):
    scores = [win_score(row["utility_model"], row["utility_reference"]) for row in gold["rows"]]
    assert gold["win_rate"]["win_rate"] == pytest.approx(100 * sum(scores) / 60)
    assert gold["win_rate"]["n_ties"] == scores.count(0.5) > 0
    assert gold["win_rate"]["interval"][0] > 50


def test_families_add_up_and_the_held_out_one_stands_apart(gold):
    assert sum(row["win_rate"]["n"] for row in gold["families"]) == 60
    assert [row["family"] for row in gold["families"] if row["held_out"]] == [HELD_OUT_FAMILY]
    assert gold["held_out"]["win_rate"]["n"] + gold["seen"]["win_rate"]["n"] == 60


def test_instructions_from_elsewhere_have_no_gold():
    ours = [Output("Prove Fermat's last theorem.", "", "No.", "a")]
    theirs = [Output("Prove Fermat's last theorem.", "", "Yes.", "b")]
    assert compare_gold(match(ours, theirs)) is None


def test_instructions_from_elsewhere_are_counted(rows):
    foreign = [Output("Prove Fermat's last theorem.", "", "No.", "ppo")]
    found = compare_gold(match(outputs(rows, "ppo", 0.2) + foreign, outputs(rows, "sft", 0.2) + foreign))
    assert (found["n_outside"], found["win_rate"]["n"]) == (1, 60)


def test_ties_are_half_and_rounding_is_no_difference():
    assert [win_score(0.3, 0.1 + 0.2), win_score(0.4, 0.3), win_score(0.3, 0.4)] == [0.5, 1.0, 0.0]
    found = gold_win_rate([1.0, 1.0, 0.5, 0.0])
    assert (found["win_rate"], found["n_wins"], found["n_ties"], found["n_losses"]) == (62.5, 2, 1, 1)


def test_bayes_ceiling():
    assert bayes_ceiling([0.9, 0.2, 0.5]) == pytest.approx((0.9 + 0.8 + 0.5) / 3)
    assert bayes_ceiling([]) is None


@pytest.mark.parametrize("temperature", [0.05, 1.0, 0.0])
def test_the_oracles_probability_is_the_oracles(rows, tmp_path, temperature):
    oracle = OracleAnnotator(CallCache(tmp_path), temperature=temperature)
    for row in rows[:10]:
        pair = Pair(row.instruction, row.input, row.output, "I am not sure about that.")
        first, second = (utility(row.instruction, row.input, text).total for text in (pair.output_1, pair.output_2))
        assert oracle_probability(first, second, temperature) == pytest.approx(oracle.probability(pair), abs=1e-12)


def test_flipped_labels_pull_the_probability_to_a_half():
    assert oracle_probability(0.0, 1.0, 0.0, label_flip=0.25) == pytest.approx(0.75)
    assert oracle_probability(0.0, 1.0, 1.0, label_flip=0.1) == pytest.approx(0.8 / (1 + math.exp(-1)) + 0.1)
    assert oracle_probability(1.0, 0.0, 1e-9) == pytest.approx(0.0)


def test_accuracy_counts_ties_apart_and_equal_rewards_as_half():
    found = accuracy([(1.0, 0.5), (-1.0, 0.5), (-2.0, -0.5), (0.0, 0.5), (3.0, 0.0)])
    assert (found["accuracy"], found["n"], found["n_ties"]) == (2.5 / 4, 4, 1)
    assert accuracy([(1.0, 0.0)])["accuracy"] is None


def reward_model(folder, pairs):
    write_jsonl(folder / "heldout.jsonl", pairs)
    return publish(folder, "reward_model", "reward_model")


def preferences(folder, **annotator):
    write_jsonl(folder / "preferences.jsonl", [])
    return publish(folder, "preferences", "preferences", {"annotator": annotator})


def test_reward_model_beside_its_ceiling(rows, tmp_path):
    pairs = heldout(rows)
    oracle = preferences(tmp_path / "p", name="oracle", oracle_temperature=0.5, label_flip=0.1)
    found = reward_model_figures(reward_model(tmp_path / "rm", pairs), oracle)
    right = sum((p["reward_2"] > p["reward_1"]) == (p["preference"] == 2) for p in pairs)
    assert found["labels"]["accuracy"] == pytest.approx(right / 60)
    gaps = [
        utility(p["instruction"], p["input"], p["output_2"]).total
        - utility(p["instruction"], p["input"], p["output_1"]).total
        for p in pairs
    ]
    chances = [0.8 / (1 + math.exp(-gap / 0.5)) + 0.1 for gap in gaps]
    assert found["ceiling"] == pytest.approx(sum(max(c, 1 - c) for c in chances) / 60)
    assert found["gold"]["accuracy"] > found["labels"]["accuracy"]


def test_no_ceiling_for_another_judge_and_no_gold_for_another_world(rows, tmp_path):
    judged = preferences(tmp_path / "p", name="greedy", oracle_temperature=1.0, label_flip=0.0)
    assert reward_model_figures(reward_model(tmp_path / "a", heldout(rows)), judged)["ceiling"] is None
    pairs = [{**pair, "instruction": "Prove it."} for pair in heldout(rows)]
    pairs[0] |= {"preference": None, "state": "unparsable"}
    found = reward_model_figures(reward_model(tmp_path / "b", pairs), None)
    assert (found["gold"], found["ceiling"], found["n_missing"], found["labels"]["n"]) == (None, None, 1, 59)


def test_held_out_pairs_without_a_reward_are_named(rows, tmp_path):
    pairs = heldout(rows)
    del pairs[2]["reward_1"]
    write_jsonl(tmp_path / "heldout.jsonl", pairs)
    with pytest.raises(DataError, match="row 3: field 'reward_1'"):
        read_scored_pairs(tmp_path / "heldout.jsonl")


def test_a_reward_model_from_elsewhere_has_no_figures(tmp_path):
    (tmp_path / "rm").mkdir()
    assert reward_model_figures(publish(tmp_path / "rm", "reward_model", "import"), None) is None
    assert reward_model_figures(None, None) is None
