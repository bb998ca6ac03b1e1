"""Writes rows of a leaderboard as CSV, Markdown or one HTML page.

In: dictionaries with AlpacaEval's columns and ours, in the order to show. Out: text. Knows neither where
rows come from nor where text goes. Every text is escaped for its format.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Template

from alpaca_farm_core.evaluation.report.page import page_template

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column for people: heading, cell, and the figure without which the column is left out."""

    heading: str
    cell: Callable[[Row], str]
    needs: str = "model"


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Comma-separated values; intervals as two columns, unknown values empty."""
    flat = [_flat(row, columns) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """A table for people; columns that no row has a figure for are left out."""
    columns = columns_with_figures(rows)
    lines = ["| " + " | ".join(column.heading for column in columns) + " |"]
    lines.append("|---|" + "---:|" * (len(columns) - 1))
    for row in rows:
        cells = (column.cell(row).replace("|", "\\|").replace("\n", " ") for column in columns)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def to_html(rows: Sequence[Row], title: str) -> str:
    """One page that needs nothing from elsewhere; intervals drawn to scale."""
    columns = columns_with_figures(rows)
    table = [[column.cell(row) for column in columns] for row in rows]
    bars = [row.get("interval") and {"low": row["interval"][0], "high": row["interval"][1]} for row in rows]
    marks = [row.get("win_rate") for row in rows]
    return _template().render(
        title=title, headings=[column.heading for column in columns], lines=list(zip(table, bars, marks, strict=True))
    )


def columns_with_figures(rows: Sequence[Row]) -> list[Column]:
    """The columns for people that some row fills."""
    return [column for column in _COLUMNS if any(row.get(column.needs) is not None for row in rows)]


def figure(value: Any, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def span(bounds: Sequence[float] | None) -> str:
    """An interval, or a dash."""
    return "–" if not bounds else f"{bounds[0]:.1f}–{bounds[1]:.1f}"


def places(row: Row) -> str:
    """Rank and, where the data allow others, the places they allow."""
    low, high = row["rank_interval"]
    return f"{row['rank']}" if low == high else f"{row['rank']} ({low}–{high})"


def _name(row: Row) -> str:
    return str(row["model"]) + (" (baseline)" if row.get("is_baseline") else "")


_COLUMNS = (
    Column("Model", _name),
    Column("Rank", lambda row: places(row) if row.get("rank") is not None else "–", "rank"),
    Column("Win rate", lambda row: figure(row.get("win_rate"))),
    Column("SE", lambda row: figure(row.get("standard_error"))),
    Column("95 % interval", lambda row: span(row.get("interval"))),
    Column("LC win rate", lambda row: figure(row.get("length_controlled_winrate")), "length_controlled_winrate"),
    Column("LC SE", lambda row: figure(row.get("lc_standard_error"), 2), "lc_standard_error"),
    Column("n", lambda row: figure(row.get("n_total"), 0)),
    Column("Missing", lambda row: figure(row.get("n_missing"), 0)),
    Column("Length", lambda row: figure(row.get("avg_length"), 0)),
    Column("Gold win rate", lambda row: figure(row.get("gold_win_rate")), "gold_utility"),
    Column("Gold 95 %", lambda row: span(row.get("gold_interval")), "gold_utility"),
    Column("Gold utility", lambda row: figure(row.get("gold_utility"), 3), "gold_utility"),
)


def _flat(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in columns:
        value = row.get(name)
        if name.endswith("interval"):
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        else:
            flat[name] = value
    return flat


@cache
def _template() -> Template:
    return page_template("leaderboard", {}, "alpaca_farm_core.evaluation")
