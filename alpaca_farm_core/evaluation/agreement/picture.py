"""Agreement as a picture: one dot with whiskers per figure, people's own agreement as a reference line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.evaluation.report.charts import Whisker, dot_whisker

PEOPLE = 5
"""Number of the colour of people's own figures."""
LABELS: dict[str, str] = {
    "accuracy": "agrees with the majority",
    "accuracy_without_ties": "… where neither ties",
    "accuracy_like_for_like": "… with one person less",
    "ceiling": "a person agrees with the others",
    "kappa": "Cohen's kappa",
    "bias": "bias",
    "variance": "variance",
    "reference_variance": "variance of people",
    "judge_prefers_first_shown": "prefers the first shown",
    "judge_prefers_output_1": "prefers output 1",
    "reference_prefers_output_1": "people prefer output 1",
    "judge_prefers_longer": "prefers the longer answer",
    "reference_prefers_longer": "people prefer the longer answer",
    "judge_prefers_lists": "prefers lists",
    "reference_prefers_lists": "people prefer lists",
}
"""Name of a figure → what people read, in the order shown."""


def agreement_svg(judges: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the figures of one or several judges (name → `measure_agreement`) as an SVG document.

    Several judges stand one under the other, named at the right.
    """
    rows: list[Whisker] = []
    ceilings = [report["ceiling"]["value"] for report in judges.values() if report["ceiling"]["value"] is not None]
    for key, text in LABELS.items():
        of_people = key.startswith(("reference", "ceiling"))
        for index, (name, report) in enumerate(list(judges.items())[: 1 if of_people else None]):
            value = report[key]["value"]
            if value is None:
                continue
            low, high = report[key]["interval"] or (value, value)
            who = f"{name}, " if len(judges) > 1 and not of_people else ""
            note = f"{who}n {report[key]['n']}"
            rows.append(Whisker(text, 100 * value, 100 * low, 100 * high, note, PEOPLE if of_people else index))
    reference = (100 * ceilings[0], "people") if ceilings else (50.0, "chance")
    return dot_whisker(rows, "%", reference=reference, width=820, longest=36, standalone=True)
