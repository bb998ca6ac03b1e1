"""What a method of learning from feedback is to the rest of the project: data, not code.

A method names the stages it brings and the calls that lead from shared artifacts to its own. Shared
artifacts are `data`, `sft`, `samples`, `preferences` and `reward_model`; only those a method asks for are
made. What the last call makes, a policy or answers to the evaluation split, is what is evaluated.
Each stage's config is a section of the study under the stage's name. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from alpaca_farm_core.config.base import Config
from alpaca_farm_core.pipeline.stage import Stage

SHARED = ("data", "sft", "samples", "preferences", "reward_model")
"""Artifacts that all methods of a study share, by the names that calls use."""

Yields = Literal["policy", "outputs"]


def shared_inputs(stage: Stage) -> dict[str, str]:
    """Role → shared artifact of that name, for the roles that always have one; the role `policy` is the SFT model."""
    return {role: "sft" if role == "policy" else role for role in stage.inputs if not role.endswith("*")}


@dataclass(frozen=True)
class Call:
    """One use of a stage.

    Attributes:
        stage: Name of the stage.
        inputs: Role → a shared artifact, or the label of an earlier call of the same method.
        label: What to call this use; empty = the stage's name. The last call goes by the method's name.
        config: Config to use instead of the study's section of the stage's name.
    """

    stage: str
    inputs: Mapping[str, str]
    label: str = ""
    config: Config | None = None

    @property
    def name(self) -> str:
        """Name under which later calls find the result."""
        return self.label or self.stage


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: Word of the command line, e.g. "best-of-n".
        title: What tables and pages call it, e.g. "Best-of-n".
        summary: One line for people.
        stages: Stages that the method brings; their configs become sections of the study.
        calls: The calls in order; or a function of the study's settings that gives them.
    """

    name: str
    title: str
    summary: str
    stages: tuple[Stage, ...]
    calls: tuple[Call, ...] | Callable[[Any], tuple[Call, ...]]

    @classmethod
    def of_stage(cls, stage: Stage, title: str, summary: str) -> Method:
        """A method of one stage, which takes the shared artifacts that its roles are named after."""
        return cls(stage.name.replace("_", "-"), title, summary, (stage,), (Call(stage.name, shared_inputs(stage)),))

    def calls_of(self, study: Any) -> tuple[Call, ...]:
        """The calls under a study's settings (`StudyConfig`)."""
        return self.calls(study) if callable(self.calls) else self.calls

    @property
    def yields(self) -> Yields:
        """Kind of what the last call makes: the output of the method's last stage."""
        return cast(Yields, self.stages[-1].output)
