"""Differences made here from small models; what comes out must be the tuned model."""

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.generation.scoring import reads_eos
from alpaca_farm_core.models.import_diff import import_weight_diff
from alpaca_farm_core.models.loading import load_reward_model
from flows.cli.main import cli

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def llama(vocab_size, seed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **SMALL, tie_word_embeddings=False))


def grown(state, rows):
    """The base with new rows of mean embeddings, as the differences were made."""
    names = ("model.embed_tokens.weight", "lm_head.weight")
    return {
        name: torch.cat([tensor, tensor.mean(0, keepdim=True).expand(rows, -1)]) if name in names else tensor
        for name, tensor in state.items()
    }


@pytest.fixture
def folders(tmp_path, tokenizer):
    """(base, difference, tuned weights): 50 tokens in the base, 51 in the tuned model."""
    base, diff = tmp_path / "base", tmp_path / "diff"
    raw = llama(len(tokenizer) - 1, seed=1)
    raw.save_pretrained(base)
    tuned = llama(len(tokenizer), seed=2)
    old = grown(raw.state_dict(), 1)
    tuned_state = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    tuned.load_state_dict({name: tensor - old[name] for name, tensor in tuned_state.items()})
    tuned.save_pretrained(diff)
    tokenizer.save_pretrained(diff)
    (diff / "model_sum.txt").write_text(str(sum(float(t.sum()) for t in tuned_state.values())))
    return base, diff, tuned_state


def test_a_policy_is_recovered(folders, store):
    base, diff, tuned = folders
    artifact = import_weight_diff(store, diff, base, "sft10k")
    assert artifact.kind == "policy"
    found = AutoModelForCausalLM.from_pretrained(artifact.path).state_dict()
    for name, tensor in tuned.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6)
    assert artifact.metrics["n_in_full"] == 0
    assert import_weight_diff(store, diff, base, "sft10k").fingerprint == artifact.fingerprint
    assert [a.version for a in store.artifacts("policy")] == [1]


def test_a_wrong_base_or_a_damaged_tensor_is_an_error_and_publishes_nothing(folders, store):
    base, diff, _ = folders
    state = load_file(diff / "model.safetensors")
    state["model.norm.weight"][0] += 1
    save_file(state, diff / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"sum up to .* but .*model_sum\.txt says"):
        import_weight_diff(store, diff, base, "sft10k")
    assert not list(store.artifacts())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda base, diff: (diff / "model_sum.txt").unlink(), "no readable model_sum.txt"),
        (lambda base, diff: (diff / "model.safetensors").rename(diff / "model.bin"), "pickles"),
        (
            lambda base, diff: save_file({"other": torch.zeros(2)}, base / "model.safetensors"),
            "has only 0 of the",
        ),
    ],
)
def test_folders_that_cannot_be_used(folders, store, damage, message):
    base, diff, _ = folders
    damage(base, diff)
    with pytest.raises(ModelError, match=message):
        import_weight_diff(store, diff, base, "sft10k")


def test_a_reward_model_is_recovered_over_a_recovered_policy(folders, store):
    base, diff, policy = folders
    sft = import_weight_diff(store, diff, base, "sft10k")
    tuned = {f"backbone_model.{name}": tensor + 0.5 for name, tensor in policy.items()}
    head = torch.arange(16.0)[None] / 16
    changes = {name: tensor - policy[name.removeprefix("backbone_model.")] for name, tensor in tuned.items()}
    changes |= {"reward_head.weight": head, "reward_head.bias": torch.tensor([0.25])}
    save_file(changes, diff / "model.safetensors", metadata={"format": "pt"})
    (diff / "config.json").write_text(json.dumps({"model_type": "reward_model"}))
    total = sum(float(t.sum()) for t in tuned.values()) + float(head.sum()) + 0.25
    (diff / "model_sum.txt").write_text(str(total))
    artifact = import_weight_diff(store, diff, sft.path, "rm")
    assert artifact.kind == "reward_model"
    assert artifact.metrics["reward_bias"] == 0.25
    found = AutoModelForSequenceClassification.from_pretrained(artifact.path)
    torch.testing.assert_close(found.score.weight, head)
    norm = found.model.norm.weight
    torch.testing.assert_close(norm, tuned["backbone_model.model.norm.weight"], atol=1e-6, rtol=1e-6)
    assert not reads_eos(load_reward_model(artifact.path, ExecutionConfig(device="cpu")).model)


def test_the_command_line(folders, tmp_path):
    base, diff, _ = folders
    command = ["artifacts", "import", "--weight-diff", str(diff), "--base", str(base), "--name", "sft10k"]
    result = CliRunner().invoke(cli, [*command, "--store", str(tmp_path / "store")], catch_exceptions=False)
    assert result.output.strip() == "policy/sft10k@v1"
    assert Store(tmp_path / "store").get("policy/sft10k@latest").kind == "policy"
