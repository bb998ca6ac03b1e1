import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.errors import ConfigError, DataError, TrainingDivergedError
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.objective import PPO
from alpaca_farm_core.models.loading import load_policy, load_reward_model, save_reward_model
from alpaca_farm_core.pipeline.stage import StageContext
from alpaca_farm_core.training.on_policy.judged import judge
from alpaca_farm_core.training.on_policy.setup import set_up
from alpaca_farm_core.training.on_policy.update import Update
from alpaca_farm_core.training.rewards.base import Answers
from alpaca_farm_core.training.rollouts import Passes
from tests.methods import toy

STEPS = toy.PPO_VALUES["steps"]
CUT = "alpaca_farm_core.methods.ppo.objective.epoch_minibatches"


@pytest.fixture(scope="session")
def trained(world):
    return toy.ppo(world.store, world)


def prepare(world, tmp_path, execution=toy.EXECUTION, **values):
    """Everything up to the first update, without a stage around it."""
    config = PPOConfig.build({**toy.PPO_VALUES, **values})
    inputs = {"policy": world.policy, "reward_model": world.reward_model, "data": world.data}
    context = StageContext(config, inputs, tmp_path, tmp_path, tmp_path, execution)
    setup = set_up(context, with_eos=not config.paper_compat)
    algorithm = PPO(setup)
    params = SamplingParams(config.max_new_tokens, config.temperature)
    responses = setup.sampler.sample(setup.prompts.token_ids[:12], list(range(12)), params)
    answers = Answers(setup.prompts.instructions[:12], responses, setup.loaded.tokenizer)
    judged = judge(
        answers, setup.policy.model, setup.reference, setup.reward, setup.passes, config, algorithm.width,
        value_head=algorithm.value_head,
    )  # fmt: skip
    return algorithm, setup, judged, algorithm.objective(judged, 1, config.kl_coef)


def test_the_artifact_holds_policy_checkpoints_metrics_and_samples(world, trained):
    rows = list(read_jsonl(trained.path / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if "heldout_reward" in row] == [2, 4]
    expected = {
        "reward", "penalised_reward", "kl", "kl_k3", "entropy", "clip_fraction", "approx_kl", "value_error",
        "explained_variance", "response_length", "unfinished_share", "learning_rate", "kl_coef", "policy_grad_norm",
        "critic_grad_norm", "policy_loss", "value_loss", "value_clip_fraction", "return_mean", "reward_std",
    }  # fmt: skip
    assert expected <= set(rows[0])
    for folder in (trained.path, trained.path / "checkpoints/step_0002", trained.path / "checkpoints/step_0004"):
        AutoModelForCausalLM.from_pretrained(folder)
    samples = list(read_jsonl(trained.path / "rollouts.jsonl"))
    assert [row["step"] for row in samples] == [1, 1, 2, 2, 4, 4]
    assert trained.metrics["n_prompts"] == 24
    assert trained.metrics["n_heldout_prompts"] == 5
    assert "start_heldout_reward" in trained.metrics


def test_kl_is_zero_at_the_first_step_and_not_later(trained):
    rows = list(read_jsonl(trained.path / "metrics.jsonl"))
    # decoding drew with the log-probabilities that a pass gives, up to rounding
    assert abs(rows[0]["kl"]) < 1e-5 > abs(rows[0]["kl_k3"])
    assert rows[-1]["kl_k3"] > 0
    assert abs(trained.metrics["start_heldout_kl"]) < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_policys_own_log_probabilities_come_from_decoding_and_are_those_of_a_pass(world, tmp_path, temperature):
    _, setup, judged, _ = prepare(world, tmp_path, temperature=temperature)
    drawn = judged.responses.drawn_scores(judged.mask_NR.shape[1], setup.workers.device)
    assert torch.equal(judged.logprobs_NR, drawn.logprobs_BT)
    policy, width = setup.policy.model, judged.responses.width()
    passed = setup.passes.all_token_scores(policy, judged.responses, temperature, width)
    torch.testing.assert_close(judged.logprobs_NR, passed.logprobs_BT, atol=1e-5, rtol=0)
    torch.testing.assert_close(judged.entropies_NR, passed.entropies_BT, atol=1e-5, rtol=0)


def test_of_a_bfloat16_copy_they_come_from_a_pass_in_the_precision_of_training(world, tmp_path):
    _, setup, judged, _ = prepare(world, tmp_path, precision="bfloat16")
    assert judged.responses.logprobs is None
    passed = setup.passes.all_token_scores(setup.policy.model, judged.responses, 1.0, judged.responses.width())
    assert torch.equal(judged.logprobs_NR, passed.logprobs_BT)


def test_the_policy_published_is_the_best_on_heldout_prompts(trained):
    evaluated = [row for row in read_jsonl(trained.path / "metrics.jsonl") if "heldout_objective" in row]
    best = max(evaluated, key=lambda row: row["heldout_objective"])
    assert trained.metrics["selected_step"] == best["step"]
    assert trained.metrics["heldout_objective"] == best["heldout_objective"]
    for row in evaluated:
        assert row["heldout_objective"] == pytest.approx(
            row["heldout_penalised_reward"] - 0.0067 * row["heldout_kl"], abs=1e-6
        )
    name = "model.safetensors"
    kept = trained.path / "checkpoints" / f"step_{best['step']:04d}" / name
    assert (trained.path / name).read_bytes() == kept.read_bytes()


def test_select_last_publishes_the_last(world, store):
    artifact = toy.ppo(store, world, select="last", steps=3, eval_every=1, save_every=3)
    assert artifact.metrics["selected_step"] == 3
    name = "model.safetensors"
    assert (artifact.path / name).read_bytes() == (artifact.path / "checkpoints/step_0003" / name).read_bytes()


@pytest.mark.parametrize("kill_at", range(STEPS))
def test_killed_anywhere_it_resumes_to_the_same_bits(world, trained, store, kill_at):
    with pytest.raises(toy.Killed):
        toy.ppo(store, world, progress=toy.KillAt(kill_at))
    progress = toy.KillAt(1000)
    again = toy.ppo(store, world, progress=progress)
    assert f"Resuming after step {kill_at + 1} of {STEPS}." in progress.said
    assert again.manifest.semantic() == trained.manifest.semantic()


def test_killed_between_checkpoints_with_everything_stateful_on(world, store, tmp_path):
    """Adaptive KL, dropout and a KL term; checkpoints only when the first kill allows none, then at each step."""
    values = {"kl_controller": "adaptive", "dropout": True, "kl_loss_coef": 0.1, "steps": 5, "eval_every": 1}
    rarely = toy.EXECUTION.model_copy(update={"checkpoint_seconds": 1e9})
    expected = toy.ppo(store, world, **values)
    from alpaca_farm_core.artifacts.store import Store

    other = Store(tmp_path / "other")
    with pytest.raises(toy.Killed):
        toy.ppo(other, world, progress=toy.KillAt(2), execution=rarely, **values)
    with pytest.raises(toy.Killed):
        toy.ppo(other, world, progress=toy.KillAt(2), **values)
    again = toy.ppo(other, world, **values)
    assert again.manifest.semantic() == expected.manifest.semantic()
    rows = list(read_jsonl(again.path / "metrics.jsonl"))
    assert rows[1]["kl_coef"] == pytest.approx(0.0067 * 0.98)  # KL 0 at step 1 is far below the target
    assert "kl_loss" in rows[0]


def test_a_damaged_newest_checkpoint_is_reported_and_the_result_is_the_same(world, trained, store):
    with pytest.raises(toy.Killed):
        toy.ppo(store, world, progress=toy.KillAt(2))
    newest = sorted(store.root.rglob("step_0*/tensors.pt"))[-1]
    newest.write_bytes(b"half")
    progress = toy.KillAt(1000)
    again = toy.ppo(store, world, progress=progress)
    assert any("damaged" in line for line in progress.said)
    assert again.manifest.semantic() == trained.manifest.semantic()


def test_judged_grids_are_those_of_row_by_row_passes(world, tmp_path):
    algorithm, setup, judged, objective = prepare(world, tmp_path)
    targets = objective.targets
    for row in range(12):
        prompt, response = judged.responses.prompt_ids[row], judged.responses.response_ids[row]
        ids = torch.tensor([prompt + response])
        with torch.no_grad():
            logits = setup.policy.model(ids).logits[0, len(prompt) - 1 : -1]
            values = algorithm.critic(ids, torch.ones_like(ids))[0, len(prompt) - 1 : -1]
        logprobs = torch.log_softmax(logits, -1)
        expected = logprobs[torch.arange(len(response)), torch.tensor(response)]
        n = len(response)
        torch.testing.assert_close(judged.logprobs_NR[row, :n], expected, atol=1e-5, rtol=1e-5)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        torch.testing.assert_close(judged.entropies_NR[row, :n], entropy, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(targets.values_NR[row, :n], values, atol=1e-5, rtol=1e-5)
        assert (judged.logprobs_NR[row, n:] == 0).all()


def test_advantages_are_white_over_response_tokens(world, tmp_path):
    _, _, judged, objective = prepare(world, tmp_path)
    targets = objective.targets
    tokens = targets.advantages_NR[judged.mask_NR]
    assert float(tokens.mean()) == pytest.approx(0, abs=1e-5)
    assert float(tokens.var(correction=0)) == pytest.approx(1, abs=1e-4)
    assert (targets.advantages_NR[~judged.mask_NR] == 0).all()


def test_the_value_head_starts_at_zero_and_the_critic_owns_its_weights(world, tmp_path):
    algorithm, setup, _, objective = prepare(world, tmp_path)
    targets = objective.targets
    assert (targets.values_NR == 0).all()
    critic = next(algorithm.critic.backbone.parameters())
    reward = next(setup.reward_model.base_model.parameters())
    assert torch.equal(critic, reward)
    assert critic.data_ptr() != reward.data_ptr()
    assert critic.requires_grad
    assert not reward.requires_grad
    assert not any(p.requires_grad for p in setup.reference.parameters())


@pytest.mark.parametrize("critic", [{"critic_init": "policy"}, {"zero_value_head": False}])
def test_other_starts_of_the_critic(world, tmp_path, critic):
    algorithm, setup, judged, objective = prepare(world, tmp_path, **critic)
    targets = objective.targets
    if critic == {"critic_init": "policy"}:
        policy = next(setup.policy.model.base_model.parameters())
        assert torch.equal(next(algorithm.critic.backbone.parameters()), policy)
    else:
        assert (targets.values_NR[judged.mask_NR] != 0).any()


def update(algorithm, setup, objective):
    return Update(algorithm, objective, setup.passes, setup.workers, max_grad_norm=1.0)


def gradients(world, tmp_path, budget, order=None, **values):
    """Gradients of one minibatch of all 12 responses."""
    execution = toy.EXECUTION.model_copy(update={"micro_batch_tokens": budget})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUT, lambda *arguments: [order or list(range(12))])
        algorithm, setup, _, objective = prepare(world, tmp_path, execution, **values)
    record = update(algorithm, setup, objective).accumulate(*objective.minibatches())
    models = (setup.policy.model, algorithm.critic)
    return record, [p.grad for model in models for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(("budget", "order"), [(1, None), (200, None), (10_000, list(range(11, -1, -1)))])
def test_micro_batches_padding_and_order_do_not_change_the_gradient(world, tmp_path, budget, order):
    expected, wanted = gradients(world, tmp_path, 10_000)
    record, found = gradients(world, tmp_path, budget, order)
    assert record == pytest.approx(expected, abs=1e-5)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def critic_loss(algorithm, judged, targets, row):
    """Of one response, every formula written out."""
    prompt, response = judged.responses.prompt_ids[row], judged.responses.response_ids[row]
    ids, n = torch.tensor([prompt + response]), len(response)
    values = algorithm.critic(ids, torch.ones_like(ids))[0, len(prompt) - 1 : -1]
    old, returns = targets.values_NR[row, :n], targets.returns_NR[row, :n]
    near = old + (values - old).clamp(-0.2, 0.2)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2).sum()


@pytest.mark.parametrize("minibatch_size", [4, 12])
@pytest.mark.parametrize("dropout", [False, True])  # the nano model has none: only where gradients are made differs
def test_the_critics_gradients_are_those_of_its_loss_in_the_first_minibatch_and_in_later_ones(
    world, tmp_path, minibatch_size, dropout
):
    algorithm, setup, judged, objective = prepare(
        world, tmp_path, minibatch_size=minibatch_size, vf_coef=0.7, zero_value_head=False, dropout=dropout
    )
    run, critic = update(algorithm, setup, objective), algorithm.learners["critic"]
    for rows in objective.minibatches()[:2]:
        record = run.accumulate(rows)
        found = [parameter.grad.clone() for parameter in critic.parameters]
        critic.optimiser.zero_grad()
        loss = sum(critic_loss(algorithm, judged, objective.targets, row) for row in rows) / judged.mask_NR[rows].sum()
        assert record["value_loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
        expected = torch.autograd.grad(0.7 * loss, critic.parameters)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)
        assert any(gradient.abs().max() > 1e-3 for gradient in found)


@pytest.mark.parametrize(("values", "passes"), [({"minibatch_size": 12}, 2), ({}, 2.5), ({"dropout": True}, 3)])
def test_values_come_from_the_pass_that_the_first_minibatch_learns_from(world, tmp_path, monkeypatch, values, passes):
    """Two epochs; besides them a pass over the rows that are not in the first minibatch."""
    seen = []
    run = Passes.values

    def counted(self, critic, part):
        seen.extend(part.rows)
        return run(self, critic, part)

    monkeypatch.setattr(Passes, "values", counted)
    algorithm, setup, _, objective = prepare(world, tmp_path, **values)
    update(algorithm, setup, objective).run(1, None)
    assert {seen.count(row) for row in range(12)} <= {2, 3}
    assert len(seen) == 12 * passes


def test_the_first_update_is_the_plain_policy_gradient(world, tmp_path):
    record, _ = gradients(world, tmp_path, 10_000)
    assert record["clip_fraction"] == 0
    assert record["approx_kl"] == pytest.approx(0, abs=1e-10)
    assert record["policy_loss"] == pytest.approx(0, abs=1e-5)  # minus the mean of whitened advantages


def test_paper_compat_counts_all_positions(world, tmp_path):
    values = {"paper_compat": True, "max_new_tokens": 14, "minibatch_size": 12}
    algorithm, setup, judged, objective = prepare(world, tmp_path, **values)
    targets = objective.targets
    assert judged.mask_NR.shape == targets.advantages_NR.shape == (12, 14)
    assert not judged.mask_NR.all()
    # whitening over padding too, by the formula on all 12 × 14 positions
    assert float(targets.advantages_NR.mean()) == pytest.approx(0, abs=1e-5)
    assert float(targets.advantages_NR.var(correction=0)) == pytest.approx(1, abs=1e-4)
    assert (targets.advantages_NR[~judged.mask_NR] != 0).any()
    # rewards of the text without EOS
    stripped = [
        ids[:-1] if done else ids
        for ids, done in zip(judged.responses.response_ids, judged.responses.finished, strict=True)
    ]
    row = judged.responses.finished.index(True)
    ids = torch.tensor([judged.responses.prompt_ids[row] + stripped[row]])
    with torch.no_grad():
        expected = float(setup.reward_model(ids).logits)
    assert float(judged.rewards_N[row]) == pytest.approx(expected, abs=1e-5)
    # losses divided by all positions
    record = update(algorithm, setup, objective).accumulate(objective.minibatches()[0])
    expected_error = float(targets.returns_NR[judged.mask_NR].square().sum()) / (12 * 14)
    assert record["value_error"] == pytest.approx(expected_error, rel=1e-4)


def test_penalty_is_decided_on_token_ids(world, tmp_path):
    _, setup, judged, _ = prepare(world, tmp_path, max_new_tokens=6)
    eos = setup.loaded.tokenizer.eos_token_id
    ended = [ids[-1] == eos for ids in judged.responses.response_ids]
    assert judged.responses.finished == ended
    assert 0 < sum(ended) < 12
    for reward, penalised, done in zip(judged.rewards_N, judged.penalised_N, ended, strict=True):
        assert penalised == (reward if done else -1.0)


def test_ppo_raises_the_reward(world, store):
    artifact = toy.ppo(
        store, world, steps=15, rollout_batch_size=24, minibatch_size=12, learning_rate=5e-3, eval_every=5
    )
    assert artifact.metrics["heldout_penalised_reward"] > artifact.metrics["start_heldout_penalised_reward"]


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_bad_reward_stops_the_run_and_names_the_step(world, store, tmp_path, monkeypatch, weight):
    from alpaca_farm_core.training import rollouts

    real, calls = rollouts.score, []

    def score(*arguments):
        calls.append(1)
        rewards = real(*arguments)
        return [weight, *rewards[1:]] if len(calls) == 4 else rewards  # start, steps 1, 2 (evaluated): 1 + 1 + 2

    monkeypatch.setattr(rollouts, "score", score)
    with pytest.raises(TrainingDivergedError, match=r"at step 2: .*The checkpoint of step 1 is kept"):
        toy.ppo(store, world)
    assert len(list(store.root.rglob("step_00000001/tensors.pt"))) == 1


def test_a_diverging_update_stops_the_run(world, store):
    with pytest.raises(TrainingDivergedError, match=r"at step \d: "):
        toy.ppo(store, world, learning_rate=1e30, max_grad_norm=0, weight_decay=1e30)


def test_a_reward_model_with_another_tokenizer_reads_the_text(world, tmp_path):
    """One more token in the vocabulary: the answers are tokenised anew, and mean the same."""
    loaded = load_reward_model(world.reward_model.path, toy.EXECUTION)
    loaded.tokenizer.add_tokens(["<|new|>"])
    folder = tmp_path / "other"
    save_reward_model(loaded, folder)
    _, setup, judged, _ = prepare(world, tmp_path)
    _, other, again, _ = prepare(replace(world, reward_model=replace(world.reward_model, path=folder)), tmp_path)
    assert setup.reward.reads_tokens
    assert not other.reward.reads_tokens
    tokenizer = setup.loaded.tokenizer
    for row, (ids, done) in enumerate(zip(judged.responses.response_ids, judged.responses.finished, strict=True)):
        text = ids[:-1] if done else ids
        if tokenizer(tokenizer.decode(text), add_special_tokens=False)["input_ids"] == text:
            torch.testing.assert_close(judged.rewards_N[row], again.rewards_N[row], atol=1e-5, rtol=1e-5)


def test_steps_follow_from_passes(world, store):
    artifact = toy.ppo(store, world, steps=0, passes=2, rollout_batch_size=18, minibatch_size=18, save_every=0)
    assert artifact.metrics["steps"] == 2 * 24 // 18
    assert not (artifact.path / "checkpoints").exists()
    with pytest.raises(DataError, match="do not fill one rollout batch"):
        toy.ppo(store, world, steps=0, passes=1, rollout_batch_size=48, minibatch_size=48)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rollout_batch_size": 10, "minibatch_size": 4}, "multiple of minibatch_size 4"),
        ({"critic_init": "policy", "zero_value_head": False}, "critic_init"),
        ({"critic": "shared_trunk", "zero_value_head": False}, "needs critic = 'separate'"),
    ],
)
def test_contradictions_in_the_config(values, message):
    with pytest.raises(ConfigError, match=message):
        PPOConfig.build(values)


def test_bfloat16_still_starts_at_kl_zero_and_saves_float32(world, store):
    artifact = toy.ppo(store, world, precision="bfloat16", steps=2)
    rows = list(read_jsonl(artifact.path / "metrics.jsonl"))
    assert rows[0]["kl"] == 0
    assert load_policy(artifact.path, toy.EXECUTION).model.dtype == torch.float32


def test_metrics_hold_no_times(trained):
    text = (trained.path / "metrics.jsonl").read_text()
    assert all("second" not in name and "time" not in name for name in json.loads(text.splitlines()[0]))
