"""One value of a preset with its reason, and a short way to write several that share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """A preset's value and why it is that."""

    value: Any
    reason: str


def group(reason: str, **values: Any) -> dict[str, Setting]:
    """Several settings with one reason; `__` stands for the dot."""
    return {key.replace("__", "."): Setting(value, reason) for key, value in values.items()}
