"""A Prefect server out of reach while a flow runs: the work goes on, and its end is told either way."""

import json
import os
import subprocess
import sys

import pytest

from alpaca_farm_core.artifacts.store import Store
from tests.outage import Line
from tests.services.farm import wait_for
from tests.tiny import TINY

_AT_EACH_STEP = """
import tasks.progress
tasks.progress._UPDATE_SECONDS = 0.0
from flows.cli.main import main
main()
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def line(up):
    line = Line(up.port)
    yield line
    line.cut()


def start(folder, line, **environment):
    """A run from the command line, its progress shown at each step."""
    settings = {**TINY, "sft.epochs": 60, "execution.threads": 1, "execution.checkpoint_seconds": 0}
    (folder / "tiny.yaml").write_text(json.dumps(settings))
    return subprocess.Popen(
        [sys.executable, "-c", _AT_EACH_STEP, "run", "sft", "--config", "tiny.yaml", "--store", "store"],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={
            **os.environ, "PYTHONPATH": os.getcwd(), "PREFECT_API_URL": f"http://127.0.0.1:{line.port}/api",
            **environment,
        },
    )  # fmt: skip


def newest_run(up):
    return up.post("/flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]


def wait_for_checkpoint(process, folder):
    found = lambda: list(folder.glob("store/workspaces/*/scratch/checkpoints/step_*"))  # noqa: E731
    wait_for(lambda: found() or process.poll() is not None, 240)
    assert process.poll() is None, process.communicate()


def test_a_server_away_for_a_while_is_told_everything_when_it_is_back(up, line, tmp_path):
    process = start(tmp_path, line)
    wait_for_checkpoint(process, tmp_path)
    line.cut()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(20)
    line.mend()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert Store(tmp_path / "store").get("policy/meadow-sft").version == 1
    assert newest_run(up)["state"]["name"] == "Completed"


def test_a_server_that_stays_away_holds_no_stage_up_and_is_named_at_the_end(up, line, tmp_path):
    process = start(tmp_path, line, PREFECT_CLIENT_MAX_RETRIES="1")
    wait_for_checkpoint(process, tmp_path)
    line.cut()
    out, err = process.communicate(timeout=400)
    assert process.returncode == 1
    assert f"Prefect's server at http://127.0.0.1:{line.port}/api does not answer any more" in err
    assert "run the same command again" in err
    assert "Traceback" not in out
    assert Store(tmp_path / "store").get("policy/meadow-sft").version == 1
