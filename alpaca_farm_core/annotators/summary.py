"""Figures of a set of annotations, and the limit on missing ones; shared by all who annotate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from alpaca_farm_core.errors import MissingAnnotationsError
from alpaca_farm_core.types import Annotation, AnnotationState

PASSPORTS = "passports.jsonl"
"""File of the passports beside a stage's annotations."""


def summarise(annotations: Sequence[Annotation]) -> dict[str, Any]:
    """Count states and measure the judge.

    Returns:
        n_total, n_missing, n_ties, n_noised and the count of each missing state; `mean_preference` over
        all labels; `parse_rate`, the share of judged pairs that got a label;
        `first_position_preference`, the share of judged pairs where the output shown first won (draws
        half, weighted labels by their weight); `consistency`, of the pairs judged in both orders the share with the
        same winner twice; `n_by_annotator` where several judged. A figure over nothing is left out.
    """
    states = Counter(annotation.state for annotation in annotations)
    metrics: dict[str, Any] = {
        "n_total": len(annotations),
        "n_missing": sum(annotation.preference is None for annotation in annotations),
        "n_ties": states["tie"],
        "n_noised": states["noised"],
        **{f"n_{state}": states[state] for state in ("unparsable", "refused", "failed")},
    }
    labels = [annotation.preference for annotation in annotations if annotation.preference is not None]
    passports = [annotation.passport for annotation in annotations if annotation.passport is not None]
    first = [passport.prefers_first for passport in passports if passport.prefers_first is not None]
    consistent = [passport.consistent for passport in passports if passport.consistent is not None]
    metrics |= _mean_of("mean_preference", labels)
    n_judged = len(annotations) - states["tie"] - states["noised"]
    if n_judged:
        metrics["parse_rate"] = states["ok"] / n_judged
    metrics |= _mean_of("first_position_preference", first) | _mean_of("consistency", consistent)
    judges = Counter(a.annotator for a in annotations if a.state not in ("tie", "noised"))
    if len(judges) > 1:
        metrics["n_by_annotator"] = dict(sorted(judges.items()))
    return metrics


def price_by_annotator(annotations: Sequence[Annotation]) -> dict[str, float]:
    """Add up what the answers behind the labels cost, in dollars, whenever they were paid; unknown prices count 0."""
    prices: dict[str, float] = {}
    for annotation in annotations:
        if annotation.passport is not None and annotation.passport.price_usd is not None:
            prices[annotation.annotator] = prices.get(annotation.annotator, 0.0) + annotation.passport.price_usd
    return dict(sorted(prices.items()))


def passport_rows(annotations: Sequence[Annotation]) -> list[dict[str, Any]]:
    """Rows of passports.jsonl: for each judgement of a model, its row (from 0), annotator and passport.

    They hold times, so they go into a file of their own that is not compared between runs.
    """
    return [
        {"row": row, "annotator": annotation.annotator, **annotation.passport.to_row()}
        for row, annotation in enumerate(annotations)
        if annotation.passport is not None
    ]


def _mean_of(name: str, values: Sequence[float]) -> dict[str, float]:
    return {name: sum(values) / len(values)} if values else {}


def refuse_too_many_missing(annotations: Sequence[Annotation], max_missing: float) -> int:
    """Return how many annotations are missing.

    Raises:
        MissingAnnotationsError: more than the share `max_missing`.
    """
    n_missing = sum(annotation.preference is None for annotation in annotations)
    if n_missing <= max_missing * len(annotations):
        return n_missing
    what, said, advice = explain_missing(annotations)
    raise MissingAnnotationsError(
        f"{what}; at most {max_missing:.1%} may be missing.{said}",
        _sentence([*advice, "or raise annotator.max_missing to go on without them"]),
    )


def explain_missing(annotations: Sequence[Annotation]) -> tuple[str, str, list[str]]:
    """Say how many pairs have no annotation and why, what the judge said in such a case, and what can be done."""
    missing = [annotation for annotation in annotations if annotation.preference is None]
    states = Counter(annotation.state for annotation in missing)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    example = next((a.explanation for a in missing if a.state != "failed" and a.explanation), "")
    said = f" The judge said for example: {example[:120]!r}." if example else ""
    return f"{len(missing)} of {len(annotations)} pairs have no annotation ({counts})", said, _advice(states)


def _advice(states: Counter[AnnotationState]) -> list[str]:
    advice = []
    if states["failed"]:
        advice.append("run the same command again: only the failed ones are asked, all other answers are kept")
    if states["unparsable"]:
        advice.append("the unparsable ones were answered and would be the same again: take another judge or prompt")
    if states["refused"]:
        advice.append("the refused ones would be refused again: take another judge")
    return advice


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."
