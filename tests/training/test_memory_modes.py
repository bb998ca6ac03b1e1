"""Settings that save memory: activation checkpointing and offload change no result."""

import contextlib
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.models.config import LoraConfig
from alpaca_farm_core.models.lora import adapt, sharing_weights
from alpaca_farm_core.training.heap import keeping_memory, return_free_memory
from alpaca_farm_core.training.offload import offloaded, own_tensors
from alpaca_farm_core.training.on_policy import setup
from alpaca_farm_core.training.process import _environment
from tests.methods import toy

SAVING = toy.EXECUTION.model_copy(update={"activation_checkpointing": True, "offload": True})


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return toy.make_world(Store(tmp_path_factory.mktemp("world") / "store"))


@pytest.mark.parametrize(
    "values", [{}, {"critic": "shared_trunk"}, {"lora": {"rank": 2, "dropout": 0.5}, "dropout": True}], ids=str
)
def test_ppo_is_the_same_bits(world, tmp_path, values):
    plain = toy.ppo(Store(tmp_path / "a"), world, **values)
    saving = toy.ppo(Store(tmp_path / "b"), world, execution=SAVING, **values)
    assert saving.manifest.semantic() == plain.manifest.semantic()


def test_supervised_training_is_the_same_bits(world, tmp_path):
    def make(store, execution):
        policy = toy.sft(store, world.data, execution=execution)
        return policy, toy.reward_model(store, policy, world.preferences, execution=execution)

    plain = make(Store(tmp_path / "plain"), toy.EXECUTION)
    saving = make(Store(tmp_path / "saving"), SAVING)
    assert [made.manifest.semantic() for made in saving] == [made.manifest.semantic() for made in plain]


def test_what_waits_is_what_nobody_at_work_shares():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    reference, reward = (LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)) for _ in range(2))
    reference.requires_grad_(False)
    policy = sharing_weights(reference)
    adapt(policy, LoraConfig(rank=2), seed=0)
    assert own_tensors([reference], [policy]) == []
    waiting = own_tensors([reference, reward], [policy])
    assert {tensor.data_ptr() for tensor in waiting} == {parameter.data_ptr() for parameter in reward.parameters()}
    before = [tensor.data_ptr() for tensor in waiting]
    with offloaded([reference, reward], [policy], torch.device("cpu")):
        assert [tensor.data_ptr() for tensor in waiting] == before


@pytest.mark.parametrize(
    ("method", "values"), [("ppo", {}), ("rloo", {}), ("quark", {}), ("quark", {"kl": "sampled"})], ids=str
)
def test_what_waits_is_not_used_meanwhile(world, tmp_path, monkeypatch, method, values):
    """On a CPU in place of a GPU: what would be moved away is spoilt for that time."""

    def run(name):
        return toy.on_policy(method, Store(tmp_path / name), world, execution=SAVING, steps=2, **values)

    plain, spoilt = run("plain"), 0

    @contextlib.contextmanager
    def spoiling(idle, busy, device):
        nonlocal spoilt
        waiting = own_tensors(idle, busy)
        kept = [tensor.data.clone() for tensor in waiting]
        for tensor in waiting:
            tensor.data.fill_(float("nan"))
        spoilt += len(waiting)
        yield
        for tensor, values in zip(waiting, kept, strict=True):
            tensor.data.copy_(values)

    monkeypatch.setattr(setup, "offloaded", spoiling)
    assert run("spoilt").manifest.semantic() == plain.manifest.semantic()
    assert spoilt


def test_a_training_process_keeps_few_compiled_kernels_unless_told_otherwise(monkeypatch):
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    assert _environment(toy.EXECUTION)[name] == "64"
    monkeypatch.setenv(name, "7")
    assert _environment(toy.EXECUTION)[name] == "7"


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def held_after(megabytes):
    """What stays resident of a block that was asked for, filled and freed, in bytes."""
    before = resident()
    block = torch.ones(megabytes * 250_000)
    del block
    return resident() - before


def keep_and_give_back():
    """In a process of its own: blocks are given back only where the heap has no hole for them from before.

    What lies between the blocks is the interpreter's business, so the first ones may find no hole that is large enough;
    and as a smaller one might lie in a hole of theirs, and stay, the last one is larger than all of them together.
    """
    assert held_after(100) < 20e6
    with keeping_memory(False):
        assert held_after(100) < 20e6
    before = resident()
    with keeping_memory(True):
        held_after(100)
        assert resident() - before > 80e6
        grown = [held_after(100) for _ in range(20)]
        assert sum(grown[10:]) < 20e6  # used again, ten times in a row
        assert resident() - before < 1e9
    assert resident() - before < 20e6
    assert held_after(1000) < 20e6


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_a_while_and_then_goes_back():
    code = "from tests.training.test_memory_modes import keep_and_give_back; keep_and_give_back()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_goes_back_to_the_system():
    blocks = [bytearray(b"x" * 65536) for _ in range(4000)]  # too small to be mapped one by one
    last = bytearray(b"x" * 65536)  # the heap cannot shrink from its end
    full = resident()
    del blocks
    return_free_memory()
    assert full - resident() > 200e6
    assert last
