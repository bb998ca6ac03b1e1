"""How a flow calls stages: one call shape, whoever runs them.

A flow's composition is a plain function of a `Runner`; calling the runner with a stage's name and
its inputs gives a handle that later stages take as input. Handles are opaque to compositions.
`LocalRunner` runs in plain Python, `Planner` only works out fingerprints, and the Prefect layer
has its own.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from alpaca_farm_core.artifacts.lineage import Reason, why
from alpaca_farm_core.artifacts.manifest import Artifact, Recipe
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.base import Config
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.config.study import StudyConfig
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.pipeline.registry import stage_named
from alpaca_farm_core.pipeline.run import make_recipe, run_stage
from alpaca_farm_core.pipeline.stage import Stage

Result = TypeVar("Result")


@dataclass(frozen=True)
class Step:
    """One stage call of a composition: the stage, its config, the name to publish under, and the branch it is in."""

    stage: Stage
    config: Config
    name: str
    label: str
    branch: str = ""

    @property
    def title(self) -> str:
        """What people read: the stage, and which use of it where there are several."""
        named_alike = self.label.replace("-", "_").startswith(self.stage.name)
        own = self.label if named_alike else f"{self.stage.name} {self.label}"
        return own.replace("_", " ") + (f", {self.branch}" if self.branch else "")


class Runner(ABC):
    """Runs the stages of one study.

    Args:
        study: All settings.
        run_name: Prefix of the artifacts' names.
    """

    store: Store
    """Where artifacts are, for compositions that start from what is there."""

    def __init__(self, study: StudyConfig, run_name: str) -> None:
        self.study = study
        self.run_name = run_name
        self.branch = ""

    def __call__(self, stage: str, label: str = "", config: Config | None = None, **inputs: Any) -> Any:
        """Call a stage.

        Args:
            stage: Its name; its config is the study's section of that name.
            label: What to call this use of it, where a composition has several (default: `stage`).
            config: Config to use instead of the study's section.
            inputs: Role → handle returned by an earlier call.
        """
        label = label or stage
        step = Step(
            stage_named(stage), config or self.study.section(stage), f"{self.run_name}-{label}", label, self.branch
        )
        return self.run(step, inputs)

    @property
    def execution(self) -> ExecutionConfig:
        """How stages run; spending is booked on the run's name unless the settings name another account."""
        execution = self.study.execution
        account = execution.budget_account or self.run_name
        return execution.model_copy(update={"budget_account": account})

    def with_seed(self, seed: int) -> Self:
        """The same runner for the study under another seed; artifacts are named after it, the budget stays one."""
        other = copy.copy(self)
        other.study = self.study.model_copy(update={"seed": seed, "execution": self.execution})
        other.run_name = f"{self.run_name}-seed-{seed}"
        other.branch = f"seed {seed}"
        return other

    def together(self, branches: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run branches that do not depend on each other; results in their order. Here: one after the other."""
        return [branch() for branch in branches]

    @abstractmethod
    def run(self, step: Step, inputs: Mapping[str, Any]) -> Any:
        """Run one step and return a handle to its artifact."""

    @abstractmethod
    def held(self, artifact: Artifact) -> Any:
        """Return the handle of an artifact that is in the store already."""

    @abstractmethod
    def fingerprint(self, handle: Any) -> str:
        """Fingerprint of what a handle stands for."""


class LocalRunner(Runner):
    """Runs stages one after the other in this process; handles are artifacts."""

    def __init__(
        self,
        study: StudyConfig,
        run_name: str,
        store: Store,
        progress: Callable[[Step], Progress] | None = None,
        retry_missing: bool = False,
    ) -> None:
        super().__init__(study, run_name)
        self.store = store
        self.progress = progress
        self.retry_missing = retry_missing

    def run(self, step: Step, inputs: Mapping[str, Artifact]) -> Artifact:
        """Run or find one artifact."""
        outcome = run_stage(
            step.stage,
            step.config,
            inputs,
            store=self.store,
            name=step.name,
            execution=self.execution,
            progress=self.progress(step) if self.progress else None,
            retry_missing=self.retry_missing,
        )
        return outcome.artifact

    def held(self, artifact: Artifact) -> Artifact:
        """The artifact itself."""
        return artifact

    def fingerprint(self, handle: Artifact) -> str:
        """Fingerprint of an artifact."""
        return handle.fingerprint


@dataclass(frozen=True)
class PlannedStep:
    """What a run would do with one step.

    Attributes:
        step: The step.
        recipe: Its recipe.
        hit: The artifact it would take, if there is one.
        resumes: A workspace with earlier work is there.
        reason: Why it is a miss (None for a hit).
        last_seconds: How long the nearest earlier run of this stage took, if there is one.
    """

    step: Step
    recipe: Recipe
    hit: Artifact | None
    resumes: bool
    reason: Reason | None
    last_seconds: float | None


class Planner(Runner):
    """Works out what a run would do, and runs nothing; handles are recipes."""

    def __init__(self, study: StudyConfig, run_name: str, store: Store) -> None:
        super().__init__(study, run_name)
        self.store = store
        self.steps: list[PlannedStep] = []

    def run(self, step: Step, inputs: Mapping[str, Recipe]) -> Recipe:
        """Plan one step."""
        fingerprints = {role: recipe.fingerprint for role, recipe in inputs.items()}
        recipe = make_recipe(step.stage, step.config, fingerprints)
        hit = self.store.find(recipe.fingerprint, payload=False)
        planned = {past.recipe.fingerprint: past.recipe for past in self.steps}
        if recipe.fingerprint in planned:  # several branches of a composition need it; it is made once
            return recipe
        reason = None if hit else why(self.store, recipe, planned)
        nearest = hit or (reason.nearest if reason else None)
        self.steps.append(
            PlannedStep(
                step=step,
                recipe=recipe,
                hit=hit,
                resumes=hit is None and self.store.workspace(recipe.fingerprint).is_dir(),
                reason=reason,
                last_seconds=float(nearest.manifest.volatile["seconds"]) if nearest else None,
            )
        )
        return recipe

    def held(self, artifact: Artifact) -> Recipe:
        """Recipe of an artifact."""
        return artifact.manifest.recipe

    def fingerprint(self, handle: Recipe) -> str:
        """Fingerprint of a recipe."""
        return handle.fingerprint
