"""The page's words and pictures that need a decision: verdict, tiles, and one chart per kind of fact.

In: facts. Out: plain text and SVG text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alpaca_farm_core.evaluation.report.charts import Series, Whisker, bars, dot_whisker, line_chart
from alpaca_farm_core.evaluation.report.format import UNKNOWN, fixed, interval, number, percent, share
from alpaca_farm_core.evaluation.report.scatter import scatter
from alpaca_farm_core.meadow.gold import COMPONENTS

BASELINE_COLOUR = 5
_VERBS = {"wins": "beats", "loses": "loses to"}


def verdict_sentence(headline: Mapping[str, Any]) -> str:
    """Who won, in one line."""
    model, reference = headline["model"], headline["reference"]
    verb = _VERBS.get(headline["verdict"])
    return f"{model} {verb} {reference}" if verb else f"{model} and {reference}: no clear difference"


def tiles(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The five or six figures to read first: {label, value, note}."""
    headline, metrics, reward = facts["headline"], facts["evaluation"], facts["reward_model"]
    found = []
    if headline["basis"] == "gold":
        found.append(
            _tile(
                "Gold win rate",
                percent(headline["win_rate"]),
                f"95 % {interval(headline['interval'])}, n {headline['n']}",
            )
        )
    judged = f"95 % {interval(metrics['interval'])}, by {metrics['annotator']}"
    found.append(_tile("Judged win rate", percent(metrics["win_rate"]), judged))
    matched = headline["length_matched"]
    found.append(
        _tile("Length-matched", percent(matched["win_rate"]), f"95 % {interval(matched['interval'])}, n {matched['n']}")
    )
    found.append(_tile("KL from SFT", number(headline["kl"]), "nats per response"))
    if reward is not None:
        ceiling = reward["ceiling"]
        note = f"Bayes ceiling {share(ceiling)}" if ceiling is not None else "on held-out pairs"
        found.append(_tile("Reward accuracy", share(reward["labels"]["accuracy"]), note))
    missing = metrics["n_missing"]
    asked = metrics["n_total"] + missing
    found.append(_tile("Annotations missing", number(missing), f"of {number(asked)} pairs"))
    return found


def leaderboard(rows: Sequence[Mapping[str, Any]]) -> str:
    """Win rates with their 95 % intervals, the baseline at 50."""
    whiskers = [
        Whisker(
            name=row["model"],
            value=row["win_rate"],
            low=(row["interval"] or [row["win_rate"]] * 2)[0],
            high=(row["interval"] or [row["win_rate"]] * 2)[1],
            note="baseline" if row["is_baseline"] else fixed(row["win_rate"]),
            series=BASELINE_COLOUR if row["is_baseline"] else 0,
        )
        for row in rows
        if row["win_rate"] is not None
    ]
    return dot_whisker(whiskers, "judged win rate (%), 95 % interval", reference=(50.0, "even"), width=420)


def curve(found: Mapping[str, Any]) -> str:
    """One training curve."""
    lines = [Series(line["name"], line["points"]) for line in found["lines"]]
    selected = found["selected_step"]
    markers = [] if selected is None else [(float(selected), "published")]
    return line_chart(lines, found["x_label"], found["y_label"], width=340, height=208, markers=markers)


def reward_model(found: Mapping[str, Any] | None) -> str | None:
    """Accuracies with intervals, the ceiling as a line."""
    if found is None:
        return None
    rows = [("on the noisy labels" if found["ceiling"] is not None else "on held-out labels", found["labels"])]
    rows += [("against the gold order", found["gold"])] if found["gold"] is not None else []
    whiskers = [
        Whisker(
            name, 100 * row["accuracy"], 100 * row["interval"][0], 100 * row["interval"][1], share(row["accuracy"]), i
        )
        for i, (name, row) in enumerate(rows)
        if row["accuracy"] is not None
    ]
    ceiling = found["ceiling"]
    line = (100 * ceiling, f"Bayes ceiling {share(ceiling)}") if ceiling is not None else (50.0, "chance")
    return dot_whisker(whiskers, "accuracy (%), 95 % interval", reference=line, width=420) if whiskers else None


def length(facts: Mapping[str, Any]) -> str | None:
    """The judge's preference against how much longer the model's answer is."""
    points = [(x, y) for x, y in facts["judged"]["length_points"]]
    if not points:
        return None
    longer = f"characters longer than {facts['headline']['reference']}'s answer"
    return scatter(points, longer, f"preference for {facts['headline']['model']}")


def groups(facts: Mapping[str, Any]) -> str | None:
    """Judged win rate by dataset, best first."""
    rows = [row for row in facts["judged"]["groups"] if row["win_rate"] is not None]
    if not rows:
        return None
    whiskers = [
        Whisker(
            name=row["group"] or "(none)",
            value=row["win_rate"],
            low=row["interval"][0],
            high=row["interval"][1],
            note=f"{fixed(row['win_rate'])} (n {row['n_total']})",
        )
        for row in sorted(rows, key=lambda row: (-row["win_rate"], row["group"]))
    ]
    words = "judged win rate (%), 95 % interval"
    return dot_whisker(whiskers, words, reference=(50.0, "even"), span=(0, 100), width=420)


def components(facts: Mapping[str, Any]) -> str | None:
    """Mean gold components per model, the baseline last."""
    sides = gold_sides(facts)
    if not sides:
        return None
    names = [name for name in COMPONENTS if any(name in side["components"] for _, side in sides)]
    columns = [(name, [side["components"].get(part) for part in names]) for name, side in sides]
    paint = [*range(len(sides) - 1), BASELINE_COLOUR]
    words = [name.replace("_", " ") for name in names]
    return bars(words, columns, "mean over the evaluation instructions", colours=paint, width=420)


def gold_sides(facts: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(model's name, its gold figures) of every evaluation, then of the baseline."""
    golds = facts["gold"]
    if not golds:
        return []
    first = next(iter(golds.values()))
    models = [(gold["model"]["name"], gold["model"]) for gold in golds.values()]
    return [*models, (first["reference"]["name"], first["reference"])]


def families(facts: Mapping[str, Any]) -> str | None:
    """Gold win rate per task family of the method under study, the held-out family last."""
    gold = facts["gold"].get(facts["method"])
    if gold is None:
        return None
    ordered = sorted(gold["families"], key=lambda row: (row["held_out"], -row["win_rate"]["win_rate"]))
    whiskers = [
        Whisker(
            name=f"{row['family']} (held out)" if row["held_out"] else row["family"],
            value=row["win_rate"]["win_rate"],
            low=row["win_rate"]["interval"][0],
            high=row["win_rate"]["interval"][1],
            note=f"{fixed(row['win_rate']['win_rate'])} (n {row['win_rate']['n']})",
            series=1 if row["held_out"] else 0,
        )
        for row in ordered
    ]
    return dot_whisker(whiskers, "gold win rate (%), 95 % interval", reference=(50.0, "even"), span=(0, 100), width=420)


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note if value != UNKNOWN else "not measured"}
