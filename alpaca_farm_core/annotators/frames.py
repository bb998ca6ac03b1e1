"""Rows as people hold them: lists of dictionaries or pandas DataFrames; pandas is imported only for the latter.

In: either. Out: dictionaries, and a function that gives results back in the caller's form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alpaca_farm_core.errors import DataError

Row = dict[str, Any]
GiveBack = Callable[[list[Row]], Any]


def take_rows(data: Any, what: str = "rows") -> tuple[list[Row], GiveBack]:
    """Return rows and the way back.

    A frame's result is a frame with a fresh index, or the frame's own index where it has as many rows. Cells
    that hold NaN or NA are taken as they are where a text is expected (and refused there), as None elsewhere.

    Args:
        data: A list of dictionaries, or a DataFrame.
        what: Name of the argument, for errors.

    Raises:
        DataError: neither of the two, or rows that are no dictionaries.
    """
    if is_frame(data):
        return _from_frame(data)
    if isinstance(data, (str, bytes, Mapping)) or not isinstance(data, Sequence):
        raise DataError(
            f"{what} is a {type(data).__name__}, neither a list of dictionaries nor a DataFrame.",
            "Give one dictionary per row.",
        )
    for number, row in enumerate(data, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"Row {number} of {what} is a {type(row).__name__}, not a dictionary.", "Repair that row.")
    return [dict(row) for row in data], lambda rows: rows


def is_frame(data: Any) -> bool:
    """Whether data is a pandas DataFrame; does not import pandas."""
    return type(data).__module__.partition(".")[0] == "pandas" and type(data).__name__ == "DataFrame"


def _from_frame(frame: Any) -> tuple[list[Row], GiveBack]:
    import pandas as pd

    def give_back(rows: list[Row]) -> Any:
        index = frame.index if len(rows) == len(frame) else None
        columns = list(frame.columns) if not rows else None
        return pd.DataFrame(rows, index=index, columns=columns)

    optional = [name for name in ("input", "dataset") if name in frame.columns]
    rows = frame.to_dict("records")
    for row in rows:
        for name in optional:
            if pd.api.types.is_scalar(row[name]) and pd.isna(row[name]):
                row[name] = None
    return rows, give_back
