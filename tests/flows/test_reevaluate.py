"""The nightly flow on a real Prefect server: found again, alarmed by a worse model and by another judge."""

import json
import time

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.evaluation.reevaluation.history import read_history
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.cli.main import main
from flows.cli.run import _PREFECT_DEFAULTS
from flows.compositions import composition_named
from flows.reevaluate import reevaluate
from tests.annotators.judge_server import JudgeServer, longer, shorter
from tests.flows.test_rlhf import task_runs
from tests.tiny import TINY
from tests.worsened import worsen

pytestmark = pytest.mark.usefixtures("prefect_server")


def states(state):
    return {task.name: task.state.name for task in task_runs(state)}


def alarm_events():
    with get_client(sync_client=True) as client:
        wanted = {"filter": {"event": {"prefix": ["alpaca-farm.alarm"]}}}
        found = client.request("POST", "/events/filter", json=wanted).json()["events"]
    return sorted((event["event"], event["resource"]["prefect.resource.id"]) for event in found)


def wait_for_events(n):
    for _ in range(100):
        if len(alarm_events()) >= n:
            break
        time.sleep(0.1)
    return alarm_events()


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `alpaca-farm run WORDS…` against this session's server; return its exit code and what it said."""
    for name, value in _PREFECT_DEFAULTS.items():
        monkeypatch.setenv(name, value)  # the command sets them; this takes them back

    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["run", *words])
        return left.value.code, " ".join("".join(capsys.readouterr()).split())

    return run


def test_nights(monkeypatch, command):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    store = Store()
    composition_named("ppo")(LocalRunner(build_study("meadow", TINY), "tiny", store))
    with JudgeServer(taste=longer) as judge:

        def night(fail=False, **settings):
            overrides = {**TINY, "execution.base_url": judge.base_url, **settings}
            return reevaluate(
                annotator="greedy", run_name="night", overrides=overrides, fail_on_alarm=fail, return_state=True
            )

        first = night()
        assert first.is_completed(), first.message
        assert states(first) == dict.fromkeys(
            ("decode tiny-ppo", "decode tiny-sft", "evaluate tiny-ppo", "anchors", "history"), "Completed"
        )
        second = night()
        assert set(states(second).values()) == {"Cached"}
        assert second.result() == first.result()

        worsen(store, store.get("policy/tiny-ppo"))
        worse = night()
        assert worse.is_completed()
        assert "Alarm: tiny-ppo fell from" in worse.message
        assert states(worse)["decode tiny-sft"] == "Cached"

        judge.taste = shorter
        drifted = night(fail=True, **{"reevaluate.every_hours": 0})
        assert (drifted.name, drifted.is_failed()) == ("Regression", True)
        assert "anchors changed sides" in drifted.message

        words = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        words += ["--set", f"execution.base_url={judge.base_url}", "--annotator", "greedy", "--run-name", "night"]
        code, said = command("reevaluate", *words)
        assert code == 5  # soon after and unchanged: the same check says the same
        assert "Alarm: the judge:" in said
        code, said = command("reevaluate", *words, "--set", "reevaluate.fail_on_alarm=true")
        assert code == 5
        assert "Error: Alarm: the judge:" in said

    history = read_history(store.get("history/night-history"))
    assert [len(entry["alarms"]) > 0 for entry in history] == [False, True, True]
    assert ("alpaca-farm.alarm.model", "alpaca-farm.model.tiny-ppo") in wait_for_events(2)
    assert ("alpaca-farm.alarm.judge", "alpaca-farm.judge.judge") in alarm_events()
    with get_client(sync_client=True) as client:
        keys = {
            a.key for a in client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="night-")))
        }
    assert {
        "history-night-history-win-rate",
        "history-night-history-judge",
        "history-night-history-table",
        "night-alarms",
    } <= keys
