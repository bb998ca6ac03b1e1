"""The one way a study's settings are put together, and what `--explain` says of each.

Order, later wins: defaults (the paper's values), preset, config file and `--set`, `--annotator`.
Each value of a preset that differs from the default has a reason, shown by `config show --explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alpaca_farm_core.config.base import Config, did_you_mean
from alpaca_farm_core.config.overrides import flatten, merge, nest
from alpaca_farm_core.config.presets.alpaca_7b import ALPACA_7B
from alpaca_farm_core.config.presets.meadow import MEADOW, MEADOW_STRESS
from alpaca_farm_core.config.presets.preset import Preset
from alpaca_farm_core.config.presets.qwen3 import QWEN3
from alpaca_farm_core.config.presets.smollm2 import SMOLLM2
from alpaca_farm_core.config.study import StudyConfig, study_class
from alpaca_farm_core.errors import ConfigError

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (MEADOW, MEADOW_STRESS, SMOLLM2, ALPACA_7B, QWEN3)}


def preset_named(name: str) -> Preset:
    """Look a preset up.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset '{name}'.", did_you_mean(name, PRESETS))
    return PRESETS[name]


def build_study(preset: str, overrides: Mapping[str, Any] | None = None, annotator: str | None = None) -> StudyConfig:
    """Put a study's settings together and validate them.

    Args:
        preset: Name of the preset.
        overrides: Dotted or nested settings laid over it.
        annotator: Judge of preferences and evaluation, in place of the preset's.

    Raises:
        ConfigError: unknown preset or key, wrong type, or a broken rule.
    """
    values = nest({key: setting.value for key, setting in preset_named(preset).settings.items()})
    values = merge(values, nest(dict(overrides or {})))
    if annotator is not None:
        judge = {"annotator": {"name": annotator}}
        values = merge(values, {"preferences": judge, "evaluate": judge})
    return study_class().build(values)


@dataclass(frozen=True)
class Explained:
    """One setting with its meaning, default and the preset's reason."""

    key: str
    value: Any
    default: Any
    description: str
    reason: str


def explain_study(study: StudyConfig, preset: str) -> list[Explained]:
    """Explain every setting of a study built from `preset`."""
    defaults = flatten(type(study)().model_dump(mode="json"))
    settings = preset_named(preset).settings
    rows = []
    for key, value in flatten(study.model_dump(mode="json")).items():
        reason = settings[key].reason if key in settings and settings[key].value == value else ""
        changed = "" if value == defaults.get(key) or reason else "set for this run"
        rows.append(Explained(key, value, defaults.get(key), _description(key), reason or changed))
    return rows


def _description(key: str) -> str:
    owner: Any = study_class()
    *path, last = key.split(".")
    for part in path:
        owner = owner.model_fields[part].annotation
        if not (isinstance(owner, type) and issubclass(owner, Config)):
            return ""
    return owner.model_fields[last].description or ""
