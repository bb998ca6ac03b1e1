import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.data.pairs import tokenise_pairs
from alpaca_farm_core.data.rows import read_preferences
from alpaca_farm_core.data.tokenise import encode_prompts, encode_responses
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.methods.reward_model.loss import pair_sums
from alpaca_farm_core.models.loading import load_policy, load_reward_model
from alpaca_farm_core.types import Preference
from tests.methods import toy

STEPS = 3  # (24 − 6 held out) / batches of 6


def test_loss_and_counts_on_literals():
    rewards_1 = torch.tensor([0.0, 1.0, 2.0, 0.0])
    rewards_2 = torch.tensor([1.0, 1.0, 0.0, 0.5])
    targets = torch.tensor([1.0, 0.5, 1.0, 0.3])
    sums = pair_sums(rewards_1, rewards_2, targets)

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    expected = -math.log(sigmoid(1)) - math.log(0.5) - math.log(sigmoid(-2))
    expected -= 0.3 * math.log(sigmoid(0.5)) + 0.7 * math.log(sigmoid(-0.5))
    assert float(sums.loss) == pytest.approx(expected, rel=1e-6)
    assert (int(sums.n_correct), int(sums.n_decided), int(sums.n_positive)) == (1, 3, 3)


def preference(value, state="ok", words=1):
    return Preference("i", "", "a " * words, "b", value, "toy", state=state)


def test_pairs_are_prompt_response_and_eos_where_finished(world):
    loaded = load_policy(world.policy.path, toy.EXECUTION)
    rows = [row for row in read_preferences(world.preferences.path / "preferences.jsonl") if row.preference]
    eos = loaded.tokenizer.eos_token_id
    pairs = tokenise_pairs(loaded.tokenizer, loaded.template, rows, 96, eos=True)
    assert [ids[-1] == eos for ids in pairs.response_2_ids] == [row.finished_2 for row in rows]
    without = tokenise_pairs(loaded.tokenizer, loaded.template, rows, 96, eos=False)
    assert not any(eos in ids for ids in without.response_1_ids + without.response_2_ids)
    longest = max(len(p) + len(r) for p, r in zip(pairs.prompt_ids, pairs.response_1_ids, strict=True))
    short = tokenise_pairs(loaded.tokenizer, loaded.template, rows, longest - 1, eos=True)
    assert short.n_too_long == len(rows) - len(short) > 0


def test_the_artifact_reports_heldout_pairs(world):
    artifact = world.reward_model
    rows = list(read_jsonl(artifact.path / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows if "eval_loss" in row] == [2, 3]
    heldout = list(read_jsonl(artifact.path / "heldout.jsonl"))
    assert len(heldout) == artifact.metrics["n_heldout"] == 6
    decided = [row for row in heldout if row["preference"] != 1.5]
    correct = sum((row["reward_2"] >= row["reward_1"]) == (row["preference"] > 1.5) for row in decided)
    assert artifact.metrics["eval_accuracy"] == pytest.approx(correct / len(decided))
    assert artifact.metrics["n_missing"] == 1
    assert artifact.metrics["n_ties"] == 3
    assert artifact.metrics["n_pairs"] == 18


def test_heldout_rewards_are_those_of_transformers(world):
    loaded = load_reward_model(world.reward_model.path, toy.EXECUTION)
    classifier = AutoModelForSequenceClassification.from_pretrained(world.reward_model.path).eval()
    for row in read_jsonl(world.reward_model.path / "heldout.jsonl"):
        prompt = encode_prompts(loaded.tokenizer, [loaded.template.render(row["instruction"], row["input"])])[0]
        responses = encode_responses(
            loaded.tokenizer, [row["output_1"], row["output_2"]], [row["finished_1"], row["finished_2"]]
        )
        for response, reward in zip(responses, (row["reward_1"], row["reward_2"]), strict=True):
            with torch.no_grad():
                expected = float(classifier(torch.tensor([prompt + response])).logits)
            assert reward == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kill_at", range(STEPS))
def test_killed_anywhere_it_resumes_to_the_same_bits(world, store, kill_at):
    with pytest.raises(toy.Killed):
        toy.reward_model(store, world.policy, world.preferences, progress=toy.KillAt(kill_at))
    again = toy.reward_model(store, world.policy, world.preferences)
    assert again.manifest.semantic() == world.reward_model.manifest.semantic()


@pytest.mark.parametrize("budget", [1, 1_000_000])
def test_micro_batches_change_the_result_only_within_tolerance(world, store, budget):
    execution = toy.EXECUTION.model_copy(update={"micro_batch_tokens": budget})
    again = toy.reward_model(store, world.policy, world.preferences, execution=execution)
    first, expected = (next(iter(read_jsonl(a.path / "metrics.jsonl"))) for a in (again, world.reward_model))
    assert first["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert first["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


def test_ties_can_be_dropped_and_eos_left_out(world, store):
    artifact = toy.reward_model(store, world.policy, world.preferences, ties="drop", eos=False, eval_size=5)
    assert artifact.metrics["n_pairs"] == 24 - 3 - 5
    assert artifact.metrics["n_ties"] == 3
    assert AutoModelForSequenceClassification.from_pretrained(artifact.path).config.reward_reads_eos is False


def test_too_few_pairs_to_hold_out(world, store):
    with pytest.raises(DataError, match="too few to hold out 500"):
        toy.reward_model(store, world.policy, world.preferences, eval_size=500)
