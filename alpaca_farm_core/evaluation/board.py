"""A leaderboard kept in a file: models with their figures and, where known, their scores by instruction.

In and out: JSON (ours), or rows of `score --json` and of the leaderboard stage, or AlpacaEval's CSV. Models
are added and updated by name; ranks have intervals. All rows of one board compare with one baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation.csv_table import read_table
from alpaca_farm_core.evaluation.intervals import normal
from alpaca_farm_core.evaluation.paired import PairedComparison, compare
from alpaca_farm_core.evaluation.ranks import Entry, Rank, ranks
from alpaca_farm_core.evaluation.scoring import ScoredModel

SCHEMA_VERSION = 1
COLUMNS = (
    *("model", "rank", "rank_interval", "win_rate", "standard_error", "interval", "discrete_win_rate"),
    *("length_controlled_winrate", "lc_standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "n_missing"),
    *("avg_length", "mode", "baseline"),
)
"""Columns of an export; further ones that rows have follow."""
STANDARD_ERRORS = {"win_rate": "standard_error", "length_controlled_winrate": "lc_standard_error"}
"""Rates that have ranks with intervals, and where their standard errors are."""
_COUNTS = ("n_wins", "n_wins_base", "n_draws", "n_total", "n_missing", "avg_length")


@dataclass
class Board:
    """Models by name.

    Attributes:
        rows: Model → figures; rates in percent.
        scores: Model → instruction's content → score in [0, 1], for models added from annotations.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], scores: Mapping[str, float] | None, overwrite: bool) -> str:
        """Add one model; returns `added`, `updated` or `kept` (it was there and may not be overwritten).

        Raises:
            DataError: the board compares with another baseline.
        """
        model = str(row["model"])
        if model in self.rows and not overwrite:
            return "kept"
        self._check_baseline(model, row.get("baseline"))
        done = "updated" if model in self.rows else "added"
        self.rows[model] = dict(row)
        self.scores.pop(model, None)
        if scores is not None:
            self.scores[model] = dict(scores)
        return done

    def add_scored(self, scored: ScoredModel, overwrite: bool) -> str:
        """Add a model scored from annotations, with its scores where the rows have instructions."""
        known = None not in scored.annotations.texts["instruction"]
        return self.add(scored.row, scored.by_instruction if known else None, overwrite)

    def sorted_rows(self, column: str = "win_rate", reverse: bool = False) -> list[dict[str, Any]]:
        """Rows by any column, unknown values last, with rank and rank interval where the column has an error.

        Raises:
            UsageError: no row has that column.
        """
        known = {name: None for row in self.rows.values() for name in row}
        if column not in known and column not in ("rank", "model"):
            raise UsageError(f"The leaderboard has no column '{column}'.", did_you_mean(column, known))
        by = column if column in STANDARD_ERRORS else "win_rate"
        placed = self.ranks(by)
        rows = [{**row, **_rank_columns(placed.get(model))} for model, row in self.rows.items()]
        present = [row for row in rows if row.get(column) is not None]
        if len({isinstance(row[column], str) for row in present}) > 1 or any(
            isinstance(row[column], (list, dict)) for row in present
        ):
            raise UsageError(f"The column '{column}' has no order.", "Sort by a column of numbers or of texts.")
        # Rates are best first; names, ranks and errors smallest first.
        rising = column in ("model", "rank", "baseline", "mode") or column.endswith("error")
        present.sort(key=lambda row: str(row["model"]))
        present.sort(key=lambda row: row[column], reverse=rising == reverse)
        return [*present, *(row for row in rows if row.get(column) is None)]

    def ranks(self, column: str = "win_rate") -> dict[str, Rank]:
        """Model → rank by a rate that has a standard error; models without the rate have none."""
        error = STANDARD_ERRORS[column]
        return ranks(
            [
                Entry(model, row[column], row.get(error), self.scores.get(model) if column == "win_rate" else None)
                for model, row in self.rows.items()
                if row.get(column) is not None
            ]
        )

    def compare(self, model: str, other: str) -> PairedComparison:
        """Compare two models on the instructions they share.

        Raises:
            UsageError: one is not on the board.
            DataError: one has no scores by instruction, or they share no instruction.
        """
        for name in (model, other):
            if name not in self.rows:
                raise UsageError(f"The leaderboard has no model '{name}'.", did_you_mean(name, self.rows))
            if name not in self.scores:
                raise DataError(
                    f"The leaderboard has figures of {name} but not its scores by instruction.",
                    "Add it from its annotations: `alpaca-farm leaderboard add BOARD ANNOTATIONS --overwrite`.",
                )
        return compare(model, self.scores[model], other, self.scores[other])

    def columns(self) -> list[str]:
        """Columns of an export: the known ones that some row has, then the others; no nested ones."""
        names = {name: None for row in self.rows.values() for name, value in row.items() if _is_plain(name, value)}
        names |= dict.fromkeys(("rank", "rank_interval"))
        return [name for name in COLUMNS if name in names] + [name for name in names if name not in COLUMNS]

    def save(self, path: Path) -> None:
        """Write the board as JSON, whole or not at all."""
        models = [{**row, "scores": self.scores.get(model)} for model, row in self.rows.items()]
        write_json(path, {"schema_version": SCHEMA_VERSION, "models": models})

    @classmethod
    def load(cls, path: Path) -> Board:
        """Read a board: ours, rows in JSON, or AlpacaEval's CSV.

        Raises:
            DataError: the file is missing, is none of these, or holds a rate that is no percentage.
        """
        rows = _csv_rows(path) if path.suffix == ".csv" else _json_rows(path)
        board = cls()
        for number, row in enumerate(rows, start=1):
            _check_row(row, f"{path}, row {number}")
            if row["model"] in board.rows:
                raise DataError(f"{path} has the model {row['model']} twice.", "Keep one of the rows.")
            scores = row.pop("scores", None)
            board.add(row, scores, overwrite=False)
        return board

    def _check_baseline(self, model: str, baseline: object) -> None:
        others = {row["baseline"] for name, row in self.rows.items() if name != model and row.get("baseline")}
        if baseline and others - {baseline}:
            raise DataError(
                f"{model} was compared with {baseline}, the models of this leaderboard with {', '.join(others)}.",
                "Keep one leaderboard per baseline.",
            )


def _rank_columns(rank: Rank | None) -> dict[str, Any]:
    if rank is None:
        return {"rank": None, "rank_interval": None}
    return {"rank": rank.rank, "rank_interval": [rank.low, rank.high]}


def _is_plain(name: str, value: object) -> bool:
    return name.endswith("interval") or not isinstance(value, (list, dict))


def _json_rows(path: Path) -> list[dict[str, Any]]:
    value = read_json(path)
    if isinstance(value, dict):
        if value.get("schema_version", 0) > SCHEMA_VERSION:
            raise DataError(f"{path} was written by a newer version.", "Upgrade alpaca-farm-flows.")
        value = value.get("models")
    if not isinstance(value, list) or not all(isinstance(row, dict) and "model" in row for row in value):
        raise DataError(
            f"{path} is not a leaderboard: it holds no list of objects with a 'model' each.",
            "Make one with `alpaca-farm leaderboard add BOARD.json ANNOTATIONS.json`.",
        )
    return [dict(row) for row in value]


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """AlpacaEval's leaderboard: the unnamed first column is the model."""
    header, table = read_table(path)
    place = header.index("model") if "model" in header else 0
    header[place] = "model"
    return [_csv_row(header, cells) for cells in table]


def _csv_row(header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, text in zip(header, cells, strict=True):
        row[name] = text if name == "model" else _value(name, text.strip())
    for name in [name for name in row if name.endswith("interval_low")]:
        low, high = row.pop(name), row.pop(name.removesuffix("low") + "high", None)
        row[name.removesuffix("_low")] = None if low is None or high is None else [low, high]
    return row


def _value(name: str, text: str) -> Any:
    if not text or text.lower() in ("nan", "none"):
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value):
        return None
    return int(value) if name in _COUNTS and value == int(value) else value


def _check_row(row: dict[str, Any], place: str) -> None:
    """Rates are percentages; a row with an error but no interval gets the normal one."""
    for name in ("win_rate", "standard_error", "length_controlled_winrate", "lc_standard_error"):
        value = row.get(name)
        if value is not None and (isinstance(value, (str, bool)) or not 0 <= value <= 100):
            raise DataError(f"{place}: column '{name}' holds {value!r}, not a percentage.", "Repair that row.")
    if row.get("interval") is None and row.get("win_rate") is not None and row.get("standard_error"):
        row["interval"] = list(normal(row["win_rate"] / 100, row["standard_error"] / 100))
