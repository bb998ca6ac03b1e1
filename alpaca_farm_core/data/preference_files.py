"""Annotated or unannotated pairs from files that other people wrote, by a rule on fields, never on file names.

In: a JSON array, JSON lines or Parquet file. Out: checked pairs with their labels. The rule:
- the instruction is `instruction`, with `input` as its context; a row without `instruction` has it in
  `input` (LLMBar);
- the answers are `output_1` and `output_2`;
- the label is `preference`, or `label` where a row has no `preference`: 1 to 2, 0 or 1.5 a tie, null none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca_farm_core.data.files import read_rows
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Pair

_TEXTS = ("instruction", "input", "output_1", "output_2", "dataset")
_LABELS = ("preference", "label")
_NEEDED = "A row has the texts 'instruction', 'output_1' and 'output_2' and, where there is one, 'input'."


@dataclass(frozen=True)
class LabelledPair:
    """A pair of a file.

    Attributes:
        pair: What was compared.
        preference: In [1, 2]; None without a label.
        annotator: Who labelled it, by the row; "" when it does not say.
        row: All the row's fields.
    """

    pair: Pair
    preference: float | None
    annotator: str
    row: Mapping[str, Any]


def read_labelled_pairs(path: Path, labelled: bool = True) -> list[LabelledPair]:
    """Read a file of pairs.

    Args:
        path: The file.
        labelled: Whether every row must have a label field (its value may still be null).

    Raises:
        DataError: missing, empty or malformed file; file, row and field are named.
    """
    rows = [labelled_pair(row, place, labelled) for place, row in read_rows(path, (*_TEXTS, *_LABELS, "annotator"))]
    if not rows:
        raise DataError(f"{path} holds no rows.", "Give a file with at least one pair.")
    return rows


def labelled_pair(row: Any, place: str, labelled: bool = True) -> LabelledPair:
    """Read one row by the rule above; `place` is named in errors.

    Raises:
        DataError: a field is missing or holds something else than it should.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: expected an object, got {type(row).__name__}.", _NEEDED)
    fields = dict(row)
    if fields.get("instruction") is None and fields.get("input") is not None:
        fields |= {"instruction": fields["input"], "input": ""}
    instruction, input, output_1, output_2, dataset = (_text(fields, name, place) for name in _TEXTS)
    pair = Pair(instruction, input, output_1, output_2, dataset)
    annotator = fields.get("annotator")
    return LabelledPair(pair, _label(fields, place, labelled), "" if annotator is None else str(annotator), row)


def _text(fields: Mapping[str, Any], name: str, place: str) -> str:
    optional = name in ("input", "dataset")
    value = fields.get(name)
    if value is None and optional:
        return ""
    if name not in fields:
        raise DataError(f"{place}: no '{name}' (fields: {', '.join(map(str, fields)) or 'none'}).", _NEEDED)
    if not isinstance(value, str):
        raise DataError(f"{place}: '{name}' is {value!r}, not text.", "Repair that row.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{place}: '{name}' is not valid Unicode.", "Repair that row.") from None
    return value


def _label(fields: Mapping[str, Any], place: str, labelled: bool) -> float | None:
    name = next((name for name in _LABELS if name in fields), None)
    if name is None:
        if labelled:
            raise DataError(
                f"{place}: no 'preference' or 'label' (fields: {', '.join(map(str, fields))}).",
                "A label is 1 or 2, a number between, 0 or 1.5 for a tie, or null where there is none.",
            )
        return None
    value = fields[name]
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0:
            return 1.5
        if 1 <= value <= 2:
            return float(value)
    raise DataError(
        f"{place}: {name} {value!r} is no label.", "Use 1 or 2, a number between, 0 or 1.5 for a tie, or null."
    )
