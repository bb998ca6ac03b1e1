"""The store's upkeep as a flow, what stages tell in events, and what `doctor` says of a server."""

import time
from datetime import UTC, datetime

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL, temporary_settings

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.pipeline.run import run_stage
from flows.rlhf import FLOWS
from flows.services.health import server_findings
from flows.upkeep import collect_garbage
from tests.pipeline import toy
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_what_nothing_needs_is_told_then_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPACA_FARM_STORE", str(tmp_path))
    store = Store()
    for seed in (1, 2):
        run_stage(toy.NUMBERS, toy.NumbersConfig(seed=seed), {}, store=store, name="numbers")
    told = collect_garbage(older_than_days=0, return_state=True)
    assert told.message == "1 folders with 0.00 GB would go."
    with get_client(sync_client=True) as client:
        key = ArtifactFilterKey(any_=["garbage"])
        (shown,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=key))
    assert "`dataset/numbers@v1`" in shown.data
    assert len(list(store.artifacts())) == 2
    assert collect_garbage(dry_run=False, return_state=True).message == "0.00 GB freed."  # younger than 30 days
    assert len(list(store.artifacts())) == 2
    collect_garbage(older_than_days=0, dry_run=False)
    assert [artifact.reference for artifact in store.artifacts()] == ["dataset/numbers@v2"]


def stage_events(since):
    """Event, resource and payload of all that stages told, oldest first."""
    with get_client(sync_client=True) as client:
        address = str(client.api_url).rstrip("/")
    wanted = {"event": {"prefix": ["alpaca-farm.stage."]}, "occurred": {"since": since.isoformat()}, "order": "ASC"}
    found = httpx.post(f"{address}/events/filter", json={"filter": wanted})
    return [(event["event"], event["resource"], event["payload"]) for event in found.json()["events"]]


def test_what_becomes_of_a_stage_is_an_event(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPACA_FARM_STORE", str(tmp_path))
    began = datetime.now(UTC)
    (tmp_path / "bad.json").write_text("[]")
    FLOWS["sft"](overrides=TINY, return_state=True)
    FLOWS["sft"](overrides=TINY, return_state=True)
    FLOWS["sft"](overrides={**TINY, "dataset.source": str(tmp_path / "bad.json")}, return_state=True)
    deadline = time.monotonic() + 60
    while len(told := stage_events(began)) < 5:
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    assert sorted((event, resource["prefect.resource.id"]) for event, resource, _ in told) == [
        ("alpaca-farm.stage.cached", "alpaca-farm.stage.dataset"),
        ("alpaca-farm.stage.cached", "alpaca-farm.stage.sft"),
        ("alpaca-farm.stage.completed", "alpaca-farm.stage.dataset"),
        ("alpaca-farm.stage.completed", "alpaca-farm.stage.sft"),
        ("alpaca-farm.stage.failed", "alpaca-farm.stage.dataset"),
    ]
    (error,) = [resource["alpaca-farm.error"] for event, resource, _ in told if event.endswith("failed")]
    assert error == "DataError"
    made = {payload["artifact"] for event, _, payload in told if event.endswith("completed")}
    assert made == {"dataset/meadow-dataset@v1", "policy/meadow-sft@v1"}


def test_doctor_names_what_a_server_lacks():
    with get_client(sync_client=True) as client:
        address = str(client.api_url)
    with temporary_settings({PREFECT_API_URL: address}):
        findings = list(server_findings())
    assert [state for state, _, _ in findings] == ["ok", "optional", "optional", "optional"]
    assert findings[1][1] == "there is no work pool gpu"
    assert "no limit 'training'" in findings[3][1]
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        ((state, said, advice),) = server_findings()
    assert state == "problem"
    assert "does not answer" in said
    assert "alpaca-farm up" in advice
