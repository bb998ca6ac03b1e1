"""What every method must keep to, built in or from another package; for the tests of either.

`check_declaration` looks at the data that describe a method; `check_run` makes it once on small settings and looks
at what it leaves behind. Both raise AssertionError with what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.overrides import flatten
from alpaca_farm_core.config.study import StudyConfig, study_class
from alpaca_farm_core.methods.method import SHARED, Method
from alpaca_farm_core.methods.registry import methods
from alpaca_farm_core.pipeline.progress import Progress, SilentProgress
from alpaca_farm_core.pipeline.runner import LocalRunner, Step
from flows.compositions import learn


class _Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class _KillAfter(SilentProgress):
    def __init__(self, advances: int) -> None:
        self._left = advances

    def advance(self, n: int = 1, metrics: Any = None) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Killed


def _kill_in(stages: set[str], advances: int, step: Step) -> Progress:
    return _KillAfter(advances) if step.stage.name in stages else SilentProgress()


def check_declaration(method: Method) -> None:
    """The method is registered, its settings are described, and its calls name what exists, in order."""
    assert methods().get(method.name) is method, f"{method.name} is not registered under its name"
    assert method.title, f"{method.name} has no title"
    assert method.summary, f"{method.name} has no summary"
    study = study_class()()
    known = set(SHARED)
    calls = method.calls_of(study)
    assert calls, f"{method.name} has no calls"
    for call in calls:
        missing = sorted(set(call.inputs.values()) - known)
        assert not missing, f"{method.name}: call {call.name} takes {missing}, which nothing before it makes"
        known.add(call.name)
    assert calls[-1].stage == method.stages[-1].name, f"{method.name}: its last call is not of its last stage"
    for stage in method.stages:
        fields = stage.config_class.model_fields
        silent = sorted(name for name, field in fields.items() if not field.description)
        assert not silent, f"{stage.name}: settings without description: {silent}"
        assert flatten(study.section(stage.name).model_dump(mode="json")) is not None


def check_run(method: Method, study: StudyConfig, store: Store, killed: Store, load: Callable[[Artifact], Any]) -> None:
    """One run leaves a usable artifact; a second one is a hit; a killed one resumes to the same bits.

    Args:
        method: The method.
        study: Small settings; its execution should checkpoint at every step.
        store: An empty store, or one with the shared artifacts.
        killed: Another one, for the run that is killed.
        load: Opens what the method yields the way a user would; raises when it cannot be used.
    """
    made = learn(LocalRunner(study, "contract", store), method)[method.name]
    assert made.kind == method.yields
    figures = [value for value in flatten(made.metrics).values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in figures), f"{method.name}: a metric is not finite: {made.metrics}"
    json.dumps(dict(made.metrics), allow_nan=False)
    load(made)
    again = learn(LocalRunner(study, "contract", store), method)[method.name]
    assert again.reference == made.reference, f"{method.name}: a second run was no hit"
    own = {stage.name for stage in method.stages}
    for advances in (1, 2):
        progress = partial(_kill_in, own, advances)
        try:
            learn(LocalRunner(study, "contract", killed, progress=progress), method)
        except _Killed:
            continue
    resumed = learn(LocalRunner(study, "contract", killed), method)[method.name]
    assert resumed.manifest.semantic() == made.manifest.semantic(), f"{method.name}: resumed to other bits"
