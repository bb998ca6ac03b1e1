"""What a preset is: values by dotted key, each with its reason; and short ways to write several that share one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SAMPLING = ("sample", "decode", "best_of_n", "expert_samples", "measure")
"""Sections of stages that sample answers."""
CONTINUED = ("expert_iteration", "feedme", "reward_conditioning")
"""Sections of methods that go on with supervised fine-tuning."""
ON_POLICY = ("ppo", "rloo", "grpo", "quark")
"""Sections of on-policy methods."""
COMPUTING = ("sft", "reward_model", "reference_logprobs", "dpo", *SAMPLING, *CONTINUED, *ON_POLICY)
"""Sections of stages that run a model, and so have a precision."""


@dataclass(frozen=True)
class Setting:
    """A preset's value and why it is that."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Preset:
    """A named set of settings, by dotted key."""

    name: str
    summary: str
    settings: Mapping[str, Setting]


def group(reason: str, **values: Any) -> dict[str, Setting]:
    """Several settings with one reason; `__` stands for the dot."""
    return {key.replace("__", "."): Setting(value, reason) for key, value in values.items()}


def each(sections: Iterable[str], reason: str, **values: Any) -> dict[str, Setting]:
    """The same settings in several sections, with one reason."""
    return group(reason, **{f"{section}__{name}": value for section in sections for name, value in values.items()})
