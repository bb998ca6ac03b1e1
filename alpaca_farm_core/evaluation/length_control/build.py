"""From the files a user names to a `LengthControl`; light until the files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alpaca_farm_core.data.files import read_instruction_file
from alpaca_farm_core.evaluation.annotation_file import POOL, content_key, read_annotations
from alpaca_farm_core.evaluation.length_control.control import LengthControl
from alpaca_farm_core.evaluation.length_control.files import (
    GamedRows,
    read_difficulties,
    read_gamed,
    read_weights,
)
from alpaca_farm_core.evaluation.length_control.glm import length_feature
from alpaca_farm_core.evaluation.win_rate import to_score


def length_control_from_files(
    difficulty: Path | None = None,
    gamed: Path | None = None,
    weights: Path | None = None,
    instructions: Path | None = None,
    positional: bool = False,
    unknown: Literal["refuse", "leave-out"] = "refuse",
    estimate: bool = False,
) -> LengthControl:
    """Read the files.

    Args:
        difficulty: CSV of difficulties.
        gamed: CSV in df_gamed's columns, or annotations (.json, .jsonl) of the gamed baselines.
        weights: CSV of fitted coefficients.
        instructions: Data file in whose order row numbers count.
        positional: See `LengthControl`.
        unknown: See `LengthControl`.
        estimate: See `LengthControl`.

    Raises:
        DataError: a file cannot be read.
        UsageError: settings that contradict each other.
    """
    order = None
    if instructions is not None:
        order = [content_key(row.instruction, row.input) for row in read_instruction_file(instructions)]
    return LengthControl(
        difficulties=read_difficulties(difficulty, order) if difficulty else None,
        gamed=_read_gamed(gamed) if gamed else None,
        weights=read_weights(weights) if weights else None,
        positional=positional,
        unknown=unknown,
        estimate=estimate,
    )


def _read_gamed(path: Path) -> GamedRows:
    if path.suffix in (".json", ".jsonl"):
        return gamed_from_annotations(path)
    return read_gamed(path)


def gamed_from_annotations(path: Path) -> GamedRows:
    """Gamed rows from annotations of the baseline, prompted to be long or short, against the plain baseline.

    Raises:
        DataError: not an annotation file, or a row without both outputs.
    """
    features: list[float] = []
    scores: list[float | None] = []
    keys: list[str] = []
    indices: list[int | None] = []
    groups = read_annotations(path, POOL)
    for group in groups:
        lengths = group.both_lengths()
        features += length_feature(*lengths).tolist()
        numbered = zip(group.row_numbers, group.preferences, strict=True)
        scores += [to_score(value, row, group.source) for row, value in numbered]
        keys += group.keys
        indices += range(len(group.preferences))
    return GamedRows(features, scores, [None] * len(keys), keys, indices, [0.0] * len(keys), len(groups))
