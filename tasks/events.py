"""What becomes of stages, as Prefect events that automations and dashboards can follow.

`alpaca-farm.stage.completed`, `.cached` and `.failed`, on the resource `alpaca-farm.stage.NAME`; a budget that is
used up is a failure whose label `alpaca-farm.error` is BudgetReachedError. A try that Prefect will repeat is told as
failed too; a defect of the program is left to Prefect's own events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from prefect.events import emit_event

from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.pipeline.device_time import known_hours
from alpaca_farm_core.pipeline.stage import Stage


def tell(stage: Stage, outcome: Literal["completed", "cached", "failed"], payload: Mapping[str, Any]) -> None:
    """Emit the event of a stage's end."""
    resource = {"prefect.resource.id": f"alpaca-farm.stage.{stage.name}"}
    if "error" in payload:
        resource["alpaca-farm.error"] = str(payload["error"])
    emit_event(event=f"alpaca-farm.stage.{outcome}", resource=resource, payload=dict(payload))


def describe(artifact: Artifact) -> dict[str, Any]:
    """An artifact for an event: where it is, and what making it took."""
    volatile = artifact.manifest.volatile
    return {
        "artifact": artifact.reference,
        "fingerprint": artifact.fingerprint,
        "seconds": volatile["seconds"],
        "cost_usd": volatile["cost_usd"],
        **{kind: hours for kind, hours in known_hours(volatile).items() if hours is not None},
    }
