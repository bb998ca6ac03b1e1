"""What a form or a caller of the API may set: no foreign files, addresses or code, unless the operator allows them.

In: the settings asked for and those of the preset they start from. The operator speaks through the
worker's environment:

ALPACA_FARM_FORM_ROOTS              folders (separated by ':') whose files a form may name
ALPACA_FARM_FORM_URLS               beginnings of addresses (separated by spaces) to which a form may send judging calls
ALPACA_FARM_FORM_TRUST_REMOTE_CODE  1 = a form may run code that comes with a model
ALPACA_FARM_FORM_REWARD_FUNCTIONS   1 = a form may take a reward from an installed package's function

The command line is not limited: whoever has a shell can read those files anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca_farm_core.config.overrides import flatten
from alpaca_farm_core.config.study import StudyConfig
from alpaca_farm_core.errors import ConfigError

ROOTS, URLS, REMOTE_CODE = "ALPACA_FARM_FORM_ROOTS", "ALPACA_FARM_FORM_URLS", "ALPACA_FARM_FORM_TRUST_REMOTE_CODE"
REWARD_FUNCTIONS = "ALPACA_FARM_FORM_REWARD_FUNCTIONS"
_FILE_SUFFIXES = (".json", ".jsonl", ".parquet", ".yaml", ".yml", ".csv", ".txt", ".gguf", ".py")


@dataclass(frozen=True)
class FormLimits:
    """What the operator allows.

    Attributes:
        roots: Folders whose files may be named.
        urls: Beginnings of addresses that may be called.
        remote_code: Whether a model's own code may run.
        reward_functions: Whether functions of installed packages may give rewards.
    """

    roots: tuple[Path, ...] = ()
    urls: tuple[str, ...] = ()
    remote_code: bool = False
    reward_functions: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> FormLimits:
        """Read the operator's variables."""
        roots = [Path(text).expanduser().resolve() for text in environment.get(ROOTS, "").split(os.pathsep) if text]
        urls = tuple(environment.get(URLS, "").split())
        return cls(tuple(roots), urls, environment.get(REMOTE_CODE) == "1", environment.get(REWARD_FUNCTIONS) == "1")

    def check(self, asked: StudyConfig, preset: StudyConfig) -> None:
        """Check everything that differs from the preset.

        Raises:
            ConfigError: naming the setting, and the variable with which the operator can allow it.
        """
        before = flatten(preset.model_dump(mode="json"))
        for key, value in flatten(asked.model_dump(mode="json")).items():
            if value != before.get(key):
                self._check_setting(key, value)

    def _check_setting(self, key: str, value: Any) -> None:
        if key.rpartition(".")[2] == "trust_remote_code" and value and not self.remote_code:
            raise ConfigError(
                f"Setting '{key}' cannot be switched on from a form.",
                f"Run it from the command line, or have the operator set {REMOTE_CODE}=1 for the workers.",
            )
        if key.endswith(".reward.kind") and value == "function" and not self.reward_functions:
            raise ConfigError(
                f"Setting '{key}' cannot be a function from a form.",
                f"Run it from the command line, or have the operator set {REWARD_FUNCTIONS}=1 for the workers.",
            )
        for text in _texts(value):
            if "://" in text and not text.startswith(self.urls or ("\0",)):
                raise ConfigError(
                    f"Setting '{key}' names the address {text}, to which a form may send nothing.",
                    f"Have the operator add it to {URLS} of the workers.",
                )
            if "://" not in text and _is_path(text) and not self._is_allowed(Path(text)):
                raise ConfigError(
                    f"Setting '{key}' names {text}, which lies outside the folders that a form may read.",
                    f"Put it below one of {self._root_names()}, or have the operator add its folder to {ROOTS}.",
                )

    def _is_allowed(self, path: Path) -> bool:
        resolved = path.expanduser().resolve()
        return any(resolved.is_relative_to(root) for root in self.roots)

    def _root_names(self) -> str:
        return ", ".join(map(str, self.roots)) or "the allowed folders (there are none)"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _is_path(text: str) -> bool:
    """Whether some reader could take the text for a place on this machine's disk."""
    if not text:
        return False
    # os.path.exists, as Path.exists raises on a name that is too long to be one.
    written_as_path = text.startswith(("/", "~", ".", "\\")) or ".." in Path(text).parts
    return written_as_path or text.lower().endswith(_FILE_SUFFIXES) or os.path.exists(text)
