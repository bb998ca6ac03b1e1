"""Killed and cancelled runs: the right state, nothing left running, no slot kept, and the same bits after a retry."""

import json
import signal
import time

import psutil
import pytest

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import composition_named
from tests.services.farm import wait_for
from tests.tiny import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 40
LONG = {**TINY, "ppo.steps": STEPS, "ppo.save_every": 0, "execution.checkpoint_seconds": 0, "execution.threads": 1}
APART = {**LONG, "execution.own_process": "always"}


def checkpoints(up, stage):
    """Checkpoints of a stage in progress."""
    names = up.root.glob("store/workspaces/*/name.json")
    folders = [name.parent for name in names if json.loads(name.read_text())["stage"] == stage]
    return [path for folder in folders for path in folder.glob("scratch/checkpoints/step_*")]


def kill(processes):
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def undisturbed(root, overrides):
    study = build_study("meadow", overrides)
    return composition_named("ppo")(LocalRunner(study, "undisturbed", Store(root)))["ppo"]


@pytest.mark.parametrize("also_worker", [False, True], ids=["flow", "worker_and_flow"])
def test_killed_in_ppo_it_crashes_and_a_retry_gives_the_same_bits(up, tmp_path, also_worker):
    overrides, earlier = {**APART, "ppo.seed": 10 + also_worker}, set(checkpoints(up, "ppo"))
    run_id = up.start_run("ppo/ppo", overrides=overrides, run_name="killed")
    wait_for(lambda: len(set(checkpoints(up, "ppo")) - earlier) >= 2, 240, up.said)
    assert up.slots_taken() == 1
    victims = up.flow_processes(run_id)
    if also_worker:
        workers = [process for process in up.processes() if "gpu-1" in process.cmdline()]
        kill(workers)
    kill(victims)
    began = time.monotonic()
    run = up.wait_for_state(run_id, "Crashed", seconds=120)
    print(f"Crashed after {time.monotonic() - began:.0f} s: {run['state']['message']}")
    wait_for(lambda: up.slots_taken() == 0, 120)
    print(f"Slot free after {time.monotonic() - began:.0f} s")
    assert psutil.wait_procs(victims, timeout=15)[1] == []
    print(f"All gone after {time.monotonic() - began:.0f} s")

    reached = max(int(path.name.removeprefix("step_")) for path in set(checkpoints(up, "ppo")) - earlier)
    assert 2 <= reached < STEPS
    if also_worker:
        return  # the retry is the same
    up.retry(run_id)
    up.wait_for_state(run_id, "Completed", "Failed", seconds=300)
    assert up.run(run_id)["state"]["name"] == "Completed"
    assert any(f"Resuming after step {reached} of {STEPS}." in log["message"] for log in logs_of(up, run_id))
    made = Store(up.root / "store").get("policy/killed-ppo")
    assert made.manifest.semantic() == undisturbed(tmp_path / "store", overrides).manifest.semantic()


def test_cancelled_in_a_training_of_two_processes(up):
    overrides = {
        **APART,
        "ppo.seed": 30,
        "ppo.steps": 4000,
        "execution.processes": 2,
        "execution.checkpoint_seconds": 3600,
    }
    run_id = up.start_run("ppo/ppo", overrides=overrides, run_name="cancelled")
    wait_for(lambda: len(trainers(up, run_id)) >= 2 and up.slots_taken() == 1, 240, up.said)
    wait_for(lambda: any("PPO" in log["message"] for log in logs_of(up, run_id)), 240)
    victims = up.flow_processes(run_id)
    before = len(checkpoints(up, "ppo"))
    began = time.monotonic()
    up.cancel(run_id)
    alive = psutil.wait_procs(victims, timeout=60)[1]
    print(f"all gone after {time.monotonic() - began:.1f} s")
    assert alive == []
    up.wait_for_state(run_id, "Cancelled", seconds=60)
    assert up.slots_taken() == 0
    assert len(checkpoints(up, "ppo")) > before


def trainers(up, run_id):
    return [p for p in up.flow_processes(run_id) if "alpaca_farm_core.training.child" in p.cmdline()]


def logs_of(up, run_id):
    return up.post("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, limit=200, sort="TIMESTAMP_DESC")


def test_a_killed_server_comes_back_and_knows_its_runs(up):
    run_id = up.start_run("sft/sft", overrides=TINY, run_name="before")
    up.wait_for_state(run_id, "Completed", seconds=120)
    (server,) = [p for p in up.processes() if "server" in p.cmdline() and "start" in p.cmdline()]
    server.send_signal(signal.SIGKILL)
    wait_for(lambda: "server died" in up.said(), 30)
    wait_for(up.answers, 120)
    assert up.run(run_id)["state"]["name"] == "Completed"
    after = up.start_run("sft/sft", overrides=TINY, run_name="after")
    up.wait_for_state(after, "Completed", seconds=180)
