"""Where a flow's stages run: in this process, or on the workers of a Dask or Ray cluster.

Execution settings in; a running Prefect task runner out, or None for this process. How many stages run at once is the
business of branches: each waits for its stage, wherever that runs. Workers need this package, the store (for several
machines a URL) and judges' keys in their own environment; the store sees to it that no stage runs twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, cast

from prefect import Task
from prefect.client.schemas.objects import State
from prefect.task_runners import TaskRunner

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import UsageError

Cluster = TaskRunner[Any]


@contextmanager
def cluster_of(execution: ExecutionConfig) -> Iterator[Cluster | None]:
    """Connect to the cluster of the settings, or start one on this machine with a worker for each branch.

    Raises:
        UsageError: the package for such a cluster is not installed.
    """
    if execution.task_runner == "local":
        yield None
        return
    package = f"prefect_{execution.task_runner}"
    if find_spec(package) is None:
        raise UsageError(
            f"execution.task_runner is {execution.task_runner}, but {package.replace('_', '-')} is not installed.",
            f"Run `pip install 'alpaca-farm-flows[{execution.task_runner}]'`, here and on the cluster's workers.",
        )
    make = {"dask": _dask, "ray": _ray}[execution.task_runner]
    with make(execution) as cluster:
        yield cluster


def run_on(cluster: Cluster, task: Task[..., State], arguments: Mapping[str, Any]) -> State:
    """Run a task on a worker and wait for it; its final state.

    Raises:
        Exception: what the cluster says of a worker that was lost.
    """
    future = cluster.submit(task, parameters=dict(arguments))
    future.wait()
    state: State = future.state
    if not state.is_final():
        future.result()
    return state


def _dask(execution: ExecutionConfig) -> Cluster:
    from prefect_dask import DaskTaskRunner

    if execution.cluster:
        return cast(Cluster, DaskTaskRunner(address=execution.cluster))
    # Training and its memory are in processes of their own, so Dask has nothing to limit.
    started = {"n_workers": execution.branches, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
    return cast(Cluster, DaskTaskRunner(cluster_kwargs=started))


def _ray(execution: ExecutionConfig) -> Cluster:
    from prefect_ray import RayTaskRunner

    if execution.cluster:
        return cast(Cluster, RayTaskRunner(address=execution.cluster))
    started = {"num_cpus": execution.branches, "include_dashboard": False}
    return cast(Cluster, RayTaskRunner(init_kwargs=started))
