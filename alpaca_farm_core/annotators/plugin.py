"""An annotator from another package: a function of pairs in, annotations out.

The entry point (group `alpaca_farm.annotators`) is a function that takes a list of `Pair` and returns one
preference in [1, 2] per pair, None where it cannot tell. Ties of equal outputs and label noise are handled here, as
for every annotator; answers are not cached, as nothing says what they cost or depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alpaca_farm_core.annotators.calls import CallStats
from alpaca_farm_core.annotators.labelling import label_pairs
from alpaca_farm_core.errors import AnnotationError
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.plugins import ANNOTATORS, load_plugin
from alpaca_farm_core.types import Annotation, Pair


class PluginAnnotator:
    """Annotates by a function of an installed package.

    Args:
        name: Of the entry point.
        seed: Of the label noise.
        label_flip: Share of labels to flip in expectation.
    """

    def __init__(self, name: str, *, seed: int = 0, label_flip: float = 0.0) -> None:
        self.name = name
        self.stats = CallStats()
        self._function: Any = load_plugin(ANNOTATORS, name)
        self._seed, self._label_flip = seed, label_flip

    def annotate(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Annotation]:
        """Return one annotation per pair, in order; see `Annotator`.

        Raises:
            AnnotationError: the function returns something else than one preference in [1, 2] or None per pair.
        """
        return label_pairs(pairs, annotator=self.name, seed=self._seed, label_flip=self._label_flip, judge=self._judge)

    def _judge(self, pairs: Sequence[Pair]) -> list[Annotation]:
        found = list(self._function(list(pairs)))
        if len(found) != len(pairs):
            raise AnnotationError(
                f"The annotator '{self.name}' returned {len(found)} preferences for {len(pairs)} pairs.",
                "It must return one per pair, None where it cannot tell.",
            )
        return [self._annotation(preference) for preference in found]

    def _annotation(self, preference: Any) -> Annotation:
        if preference is None:
            return Annotation(None, self.name, state="failed")
        if isinstance(preference, bool) or not isinstance(preference, int | float) or not 1 <= preference <= 2:
            raise AnnotationError(
                f"The annotator '{self.name}' returned {preference!r}, not a preference in [1, 2].",
                "1 = output_1 is better, 2 = output_2, 1.5 = a tie, None = it cannot tell.",
            )
        return Annotation(float(preference), self.name)
