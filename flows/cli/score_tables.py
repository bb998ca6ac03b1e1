"""Scores as terminal tables: win rates with intervals, groups, a comparison, power. Rows in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from alpaca_farm_core.evaluation.board_formats import figure, places, span

Row = Mapping[str, Any]


def print_scores(rows: Sequence[Row]) -> None:
    """Print one line per model, then what was asked for besides."""
    controlled = any("lc_method" in row for row in rows)
    table = _table("model", "win % ± s.e.", "95 % interval", *(["LC % ± s.e."] if controlled else []))
    for heading in ("won/lost/drawn", "missing", "length"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["model"], with_error(row["win_rate"], row["standard_error"]), span(row["interval"])]
        if controlled:
            cells.append(with_error(row["length_controlled_winrate"], row["lc_standard_error"]))
        cells += ["/".join(str(row[name]) for name in ("n_wins", "n_wins_base", "n_draws"))]
        table.add_row(*cells, str(row["n_missing"]), figure(row["avg_length"], 0))
    console().print(table)
    for row in rows:
        if "by" in row:
            _print_groups(row)
        if "power" in row:
            click.echo(f"{row['model']}: {power_text(row['power'])}")


def print_comparison(found: Row) -> None:
    """Print how two models differ on the same instructions."""
    verdict = "a real difference at the 5 % level" if found["is_real"] else "no difference that chance would not make"
    interval = found["interval"] and f", 95 % interval {found['interval'][0]:+.1f} to {found['interval'][1]:+.1f}"
    p_value = "" if found["p_value"] is None else f", p = {found['p_value']:.2g}"
    click.echo(
        f"\n{found['model']} − {found['other']}: {found['difference']:+.1f} points{interval or ''}{p_value}: "
        f"{verdict}.\n"
        f"  {found['n_shared']} shared instructions: {found['n_better']} better, {found['n_worse']} worse, "
        f"{found['n_equal']} equal; without partner: {found['n_only_model']} and {found['n_only_other']}."
    )


def power_text(found: Row) -> str:
    """One sentence on what so many instructions give."""
    return (
        f"{found['n']} instructions give a win rate to ± {found['half_width']:.1f} points (95 %); "
        f"a difference of {found['detectable_difference']:.1f} points is found with {found['power']:.0%} chance."
    )


def warn(rows: Sequence[Row]) -> None:
    """Say on standard error what was counted out or is to be doubted."""
    for row in rows:
        for name, text in (
            ("n_duplicates", "rows repeat an earlier one"),
            ("n_invalid", "preferences off the scale counted as missing"),
            ("n_other_annotators", "rows of other annotators left out"),
            ("lc_n_without_difficulty", "rows without difficulty left out of the length-controlled win rate"),
        ):
            if row.get(name):
                click.secho(f"{row['model']}: {row[name]} {text}", fg="yellow", err=True)
        if row["bounds"] and row["n_missing"]:
            low, high = row["bounds"]
            text = (
                f"{row['n_missing']} rows without annotation; had they all been lost or won: {low:.1f} or {high:.1f} %"
            )
            click.secho(f"{row['model']}: {text}", fg="yellow", err=True)
        for name in ("lc_warning", "lc_problem"):
            if row.get(name):
                click.secho(f"{row['model']}: length control: {row[name]}", fg="yellow", err=True)


def print_board(rows: Sequence[Row]) -> None:
    """Print a leaderboard with ranks and the places that the data allow."""
    controlled = any(row.get("length_controlled_winrate") is not None for row in rows)
    table = _table("model", "rank", "win % ± s.e.", "95 % interval", *(["LC % ± s.e."] if controlled else []))
    for heading in ("n", "missing", "length"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [str(row["model"]), "–" if row["rank"] is None else places(row)]
        cells += [with_error(row.get("win_rate"), row.get("standard_error")), span(row.get("interval"))]
        if controlled:
            cells.append(with_error(row.get("length_controlled_winrate"), row.get("lc_standard_error")))
        table.add_row(*cells, *(figure(row.get(name), 0) for name in ("n_total", "n_missing", "avg_length")))
    console().print(table)


def with_error(value: Any, error: Any) -> str:
    """A rate with its standard error, as far as they are known."""
    return figure(value) + ("" if error is None else f" ± {error:.2f}")


def console() -> Console:
    """Standard output; wide where it is no terminal, since nobody's screen limits it."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=200)


def _print_groups(row: Row) -> None:
    table = _table(f"{row['model']}: {row['by']['field']}", "win % ± s.e.", "95 % interval", "n", "missing")
    for group in row["by"]["groups"]:
        cells = [with_error(group["win_rate"], group["standard_error"]), span(group["interval"])]
        table.add_row(group["group"] or "(none)", *cells, str(group["n_total"]), str(group["n_missing"]))
    click.echo()
    console().print(table)


def _table(first: str, *figures: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold", min_width=12)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
