"""Upkeep of the store as a flow, so that a schedule can do it: what nothing needs goes, by age and size."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from alpaca_farm_core.artifacts.gc import plan_removal, remove
from alpaca_farm_core.artifacts.store import Store


@flow(name="collect-garbage", persist_result=False)
def collect_garbage(older_than_days: float = 30.0, max_gb: float | None = None, dry_run: bool = True) -> State:
    """Remove old versions and abandoned workspaces that no alias, latest version or ancestor needs.

    Args:
        older_than_days: Leave what is younger.
        max_gb: Remove the oldest, only until the store is below this size. Empty removes all that may go.
        dry_run: Only say what would go.
    """
    store = Store()
    removals = plan_removal(store, older_than_days, max_gb)
    planned_gb = sum(removal.size_bytes for removal in removals) / 1e9
    listed = "\n".join(f"| `{removal.what}` | {removal.size_bytes / 1e6:.1f} |" for removal in removals)
    create_markdown_artifact(
        f"Store `{store.location}`\n\n| may go | MB |\n| --- | --- |\n{listed}\n",
        key="garbage",
        description=f"{len(removals)} folders, {planned_gb:.2f} GB",
    )
    if dry_run:
        return Completed(message=f"{len(removals)} folders with {planned_gb:.2f} GB would go.")
    freed_gb = remove(store, removals) / 1e9
    return Completed(message=f"{freed_gb:.2f} GB freed.")
