"""`run_stage`: the one way a stage runs, from a Prefect task, the command line or plain Python.

In: a stage, its config, its input artifacts and a store. Out: the artifact, made now or found.
Two processes that need the same fingerprint run it once. A crash leaves the workspace, from which
the next attempt resumes.
"""

from __future__ import annotations

import platform
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.disk import check_room, readable_storage_errors
from alpaca_farm_core.artifacts.files import remove_unfinished, sha256_file, write_json
from alpaca_farm_core.artifacts.manifest import Artifact, FileEntry, Manifest, Recipe
from alpaca_farm_core.artifacts.store import Store, is_url
from alpaca_farm_core.config.base import Config
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.pipeline.device_time import device_hours, noted_attempt, run_measured
from alpaca_farm_core.pipeline.progress import Progress, SilentProgress
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.pipeline.stop import StopRequest
from alpaca_farm_core.training.process import run_training

_REPORTED_PACKAGES = ("alpaca-farm-flows", "torch", "transformers", "accelerate", "datasets", "openai", "prefect")


@dataclass(frozen=True)
class StageRun:
    """Outcome of `run_stage`: the artifact, and whether it was there already."""

    artifact: Artifact
    cached: bool


def make_recipe(stage: Stage, config: Config, inputs: Mapping[str, str]) -> Recipe:
    """Gather all that decides a stage's result.

    Args:
        stage: The stage.
        config: Its semantic config.
        inputs: Role → fingerprint.
    """
    check_roles(stage, inputs)
    return Recipe(
        stage=stage.name,
        stage_version=stage.version,
        config=config.model_dump(mode="json"),
        inputs=dict(sorted(inputs.items())),
        external=dict(sorted(stage.external(config).items())),
    )


def _nothing_around(stage: Stage) -> AbstractContextManager[None]:
    return nullcontext()


def run_stage(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Artifact],
    *,
    store: Store,
    name: str,
    execution: ExecutionConfig | None = None,
    progress: Progress | None = None,
    retry_missing: bool = False,
    around: Callable[[Stage], AbstractContextManager[object]] = _nothing_around,
) -> StageRun:
    """Return the stage's artifact, running the stage only if the store has none.

    Args:
        stage: What to run.
        config: Its semantic config.
        inputs: Role → artifact.
        store: Where to look and to publish.
        name: Name to publish under.
        execution: How to run; not part of the fingerprint.
        progress: Where to report.
        retry_missing: Do not take an artifact that lacks annotations, or that was built from
            another build of its inputs, for a hit.
        around: Makes a context that is entered only if the stage runs; where a flow takes its slots.

    Raises:
        StoreError: the store cannot be read or written, or its disk has too little room.
        FarmError: whatever the stage's body raises for its user; the workspace is kept.
    """
    progress = progress or SilentProgress()
    recipe = make_recipe(stage, config, {role: artifact.fingerprint for role, artifact in inputs.items()})
    workspace = store.workspace(recipe.fingerprint)
    hit = _usable_hit(store, recipe, inputs, retry_missing, progress)
    if hit is not None and not workspace.exists():
        return StageRun(hit, cached=True)

    def waiting(holder: str) -> None:
        progress.say(f"waiting for {holder}, which makes the same")

    while True:
        with store.lock(recipe.fingerprint, waiting, or_published=True) as held:
            hit = _usable_hit(store, recipe, inputs, retry_missing, progress)
            if hit is not None:  # made by the process waited for, or published just before a crash
                if held:
                    shutil.rmtree(workspace, ignore_errors=True)
                return StageRun(hit, cached=True)
            if held:
                with around(stage), _answers_of_all(stage, store), readable_storage_errors(store.root):
                    settings = execution or ExecutionConfig()
                    check_room(store.root, settings.min_free_gb)
                    artifact = _build(stage, config, inputs, recipe, store, name, settings, progress)
                return StageRun(artifact, cached=False)


def _answers_of_all(stage: Stage, store: Store) -> AbstractContextManager[None]:
    """What machines that share a store do with their API answers while a stage runs."""
    if stage.trains or not is_url(store.location):
        return nullcontext()
    from alpaca_farm_core.annotators.sharing import shared_calls

    return shared_calls(store)


def check_roles(stage: Stage, roles: Mapping[str, Any]) -> None:
    """Check that the inputs are the declared ones (a role that ends in '*' stands for several)."""
    unknown = [role for role in roles if not any(fnmatchcase(role, pattern) for pattern in stage.inputs)]
    missing = [pattern for pattern in stage.inputs if not pattern.endswith("*") and pattern not in roles]
    assert not unknown, f"stage {stage.name} has no input {unknown}"
    assert not missing, f"stage {stage.name} needs input {missing}"


def _usable_hit(
    store: Store, recipe: Recipe, inputs: Mapping[str, Artifact], retry_missing: bool, progress: Progress
) -> Artifact | None:
    hit = store.find(recipe.fingerprint, on_damage=lambda problem: progress.say(f"damaged, not used: {problem}"))
    if hit is None or not retry_missing:
        return hit
    read = hit.manifest.input_contents
    same_inputs = all(read[role] == artifact.manifest.content for role, artifact in inputs.items())
    return hit if same_inputs and not hit.manifest.n_missing else None


def _build(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Artifact],
    recipe: Recipe,
    store: Store,
    name: str,
    execution: ExecutionConfig,
    progress: Progress,
) -> Artifact:
    workspace = store.workspace(recipe.fingerprint)
    context = StageContext(
        config=config,
        inputs=inputs,
        output=workspace / "output",
        scratch=workspace / "scratch",
        calls=store.calls,
        execution=execution,
        progress=progress,
        stop=StopRequest(execution.deadline_hours),
    )
    for folder in (context.output, context.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(context.output)
    write_json(workspace / "name.json", {"name": name, "stage": stage.name})
    began = time.time()
    with noted_attempt(workspace):
        result = run_training(stage, context) if stage.trains else run_measured(stage, context)
    hours = device_hours(stage, execution, workspace, result)
    manifest = _manifest(stage, recipe, inputs, context, result, began, hours)
    artifact = store.publish(context.output, manifest, name)
    shutil.rmtree(workspace, ignore_errors=True)
    return artifact


def _manifest(
    stage: Stage,
    recipe: Recipe,
    inputs: Mapping[str, Artifact],
    context: StageContext,
    result: StageResult,
    began: float,
    hours: Mapping[str, float],
) -> Manifest:
    entries = [_entry(context.output, path) for path in sorted(context.output.rglob("*")) if path.is_file()]
    finished = time.time()
    return Manifest(
        kind=stage.output,
        recipe=recipe,
        files=tuple(e for e in entries if e.path not in stage.volatile_files),
        metrics=dict(result.metrics),
        input_contents={role: artifact.manifest.content for role, artifact in sorted(inputs.items())},
        n_missing=result.n_missing,
        volatile={
            "created": datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds"),
            "finished_at": finished,
            "seconds": round(finished - began, 3),
            "timings": dict(result.timings),
            "cost_usd": result.cost_usd,
            **hours,
            "host": socket.gethostname(),
            "environment": environment(),
            "execution": context.execution.model_dump(mode="json"),
            "input_references": {role: artifact.reference for role, artifact in sorted(inputs.items())},
            "volatile_files": sorted(e.path for e in entries if e.path in stage.volatile_files),
        },
    )


def _entry(root: Path, path: Path) -> FileEntry:
    return FileEntry(path.relative_to(root).as_posix(), path.stat().st_size, sha256_file(path))


def environment() -> dict[str, str]:
    """Python, platform and the versions of the packages that matter."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
