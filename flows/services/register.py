"""What a fresh or old server must know: pools, limits, deployments and the zombie automation.

Every function here may be called again: what is there already is brought up to date. As a command
(`python -m flows.services.register`) it serves a server that something else started, such as docker/compose.yaml.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists

from alpaca_farm_core.errors import FarmError
from flows.services.server import ROOT, TRAINING_LIMIT

POOLS = ("gpu", "cpu")
"""Work pools: `gpu` for flows that train, `cpu` for the others."""

ZOMBIES = "Crash runs without heartbeat"
SILENCE = timedelta(seconds=90)
"""A run that has sent no heartbeat for so long is taken for dead."""

_ENDINGS = ("Completed", "Cached", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")


def register_all(trainings: int, environment: Mapping[str, str]) -> None:
    """Register everything with the server of Prefect's current settings.

    Args:
        trainings: How many training stages may run at the same time.
        environment: Of the `prefect deploy` command.

    Raises:
        FarmError: `prefect deploy` failed.
    """
    with get_client(sync_client=True) as client:
        for pool in POOLS:
            _register_pool(client, pool, ROOT / "deployments" / "pools" / "process.json")
        _register_limit(client, trainings)
        _register_zombie_automation(client)
    deploy_all(environment)


def deploy_all(environment: Mapping[str, str]) -> None:
    """Apply deployments/prefect.yaml.

    Raises:
        FarmError: with Prefect's own words.
    """
    file = ROOT / "deployments" / "prefect.yaml"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    done = subprocess.run(command, env=dict(environment), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise FarmError(f"The deployments could not be registered:\n{done.stdout}{done.stderr}", f"See {file}.")


def _register_pool(client: SyncPrefectClient, name: str, template_file: Path) -> None:
    template: dict[str, Any] = json.loads(template_file.read_text(encoding="utf-8"))
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    except ObjectAlreadyExists:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template, is_paused=False))


def _register_limit(client: SyncPrefectClient, trainings: int) -> None:
    client.upsert_global_concurrency_limit_by_name(TRAINING_LIMIT, trainings)


def _register_zombie_automation(client: SyncPrefectClient) -> None:
    """The open-source server has no such automation of its own: runs whose process was killed stay Running."""
    if not client.read_automations_by_name(ZOMBIES):
        client.create_automation(zombie_automation())


def zombie_automation() -> AutomationCore:
    """Crash a run whose heartbeats stop without an ending."""
    return AutomationCore(
        name=ZOMBIES,
        description="Its process was killed. Retry it: finished stages come from the store, training goes on from "
        "its checkpoint.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{ending}" for ending in _ENDINGS)},
            match=ResourceSpecification.model_validate({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed", state=StateType.CRASHED, message=f"No heartbeat for {SILENCE.total_seconds():.0f} s."
            )
        ],
    )


def main() -> None:
    """Register everything with the server that PREFECT_API_URL names."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--trainings", type=int, default=1, help="training stages that may run at the same time")
    register_all(parser.parse_args().trainings, {**os.environ, "PWD": str(ROOT)})


if __name__ == "__main__":
    main()
