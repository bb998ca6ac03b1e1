"""What a run looks like in a terminal: one line per stage, a live bar under them, tables at the end.

Receives the calls of `tasks.display.Display`; knows neither Prefect nor torch. Where the output is
no terminal (a log, CI) the bars are left out and the lines stay.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from alpaca_farm_core.artifacts.manifest import Artifact

# The figures that say most of a stage, in the order shown after its name.
_HEADLINE_FIGURES = (
    "n_rows", "n_outputs", "n_total", "n_missing", "parse_rate",
    "eval_loss", "eval_accuracy", "heldout_reward", "heldout_kl", "selected_step", "win_rate", "gold_win_rate",
)  # fmt: skip


class TerminalDisplay:
    """Shows a run in a terminal.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[metrics]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.bar: Any = None
        self.began = self.phase_began = time.monotonic()
        self.phase_done = 0
        self.unit = self.title = ""

    def __enter__(self) -> TerminalDisplay:
        self.bars.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.bars.stop()

    def stage_begins(self, title: str) -> None:
        """Note the time, and what the bars to come belong to."""
        self.began, self.title = time.monotonic(), title

    def stage_ends(self, title: str, artifact: Artifact | None, cached: bool) -> None:
        """Print the stage's line."""
        self._drop_bar()
        if artifact is None:
            self.console.print(Text.assemble(("  ✗ ", "red"), f"{title:14}", ("failed", "red")))
            return
        mark = ("  ● ", "cyan") if cached else ("  ✓ ", "green")
        took = "cached" if cached else f"{time.monotonic() - self.began:.1f} s"
        line = Text.assemble(mark, f"{title:14} {took:>8}   ", (f"{artifact.reference:32}", "dim"), _figures(artifact))
        self.console.print(line, soft_wrap=True)

    def beside(self) -> TerminalDisplay:
        """Lines and bars of a branch of its own, in the same terminal."""
        other = copy.copy(self)
        other.bar = None
        return other

    def start(self, description: str, total: int, unit: str, done: int = 0) -> None:
        """Show a bar for a phase."""
        self._drop_bar()
        self.phase_began, self.phase_done, self.unit = time.monotonic(), 0, unit
        self.bar = self.bars.add_task(f"{self.title}: {description}", total=total, completed=done, rate="", metrics="")

    def advance(self, n: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        self.phase_done += n
        if self.bar is None:
            return
        rate = self.phase_done / max(time.monotonic() - self.phase_began, 1e-6)
        shown = "  ".join(f"{key} {value:.3g}" for key, value in list((metrics or {}).items())[:4])
        fields: dict[str, Any] = {"metrics": shown} if metrics else {}
        self.bars.update(self.bar, advance=n, rate=f"{rate:.3g} {self.unit}/s", **fields)

    def say(self, message: str) -> None:
        """Print one fact."""
        self.console.print(Text(f"    {message}", style="yellow"), soft_wrap=True)

    def _drop_bar(self) -> None:
        if self.bar is not None:
            self.bars.remove_task(self.bar)
            self.bar = None


def _figures(artifact: Artifact) -> Text:
    shown = [(key, artifact.metrics[key]) for key in _HEADLINE_FIGURES if artifact.metrics.get(key) is not None]
    return Text("  " + "  ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in shown[:4]))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_leaderboard(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print win rates with their standard errors, and gold figures where there are any."""
    has_gold = any(row.get("gold_win_rate") is not None for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    for heading in ("win rate %", "± s.e.", "wins", "losses", "draws", "missing", "length"):
        table.add_column(heading, justify="right")
    if has_gold:
        for heading in ("gold win rate %", "gold utility"):
            table.add_column(heading, justify="right")
    for row in rows:
        cells = [str(row["model"]), _number(row.get("win_rate")), _number(row.get("standard_error"))]
        cells += [_count(row.get(key)) for key in ("n_wins", "n_wins_base", "n_draws", "n_missing")]
        cells += [_number(row.get("avg_length"), 0)]
        cells += [_number(row.get("gold_win_rate")), _number(row.get("gold_utility"), 3)] if has_gold else []
        table.add_row(*cells)
    (console or Console()).print(table)


def print_comparison(facts: Mapping[str, Any], console: Console | None = None) -> None:
    """Print one line per method: win rates and half of their 95 % intervals, proxy reward, KL and tokens."""
    has_gold = facts["basis"] == "gold_win_rate"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method")
    for heading in ("win rate %", *(["gold %"] if has_gold else []), "over next", "reward", "KL", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in facts["rows"]:
        figures = ("win_rate", *(["gold_win_rate"] if has_gold else []), "over_next")
        cells = [_with_half_width(row[figure], row[f"{figure}_interval"]) for figure in figures]
        cells += [_number(row["reward"], 2), _number(row["kl"], 2), _number(row["tokens_mean"])]
        table.add_row(row["method"], *cells)
    (console or Console()).print(table)


def _with_half_width(value: Any, bounds: Any) -> str:
    """A figure and half of its 95 % interval, which lies evenly around it."""
    return _number(value) + (f" ± {(bounds[1] - bounds[0]) / 2:4.1f}" if bounds else " " * 7)


def _number(value: Any, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _count(value: Any) -> str:
    return "–" if value is None else str(value)
