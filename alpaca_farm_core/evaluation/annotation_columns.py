"""Reads an annotation file and hands it out field by field.

In: a JSON list or JSONL of objects with a `preference`. Out: one column per field. Built for a million rows: a
few thousand at a time, so that each row is read, and let go, while it is near the processor. Errors name the
file, the row and the field.
"""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from alpaca_farm_core.artifacts.files import read_json, read_jsonl
from alpaca_farm_core.errors import DataError

PREFERENCE = "preference"
_TEXT_OR_MISSING = frozenset({str, type(None)})
_AT_A_TIME = 2_000


class Columns(NamedTuple):
    """The file's columns.

    Attributes:
        values: Field → one value per row; None where a row does not have the field.
        fields: Fields of the first row.
    """

    values: dict[str, list[Any]]
    fields: tuple[str, ...]


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """Read `preference` and the fields `names` of every row.

    Raises:
        DataError: missing or malformed file, no rows, a row that is no object or has no `preference`.
    """
    rows = list(read_jsonl(path)) if path.suffix == ".jsonl" else _read_list(path)
    if not rows:
        raise DataError(f"{path} holds no annotations.", "Annotate some pairs first: `alpaca-farm annotate`.")
    fields = tuple(map(str, rows[0])) if isinstance(rows[0], Mapping) else ()
    values: dict[str, list[Any]] = {name: [] for name in (PREFERENCE, *names)}
    for start in range(0, len(rows), _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        rows[start : start + _AT_A_TIME] = [None] * len(part)
        _refuse_others(part, start, path)
        for name, column in values.items():
            column += _column(part, name)
    return Columns(values, fields)


def _refuse_others(rows: Sequence[Any], start: int, path: Path) -> None:
    for number, row in enumerate(rows, start):
        if not isinstance(row, dict) or PREFERENCE not in row:
            raise _not_an_annotation(row, number, path)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _read_list(path: Path) -> list[Any]:
    try:
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            rows = orjson.loads(view)
    except (ValueError, OSError):
        rows = read_json(path)  # reads NaN, and says what is wrong and where
    if not isinstance(rows, list):
        raise DataError(
            f"{path} holds a JSON {type(rows).__name__}, not a list of annotations.",
            "Give AlpacaEval's annotations.json: a list of objects with a 'preference' each.",
        )
    return rows


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Millions of new objects without one cycle: looking for cycles would take longer than reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _not_an_annotation(row: object, number: int, path: Path) -> DataError:
    place = f"{path}, row {number + 1} (from 1)"
    if not isinstance(row, Mapping):
        return DataError(f"{place}: expected an object, got {type(row).__name__}.", "Repair that row.")
    fields = ", ".join(map(str, row)) or "none"
    return DataError(
        f"{place}: there is no field 'preference' (fields: {fields}).",
        "Give a file of annotations; a missing annotation is written as null.",
    )


def refuse_other_than_text(values: Sequence[object], name: str, path: Path) -> None:
    """Check that a field holds nothing but text, or nothing.

    Raises:
        DataError: naming the first row with something else.
    """
    if not set(map(type, values)) <= _TEXT_OR_MISSING:
        number = next(n for n, value in enumerate(values) if not isinstance(value, (str, type(None))))
        raise DataError(
            f"{path}, row {number + 1} (from 1), field '{name}': expected text, got {type(values[number]).__name__}.",
            "Repair that row.",
        )
