"""What the judge said beyond one win rate: by the answers' lengths, by dataset, and what got no judgement.

In: an evaluation artifact. Out: plain data for the page. Knows nothing of gold utilities.
"""

from __future__ import annotations

from typing import Any

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.evaluation.files import ANNOTATIONS
from alpaca_farm_core.evaluation.scoring import breakdown
from alpaca_farm_core.evaluation.win_rate import to_score


def judged_figures(evaluation: Artifact) -> dict[str, Any]:
    """Figures of an evaluation's annotations.

    Returns:
        `length_points`: per annotated pair [characters that the model's answer is longer, score in [0, 1]];
        `groups`: win rate by dataset, none where there is only one.
    """
    rows = read_json(evaluation.path / ANNOTATIONS)
    scores = [to_score(row["preference"], number, ANNOTATIONS) for number, row in enumerate(rows)]
    groups = breakdown([row["dataset"] or "" for row in rows], scores)
    return {
        "length_points": [
            [len(row["output_2"]) - len(row["output_1"]), score]
            for row, score in zip(rows, scores, strict=True)
            if score is not None
        ],
        "groups": groups if len(groups) > 1 else [],
    }
