"""Anchors: pairs that a judge is asked about again and again, to see whether it is still the same judge.

In: pairs and an annotator. Out: a record file that grows by a round with each check, and the comparison of
the last round with the first. Each round asks anew, past the cache; a round that was cut off goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alpaca_farm_core.annotators.base import Annotator
from alpaca_farm_core.annotators.entry_points import annotate_pairs
from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.agreement.votes import category
from alpaca_farm_core.evaluation.intervals import Z95, mean_and_standard_error, wilson
from alpaca_farm_core.pipeline.progress import Progress

_PAIR = ("instruction", "input", "output_1", "output_2")
_LABEL = ("preference", "state", "annotator", "passport")
Build = Callable[[int], Annotator]
"""Draw number → the annotator, which then asks anew."""


def judge_anchors(
    record: Path,
    pairs: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    build: Build,
    progress: Progress | None = None,
    draw: int | None = None,
) -> dict[str, Any]:
    """Add a round to a record, and return the record.

    Args:
        record: JSON file; made by the first round.
        pairs: The anchors, for the first round; [] takes the record's.
        settings: The annotator's; later rounds must have the same.
        build: Makes the annotator for a draw.
        progress: Where to report.
        draw: Number of the new round's draw, where the caller keeps count; a round of it that is complete is
            not asked again.

    Raises:
        DataError: the record is of other pairs or settings, or there are no pairs.
        AnnotationError: the judge cannot be used; the next try goes on with this round.
    """
    known = _open(record, pairs, settings)
    rounds = known["rounds"]
    if not rounds or rounds[-1]["labels"] is not None:
        if draw is None:
            draw = 0 if not rounds else _new_draw(rounds)
        elif rounds and rounds[-1]["draw"] == draw:
            return known
        rounds.append({"draw": draw, "labels": None})
        write_json(record, known)
    rows = annotate_pairs(known["pairs"], build(rounds[-1]["draw"]), progress=progress)
    rounds[-1]["labels"] = [{name: row[name] for name in _LABEL} for row in rows]
    write_json(record, known)
    return known


def compare_rounds(record: Mapping[str, Any], tolerance: float = 0.1) -> dict[str, Any]:
    """Compare the last round with the first.

    A change is flagged where the server names another model or build, where the share of anchors that
    changed sides is surely (95 %, Wilson 1927) above `tolerance`, where the mean preference moved by
    more than chance (95 %, paired), or where more anchors are without label than before. A judge that is sampled
    at a temperature changes sides by itself: set the tolerance by a second round taken at once.

    Args:
        record: As of `judge_anchors`.
        tolerance: Share of changed sides that is no news.

    Returns:
        `n_rounds`, `n_compared`, `n_changed`, `changed_share`, `changed_interval`, `mean_shift`,
        `mean_shift_interval`, `before` and `after` (models and builds), `changed` (the anchors), `flags` (sentences).

    Raises:
        DataError: fewer than two rounds.
    """
    rounds = [one["labels"] for one in record["rounds"] if one["labels"] is not None]
    if len(rounds) < 2:
        raise DataError("There is one round only; nothing to compare it with.", "Judge the anchors again later.")
    first, last = rounds[0], rounds[-1]
    both = [
        (index, a["preference"], b["preference"])
        for index, (a, b) in enumerate(zip(first, last, strict=True))
        if a["preference"] is not None and b["preference"] is not None
    ]
    changed = [index for index, a, b in both if category(a) != category(b)]
    share = len(changed) / len(both) if both else None
    interval = None if share is None else [bound / 100 for bound in wilson(share, len(both))]
    mean, error = mean_and_standard_error([b - a for _, a, b in both])
    shift = None if mean is None or error is None else [mean - Z95 * error, mean + Z95 * error]
    before, after = _builds(first), _builds(last)
    flags = []
    if before != after:
        flags.append(f"the server now says {_said(after)}; it said {_said(before)}")
    if interval is not None and interval[0] > tolerance:
        flags.append(f"{len(changed)} of {len(both)} anchors changed sides, surely more than {tolerance:.0%}")
    if shift is not None and mean and (shift[0] > 0 or shift[1] < 0):
        flags.append(f"the mean preference moved by {mean:+.3f}")
    if _n_missing(last) > _n_missing(first):
        flags.append(f"{_n_missing(last)} anchors are without label; before it were {_n_missing(first)}")
    return {
        "n_rounds": len(rounds),
        "n_compared": len(both),
        "n_changed": len(changed),
        "changed_share": share,
        "changed_interval": interval,
        "mean_shift": mean,
        "mean_shift_interval": shift,
        "before": before,
        "after": after,
        "changed": [record["pairs"][index] for index in changed],
        "flags": flags,
    }


def _open(record: Path, pairs: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    wanted = [{name: pair.get(name) or "" for name in _PAIR} for pair in pairs]
    if not record.exists():
        if not wanted:
            raise DataError(f"There is no record {record} and there are no pairs to begin one.", "Name a pairs file.")
        return {"settings": dict(settings), "pairs": wanted, "rounds": []}
    known: dict[str, Any] = read_json(record)
    if not isinstance(known, dict) or not {"settings", "pairs", "rounds"} <= set(known):
        raise DataError(f"{record} is no record of anchors.", "Name another file for it.")
    if wanted and wanted != known["pairs"]:
        raise DataError(f"{record} is the record of other pairs.", "Begin another record, or leave the pairs file out.")
    if dict(settings) != known["settings"]:
        differing = sorted(key for key in settings if settings[key] != known["settings"].get(key))
        raise DataError(
            f"{record} was begun with other settings of the annotator ({', '.join(differing)}).",
            "Judge with the same ones, or begin another record.",
        )
    return known


def _new_draw(rounds: Sequence[Mapping[str, Any]]) -> int:
    """A draw that nobody has asked for yet: the time in milliseconds."""
    drawn: int = rounds[-1]["draw"]
    return max(drawn + 1, time.time_ns() // 1_000_000)


def _builds(labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Models and builds as the server named them, without repeats."""
    passports = [label["passport"] for label in labels if label["passport"]]
    return sorted({" ".join(filter(None, (one["served_model"], one["fingerprint"]))) for one in passports} - {""})


def _said(builds: Sequence[str]) -> str:
    return ", ".join(f"'{build}'" for build in builds) or "nothing"


def _n_missing(labels: Sequence[Mapping[str, Any]]) -> int:
    return sum(label["preference"] is None or not math.isfinite(label["preference"]) for label in labels)
