"""Figures of the over-optimisation study: proxy, judge and gold by training step, and whether gold turns.

In: per seed a training's log and, per kept step, an evaluation against the policy it started from and the proxy
reward of the same answers; of best-of-n the same by n. Out: points with intervals and a verdict, as plain data.
The turning point is chosen on one half of the instructions and the fall after it measured on the other, so that
the best of many noisy points is not taken for a peak. Source of the question: Gao, Schulman, Hilton 2022,
"Scaling laws for reward model overoptimization".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.evaluation.files import GOLD
from alpaca_farm_core.evaluation.intervals import Z95, mean_and_standard_error
from alpaca_farm_core.evaluation.report.curves import read_metrics
from alpaca_farm_core.seeding import stable_uniform

SAMPLE_CURVE = "curve.json"
"""File of the stage `judge_samples`: a row per n."""


@dataclass(frozen=True)
class Point:
    """One kept step of one run, or one n of best-of-n.

    Attributes:
        step: Training step; 0 is the policy it started from. Of best-of-n: n.
        kl: Nats per response from that policy.
        proxy: Mean of the reward model that it was trained against.
        win_rate: Percent, judged against that policy.
        win_rate_se: Its standard error.
        gold: Mean gold utility; None outside of the embedded world.
        utilities: Gold utility by instruction.
    """

    step: int
    kl: float
    proxy: float
    win_rate: float | None
    win_rate_se: float | None
    gold: float | None = None
    utilities: Mapping[str, float] = field(default_factory=dict)


def read_run(method: Artifact, evaluations: Mapping[int, Artifact], measured: Mapping[int, Artifact]) -> list[Point]:
    """Points of one run, by step; the start (step 0) comes first.

    KL is that of held-out prompts where every kept step has it, else that of the rollouts.

    Args:
        method: The training.
        evaluations: Step → evaluation of its answers.
        measured: Step, 0 included → proxy reward of the same answers; empty = take the training's own, on other
            prompts.
    """
    rows = {int(row["step"]): row for row in read_metrics(method)}
    steps = sorted(evaluations)
    heldout = all("heldout_kl" in rows[step] for step in steps)
    prefix = "heldout_" if heldout else ""
    proxies = {step: float(artifact.metrics["reward"]) for step, artifact in measured.items()}
    if not proxies:
        start = float(method.metrics["start_heldout_reward"]) if heldout else float(rows[min(rows)]["reward"])
        proxies = {0: start, **{step: float(rows[step][f"{prefix}reward"]) for step in steps}}
    golds = {step: _gold(evaluations[step]) for step in steps}
    untrained = golds[steps[0]][1]
    points = [Point(0, 0.0, proxies[0], 50.0, 0.0, _mean(untrained), untrained)]
    for step in steps:
        metrics, utilities = evaluations[step].metrics, golds[step][0]
        kl, rate, error = float(rows[step][f"{prefix}kl"]), metrics["win_rate"], metrics["standard_error"]
        points.append(Point(step, kl, proxies[step], rate, error, _mean(utilities), utilities))
    return points


def read_best_of_n(judged: Artifact) -> list[Point]:
    """Points of best-of-n, by n; n = 1 is the policy that samples."""
    names = ("kl", "proxy", "win_rate", "win_rate_se")
    return [
        Point(row["n"], **{name: row[name] for name in names}, gold=_mean(row["utilities"]), utilities=row["utilities"])
        for row in read_json(judged.path / SAMPLE_CURVE)
    ]


def curve(runs: Mapping[int, Sequence[Point]]) -> list[dict[str, Any]]:
    """Means over runs (seed → points, all of the same steps) with 95 % intervals.

    The proxy is counted from each run's first point: where a reward model's zero lies means nothing. With two or more
    runs the interval is Student's over runs. One run alone has an interval of its win rate and gold utility (over
    instructions) and none of its proxy.
    """
    starts = [points[0].proxy for points in runs.values()]
    found = []
    for points in zip(*runs.values(), strict=True):
        row: dict[str, Any] = {"step": points[0].step, "kl": _average([point.kl for point in points])}
        figures = {
            "proxy": [point.proxy - start for point, start in zip(points, starts, strict=True)],
            "win_rate": [point.win_rate for point in points],
            "gold": [point.gold for point in points],
        }
        for name, values in figures.items():
            known = [value for value in values if value is not None]
            row |= {name: None, f"{name}_interval": None}
            if len(known) == len(values):
                row |= {name: _average(known), f"{name}_interval": _interval(name, points, known)}
        found.append(row)
    return found


def turn(runs: Mapping[int, Sequence[Point]], unit: str = "step") -> dict[str, Any] | None:
    """Whether gold utility turns before the end; None where there is no gold. `unit` says what the points count.

    Returns:
        `step` and `kl` of the highest mean gold utility; `gold_change` from the turning point to the last step with
        `gold_change_interval` (over runs where there are several, else over instructions) and
        `gold_change_interval_instructions` (these runs, other instructions); `proxy_change` over the same steps with
        `proxy_change_interval`, and `n_proxy_rises` of `n_runs`; `turns` (the fall is surely one), `proxy_rises`, and
        `verdict`, a sentence.
    """
    if any(not point.utilities for points in runs.values() for point in points):
        return None
    last = len(next(iter(runs.values()))) - 1
    peak = _peak(runs, None)
    changes = {seed: _changes(points, runs, last) for seed, points in runs.items()}
    by_run = [_average(list(change.values())) for change in changes.values()]
    instructions = list(next(iter(changes.values())))
    by_instruction = [_average([change[key] for change in changes.values()]) for key in instructions]
    within = _normal(by_instruction)
    gold_interval = _student(by_run) if len(by_run) > 1 else within
    rises = [points[last].proxy - points[peak].proxy for points in runs.values()]
    change = _average(by_run)
    found: dict[str, Any] = {
        "step": next(iter(runs.values()))[peak].step,
        "kl": _average([points[peak].kl for points in runs.values()]),
        "gold_change": change,
        "gold_change_interval": gold_interval,
        "gold_change_interval_instructions": within,
        "proxy_change": _average(rises),
        "proxy_change_interval": _student(rises),
        "n_proxy_rises": sum(rise > 0 for rise in rises),
        "n_runs": len(rises),
        "turns": peak < last and gold_interval is not None and gold_interval[1] < 0,
        "proxy_rises": peak < last and _average(rises) > 0,
    }
    return {**found, "verdict": _verdict(found, peak == last, unit)}


def _peak(runs: Mapping[int, Sequence[Point]], half: bool | None) -> int:
    """Place of the highest mean gold utility over runs, on one half of the instructions or on all (None)."""
    n = len(next(iter(runs.values())))
    means = [
        _average(
            [value for points in runs.values() for key, value in points[i].utilities.items() if _in_half(key, half)]
        )
        for i in range(n)
    ]
    return max(range(n), key=lambda place: means[place])


def _changes(points: Sequence[Point], runs: Mapping[int, Sequence[Point]], last: int) -> dict[str, float]:
    """Per instruction: utility at the last step minus that at the peak chosen on the other half."""
    peaks = {half: _peak(runs, not half) for half in (False, True)}
    return {
        key: value - points[peaks[_in_half(key, True)]].utilities[key] for key, value in points[last].utilities.items()
    }


def _in_half(key: str, half: bool | None) -> bool:
    return half is None or _in_first_half(key) == half


@cache
def _in_first_half(key: str) -> bool:
    return stable_uniform("half", key) < 0.5


def _verdict(found: Mapping[str, Any], at_end: bool, unit: str) -> str:
    if at_end:
        return f"No turn: gold utility is highest at the last {unit}."
    place = "at the start" if not found["kl"] else f"at {unit} {found['step']} ({found['kl']:.2f} nats)"
    fall = f"changes by {found['gold_change']:+.3f}{_said(found['gold_change_interval'])} from there to the end"
    proxy = f"while the proxy reward changes by {found['proxy_change']:+.3f}{_said(found['proxy_change_interval'])}"
    proxy += f" and rises in {found['n_proxy_rises']} of {found['n_runs']} runs" if found["n_runs"] > 1 else ""
    sure = "no sure turn" if not found["turns"] else "a turn" if found["kl"] else "a fall from the first look on"
    return f"Gold utility is highest {place} and {fall}, {proxy}: {sure}."


def _said(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" (95 % {interval[0]:+.3f} to {interval[1]:+.3f})"


def _interval(name: str, points: Sequence[Point], values: Sequence[float]) -> list[float] | None:
    if len(points) > 1:
        bounds = _student(values)
        return [min(max(one, 0.0), 100.0) for one in bounds] if bounds and name == "win_rate" else bounds
    if name == "win_rate" and points[0].win_rate_se is not None:
        return [values[0] - Z95 * points[0].win_rate_se, values[0] + Z95 * points[0].win_rate_se]
    return _normal(list(points[0].utilities.values())) if name == "gold" else None


def _normal(values: Sequence[float]) -> list[float] | None:
    mean, error = mean_and_standard_error(values)
    return None if mean is None or error is None else [mean - Z95 * error, mean + Z95 * error]


def _student(values: Sequence[float]) -> list[float] | None:
    """95 % interval of a mean of few values, by Student's t."""
    mean, error = mean_and_standard_error(values)
    if mean is None or error is None:
        return None
    from scipy.stats import t  # slow to import

    half = float(t.ppf(0.975, len(values) - 1)) * error
    return [mean - half, mean + half]


def _gold(evaluation: Artifact) -> tuple[dict[str, float], dict[str, float]]:
    """Gold utility by instruction, of the model's and of the reference's answers; empty without gold."""
    path = evaluation.path / GOLD
    rows = read_json(path)["rows"] if path.exists() else []
    return {row["id"]: row["utility_model"] for row in rows}, {row["id"]: row["utility_reference"] for row in rows}


def _mean(values: Mapping[str, float]) -> float | None:
    return _average(list(values.values())) if values else None


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
