"""Ctrl-C and SIGTERM in mid-training of `alpaca-farm run`: out promptly, in two lines, and the next run goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import TINY

STEPS = 400


def start(store, *words):
    """Start a flow, by default `sft`."""
    settings = {**TINY, "sft.epochs": STEPS // 4, "execution.threads": 1, "execution.checkpoint_seconds": 0}
    (store.parent / "tiny.yaml").write_text(json.dumps(settings))
    flow = [*(words or ["sft"]), "--config", "tiny.yaml", "--store", str(store)]
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "run", *flow],
        cwd=store.parent, env={**os.environ, "PYTHONPATH": os.getcwd()}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_checkpoint(process, store):
    deadline = time.monotonic() + 120
    while not list(store.glob("workspaces/*/scratch/checkpoints/step_*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_of_session(session):
    """Ids of the processes that still run in a session."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True)
    return [line.split()[0] for line in listed.stdout.splitlines() if not line.split()[1].startswith("Z")]


def interrupt(process):
    """As a terminal does on Ctrl-C: the temporary server gets it too."""
    os.killpg(process.pid, signal.SIGINT)


def terminate(process):
    """As kill(1) does."""
    process.terminate()


def terminate_all(process):
    """As timeout(1), a batch system or a service manager does: the command first, then everybody, it included."""
    process.terminate()
    os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize(("send", "code"), [(interrupt, 130), (terminate, 143), (terminate_all, 143)])
def test_a_signal_stops_training_at_once_and_the_next_run_goes_on(tmp_path, send, code):
    store = tmp_path / "store"
    process = start(store)
    wait_for_checkpoint(process, store)
    send(process)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in out + err
    assert err.strip().endswith("Stopped. Run the same command again to go on from here.")
    assert processes_of_session(process.pid) == []
    assert not list(store.glob("artifacts/policy/*/v*"))

    process = start(store)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "Resuming after step" in out
