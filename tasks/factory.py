"""Makes a stage a Prefect task: runs it, shows it in the UI, and says *Cached* on a hit.

The artifact store is the only cache: Prefect's own cache and result records are off (they default
to pickle, and know nothing of checkpoints). No algorithm here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import FarmError
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage
from tasks.branches import turn
from tasks.events import describe, tell
from tasks.limits import training_slot
from tasks.progress import PrefectProgress
from tasks.references import ArtifactReference
from tasks.show import artifact_key, show_artifact


@dataclass(frozen=True)
class Place:
    """Where a task run works: the store, how to run, and the name to publish under."""

    store: str
    name: str
    execution: Mapping[str, Any]
    retry_missing: bool = False


RETRY_DELAYS_SECONDS = (20, 120)
"""Pauses before a stage is tried again that failed by infrastructure; what is done by then is not done again."""


def failed_by_infrastructure(task: Task[..., Any], run: TaskRun, state: State) -> bool:
    """Whether trying again may help: a machine, a disk or a network failed; never for bad input or a defect."""
    error = state.data if isinstance(state.data, Exception) else state.result(raise_on_failure=False)
    if isinstance(error, FarmError):
        return error.transient
    return isinstance(error, OSError | httpx.TransportError)


def _around(stage: Stage) -> AbstractContextManager[object]:
    """What a stage waits for: a slot to train in, or its turn among the branches of this process."""
    return training_slot(stage) if stage.trains else turn


def stage_task(stage: Stage) -> Task[..., State]:
    """Return the Prefect task of a stage.

    Its run returns a state: *Completed* with an `ArtifactReference`, *Cached* when the store had
    it, *Failed* with the error's headline and next action when the user can mend it. What failed by
    infrastructure is raised, and tried again after a pause.
    """

    @task(
        name=stage.name.replace("_", " "),
        description=stage.summary,
        task_run_name="{title}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(RETRY_DELAYS_SECONDS),
        retry_delay_seconds=list(RETRY_DELAYS_SECONDS),
        retry_condition_fn=failed_by_infrastructure,
    )
    def run(title: str, config: Mapping[str, Any], inputs: Mapping[str, ArtifactReference], place: Place) -> State:
        store = Store(place.store)
        progress = PrefectProgress(artifact_key(place.name, "progress"))
        try:
            outcome = run_stage(
                stage,
                stage.config_class.build(dict(config), at=stage.name),
                {role: reference.open(store) for role, reference in inputs.items()},
                store=store,
                name=place.name,
                execution=ExecutionConfig.build(dict(place.execution), at="execution"),
                progress=progress,
                retry_missing=place.retry_missing,
                around=_around,
            )
        except FarmError as error:
            tell(stage, "failed", {"error": type(error).__name__, "message": error.headline})
            if error.transient:
                raise  # Prefect retries what is raised, not what is returned
            return Failed(message=str(error), data=error)
        finally:
            progress.finish()
        show_artifact(outcome.artifact, place.name)
        reference = ArtifactReference.of(outcome.artifact)
        tell(stage, "cached" if outcome.cached else "completed", describe(outcome.artifact))
        if outcome.cached:
            return Completed(name="Cached", data=reference, message=f"Found {reference.reference} in the store.")
        return Completed(data=reference, message=f"Published {reference.reference}.")

    return run
