"""A stage: a pure step from input artifacts and a config to one output artifact.

Declares what a flow must know (name, version, config class, input roles, output kind) without
importing torch; the body in `run` imports its trainer when it is called, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpaca_farm_core.artifacts.manifest import Artifact, Kind
from alpaca_farm_core.config.base import Config
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.pipeline.progress import Progress, SilentProgress
from alpaca_farm_core.pipeline.stop import StopRequest

if TYPE_CHECKING:
    from alpaca_farm_core.training.memory import MemoryPlan, Models


@dataclass(frozen=True)
class StageContext:
    """All that a stage body may touch.

    Attributes:
        config: The stage's validated config.
        inputs: Role → artifact; an artifact's files lie under `.path`.
        output: Empty or partly filled folder; what is in it at the end becomes the artifact.
        scratch: Folder for checkpoints; survives a crash, is gone once the artifact is published.
        calls: Folder of the API-call cache, shared by all stages of a store.
        execution: How to run; must not change what is computed.
        progress: Where to report.
        stop: Asked between the steps of a stage that trains.
    """

    config: Any
    inputs: Mapping[str, Artifact]
    output: Path
    scratch: Path
    calls: Path
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    progress: Progress = field(default_factory=SilentProgress)
    stop: StopRequest = field(default_factory=StopRequest)


@dataclass(frozen=True)
class StageResult:
    """What a stage body says of its output besides the files.

    Attributes:
        metrics: Deterministic figures (no times); part of the manifest's semantic part.
        timings: Seconds, rates and the like; volatile.
        n_missing: Examples published without annotation.
        cost_usd: Money spent on this run (cached calls cost nothing again); volatile.
        on_gpu: Whether it computed on a GPU; volatile, and noted for the body by who runs it.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    n_missing: int = 0
    cost_usd: float = 0.0
    on_gpu: bool = False


def nothing_external(config: Any) -> Mapping[str, str]:
    """Content hashes of a stage that reads nothing from outside the store."""
    return {}


@dataclass(frozen=True)
class Stage:
    """Declaration of a stage.

    Attributes:
        name: Word used in configs, manifests and on the command line, e.g. "reward_model".
        version: Raised when the stage's meaning changes, so that old results are not taken for new.
        config_class: Its config.
        inputs: Role → kind; a role that ends in "*" stands for any number of roles with that prefix.
        output: Kind of the artifact it makes.
        run: The body.
        external: Config → name → content hash of whatever is read from outside the store.
        volatile_files: Output files that hold times or rendered pages; not compared between runs.
        trains: Whether it trains a model: it then runs in processes of its own if the execution settings say so,
            and counts against the limit of trainings.
        memory: Config, execution settings and the sizes of its models ("base" is a base model) → what it will need;
            None = not known.
        summary: One line for people.
    """

    name: str
    version: int
    config_class: type[Config]
    inputs: Mapping[str, Kind]
    output: Kind
    run: Callable[[StageContext], StageResult]
    external: Callable[[Any], Mapping[str, str]] = nothing_external
    volatile_files: tuple[str, ...] = ()
    trains: bool = False
    memory: Callable[[Any, ExecutionConfig, Models], MemoryPlan] | None = None
    summary: str = ""
