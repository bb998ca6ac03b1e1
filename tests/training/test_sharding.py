"""Weights spread over two processes (FSDP): what one process learns, in half of the memory, and plain folders out."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import ModelError, TrainingStoppedError
from alpaca_farm_core.methods.dpo.stage import METHOD as DPO
from tests.methods import toy

SHARDED = toy.EXECUTION.model_copy(update={"processes": 2, "parallel": "fsdp"})
REPLICATED = toy.EXECUTION.model_copy(update={"processes": 2})
LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return toy.make_world(Store(tmp_path_factory.mktemp("sharding") / "store"))


def alike(found, expected, tolerance=1e-4, name="model.safetensors"):
    tensors, wanted = load_file(found.path / name), load_file(expected.path / name)
    assert tensors.keys() == wanted.keys()
    for key, tensor in tensors.items():
        torch.testing.assert_close(tensor, wanted[key], atol=tolerance, rtol=tolerance)
    rows = read_jsonl(found.path / "metrics.jsonl")
    for row, expected_row in zip(rows, read_jsonl(expected.path / "metrics.jsonl"), strict=True):
        for own in {"explained_variance"} & row.keys():  # of one process's rows
            del row[own], expected_row[own]
        if "margin" in row and abs(row["margin"]) < 1e-6:  # the policy is the reference yet: rounding says who is ahead
            del row["accuracy"], expected_row["accuracy"]
        assert row == pytest.approx(expected_row, rel=1e-3, abs=1e-4)


def test_one_process_has_nothing_to_shard(world, tmp_path):
    alone = toy.EXECUTION.model_copy(update={"parallel": "fsdp"})
    made = toy.sft(Store(tmp_path / "other"), world.data, execution=alone)
    assert made.manifest.semantic() == world.policy.manifest.semantic()


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"lora": LORA}], ids=["all weights", "lora"])
def test_sharded_processes_train_what_one_trains(world, tmp_path, lora):
    """SFT, reward model and DPO; the gradient norms of metrics.jsonl are those of the whole model."""
    store = Store(tmp_path / "other")
    one = toy.sft(world.store, world.data, **lora)
    alike(toy.sft(store, world.data, execution=SHARDED, **lora), one)
    if lora:
        return
    one = toy.reward_model(world.store, world.policy, world.preferences)
    alike(toy.reward_model(store, world.policy, world.preferences, execution=SHARDED), one)
    inputs = toy.method_inputs(world, DPO.stages[-1])
    one = toy.method_stage(world.store, DPO.stages[-1], inputs)
    alike(toy.method_stage(store, DPO.stages[-1], inputs, execution=SHARDED), one)


@pytest.mark.slow
def test_two_processes_train_the_adapters_that_one_trains(world, tmp_path):
    one = toy.ppo(world.store, world, steps=2, lora=LORA)
    alike(toy.ppo(Store(tmp_path / "other"), world, execution=REPLICATED, steps=2, lora=LORA), one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("ppo", {}),
        ("ppo", {"critic": "shared_trunk", "critic_init": "policy"}),
        ("quark", {"train_on": "all", "gradient_steps": 2}),
    ],
    ids=["ppo", "shared trunk", "quark"],
)
def test_sharded_on_policy_methods_learn_what_one_process_learns(world, tmp_path, method, values):
    values = {"steps": 2, "eval_every": 1, **values}
    one = toy.on_policy(method, world.store, world, **values)
    alike(toy.on_policy(method, Store(tmp_path / "other"), world, execution=SHARDED, **values), one)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_sharded_run_resumes_to_the_same_bits_and_under_ddp_to_the_same_numbers(world, tmp_path, stage):
    def make(store, execution):
        if stage == "sft":
            # dropout: every process goes on with random numbers of its own
            return toy.sft(store, world.data, execution=execution, lora={**LORA, "dropout": 0.2})
        return toy.ppo(store, world, execution=execution, steps=3)

    undisturbed = make(Store(tmp_path / "undisturbed"), SHARDED)
    with pytest.raises(TrainingStoppedError):
        make(
            Store(tmp_path / "stopped"), SHARDED.model_copy(update={"deadline_hours": 1e-9, "checkpoint_seconds": 3600})
        )
    assert len(list(tmp_path.glob("stopped/workspaces/*/scratch/checkpoints/step_00000001"))) == 1
    shutil.copytree(tmp_path / "stopped", tmp_path / "copy")
    resumed = make(Store(tmp_path / "stopped"), SHARDED)
    assert resumed.manifest.semantic() == undisturbed.manifest.semantic()
    if stage == "ppo":
        alike(make(Store(tmp_path / "copy"), REPLICATED), undisturbed)


def test_adapters_that_share_their_base_with_the_reference_are_not_sharded(world, tmp_path, monkeypatch):
    from alpaca_farm_core.training.on_policy import setup

    start = setup.start_workers

    def as_if_sharded(execution, precision):
        workers, execution = start(execution, precision)
        return type(workers)(0, 2, workers.device, precision, mesh=object()), execution

    monkeypatch.setattr(setup, "start_workers", as_if_sharded)
    with pytest.raises(ModelError, match="cannot be sharded") as error:
        toy.ppo(Store(tmp_path / "other"), world, lora=LORA)
    assert "'ddp'" in error.value.next_action


PARTS = """
import copy, json, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.models.logprobs import response_logprobs
from alpaca_farm_core.models.sharding import shard, whole
from alpaca_farm_core.training.config import OptimiserConfig
from alpaca_farm_core.training.launch import start_workers
from alpaca_farm_core.training.optimiser import build_optimiser, gradient_norm, restore_training_state, training_state

workers, _ = start_workers(ExecutionConfig(device="cpu", threads=1, processes=2, parallel="fsdp"), "float32")
torch.manual_seed(0)
tied = LlamaConfig(vocab_size=101, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
                   tie_word_embeddings=True)
model = LlamaForCausalLM(tied)
twin = copy.deepcopy(model)
ids = torch.randint(0, 101, (4, 7), generator=torch.Generator().manual_seed(1))
mask = torch.ones_like(ids).bool()
mask[:, 0] = False

def loss(of, rows):
    return -response_logprobs(of, ids[rows], torch.ones_like(ids[rows]), mask[rows], chunk=3).logprobs_BT.sum()

def step(of, rows):
    optimiser = build_optimiser(of, OptimiserConfig.build({"learning_rate": 1e-2}))
    loss(of, rows).backward()
    norm = float(gradient_norm(of.parameters()))
    optimiser.step()
    return optimiser, norm

shard(model, workers.mesh)
optimiser, norm = step(model, [workers.rank, workers.rank + 2])
twins_optimiser, twins_norm = step(twin, [0, 1, 2, 3])
held = [p.to_local() for p in model.parameters()]
held += [s[k].to_local() for s in optimiser.state.values() for k in ("exp_avg", "exp_avg_sq")]
plain = whole(model)
state = training_state(model, optimiser)
before = [t.clone() for t in held]
if workers.is_main:
    torch.save(state, sys.argv[1] + ".pt")
torch.distributed.barrier()
loss(model, [0]).backward()  # one more step, to be undone
optimiser.step()
restore_training_state(model, optimiser, torch.load(sys.argv[1] + ".pt", weights_only=True))
after = [p.to_local() for p in model.parameters()]
after += [s[k].to_local() for s in optimiser.state.values() for k in ("exp_avg", "exp_avg_sq")]
print(workers.rank, "restored", all(map(torch.equal, before, after)))
if workers.is_main:
    optimiser_of_twin = {k: v for k, v in twins_optimiser.state_dict()["state"].items()}
    moments = state["optimiser"]["state"]
    json.dump({
        "norm": norm, "twins_norm": twins_norm,
        "restored": all(map(torch.equal, before, after)),
        "share": sum(t.numel() for t in held) / (3 * sum(p.numel() for p in twin.parameters())),
        "weights": max(float((a - b).abs().max()) for a, b in zip(plain.parameters(), twin.parameters())),
        "names": list(plain.state_dict()) == list(twin.state_dict()),
        "tied": plain.lm_head.weight is plain.model.embed_tokens.weight,
        "moments": max(float((moments[i]["exp_avg"] - optimiser_of_twin[i]["exp_avg"]).abs().max()) for i in moments),
    }, open(sys.argv[1], "w"))
else:
    assert plain is None
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_a_sharded_llama_with_tied_weights(tmp_path):
    script, result = tmp_path / "parts.py", tmp_path / "result.json"
    script.write_text(PARTS)
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(result)]
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", *command], check=True, timeout=120, env=environment(root))
    found = json.loads(result.read_text())
    assert found["norm"] == pytest.approx(found["twins_norm"], rel=1e-5)
    assert found["restored"]
    assert 0.5 <= found["share"] < 0.53  # rows that do not divide are padded on one side
    assert found["weights"] < 1e-5
    assert found["moments"] < 1e-5
    assert found["names"]
    assert found["tied"]


def environment(root):
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
