"""Named starting points for a study: one module per preset, and how a preset and overrides become settings."""

from alpaca_farm_core.config.presets.preset import Preset, Setting
from alpaca_farm_core.config.presets.study import (
    PRESETS,
    Explained,
    build_study,
    explain_study,
    preset_named,
)

__all__ = ["PRESETS", "Explained", "Preset", "Setting", "build_study", "explain_study", "preset_named"]
