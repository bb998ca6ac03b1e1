"""`alpaca-farm up` from start to Ctrl-C, and what its form says to mistakes."""

import os
import signal
import subprocess
import sys

import httpx
import psutil
import pytest

from tests.services.farm import running, wait_for
from tests.tiny import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_what_is_there(up):
    assert {pool["name"] for pool in up.post("/work_pools/filter")} == {"gpu", "cpu"}
    deployments = {deployment["name"] for deployment in up.post("/deployments/filter")}
    assert {
        "rlhf",
        "sft",
        "simulate-preferences",
        "reward-model",
        "ppo",
        "evaluate",
        "reevaluate",
        "nightly-evaluation",
    } <= deployments
    assert up.get("/v2/concurrency_limits/training")["limit"] == 1
    assert [automation["enabled"] for automation in up.post("/automations/filter")] == [True]
    form = up.get("/deployments/name/rlhf/rlhf")["parameter_openapi_schema"]["properties"]
    assert all(field.get("description") for field in form.values())
    assert up.http.get("/").status_code in (200, 404)
    assert httpx.get(f"http://127.0.0.1:{up.port}/").status_code == 200


def test_a_run_then_the_same_again_from_the_store(up):
    overrides = {**TINY, "dataset.seed": 7}  # a world that no other test of this `up` makes
    own = {"overrides": overrides, "run_name": "once-and-again"}
    first = up.start_run("rlhf/rlhf", **own)
    assert up.wait_for_state(first, "Completed", "Failed", "Crashed")["state"]["name"] == "Completed"
    assert set(up.task_states(first).values()) == {"Completed"}
    again = up.start_run("rlhf/rlhf", **own)
    up.wait_for_state(again, "Completed", "Failed", "Crashed")
    assert set(up.task_states(again).values()) == {"Cached"}
    assert up.slots_taken() == 0


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"overrides": {"ppo.kl_coeff": 1}}, "Did you mean 'kl_coef'?"),
        ({"overrides": {"dataset.source": "/etc/passwd.json"}}, "outside the folders that a form may read"),
        ({"overrides": {"execution.base_url": "http://evil.example/v1"}}, "to which a form may send nothing"),
        ({"run_name": "../../elsewhere"}, "is not a usable name"),
    ],
    ids=["unknown", "file", "address", "name"],
)
def test_mistakes_in_the_form_fail_at_once_with_what_to_do(up, parameters, said):
    run_id = up.start_run("sft/sft", **parameters)
    run = up.wait_for_state(run_id, "Failed", "Completed", "Crashed", seconds=60)
    assert said in run["state"]["message"]
    assert up.task_states(run_id) == {}
    shown = up.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
    assert [artifact["key"] for artifact in shown] == ["sft-problem"]


def test_the_night_fires_by_its_schedule_and_takes_all_from_the_store(up):
    policy = up.start_run("ppo/ppo", overrides=TINY, run_name="tiny")
    assert up.wait_for_state(policy, "Completed", "Failed", "Crashed")["state"]["name"] == "Completed"
    night = up.get("/deployments/name/reevaluate/nightly-evaluation")
    parameters = {"preset": "meadow", "overrides": TINY, "run_name": "night"}
    by_hand = up.start_run("reevaluate/nightly-evaluation", **parameters)
    assert up.wait_for_state(by_hand, "Completed", "Failed", "Crashed")["state"]["name"] == "Completed"
    up.send("PATCH", f"/deployments/{night['id']}", {"parameters": parameters})
    often = {"schedule": {"interval": 20}, "active": True}
    (made,) = up.send("POST", f"/deployments/{night['id']}/schedules", [often])
    try:
        fired = wait_for(lambda: finished_runs(up, night["id"]), 240)
    finally:
        up.send("DELETE", f"/deployments/{night['id']}/schedules/{made['id']}")
    assert fired[0]["state_name"] == "Completed"
    assert set(up.task_states(fired[0]["id"]).values()) == {"Cached"}


def finished_runs(up, deployment_id):
    """Runs that a schedule started and that have ended, oldest first."""
    runs = up.post(
        "/flow_runs/filter", deployments={"id": {"any_": [deployment_id]}}, sort="EXPECTED_START_TIME_ASC", limit=50
    )
    return [run for run in runs if run["auto_scheduled"] and run["end_time"]]


def test_auth_restart_of_a_worker_and_a_second_start(up, tmp_path):
    up.copy_database(tmp_path / "up")
    with running(tmp_path / "up", auth="farmer:s3cret") as up:
        assert httpx.get(f"http://127.0.0.1:{up.port}/api/work_pools/filter").status_code in (401, 405)
        assert httpx.post(f"http://127.0.0.1:{up.port}/api/flows/count", json={}).status_code == 401
        (worker,) = [p for p in up.processes() if "--name gpu-1" in " ".join(p.cmdline())]
        worker.kill()
        wait_for(lambda: "worker gpu-1 died" in up.said(), 30)
        run_id = up.start_run("sft/sft", overrides=TINY, run_name="tiny")
        up.wait_for_state(run_id, "Completed", seconds=120)

        refused = subprocess.run(
            [sys.executable, "-m", "flows.cli.main", "up", "--port", str(up.port), "--store", str(tmp_path / "other")],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        assert refused.returncode == 2
        assert "is taken" in refused.stderr
        below = up.stop(signal.SIGINT)
        assert up.process.returncode == 0
        assert "s3cret" not in up.said()
    assert below
    assert psutil.wait_procs(below, timeout=5)[1] == []

    with running(tmp_path / "up") as up:  # again, on the same database
        assert up.run(run_id)["state"]["name"] == "Completed"
        below = up.stop(signal.SIGTERM)
    assert psutil.wait_procs(below, timeout=5)[1] == []


def test_killed_for_good_it_leaves_no_process(up, tmp_path):
    up.copy_database(tmp_path / "up")
    with running(tmp_path / "up") as up:
        below = up.stop(signal.SIGKILL)
        assert len(below) >= 3
        assert psutil.wait_procs(below, timeout=40)[1] == []
