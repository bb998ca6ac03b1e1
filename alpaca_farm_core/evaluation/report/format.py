"""Numbers as people read them: few digits, real minus signs, a dash for what is not known.

In: plain values. Out: short texts, not yet escaped for HTML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN = "–"
_MINUS = "\N{MINUS SIGN}"


def number(value: Any, digits: int = 3) -> str:
    """Three significant digits by default, thousands grouped, no exponent for everyday sizes."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", _MINUS)
    if value == 0:
        return "0"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}".replace("-", _MINUS)
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("-", _MINUS)
    return f"{value:#.{digits}g}".rstrip(".").replace("-", _MINUS)


def fixed(value: Any, digits: int = 1) -> str:
    """A fixed count of decimals, for columns that are compared."""
    if value is None:
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    # A rounded zero has no sign.
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", _MINUS)


def percent(value: Any, digits: int = 1) -> str:
    """A figure that is already in percent."""
    return UNKNOWN if value is None else f"{fixed(value, digits)} %"


def share(value: Any, digits: int = 1) -> str:
    """A share in [0, 1], shown in percent."""
    return UNKNOWN if value is None else percent(100 * value, digits)


def interval(bounds: Sequence[float] | None, digits: int = 1) -> str:
    """`low–high`."""
    return UNKNOWN if not bounds else f"{fixed(bounds[0], digits)}–{fixed(bounds[1], digits)}"


def duration(seconds: Any) -> str:
    """Seconds as `0.8 s`, `42 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def money(dollars: Any) -> str:
    """US dollars; a cost below a cent keeps its digits."""
    if dollars is None:
        return UNKNOWN
    if dollars == 0:
        return "$0"
    return f"${dollars:,.2f}" if dollars >= 0.01 else f"${dollars:.4f}"


def hours(row: Mapping[str, Any]) -> str:
    """`gpu_hours` and `cpu_hours` as `1.25 GPU-h`, `0.0310 CPU-h` or both; what is 0 or unknown is left out."""
    known = [(row.get(f"{kind.lower()}_hours"), kind) for kind in ("GPU", "CPU")]
    return " + ".join(f"{value:.{2 if value >= 1 else 4}f} {kind}-h" for value, kind in known if value) or UNKNOWN


def setting(value: Any) -> str:
    """A config value in the words of a config file."""
    if isinstance(value, str):
        return value or "(empty)"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)


def moment(iso: Any) -> str:
    """An ISO time in UTC as `2025-11-22 12:34 UTC`."""
    return f"{str(iso)[:16].replace('T', ' ')} UTC" if iso else UNKNOWN
