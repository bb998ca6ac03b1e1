"""Two machines, with disks of their own, run whole flows on one S3 store at the same time."""

import os
import subprocess
import sys
import uuid

import pytest

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.artifacts.verify import verify
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import rlhf
from tests.artifacts.s3_server import s3_server
from tests.tiny import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHARED = {"dataset", "sft", "sample", "preferences"}


@pytest.fixture
def s3(monkeypatch):
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed (extra: slow)")
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://studies/{uuid.uuid4().hex}"


def start(url, tmp_path, method):
    """A machine of its own: its cache and its Prefect."""
    settings = [
        word for key, value in TINY.items() for word in ("--set", f"{key}={'null' if value is None else value}")
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "run", "rlhf", "--method", method, "--run-name", "two",
         "--store", url, *settings],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "ALPACA_FARM_CACHE": str(tmp_path / method),
            "PREFECT_HOME": str(tmp_path / f"{method}-prefect"),
            "PYTHONPATH": os.getcwd(),
            "COLUMNS": "200",
        },
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def stages(said, mark):
    """Titles of the stages behind a mark of the terminal: ✓ made here, ● found in the store."""
    lines = [line.split() for line in said.splitlines()]
    return [" ".join(words[1:3]) if words[1] in ("reward", "decode", "evaluate") else words[1]
            for words in lines if words[:1] == [mark]]  # fmt: skip


def test_two_machines_make_each_shared_stage_once_and_what_one_machine_makes(s3, tmp_path, monkeypatch):
    machines = {method: start(s3, tmp_path, method) for method in ("ppo", "dpo")}
    said = {method: machine.communicate(timeout=500)[0] for method, machine in machines.items()}
    assert [machine.returncode for machine in machines.values()] == [0, 0], said
    made = {method: stages(text, "✓") for method, text in said.items()}
    found = {method: stages(text, "●") for method, text in said.items()}
    for stage in SHARED:
        assert sum(titles.count(stage) for titles in made.values()) == 1, made
        assert sum(titles.count(stage) for titles in found.values()) == 1, found
    assert {"reward model", "ppo", "evaluate ppo"} <= set(made["ppo"])
    assert {"dpo", "evaluate dpo"} <= set(made["dpo"])

    alone = Store(tmp_path / "alone")
    rlhf(LocalRunner(build_study("meadow", TINY), "two", alone))
    monkeypatch.setenv("ALPACA_FARM_CACHE", str(tmp_path / "third"))
    together = Store(s3)
    for artifact in alone.artifacts():
        assert together.find(artifact.fingerprint).manifest.semantic() == artifact.manifest.semantic()
    findings = verify(together, together.artifacts(), check_lineage=True)
    assert [finding for finding in findings if finding.problems] == []
