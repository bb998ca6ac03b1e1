"""Times, cost and machines of a run: what the page shows and report.json leaves out.

In: input artifacts; reads the volatile part of their manifests, any part of which may be missing.
Out: one row per stage, and the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.pipeline.device_time import CPU_HOURS, GPU_HOURS, known_hours


def stage_rows(inputs: Mapping[str, Artifact], depths: Mapping[str, int]) -> list[dict[str, Any]]:
    """One row per input artifact, ancestors first; `depths` is fingerprint → generation."""
    unique = {artifact.fingerprint: (role, artifact) for role, artifact in sorted(inputs.items())}
    rows = [_row(role, artifact) for role, artifact in unique.values()]
    return sorted(rows, key=lambda row: (depths[row["fingerprint"]], row["role"]))


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums of time and cost over the rows that know them; None where none does."""
    return {
        key: sum(known) if (known := [row[key] for row in rows if row[key] is not None]) else None
        for key in ("seconds", "cost_usd", GPU_HOURS, CPU_HOURS)
    }


def environments(inputs: Mapping[str, Artifact]) -> list[dict[str, str]]:
    """The environments the stages ran in: name → value, differing ones once each."""
    found: list[dict[str, str]] = []
    for _, artifact in sorted(inputs.items()):
        volatile = artifact.manifest.volatile
        stated = {str(key): str(value) for key, value in volatile.get("environment", {}).items()}
        if volatile.get("host"):
            stated["host"] = str(volatile["host"])
        execution = volatile.get("execution", {})
        stated |= {f"execution.{key}": str(value) for key, value in execution.items() if value not in ("", None)}
        if stated and stated not in found:
            found.append(stated)
    return found


def _row(role: str, artifact: Artifact) -> dict[str, Any]:
    volatile = artifact.manifest.volatile
    return {
        "role": role,
        "stage": artifact.manifest.recipe.stage,
        "reference": artifact.reference,
        "fingerprint": artifact.fingerprint,
        "seconds": volatile.get("seconds"),
        "timings": {str(key): value for key, value in sorted(volatile.get("timings", {}).items())},
        "cost_usd": volatile.get("cost_usd"),
        **known_hours(volatile),
        "n_missing": artifact.manifest.n_missing,
        "created": volatile.get("created"),
    }
