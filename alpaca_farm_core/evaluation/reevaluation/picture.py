"""Pictures of a history: win rate over time per model, and how many anchors changed sides.

In: the lines of a history. Out: SVG documents by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from alpaca_farm_core.evaluation.report.charts import Series, line_chart

_UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0))


def history_pictures(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Pictures of all lines; at least one line.

    Each model's line holds what is comparable with its last figures, with its 95 % interval as a band; what
    another judge or reference said before is drawn faint. A vertical line stands at the last alarm.
    """
    first = datetime.fromisoformat(entries[0]["at"])
    seconds = [(datetime.fromisoformat(entry["at"]) - first).total_seconds() for entry in entries]
    unit, length = next((one for one in _UNITS if seconds[-1] >= 2 * one[1]), _UNITS[-1])
    times = [one / length for one in seconds]
    alarms = [time for time, entry in zip(times, entries, strict=True) if entry["alarms"]]
    since = f"{unit} since {first:%Y-%m-%d %H:%M} UTC"
    rates = line_chart(
        [series for name in _names(entries) for series in _rates(name, entries, times)],
        since,
        "win rate, %",
        title="Win rate over time",
        width=640,
        height=300,
        reference=(50.0, "even"),
        markers=[(alarms[-1], "last alarm")] if alarms else [],
        standalone=True,
    )
    drift = [
        (time, 100 * entry["anchors"]["changed_share"])
        for time, entry in zip(times, entries, strict=True)
        if entry["anchors"] and entry["anchors"]["changed_share"] is not None
    ]
    if not drift:
        return {"win_rate": rates}
    line = Series("anchors", drift)
    title = "Anchors on which the judge changed sides"
    judge = line_chart([line], since, "share, %", title=title, width=640, height=220, standalone=True)
    return {"win_rate": rates, "judge": judge}


def _names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for entry in entries for name in entry["models"]))


def _rates(name: str, entries: Sequence[Mapping[str, Any]], times: Sequence[float]) -> list[Series]:
    known = [
        (time, entry["models"][name])
        for time, entry in zip(times, entries, strict=True)
        if name in entry["models"] and entry["models"][name]["win_rate"] is not None
    ]
    if not known:
        return []
    last = known[-1][1]
    same = [(time, one) for time, one in known if _conditions(one) == _conditions(last)]
    other = [(time, one["win_rate"]) for time, one in known if _conditions(one) != _conditions(last)]
    band = [(time, *one["interval"]) for time, one in same if one["interval"]]
    drawn = [Series(name, [(time, one["win_rate"]) for time, one in same], band=band)]
    return [Series(f"{name}, otherwise judged", other, faint=True), *drawn] if other else drawn


def _conditions(model: Mapping[str, Any]) -> tuple[str, str]:
    return model["judge"], model["against"]
