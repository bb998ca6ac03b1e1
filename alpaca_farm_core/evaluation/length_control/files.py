"""Reads what AlpacaEval publishes beside its leaderboard: difficulties, gamed rows and fitted weights (CSV).

Instructions are identified by their text. A file that identifies them by row number (`index`) is of use
with the positional mode, or with the list of instructions whose order it follows. Errors name the file,
the line and the column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.annotation_file import content_key
from alpaca_farm_core.evaluation.csv_table import read_table, row_place

DIFFICULTY = "instruction_difficulty"
WEIGHT_COLUMNS = ("np.tanh(std_delta_len)", DIFFICULTY, "not_gamed_baseline.astype(float)")
"""Coefficients as AlpacaEval's weights files name them: length, difficulty, model."""


@dataclass(frozen=True)
class Difficulties:
    """How hard each instruction is for the baseline's rivals; larger means the model wins more.

    Attributes:
        by_key: Instruction's content → difficulty.
        by_index: Row number in the evaluation set → difficulty.
    """

    by_key: Mapping[str, float]
    by_index: Mapping[int, float]


@dataclass(frozen=True)
class GamedRows:
    """Rows of the baseline against itself prompted to be long or short; lists are parallel.

    Attributes:
        length_features: Length difference over its standard deviation, before the tanh.
        scores: s in [0, 1]; None missing.
        difficulties: γ of each row's instruction; None where the file does not say.
        keys: Content of the instruction; "" where unknown.
        indices: Row number in the evaluation set; None where unknown.
        indicators: 1 for a row of a model, 0 for a gamed one.
        n_models: Gamed baselines among them.
    """

    length_features: Sequence[float]
    scores: Sequence[float | None]
    difficulties: Sequence[float | None]
    keys: Sequence[str]
    indices: Sequence[int | None]
    indicators: Sequence[float]
    n_models: int


@dataclass(frozen=True)
class Weights:
    """Coefficients of one model: φ of length, ψ of difficulty, θ of the model."""

    length: float
    difficulty: float
    model: float


@dataclass(frozen=True)
class _Line:
    """One line of a CSV file, read field by field."""

    values: Mapping[str, str]
    place: str

    def number(self, name: str) -> float:
        value = self.optional(name)
        if value is None:
            raise DataError(f"{self.place}: column '{name}' is empty.", "Repair that line.")
        return value

    def optional(self, name: str) -> float | None:
        text = (self.values.get(name) or "").strip()
        if not text or text.lower() in ("nan", "none", "null"):
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{self.place}: column '{name}' holds {text!r}, not a finite number.", "Repair that line.")
        return value

    def index(self) -> int | None:
        value = self.optional("index")
        if value is not None and (value < 0 or value != int(value)):
            raise DataError(f"{self.place}: index {value:g} is no row number.", "Row numbers count from 0.")
        return None if value is None else int(value)

    def key(self) -> str:
        return content_key(self.values.get("instruction") or "", self.values.get("input"))


def read_difficulties(path: Path, order: Sequence[str] | None = None) -> Difficulties:
    """Read `index` or `instruction` (and `input`), and `instruction_difficulty`.

    Args:
        path: The CSV file; an unnamed first column is the index, as pandas writes it.
        order: Content of the instructions by row number, which gives an index its instruction.

    Raises:
        DataError: the file cannot be read, lacks a column, or gives one instruction two difficulties.
    """
    header, lines = _read(path)
    if DIFFICULTY not in header or not {"index", "instruction"} & set(header):
        raise DataError(
            f"{path} has the columns {', '.join(header)}.",
            f"Difficulties need '{DIFFICULTY}' and 'instruction' (or 'index').",
        )
    by_key: dict[str, float] = {}
    by_index: dict[int, float] = {}
    for number, line in enumerate(lines):
        value = line.number(DIFFICULTY)
        index = line.index() if "index" in header else number
        if index is not None and by_index.setdefault(index, value) != value:
            raise DataError(f"{line.place}: index {index} has two difficulties.", "Keep one of them.")
        key = line.key()
        if not key and index is not None and order is not None:
            key = _named(index, order, line.place)
        if key and by_key.setdefault(key, value) != value:
            raise DataError(f"{line.place}: {key[:60]!r} has two difficulties.", "Keep one of them.")
    return Difficulties(by_key, by_index)


def read_gamed(path: Path) -> GamedRows:
    """Read AlpacaEval's df_gamed columns: `std_delta_len`, `preference`, and what identifies the instruction.

    `preference` may be in [0, 1], as in that file, or in [1, 2] with 0 for a draw. `model` counts the gamed
    baselines (two where it is missing, as published).

    Raises:
        DataError: the file cannot be read, lacks a column, or holds a value off the scale.
    """
    header, rows = _read(path)
    missing = [name for name in ("std_delta_len", "preference") if name not in header]
    if missing or not {DIFFICULTY, "index", "instruction"} & set(header):
        raise DataError(
            f"{path} has the columns {', '.join(header)}.",
            f"Gamed rows need 'std_delta_len', 'preference', and '{DIFFICULTY}', 'instruction' or 'index'.",
        )
    preferences = [line.optional("preference") for line in rows]
    from_one = any(value is not None and value > 1 for value in preferences)
    return GamedRows(
        length_features=[line.number("std_delta_len") for line in rows],
        scores=[_score(value, from_one, line.place) for value, line in zip(preferences, rows, strict=True)],
        difficulties=[line.optional(DIFFICULTY) for line in rows],
        keys=[line.key() for line in rows],
        indices=[line.index() for line in rows],
        indicators=[_indicator(line) for line in rows],
        n_models=len({line.values["model"] for line in rows}) if "model" in header else 2,
    )


def read_weights(path: Path) -> dict[str, Weights]:
    """Read model → coefficients; the first column is the model, the others are known by name, else by order.

    Raises:
        DataError: the file cannot be read or has not three coefficients.
    """
    header, lines = _read(path)
    names = [name for name in WEIGHT_COLUMNS if name in header]
    if len(names) != len(WEIGHT_COLUMNS):
        names = list(header[1:])
    if len(names) != len(WEIGHT_COLUMNS):
        raise DataError(
            f"{path} has the columns {', '.join(header)}.",
            "Weights need the model's name, then its length, difficulty and model coefficients.",
        )
    return {line.values[header[0]]: Weights(*(line.number(name) for name in names)) for line in lines}


def _read(path: Path) -> tuple[list[str], list[_Line]]:
    """Header and lines; an unnamed first column is the index, as pandas writes it."""
    header, table = read_table(path)
    header = [name or "index" for name in header]
    return header, [
        _Line(dict(zip(header, cells, strict=True)), row_place(path, number))
        for number, cells in enumerate(table, start=1)
    ]


def _named(index: int, order: Sequence[str], place: str) -> str:
    if index >= len(order):
        raise DataError(
            f"{place}: index {index}, but the list of instructions has {len(order)} rows.",
            "Give the instructions in whose order the file was made.",
        )
    return order[index]


def _score(value: float | None, from_one: bool, place: str) -> float | None:
    if value is None:
        return None
    score = value if not from_one else 0.5 if value == 0 else value - 1
    if not 0 <= score <= 1:
        raise DataError(f"{place}: preference {value:g} is off the scale.", "Use [0, 1] or [1, 2] for the whole file.")
    return score


def _indicator(line: _Line) -> float:
    """`not_gamed_baseline`; rows of a file of gamed baselines are gamed where it does not say."""
    return float((line.values.get("not_gamed_baseline") or "").strip().lower() in ("true", "1", "1.0"))
