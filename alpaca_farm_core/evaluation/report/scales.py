"""Axes: round tick values, and the mapping from data to pixels.

Pure arithmetic; knows no SVG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values (steps of 1, 2, 2.5 or 5 · 10ᵏ) that cover [low, high]; of zeros alone [0, 1]."""
    if high <= low:
        pad = abs(low) * 0.1
        low, high = (low - pad, high + pad) if pad else (0.0, 1.0)
    raw = (high - low) / max(count - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """The shortest text with as many decimals as the ticks' step needs."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    decimals = next(d for d in range(10) if d == 9 or abs(round(step, d) - step) < 1e-9 * abs(step))
    if abs(value) >= 10_000 and decimals == 0:
        return f"{value / 1000:g}k".replace("-", "\N{MINUS SIGN}")
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Scale:
    """Linear map of [low, high] onto [start, end] pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value, rounded to a tenth."""
        span = (self.high - self.low) or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)
