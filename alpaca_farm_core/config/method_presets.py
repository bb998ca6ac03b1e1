"""What the presets set for the methods beyond PPO, by preset and dotted key; each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from alpaca_farm_core.config.setting import Setting

METHOD_SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "meadow": {},
    "smollm2": {},
    "alpaca-7b": {},
    "qwen3-0.6b": {},
}
