"""Runs a composition as the body of a Prefect flow: settings in, a state with references out.

What a user can mend ends the flow run as *Failed* with a headline, a next action and the command
that resumes it; nothing else is caught.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import FarmError
from alpaca_farm_core.methods.registry import methods
from flows.compositions import COMPARED, composition_named
from flows.preflight import preflight
from flows.trust import FormLimits
from tasks.cluster import cluster_of
from tasks.runner import TaskRunner
from tasks.show import artifact_key, escaped, only_shown

PresetName = Literal["meadow", "meadow-stress", "smollm2", "alpaca-7b", "qwen3-0.6b"]
if TYPE_CHECKING:
    MethodName = str
    ComparedName = str
else:  # selects in the UI's form
    MethodName = Literal[tuple(methods())]
    ComparedName = Literal[COMPARED]

NO_OVERRIDES: dict[str, Any] = {}
"""Default of a flow's overrides. Not None: of an optional dict, Prefect's form shows no field."""


def launch(
    flow: str,
    preset: str,
    annotator: str | None,
    run_name: str | None,
    overrides: Mapping[str, Any] | None,
    retry_missing: bool = False,
    budget_usd: float | None = None,
    **options: Any,
) -> State:
    """Run the composition named `flow` in this process's default store.

    Args:
        flow: Name of the composition.
        preset: Name of the preset the settings start from.
        annotator: Judge of preferences and of the evaluation; None keeps the preset's.
        run_name: Prefix of the artifacts' names; None takes the preset's name.
        overrides: Dotted settings, for example {"ppo.kl_coef": 0.02}.
        retry_missing: Ask again for annotations that are missing.
        budget_usd: Most that this run may spend on API calls; None keeps the preset's.
        options: Arguments of the composition itself.

    Returns:
        *Completed* with name → `ArtifactReference`, or *Failed*.
    """
    overrides = {**(overrides or {}), **({} if budget_usd is None else {"execution.budget_usd": budget_usd})}
    try:
        study = build_study(preset, overrides, annotator)
        if runtime.deployment.id is not None:  # asked for through a form or the API
            FormLimits.from_environment().check(study, build_study(preset))
        preflight(flow, study, run_name or preset, Store(), **options)
        with cluster_of(study.execution) as cluster:
            runner = TaskRunner(study, run_name or preset, Store(), retry_missing, cluster)
            made = composition_named(flow)(runner, **options)
    except FarmError as error:
        resume = resume_command(flow, preset, annotator, run_name, overrides, options)
        _show_problem(flow, error, resume)
        return Failed(message=f"{error}\nThen resume with: {resume}", data=error)
    references = {name: handle.result() for name, handle in made.items() if isinstance(handle, State)}
    return Completed(data=references, message=f"{len(references)} artifacts in {Store().location}")


def _show_problem(flow: str, error: FarmError, resume: str) -> None:
    """Say on the run page what went wrong, where people look first."""
    text = f"**{escaped(error.headline)}**\n\n{escaped(error.next_action)}\n\nResume: Retry this run, or `{resume}`"
    with only_shown("What stopped the run"):
        create_markdown_artifact(text, key=artifact_key(flow, "problem"), description="What stopped the run")


def resume_command(
    flow: str,
    preset: str,
    annotator: str | None,
    run_name: str | None,
    overrides: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> str:
    """The command that does the same again and takes everything finished from the store."""
    words = ["alpaca-farm", "run", flow, "--preset", preset]
    words += ["--annotator", annotator] if annotator else []
    words += ["--run-name", run_name] if run_name else []
    for option, value in options.items():
        words += [
            f"--{option.replace('_', '-')}",
            ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value),
        ]
    for key, value in (overrides or {}).items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)
