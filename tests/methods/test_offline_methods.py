"""DPO, best-of-n, expert iteration, FeedME and reward conditioning as stages, on the toy world."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca_farm_core.artifacts.files import read_json, read_jsonl, write_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.data.prompts import PromptTemplate
from alpaca_farm_core.data.rows import read_preferences
from alpaca_farm_core.errors import ConfigError, DataError, ModelError
from alpaca_farm_core.generation.answers import whole_prompts
from alpaca_farm_core.methods.best_of_n.stage import STAGE as BEST_OF_N
from alpaca_farm_core.methods.dpo.config import DPOConfig
from alpaca_farm_core.methods.dpo.stage import STAGE as DPO
from alpaca_farm_core.methods.expert_iteration.stage import STAGE as EXPERT_ITERATION
from alpaca_farm_core.methods.feedme.stage import STAGE as FEEDME
from alpaca_farm_core.methods.reward_conditioning.config import RewardConditioningConfig
from alpaca_farm_core.methods.reward_conditioning.stage import STAGE as REWARD_CONDITIONING
from alpaca_farm_core.models.loading import load_policy, load_reward_model
from tests.methods import toy


def make(world, stage, store=None, progress=None, execution=toy.EXECUTION, **values):
    inputs = toy.method_inputs(world, stage)
    return toy.method_stage(store or world.store, stage, inputs, progress, execution, **values)


def metrics_of(artifact):
    return list(read_jsonl(artifact.path / "metrics.jsonl"))


# --- DPO


def test_dpo_starts_at_log_2_and_learns_the_preferences(world):
    trained = make(world, DPO, learning_rate=1e-2, epochs=4)
    rows = metrics_of(trained)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["loss"] < 0.6
    assert trained.metrics["eval_accuracy"] > 0.7
    assert trained.metrics["eval_margin"] > 0
    assert trained.metrics["n_missing"] == 1
    assert len(list(read_jsonl(trained.path / "samples.jsonl"))) == 2
    assert trained.metrics["n_ties"] == 3


def test_reference_logprobs_are_those_of_the_policy(world):
    artifact = toy.method_inputs(world, DPO)["reference"]
    loaded = load_policy(world.policy.path, toy.EXECUTION)
    preferences = read_preferences(world.preferences.path / "preferences.jsonl")
    rows = list(read_jsonl(artifact.path / "logprobs.jsonl"))
    assert [row["id"] for row in rows] == [row.id for row in preferences]
    for row, pair in list(zip(rows, preferences, strict=True))[:6]:
        prompt = loaded.tokenizer(loaded.template.render(pair.instruction, pair.input))["input_ids"]
        answer = loaded.tokenizer(pair.output_2, add_special_tokens=False)["input_ids"]
        answer += [loaded.tokenizer.eos_token_id] if pair.finished_2 else []
        with torch.no_grad():
            logprobs = loaded.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        expected = sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(answer))
        assert row["logprob_2"] == pytest.approx(expected, abs=1e-4)
        assert row["tokens_2"] == len(answer)


def test_another_beta_shares_the_reference(world):
    strong, weak = make(world, DPO, beta=0.5), make(world, DPO, beta=0.1, epochs=1)
    assert strong.fingerprint != weak.fingerprint
    reference = {artifact.manifest.recipe.inputs["reference"] for artifact in (strong, weak)}
    assert len(reference) == 1
    assert len(list(world.store.artifacts("logprobs"))) == 1


@pytest.mark.parametrize(
    "values", [{"loss": "ipo"}, {"length_normalised": True}, {"label_smoothing": 0.1}, {"ties": "drop"}]
)
def test_variants_differ_and_prefer_the_winners(world, values):
    plain = make(world, DPO)
    variant = make(world, DPO, **values)
    assert metrics_of(variant)[-1]["loss"] != metrics_of(plain)[-1]["loss"]
    n_all = 21 if "ties" in values else 24
    assert variant.metrics["n_pairs"] + variant.metrics["n_heldout"] == n_all
    assert metrics_of(variant)[-1]["margin"] > 0


def test_micro_batches_change_dpo_only_within_tolerance(world, store):
    wide = make(world, DPO)
    narrow = make(world, DPO, store, execution=toy.EXECUTION.model_copy(update={"micro_batch_tokens": 1}))
    for row, expected in zip(metrics_of(narrow), metrics_of(wide), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_logprobs_of_other_pairs_are_refused(world, tmp_path):
    inputs = toy.method_inputs(world, DPO)
    store = Store(tmp_path / "store")
    other = toy.run_stage(toy.PREFERENCES, toy.NoConfig(size=12), {}, store=store, name="other").artifact
    with pytest.raises(DataError, match="does not belong to these preferences"):
        toy.method_stage(store, DPO, {**inputs, "preferences": other})


def test_too_few_pairs_to_hold_some_out(world):
    with pytest.raises(DataError, match=r"24 annotated pairs are too few to hold out 500") as error:
        make(world, DPO, eval_size=500)
    assert error.value.next_action


def test_smoothing_is_not_for_ipo():
    with pytest.raises(ConfigError, match="label_smoothing"):
        DPOConfig.build({"loss": "ipo", "label_smoothing": 0.1})


# --- best-of-n


def test_the_best_sample_is_chosen_and_the_curve_rises(world):
    made = make(world, BEST_OF_N)
    samples = list(read_jsonl(made.path / "samples.jsonl"))
    outputs = list(read_jsonl(made.path / "outputs.jsonl"))
    assert len(samples) == 4 * len(outputs) == 4 * 6
    for place, output in enumerate(outputs):
        group = samples[4 * place : 4 * place + 4]
        assert {row["instruction"] for row in group} == {output["instruction"]}
        best = max(group, key=lambda row: (row["reward"], -row["sample_id"]))
        assert output["output"] == best["output"]
        assert output["generator"] == "best-of-4"
    curve = read_json(made.path / "curve.json")
    assert [row["n"] for row in curve] == [1, 2, 3, 4]
    rewards = [row["reward"] for row in curve]
    assert rewards == sorted(rewards)
    assert rewards[0] == pytest.approx(sum(row["reward"] for row in samples) / len(samples))
    assert made.metrics["reward"] == rewards[-1]
    assert made.metrics["kl"] == pytest.approx(math.log(4) - 0.75)


def test_rewards_are_those_of_the_reward_model_on_the_text(world):
    made = make(world, BEST_OF_N)
    loaded = load_reward_model(world.reward_model.path, toy.EXECUTION)
    for row in list(read_jsonl(made.path / "samples.jsonl"))[:6]:
        ids = loaded.tokenizer(loaded.template.render(row["instruction"], row["input"]))["input_ids"]
        ids += loaded.tokenizer(row["output"], add_special_tokens=False)["input_ids"]
        ids += [loaded.tokenizer.eos_token_id] if row["finished"] else []
        with torch.no_grad():
            assert float(loaded.model(torch.tensor([ids])).logits) == pytest.approx(row["reward"], abs=1e-4)


def test_one_sample_is_no_choice(world):
    made = make(world, BEST_OF_N, n=1)
    assert made.metrics["kl"] == 0
    assert made.metrics["reward"] == made.metrics["reward_of_one"]
    assert len(read_json(made.path / "curve.json")) == 1


def test_samples_that_are_all_equal_are_counted(world):
    made = make(world, BEST_OF_N, temperature=1e-4)
    assert made.metrics["n_all_equal"] == made.metrics["n_outputs"] == 6
    assert made.metrics["reward"] == pytest.approx(made.metrics["reward_of_one"])


def test_samples_none_of_which_ends(world):
    made = make(world, BEST_OF_N, max_new_tokens=1, unfinished_penalty=-2.0)
    assert made.metrics["n_all_unfinished"] == made.metrics["n_outputs"] == 6
    assert made.metrics["reward"] == -2.0


def test_more_samples_than_fit_one_batch_give_the_same_answers(world, store):
    wide = make(world, BEST_OF_N)
    narrow = make(world, BEST_OF_N, store, execution=toy.EXECUTION.model_copy(update={"decode_batch_size": 3}))
    assert [row["output"] for row in read_jsonl(narrow.path / "outputs.jsonl")] == [
        row["output"] for row in read_jsonl(wide.path / "outputs.jsonl")
    ]


@pytest.mark.parametrize(("batch", "n", "expected"), [(64, 16, 64), (64, 24, 48), (5, 2, 4), (5, 8, 5), (7, 1, 7)])
def test_batches_hold_whole_prompts_where_they_can(batch, n, expected):
    assert whole_prompts(batch, n) == expected


# --- expert iteration


@pytest.mark.parametrize(("rule", "kept"), [("drop", "finished"), ("keep", "all"), ("close", "all")])
def test_expert_iteration_learns_the_chosen_answers(world, rule, kept):
    made = make(world, EXPERT_ITERATION, unfinished=rule)
    outputs = list(read_jsonl(toy.method_inputs(world, EXPERT_ITERATION)["samples"].path / "outputs.jsonl"))
    n_unfinished = sum(not row["finished"] for row in outputs)
    assert len(outputs) == 24
    assert 0 < n_unfinished < 24
    assert made.metrics["n_unfinished"] == n_unfinished
    assert made.metrics["n_rows"] == (24 - n_unfinished if kept == "finished" else 24)
    rows = metrics_of(made)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_expert_iteration_on_nothing_that_ends(world, store):
    inputs = toy.method_inputs(world, EXPERT_ITERATION)
    rows = [{**row, "finished": False} for row in read_jsonl(inputs["samples"].path / "outputs.jsonl")]
    cut = toy.Stage("cut", 1, toy.NoConfig, {}, "outputs", lambda context: _write(context, rows))
    samples = toy.run_stage(cut, toy.NoConfig(), {}, store=store, name="cut").artifact
    with pytest.raises(DataError, match="None of the 24 chosen answers ends") as error:
        toy.method_stage(store, EXPERT_ITERATION, {**inputs, "samples": samples}, unfinished="drop")
    assert "max_new_tokens" in error.value.next_action


def _write(context, rows):
    write_jsonl(context.output / "outputs.jsonl", rows)
    return toy.StageResult()


# --- FeedME and reward conditioning


def test_feedme_learns_the_winners_of_decided_pairs(world):
    made = make(world, FEEDME)
    assert (made.metrics["n_rows"], made.metrics["n_ties"], made.metrics["n_missing"]) == (21, 3, 1)
    assert metrics_of(made)[-1]["loss"] < metrics_of(made)[0]["loss"]


def test_reward_conditioning_asks_for_the_good_token(world):
    made = make(world, REWARD_CONDITIONING)
    assert made.metrics["n_rows"] == 42
    template = PromptTemplate.load(made.path)
    assert template.without_input.endswith("<|good|>")
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    model = AutoModelForCausalLM.from_pretrained(made.path)
    good, bad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|good|>", "<|bad|>"))
    assert good != bad
    assert max(good, bad) < model.get_input_embeddings().weight.shape[0]
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "Say eagle."}], add_generation_prompt=True)
    assert list(shown["input_ids"] if hasattr(shown, "keys") else shown)[-1] == good
    assert tokenizer(template.render("Say eagle.", ""))["input_ids"][-1] == good


def test_conditioning_on_good_gives_what_was_preferred(world):
    """The judge of the toy world prefers short answers: behind the good token they are likelier than behind bad."""
    made = make(world, REWARD_CONDITIONING, learning_rate=1e-2, epochs=8)
    loaded = load_policy(made.path, toy.EXECUTION)
    plain = load_policy(world.policy.path, toy.EXECUTION).template

    def short_minus_long(token):
        difference = 0.0
        for word in toy.WORDS:
            prompt = loaded.tokenizer(plain.render(f"Say {word}.", "") + token)["input_ids"]
            for sign, text in ((1, word), (-1, f"{word} {word} {word}")):
                answer = loaded.tokenizer(text, add_special_tokens=False)["input_ids"] + [loaded.tokenizer.eos_token_id]
                with torch.no_grad():
                    logprobs = loaded.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
                difference += sign * sum(float(logprobs[len(prompt) + i - 1, t]) for i, t in enumerate(answer))
        return difference

    assert short_minus_long("<|good|>") > short_minus_long("<|bad|>")


def test_a_token_that_is_there_already(world):
    with pytest.raises(ModelError, match="has a token"):
        make(world, REWARD_CONDITIONING, good_token=AutoTokenizer.from_pretrained(world.policy.path).eos_token)


def test_equal_tokens_tell_nothing():
    with pytest.raises(ConfigError, match="must differ"):
        RewardConditioningConfig.build({"good_token": "x", "bad_token": "x"})
