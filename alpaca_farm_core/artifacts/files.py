"""Files written so that a reader never sees half of one, and read with errors that name the place.

JSON is canonical (sorted keys, UTF-8, no NaN), so equal content gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alpaca_farm_core.errors import DataError

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def canonical_json(value: Any, indent: int | None = None) -> str:
    """Return the one JSON text of `value`; NaN and infinity raise ValueError."""
    if indent is None:
        return _encode(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent)


def sha256_text(text: str) -> str:
    """Hex sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text_atomic(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers killed in the middle left behind; one that still writes must not be about."""
    for path in folder.rglob(".*.tmp"):
        path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write canonical, indented JSON atomically."""
    write_text_atomic(path, canonical_json(value, indent=1) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one canonical JSON object a line, atomically."""
    write_text_atomic(path, "".join(canonical_json(row) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.", "Repair the file or point at another one.") from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file; blank lines are skipped.

    Raises:
        DataError: the file is missing, or a line is not a JSON object (the line is named).
    """
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _parse_line(path, number, line)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}.", "Convert the file to UTF-8.") from None


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not valid JSON: {error.msg}.", "Repair that line.") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: expected an object, got {type(row).__name__}.", "Repair that line.")
    return row


def fsync_folder(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Make every file and folder under `root` durable."""
    for folder, _, names in os.walk(root):
        for name in names:
            with (Path(folder) / name).open("rb") as stream, contextlib.suppress(OSError):
                os.fsync(stream.fileno())
        fsync_folder(Path(folder))
