"""Labels bought elsewhere: annotation files of AlpacaFarm and AlpacaEval, kept beside our own answers.

In: `annotations*.json`. Out: for an annotator and a pair, the label that the file gave it, whichever way
round the pair was. Such files hold no prompts, so the labels are kept by what was judged, not by a call:
annotator, instruction with its input, and both outputs. Knows nothing of judges.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.artifacts.files import canonical_json, read_json, sha256_text
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Annotation, Pair

PREFIX = "label:"
IMPORTED = "imported"
_SCHEMA = 1
_NEEDED = ("instruction", "output_1", "output_2", "annotator")


def import_annotations(cache: CallCache, path: Path, annotator: str = "") -> Counter[str]:
    """Keep the labels of an annotation file.

    Args:
        cache: Where.
        path: A list of AlpacaEval's or AlpacaFarm's annotations.
        annotator: Name to keep them under; "" = the rows' own.

    Returns:
        Counts of rows: new, known (there already, with whatever label), missing (without a label).

    Raises:
        DataError: not such a file; the row is named.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path} holds no list of annotations.", "Point at an annotations*.json file.")
    counts: Counter[str] = Counter()
    labels: dict[str, Answer] = {}
    for number, row in enumerate(rows, start=1):
        answer = _answer(path, number, row)
        if answer is None:
            counts["missing"] += 1
            continue
        pair = Pair(row["instruction"], str(row.get("input") or ""), row["output_1"], row["output_2"])
        key, mirrored = label_key(annotator or str(row["annotator"]), pair)
        counts["known" if key in labels else "new"] += 1
        labels.setdefault(key, _mirror(answer) if mirrored else answer)
    known = cache.read(labels)
    cache.commit({key: answer for key, answer in labels.items() if key not in known})
    counts["known"] += len(known)
    counts["new"] -= len(known)
    return counts


def imported_labels(cache: CallCache, annotator: str, pairs: Sequence[Pair]) -> dict[Pair, Annotation]:
    """Return the imported labels of those pairs that have one."""
    if not cache.has_prefix(PREFIX):
        return {}
    keys = {pair: label_key(annotator, pair) for pair in pairs}
    found = cache.read({key for key, _ in keys.values()})
    labels = {}
    for pair, (key, mirrored) in keys.items():
        if key in found:
            preference = float(found[key].text)
            labels[pair] = Annotation(3 - preference if mirrored else preference, annotator, "ok", IMPORTED)
    return labels


def label_key(annotator: str, pair: Pair) -> tuple[str, bool]:
    """Return the key of a pair's label, and whether the pair is the mirror image of what the key stands for."""
    instruction = f"{pair.instruction}\n\n{pair.input}" if pair.input else pair.instruction
    mirrored = pair.output_1 > pair.output_2
    outputs = sorted([pair.output_1, pair.output_2])
    return PREFIX + sha256_text(canonical_json([_SCHEMA, annotator, instruction, *outputs])), mirrored


def _answer(path: Path, number: int, row: Any) -> Answer | None:
    missing = [name for name in _NEEDED if not isinstance(row, Mapping) or not isinstance(row.get(name), str)]
    if missing:
        raise DataError(f"{path}, row {number}: no '{missing[0]}'.", f"Annotations need {', '.join(_NEEDED)}.")
    preference = row.get("preference")
    if preference is None or preference == -1:
        return None
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        raise DataError(f"{path}, row {number}: preference is {preference!r}, not a number.", "Repair that row.")
    if math.isnan(preference):
        return None
    preference = 1.5 if preference == 0 else float(preference)  # AlpacaFarm writes a tie as 0
    if not 1 <= preference <= 2:
        raise DataError(f"{path}, row {number}: preference {preference} is outside of [1, 2].", "Repair that row.")
    price = row.get("preference_price_per_example") or row.get("price_per_example")
    paid = float(price) if isinstance(price, int | float) and math.isfinite(price) else None
    return Answer(repr(preference), finish_reason=IMPORTED, price_usd=paid)


def _mirror(answer: Answer) -> Answer:
    return Answer(repr(3 - float(answer.text)), finish_reason=IMPORTED, price_usd=answer.price_usd)
