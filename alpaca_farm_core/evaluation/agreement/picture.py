"""Agreement as a picture: one dot with whiskers per figure, people's own agreement as a reference line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.evaluation.report.charts import Whisker, dot_whisker

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
    """Draw the figures of one or several judges (name → `measure_agreement`) as an SVG document."""
    rows = []
    ceilings = [report["ceiling"]["value"] for report in judges.values() if report["ceiling"]["value"] is not None]
    for key, text in LABELS.items():
        for index, (name, report) in enumerate(judges.items()):
            value = report[key]["value"]
            if value is None or (index and key.startswith(("reference", "ceiling"))):
                continue
            low, high = report[key]["interval"] or (value, value)
            of = f" ({name})" if len(judges) > 1 and not key.startswith(("reference", "ceiling")) else ""
            rows.append(Whisker(f"{text}{of}", 100 * value, 100 * low, 100 * high, f"n {report[key]['n']}", index))
    reference = (100 * ceilings[0], "people") if ceilings else (50.0, "chance")
    return dot_whisker(rows, "%", reference=reference, width=760, standalone=True)
