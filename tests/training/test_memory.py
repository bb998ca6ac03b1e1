"""The memory plan: its parts against tensors that are really held, its constants, and what it is too much for."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import OutOfMemoryError
from alpaca_farm_core.generation import cache
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.stage import STAGE as PPO
from alpaca_farm_core.methods.sft.config import SFTConfig
from alpaca_farm_core.methods.sft.stage import STAGE as SFT
from alpaca_farm_core.models import architecture, blocks, logprobs, products
from alpaca_farm_core.models.architecture import Architecture
from alpaca_farm_core.models.backbone import plain_hidden_states
from alpaca_farm_core.models.blocks import linear_layers
from alpaca_farm_core.models.config import LoraConfig
from alpaca_farm_core.models.lora import adapt
from alpaca_farm_core.models.packing import packed_hidden_states
from alpaca_farm_core.training import memory
from alpaca_farm_core.training.room import memory_here, memory_plan, require_memory

SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "tie_word_embeddings": True,
}  # fmt: skip
CPU = ExecutionConfig(device="cpu", decode_batch_size=1)


def llama(layers):
    return LlamaConfig(**SIZES, num_hidden_layers=layers)


def granite(layers):
    """Of Llama's structure, run by transformers' own blocks."""
    return GraniteConfig(**SIZES, num_hidden_layers=layers)


def kept(config, tokens, bfloat16, packed):
    """Bytes that autograd keeps of a backbone's pass over 4 rows, weights and their casts aside."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    found = {}

    def note(tensor):
        if tuple(tensor.shape) not in shapes:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.arange(tokens).view(4, -1)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        run = packed_hidden_states if packed else plain_hidden_states
        output = run(model.model, ids, torch.ones_like(ids))
    del output
    return sum(found.values())


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="no weights are copied")
@pytest.mark.parametrize("more", [{}, {"vocab_size": 8192}, {"hidden_size": 1024}, {"hidden_size": 4096}])
def test_copied_weights_are_those_that_decoding_copies(more):
    """None, the head, some, all."""
    config = LlamaConfig(**SIZES | more, num_hidden_layers=1)
    model = AutoModelForCausalLM.from_config(config)
    copies = products.Panels([*linear_layers(model.model), (model.lm_head,)])._of.values()
    planned = memory.panels(Architecture.from_config(config.to_dict()), 2, 4, CPU)
    assert planned == sum(copy.nbytes for copy in copies)
    assert memory.panels(Architecture.from_config(config.to_dict()), 1, 4, CPU) == 0
    lora = LoraConfig(rank=2, targets=("q_proj", "down_proj"))
    adapt(model, lora, seed=0)
    copies = products.Panels([*linear_layers(model.model), (model.lm_head,)])._of.values()
    assert memory.panels(Architecture.from_config(config.to_dict()), 2, 4, CPU, lora) == sum(c.nbytes for c in copies)


@pytest.mark.parametrize(("kind", "packed"), [(llama, False), (llama, True), (granite, True)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_of_a_block_are_what_autograd_keeps(precision, kind, packed):
    tokens = 120
    three, two = (kept(kind(n), tokens, precision == "bfloat16", packed) for n in (3, 2))
    planned = [
        memory.activations(Architecture.from_config(kind(n).to_dict()), tokens, precision, False, packed)
        for n in (3, 2)
    ]
    assert planned[0] - planned[1] == pytest.approx(three - two, rel=0.02)


def test_constants_are_those_of_the_code():
    assert memory.CHUNK_LOGITS == logprobs.CHUNK_LOGITS
    assert memory.CACHE_BLOCK == cache.BLOCK
    assert (memory.LARGE_WEIGHT, memory.BEYOND_CACHE) == (products.LARGE_WEIGHT, products.BEYOND_CACHE)
    assert tuple(kind.lower() for kind in blocks._KINDS) == architecture.OWN_BLOCKS


@pytest.mark.parametrize("lora", [LoraConfig(rank=4), LoraConfig(rank=2, targets=("q_proj", "down_proj"))])
def test_trained_parameters_are_those_of_the_adapters(lora):
    pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_config(llama(2))
    adapt(model, lora, seed=0)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert memory.trained_parameters(Architecture.from_config(llama(2).to_dict()), lora) == trained


def test_the_cache_grows_by_blocks():
    model = Architecture.from_config(llama(2).to_dict())
    # 2 (keys, values) × 4 bytes × 2 layers × 32 wide × 3 rows × 128 positions
    assert memory.key_value_cache(model, rows=3, tokens=70, size=4) == 2 * 4 * 2 * 32 * 3 * 128


def plan(execution=CPU, **values):
    model = Architecture.from_config(llama(2).to_dict())
    config = PPOConfig.build({"seed": 0, "minibatch_size": 16, "rollout_batch_size": 16, **values})
    return memory_plan(PPO, config, execution, {"policy": model, "reward_model": model}), 4 * model.parameters


def test_what_ppo_holds():
    separate, weights = plan()
    assert separate.phase == "updating"
    assert separate.parts["weights"] == 2 * weights  # policy and critic, whose head is the tied embedding
    assert separate.parts["optimiser"] == 4 * weights
    assert separate.parts["reference"] == separate.parts["reward model"] == weights
    shared, _ = plan(critic="shared_trunk")
    assert (shared.parts["weights"], shared.parts["optimiser"]) == (weights, 2 * weights)
    adapters, _ = plan(lora={"rank": 2})
    assert "reference" not in adapters.parts
    assert adapters.parts["optimiser"] < 0.2 * shared.parts["optimiser"]


def test_settings_that_save_memory_show_in_the_plan():
    plain, _ = plan()
    again, _ = plan(CPU.model_copy(update={"activation_checkpointing": True}))
    assert again.parts["activations"] < plain.parts["activations"]
    gpu, _ = plan(CPU.model_copy(update={"device": "cuda", "offload": True}))
    assert not {"reference", "reward model", "libraries"} & set(gpu.parts)
    smaller, _ = plan(CPU.model_copy(update={"micro_batch_tokens": 256}), max_prompt_tokens=20, max_new_tokens=20)
    larger, _ = plan(max_prompt_tokens=20, max_new_tokens=20)  # 640 tokens in rows; a CPU takes 1,024
    assert smaller.parts["activations"] / larger.parts["activations"] == pytest.approx(256 / 640)


def test_each_process_holds_its_share_of_sharded_models_and_the_first_one_whole_in_the_end():
    eight = CPU.model_copy(update={"device": "cuda", "processes": 8, "parallel": "fsdp"})
    model = Architecture.from_config(llama(2).to_dict())
    phases = {"updating": {"weights": 800, "optimiser": 1601, "activations": 30}, "decoding": {"reference": 8}}
    found = memory.of_each_process(phases, eight, model)
    at_work = 2 * 4 * (model.embedding + model.block)  # tied: weights and gradients of one embedding and one block
    parts = {"weights": 100, "optimiser": 201, "activations": 30, "gathered weights": at_work}
    assert found["updating"] == parts
    assert found["decoding"] == {"reference": 1, "gathered weights": at_work}
    whole = {"weights": 100, "optimiser": 201, "gradients": 0, "whole model": 4 * model.parameters}
    assert found["publishing"] == whole
    assert memory.of_each_process(phases, eight.model_copy(update={"parallel": "ddp"}), model) == phases


def test_a_stage_that_does_not_fit_is_refused_with_what_to_lower(tmp_path):
    config = SFTConfig.build({"seed": 0})
    assert require_memory(SFT, config, CPU, {}, "Lower it.").peak < memory_here(CPU)
    little = CPU.model_copy(update={"memory_gb": 0.1})
    with pytest.raises(
        OutOfMemoryError, match=r"sft would need 0\.\d+ GB while updating: .*there are 0\.10 GB"
    ) as error:
        require_memory(SFT, config, little, {}, "Lower it.")
    assert error.value.next_action == "Lower it. Or set execution.memory_gb to start anyway."


def test_unknown_models_have_no_plan(tmp_path):
    config = SFTConfig.build({"seed": 0, "model": {"source": "nobody/has-this"}})
    assert memory_plan(SFT, config, CPU, {}) is None
    assert memory_plan(PPO, PPOConfig(seed=0), CPU, {"policy": tmp_path}) is None
