"""What every judge of pairs offers, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from alpaca_farm_core.annotators.calls import CallStats
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.types import Annotation, Pair


class Annotator(Protocol):
    """Gives a preference in [1, 2] for pairs.

    Attributes:
        name: Stands in the `annotator` column of what it labels.
        stats: What its calls came to so far.
    """

    name: str
    stats: CallStats

    def annotate(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Annotation]:
        """Return one annotation per pair, in order, repeats included; a missing one has a state.

        Raises:
            AnnotationError: the judge cannot be used at all; answers bought before are kept.
            DataError: a pair that it cannot judge by its nature.
        """
