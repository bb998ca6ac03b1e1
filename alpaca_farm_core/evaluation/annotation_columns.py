"""Reads the rows of an annotation file and hands them out field by field.

In: a JSON list or JSONL of objects with a `preference`. Out: rows, and columns of them. Built for a million
rows: a column at a time, no call per row. Errors name the file, the row and the field.
"""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from alpaca_farm_core.artifacts.files import read_json, read_jsonl
from alpaca_farm_core.errors import DataError

_PRICE = "preference_price_per_example"
_TEXT_OR_MISSING = frozenset({str, type(None)})


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of an annotation file; each is an object with a `preference`.

    Raises:
        DataError: missing or malformed file, no rows, a row that is no object or has no `preference`.
    """
    rows = list(read_jsonl(path)) if path.suffix == ".jsonl" else _read_list(path)
    if not rows:
        raise DataError(f"{path} holds no annotations.", "Annotate some pairs first: `alpaca-farm annotate`.")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "preference" not in row:
            raise _not_an_annotation(row, number, path)
    return rows


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


def texts(rows: Sequence[Mapping[str, Any]], name: str, path: Path) -> list[str | None]:
    """One field of every row; refuses what is neither text nor missing.

    Raises:
        DataError: naming the first row with something else.
    """
    values = column(rows, name)
    if set(map(type, values)) - _TEXT_OR_MISSING:
        number = next(n for n, value in enumerate(values) if not isinstance(value, (str, type(None))))
        raise DataError(
            f"{path}, row {number + 1} (from 1), field '{name}': expected text, got {type(values[number]).__name__}.",
            "Repair that row.",
        )
    return values


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """One field of every row; None where a row does not have it."""
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def prices(rows: Sequence[Mapping[str, Any]]) -> list[float | None] | None:
    """What each judgement cost in USD, as AlpacaEval writes it; None where no row says."""
    if not any(_PRICE in row for row in rows):
        return None
    found = (row.get(_PRICE) for row in rows)
    return [float(price) if isinstance(price, (int, float)) and price >= 0 else None for price in found]
