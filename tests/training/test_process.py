"""Training in processes of its own: the same result, errors as if it had run here, and nobody left behind."""

import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import (
    OutOfMemoryError,
    TrainingDivergedError,
    TrainingProcessError,
    TrainingStoppedError,
)
from alpaca_farm_core.training import process
from alpaca_farm_core.training.body import explained_memory_errors
from tests.methods import toy
from tests.training.test_messages import Told

APART = toy.EXECUTION.model_copy(update={"own_process": "always"})
TWO = toy.EXECUTION.model_copy(update={"processes": 2})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return toy.make_world(Store(tmp_path_factory.mktemp("processes") / "store"))


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def other_store(world, tmp_path):
    """A store without the trained artifacts; inputs are opened where they are."""
    return Store(tmp_path / "other")


# --- the same result


def test_one_process_apart_gives_the_same_bits_and_reports(world, tmp_path):
    told = Told()
    made = toy.sft(other_store(world, tmp_path), world.data, progress=told, execution=APART)
    assert made.manifest.semantic() == world.policy.manifest.semantic()
    steps = made.metrics["steps"]
    assert ("start", "Training", steps, "steps", 0) in told.calls
    advances = [call for call in told.calls if call[0] == "advance"]
    assert len(advances) == steps
    assert advances[-1][2]["loss"] == pytest.approx(made.metrics["train_loss"])


def close(file, expected_file, tolerance):
    found, expected = load_file(file), load_file(expected_file)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=tolerance, rtol=tolerance)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(world, tmp_path):
    store = other_store(world, tmp_path)
    weights = "model.safetensors"
    policy = toy.sft(store, world.data, execution=TWO)
    close(policy.path / weights, world.policy.path / weights, 1e-4)
    reward = toy.reward_model(store, world.policy, world.preferences, execution=TWO)
    close(reward.path / weights, world.reward_model.path / weights, 1e-4)
    for found, expected in ((policy, world.policy), (reward, world.reward_model)):
        for row, wanted in zip(
            read_jsonl(found.path / "metrics.jsonl"), read_jsonl(expected.path / "metrics.jsonl"), strict=True
        ):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "values"),
    [("ppo", {}), ("rloo", {}), ("quark", {"train_on": "all", "clear_pool": False, "gradient_steps": 2})],
    ids=["ppo", "rloo", "quark"],
)
def test_two_processes_of_a_method_learn_what_one_learns(world, tmp_path, method, values):
    values = {"steps": 2, "eval_every": 1, **values}
    one = toy.on_policy(method, world.store, world, **values)
    two = toy.on_policy(method, other_store(world, tmp_path), world, execution=TWO, **values)
    close(two.path / "model.safetensors", one.path / "model.safetensors", 1e-4)
    for row, wanted in zip(read_jsonl(two.path / "metrics.jsonl"), read_jsonl(one.path / "metrics.jsonl"), strict=True):
        for own in {"explained_variance"} & row.keys():  # of one process's rows
            del row[own], wanted[own]
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_two_machines_meet(world, tmp_path, free_port):
    """Two launchers on this machine stand for two machines."""
    execution = toy.EXECUTION.model_copy(update={"nodes": 2, "rendezvous": f"127.0.0.1:{free_port}"})
    store = other_store(world, tmp_path)
    started = []

    class Second(Told):
        def say(self, message):
            super().say(message)
            if message.startswith("Start on each of the other machines: "):
                words = message.split(": ", 1)[1].split()
                started.append(subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL))

    policy = toy.sft(store, world.data, progress=Second(), execution=execution)
    assert [other.wait(60) for other in started] == [0]
    close(policy.path / "model.safetensors", world.policy.path / "model.safetensors", 1e-4)


# --- errors


def test_errors_of_the_stage_arrive_as_they_are(world, tmp_path):
    with pytest.raises(TrainingDivergedError, match="diverged at step") as error:
        toy.sft(other_store(world, tmp_path), world.data, execution=APART, learning_rate=1e30, max_grad_norm=0)
    assert error.value.next_action


@pytest.mark.parametrize(
    ("words", "error_class", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", OutOfMemoryError, "micro_batch_tokens (now 256)"),
        ("print('exitcode  : -9 (pid: 7)'); raise SystemExit(1)", OutOfMemoryError, "decode_batch_size (now 8)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", TrainingProcessError, "last checkpoint"),
        ("print('odd'); raise SystemExit(7)", TrainingProcessError, "exit code 7, and said last:\nodd"),
    ],
)
def test_a_lost_process(world, tmp_path, monkeypatch, words, error_class, said):
    monkeypatch.setattr(process, "launch_command", lambda execution, job: [sys.executable, "-c", words])
    with pytest.raises(error_class) as error:
        toy.sft(other_store(world, tmp_path), world.data, execution=APART)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_lack_of_memory_says_what_to_lower(error):
    with pytest.raises(OutOfMemoryError) as told, explained_memory_errors("sft", toy.EXECUTION):
        raise error
    assert "micro_batch_tokens (now 256)" in told.value.next_action


def test_other_errors_are_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), explained_memory_errors("sft", toy.EXECUTION):
        raise RuntimeError("shapes do not match")


def test_a_wrong_number_of_processes_is_noticed(world, tmp_path, monkeypatch):
    """A launcher that starts one process where two were asked for, and says nothing."""
    monkeypatch.setattr(
        process, "launch_command", lambda _, job: [sys.executable, "-m", "alpaca_farm_core.training.child", str(job)]
    )
    with pytest.raises(Exception, match="2 training processes were asked for, and 1 run"):
        toy.sft(other_store(world, tmp_path), world.data, execution=TWO)


# --- stopping


@pytest.mark.parametrize("execution", [toy.EXECUTION, APART], ids=["here", "apart"])
def test_the_deadline_leaves_a_checkpoint_and_the_next_run_goes_on_with_the_same_bits(world, tmp_path, execution):
    store = other_store(world, tmp_path)
    hurried = execution.model_copy(update={"deadline_hours": 1e-9, "checkpoint_seconds": 3600})
    with pytest.raises(TrainingStoppedError, match="deadline of 1e-09 hours"):
        toy.sft(store, world.data, execution=hurried)
    assert len(list(store.root.glob("workspaces/*/scratch/checkpoints/step_00000001"))) == 1
    told = Told()
    made = toy.sft(store, world.data, progress=told, execution=execution)
    assert ("say", f"Resuming after step 1 of {made.metrics['steps']}.") in told.calls
    assert made.manifest.semantic() == world.policy.manifest.semantic()


CALLER = """
import sys
from pathlib import Path
from alpaca_farm_core.artifacts.store import Store
from tests.methods import toy
from tests.training.test_messages import Told
store, data, processes = Store(sys.argv[1]), Store(sys.argv[2]).get("data"), int(sys.argv[3])
class Seen(Told):
    def advance(self, n=1, metrics=None):
        (store.root / "training_has_begun").touch()
execution = toy.EXECUTION.model_copy(
    update={"own_process": "always", "processes": processes, "checkpoint_seconds": 3600})
toy.sft(store, data, progress=Seen(), execution=execution, epochs=3000)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_however_the_caller_ends_its_processes_write_a_checkpoint_and_go(world, tmp_path, number, processes):
    store = other_store(world, tmp_path)
    caller = subprocess.Popen([sys.executable, "-c", CALLER, store.root, world.store.root, str(processes)])
    wait_until(lambda: list(store.root.glob("workspaces/*/scratch/job/job.json")), caller)
    wait_until((store.root / "training_has_begun").exists, caller)
    children = enough_children(caller.pid, processes)
    caller.send_signal(number)
    caller.wait(15)
    gone, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    assert len(gone) >= processes
    assert list(store.root.glob("workspaces/*/scratch/checkpoints/step_*"))
    assert not list(store.root.glob("workspaces/*/scratch/checkpoints/.*"))


def enough_children(pid, processes):
    """All processes below the caller, once the trainers are among them."""
    children = psutil.Process(pid).children(recursive=True)
    return children if len(children) >= (1 if processes == 1 else 3) else []


def wait_until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_an_earlier_attempt_that_still_runs_is_waited_for(world, tmp_path):
    """Its caller was killed; its process holds the lock by the inherited file until it has gone."""
    store = other_store(world, tmp_path)
    with pytest.raises(TrainingStoppedError):
        toy.sft(store, world.data, execution=toy.EXECUTION.model_copy(update={"deadline_hours": 1e-9}))
    (scratch,) = store.root.glob("workspaces/*/scratch")
    with process.exclusive(scratch / "training.lock") as lock:
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"], pass_fds=(lock.fileno(),))
    told = Told()
    toy.sft(store, world.data, progress=told, execution=APART)
    assert orphan.wait() == 0
    assert any(call[0] == "say" and "earlier attempt" in call[1] for call in told.calls)
