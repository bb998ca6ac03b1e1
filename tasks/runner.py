"""Runs a composition's stages as Prefect tasks in the flow's own thread, or in one thread for each branch.

Direct calls, unless there is a cluster to submit to: an interrupt reaches the stage at once. Handles are
task-run states, from which Prefect draws the edges of the run graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect.client.schemas.objects import State

from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.config.study import StudyConfig
from alpaca_farm_core.pipeline.runner import Runner, Step
from tasks.branches import Result, running_beside, side_by_side
from tasks.cluster import Cluster, run_on
from tasks.display import current_display
from tasks.factory import Place
from tasks.references import ArtifactReference
from tasks.stages import TASKS


class TaskRunner(Runner):
    """Runs steps as tasks of the current flow run.

    Args:
        study: All settings.
        run_name: Prefix of the artifacts' names.
        store: Where artifacts are.
        retry_missing: Run stages again whose artifact lacks annotations.
        cluster: Whose workers run the stages; None = this process.
    """

    def __init__(
        self,
        study: StudyConfig,
        run_name: str,
        store: Store,
        retry_missing: bool = False,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__(study, run_name)
        self.cluster = cluster
        self.store = store
        self.retry_missing = retry_missing

    def run(self, step: Step, inputs: Mapping[str, Any]) -> State:
        """Run one step.

        Raises:
            FarmError: the stage failed in a way the user can mend.
        """
        display = current_display.get()
        display.stage_begins(step.title)
        task = TASKS[step.stage.name]
        place = Place(self.store.location, step.name, self._execution().model_dump(mode="json"), self.retry_missing)
        arguments = {
            "title": step.title,
            "config": step.config.model_dump(mode="json"),
            "inputs": dict(inputs),
            "place": place,
        }
        state = run_on(self.cluster, task, arguments) if self.cluster else task(**arguments, return_state=True)
        artifact = self.open(state) if state.is_completed() else None
        display.stage_ends(step.title, artifact, cached=state.name == "Cached")
        state.result()  # raises what the stage raised
        return state

    def together(self, branches: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run branches side by side, as many as `execution.branches` says."""
        lanes = min(self.study.execution.branches, len(branches))
        return side_by_side(branches, lanes) if lanes > 1 else super().together(branches)

    def _execution(self) -> ExecutionConfig:
        apart = running_beside.get() or self.cluster is not None
        return self.execution.model_copy(update={"own_process": "always"}) if apart else self.execution

    def open(self, handle: State) -> Artifact:
        """Open the artifact a handle stands for."""
        reference: ArtifactReference = handle.result()
        return reference.open(self.store)

    def held(self, artifact: Artifact) -> ArtifactReference:
        """Address an artifact that no task of this run made."""
        return ArtifactReference.of(artifact)

    def fingerprint(self, handle: State | ArtifactReference) -> str:
        """Fingerprint of what a task made, or of an artifact held before."""
        reference: ArtifactReference = handle.result() if isinstance(handle, State) else handle
        return reference.fingerprint
