"""Reads a CSV file as a header and rows of texts; errors name the file and the row."""

from __future__ import annotations

import csv
from pathlib import Path

from alpaca_farm_core.errors import DataError


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header (names stripped, "" for an unnamed column) and rows; blank lines are skipped.

    Raises:
        DataError: the file is missing, is not UTF-8, has no row, or a row has more or fewer cells than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = [cells for cells in csv.reader(stream) if cells]
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except (UnicodeDecodeError, csv.Error, IsADirectoryError) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}.", "Write the file again.") from None
    if len(table) < 2:
        raise DataError(f"{path} holds no rows.", "Give a CSV file with a header and at least one line.")
    header = [name.strip() for name in table[0]]
    for number, cells in enumerate(table[1:], start=1):
        if len(cells) != len(header):
            raise DataError(
                f"{row_place(path, number)}: {len(cells)} cells under {len(header)} columns.", "Repair that line."
            )
    return header, table[1:]


def row_place(path: Path, number: int) -> str:
    """How errors name a row; `number` counts from 1, without the header."""
    return f"{path}, row {number} (from 1, without the header)"
