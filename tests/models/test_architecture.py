"""Sizes from a config.json: as many parameters as the model has, for the architectures that people use."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, LlamaConfig, Qwen3Config

from alpaca_farm_core.artifacts.files import write_json
from alpaca_farm_core.models.architecture import Architecture, architecture_in, base_architecture
from alpaca_farm_core.models.config import ModelConfig
from tests.models.test_smollm2 import real_model

LLAMA = {
    "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 500,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**LLAMA),
    "tied": LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**LLAMA, head_dim=32, tie_word_embeddings=True),
    "gpt2": GPT2Config(n_embd=96, n_layer=3, n_head=6, vocab_size=500, n_positions=64),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model(name):
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    found = Architecture.from_config(CONFIGS[name].to_dict())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert found.parameters == pytest.approx(count, rel=0.03)  # GPT-2's places and biases are left out
    if name != "gpt2":
        reward = AutoModelForSequenceClassification.from_config(
            type(CONFIGS[name]).from_dict({**CONFIGS[name].to_dict(), "num_labels": 1})
        )
        assert found.backbone == pytest.approx(sum(p.numel() for p in reward.parameters()), rel=0.005)


def test_sizes_of_a_block_are_those_of_its_layers():
    model = AutoModelForCausalLM.from_config(CONFIGS["qwen3"])
    linear = {n.rpartition(".")[2]: m for n, m in model.model.named_modules() if isinstance(m, torch.nn.Linear)}
    found = Architecture.from_config(CONFIGS["qwen3"].to_dict())
    assert found.linear_layers == {name: (m.in_features, m.out_features) for name, m in linear.items()}


def test_a_folder_and_what_is_not_understood(tmp_path):
    assert architecture_in(tmp_path) is None
    write_json(tmp_path / "config.json", {"model_type": "rwkv", "hidden_size": 8})
    assert architecture_in(tmp_path) is None
    write_json(tmp_path / "config.json", {"text_config": CONFIGS["llama"].to_dict()})
    assert architecture_in(tmp_path) == Architecture.from_config(CONFIGS["llama"].to_dict())
    assert base_architecture(ModelConfig(source=str(tmp_path))) == architecture_in(tmp_path)
    assert base_architecture(ModelConfig(source="nobody/has-this")) is None


def test_the_nano_model():
    found = base_architecture(ModelConfig())
    per_block = 4 * 192 * 192 + 3 * 192 * 512 + 2 * 192
    assert found.parameters == 2048 * 192 + 4 * per_block + 192


@pytest.mark.slow
@real_model
def test_smollm2_is_as_large_as_said():
    from alpaca_farm_core.models.smollm2 import load_smollm2

    model, _ = load_smollm2(torch.bfloat16)
    found = base_architecture(ModelConfig(source="smollm2"))
    assert found == Architecture.from_config(model.config.to_dict())
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
