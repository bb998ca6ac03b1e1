"""What a finished stage shows in the Prefect UI: figures, where it lies, curves and tables.

Artifacts live in Prefect's database, so they stay small. All text that a model wrote is escaped.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from alpaca_farm_core.artifacts.files import read_json, read_jsonl
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.evaluation.reevaluation.history import read_history, table_rows
from alpaca_farm_core.evaluation.reevaluation.picture import history_pictures
from alpaca_farm_core.evaluation.report.charts import Series, chart_svg
from alpaca_farm_core.evaluation.report.curves import build_curves
from alpaca_farm_core.evaluation.report.svg import data_uri

_SAMPLES = 5
_CELL_CHARACTERS = 400


def artifact_key(*parts: str) -> str:
    """Join words to a key that Prefect accepts: lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def escaped(text: str) -> str:
    """Make text that a model wrote safe and short for a markdown or table cell."""
    cut = text if len(text) <= _CELL_CHARACTERS else text[:_CELL_CHARACTERS] + " …"
    return html.escape(cut).replace("|", "&#124;").replace("`", "&#96;").replace("\n", "<br>")


@contextmanager
def only_shown(what: str) -> Iterator[None]:
    """Around what is for people's eyes alone: a server that is away is a warning, and the run goes on."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("%s could not be shown (%s); the run goes on.", what, error or type(error).__name__)


def show_artifact(artifact: Artifact, name: str) -> None:
    """Show one artifact: a summary always, pictures and tables where its kind has them.

    Their keys start with kind and name, as the artifact's reference does: one name has several kinds of artifacts.
    """
    with only_shown(artifact.reference):
        _show(artifact, name)


def _show(artifact: Artifact, name: str) -> None:
    key = artifact_key(artifact.kind, name)
    create_markdown_artifact(_summary(artifact), key=artifact_key(key, "summary"), description=artifact.reference)
    for title, picture in _pictures(artifact).items():
        description = f"{artifact.reference}: {title.replace('_', ' ')}"
        create_image_artifact(data_uri(picture), key=artifact_key(key, title), description=description)
    rows = _table(artifact)
    if rows:
        create_table_artifact(rows, key=artifact_key(key, "table"), description=artifact.reference)


def _summary(artifact: Artifact) -> str:
    volatile = artifact.manifest.volatile
    figures = "\n".join(f"| {key} | {_figure(value)} |" for key, value in sorted(artifact.metrics.items()))
    return (
        f"**{artifact.reference}**, made in {volatile['seconds']:.1f} s on {volatile['created']}\n\n"
        f"Folder `{artifact.path}`, fingerprint `{artifact.fingerprint[:16]}`\n\n"
        f"| figure | value |\n| --- | --- |\n{figures}\n"
    )


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and value and all(isinstance(one, int | float) for one in value):
        return " to ".join(_figure(one) for one in value) if len(value) == 2 else ", ".join(map(_figure, value))
    return escaped(value if isinstance(value, str) else json.dumps(value))


def _pictures(artifact: Artifact) -> Mapping[str, str]:
    """Curves of a training stage, pictures of a history, as SVG by name."""
    if artifact.manifest.recipe.stage == "overoptimisation":
        return {path.stem: path.read_text(encoding="utf-8") for path in sorted(artifact.path.glob("*.svg"))}
    if artifact.kind == "history":
        return history_pictures(read_history(artifact))
    roles = {"sft": "sft", "reward_model": "reward_model"}
    curves = build_curves({roles.get(artifact.manifest.recipe.stage, "method"): artifact})
    return {curve["id"]: _picture(curve) for curve in curves}


def _picture(curve: Mapping[str, Any]) -> str:
    lines = [Series(line["name"], [(x, y) for x, y in line["points"]]) for line in curve["lines"]]
    return chart_svg(lines, curve["x_label"], curve["y_label"], curve["title"])


def _table(artifact: Artifact) -> list[dict[str, Any]]:
    if artifact.kind == "leaderboard":
        return [_standing(row) for row in read_json(artifact.path / "leaderboard.json")]
    if artifact.kind == "comparison":
        rows = read_json(artifact.path / "comparison.json")["rows"]
        return [{key: _figure(value) for key, value in row.items()} for row in rows]
    if artifact.kind == "history":
        return [{key: _figure(value) for key, value in row.items()} for row in table_rows(read_history(artifact)[-1])]
    if artifact.kind in ("outputs", "preferences"):
        first = [
            row for row, _ in zip(read_jsonl(artifact.path / f"{artifact.kind}.jsonl"), range(_SAMPLES), strict=False)
        ]
        return [{key: escaped(str(value)) for key, value in row.items()} for row in first]
    return []


def _standing(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of a leaderboard as a person reads it; the artifact's file has every column."""
    return {
        "model": escaped(row["model"]),
        "win %": _percent(row["win_rate"]),
        "95 % interval": _interval(row["interval"]),
        "length-controlled %": _percent(row["length_controlled_winrate"]),
        "gold win %": _percent(row.get("gold_win_rate")),
        "gold 95 % interval": _interval(row.get("gold_interval")),
        "n": _count(row["n_total"]),
        "missing": _count(row["n_missing"]),
        "characters": _count(row["avg_length"]),
        "annotator": escaped(row["annotator"]),
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.1f}–{bounds[1]:.1f}"


def _count(value: int | None) -> str:
    return "" if value is None else str(value)
