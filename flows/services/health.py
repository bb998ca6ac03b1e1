"""What the Prefect server of the current settings has, and what it lacks for the deployments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import WorkerStatus, WorkPool
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.services.register import POOLS
from flows.services.server import TRAINING_LIMIT

_UP = "`alpaca-farm up` brings up server, pools, limit and workers."


Finding = tuple[Literal["ok", "optional", "problem"], str, str]
"""How it stands, what was found, and what to do (empty when nothing is)."""


def server_findings() -> Iterator[Finding]:
    """Look at server, pools, workers and limit. Only a server that is named and does not answer is a problem."""
    address = PREFECT_API_URL.value()
    if not address:
        yield "ok", "no server is named (PREFECT_API_URL); each run starts a temporary one", ""
        return
    with get_client(sync_client=True) as client:
        try:
            version = client.api_version()
            pools = {pool.name: pool for pool in client.read_work_pools()}
        except httpx.HTTPError as error:
            yield "problem", f"the server at {address} does not answer ({type(error).__name__})", _UP
            return
        yield "ok", f"server {version} at {address}", ""
        for name in POOLS:
            yield _pool_finding(client, name, pools.get(name))
        yield _limit_finding(client)


def _pool_finding(client: SyncPrefectClient, name: str, pool: WorkPool | None) -> Finding:
    if pool is None:
        return "optional", f"there is no work pool {name}", _UP
    workers = client.read_workers_for_work_pool(name)
    online = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    if pool.is_paused:
        return "optional", f"pool {name} ({pool.type}) is paused", f"prefect work-pool resume {name}"
    if not online:
        return "optional", f"pool {name} ({pool.type}) has no worker online", f"prefect worker start --pool {name}"
    return "ok", f"pool {name} ({pool.type}), {online} worker{'s' if online > 1 else ''} online", ""


def _limit_finding(client: SyncPrefectClient) -> Finding:
    try:
        limit = client.read_global_concurrency_limit_by_name(TRAINING_LIMIT)
    except ObjectNotFound:
        advice = f"prefect gcl create {TRAINING_LIMIT} --limit 1"
        return "optional", f"there is no limit '{TRAINING_LIMIT}': trainings would share the GPU", advice
    return "ok", f"limit '{TRAINING_LIMIT}': {limit.active_slots} of {limit.limit} slots taken", ""
