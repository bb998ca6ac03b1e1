"""Local data files (JSON array, JSON lines, Parquet) in, checked instructions out.

Every row is checked; the first bad one raises a DataError that names file, row and field. Knows nothing of
splits; duplicates pass.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Instruction

_FIELDS = ("instruction", "input", "output", "dataset")
_REPAIR = "Repair that row; a row has the texts 'instruction' and, where there are any, 'input' and 'output'."


def read_instruction_file(path: Path, default_dataset: str = "") -> list[Instruction]:
    """Read instructions.

    `input`, `output` and `dataset` may be missing or null; other fields are not read. A .json or .jsonl
    file may hold an array or one object a line.

    Args:
        path: The file; its suffix decides between Parquet and JSON.
        default_dataset: Source name of rows that have none of their own.

    Raises:
        DataError: missing, empty or malformed file; a row without an instruction, or with a field that
            is no text.
    """
    rows = [_check(place, row, default_dataset) for place, row in read_rows(path, _FIELDS)]
    if not rows:
        raise DataError(f"{path} holds no rows.", "Give a file with at least one instruction for each split.")
    return rows


def read_rows(path: Path, columns: Collection[str]) -> Iterable[tuple[str, Any]]:
    """Read rows unchecked, each with its place for errors; of a Parquet file only the `columns` named.

    Raises:
        DataError: missing or malformed file.
    """
    if not path.is_file():
        raise DataError(f"There is no data file {path}.", "Check the path; relative paths start at the current folder.")
    return _read_parquet(path, columns) if path.suffix.lower() == ".parquet" else _read_json(path)


def _read_parquet(path: Path, columns: Collection[str]) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        table = pq.read_table(path, columns=[name for name in schema.names if name in columns])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}.", "Write the file again.") from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row


def _read_json(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.", "Convert the file to UTF-8.") from None
    if text.lstrip().startswith("["):
        return _parse_array(path, text)
    return _parse_lines(path, text)


def _parse_array(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}.", "Repair that line."
        ) from None
    return [(f"{path}, row {number}", row) for number, row in enumerate(values, start=1)]


def _parse_lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    # Not splitlines(): texts may hold U+2028 and the like unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}, line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}: not valid JSON: {error.msg}.",
                "Repair that line; a file holds one JSON array, or one JSON object a line.",
            ) from None


def _check(place: str, row: Any, default_dataset: str) -> Instruction:
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, got {type(row).__name__}.", _REPAIR)
    if row.get("instruction") is None:
        raise DataError(
            f"{place}: field 'instruction' is missing (fields: {', '.join(map(str, row)) or 'none'}).", _REPAIR
        )
    texts = {name: "" if row.get(name) is None else row[name] for name in _FIELDS}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise DataError(f"{place}: field '{name}' is {type(text).__name__}, expected a text.", _REPAIR)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(f"{place}: field '{name}' holds half of a surrogate pair.", _REPAIR) from None
    if not texts["instruction"].strip():
        raise DataError(f"{place}: field 'instruction' is empty.", _REPAIR)
    return Instruction(**{**texts, "dataset": texts["dataset"] or default_dataset})
