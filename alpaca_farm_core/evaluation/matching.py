"""Pairs a model's outputs with the reference's by the content of the instruction, never by position.

In: two lists of outputs. Out: parallel lists of matched outputs and counts of what found no partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Output, Pair


@dataclass(frozen=True)
class Matched:
    """Outputs for the same instructions, in the model's order.

    Attributes:
        model: Outputs of the model under evaluation.
        reference: The reference's outputs, parallel to `model`.
        n_unmatched_model: Instructions only the model answered.
        n_unmatched_reference: Instructions only the reference answered.
        n_repeated: Further outputs for an instruction already seen, on either side; not judged.
    """

    model: list[Output]
    reference: list[Output]
    n_unmatched_model: int
    n_unmatched_reference: int
    n_repeated: int

    def pairs(self) -> list[Pair]:
        """What the annotator sees: output_1 is the reference's answer, output_2 the model's."""
        return [pair_of(model, reference) for model, reference in zip(self.model, self.reference, strict=True)]


def match(outputs: Sequence[Output], reference: Sequence[Output]) -> Matched:
    """Match by instruction id; of several outputs for one instruction the first counts.

    Raises:
        DataError: the two have no instruction in common.
    """
    ours, theirs = _first_by_id(outputs), _first_by_id(reference)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise DataError(
            f"The outputs ({len(ours)} instructions) and the reference ({len(theirs)}) have no instruction in common.",
            "Decode both models on the same split of the same dataset.",
        )
    return Matched(
        model=[ours[key] for key in shared],
        reference=[theirs[key] for key in shared],
        n_unmatched_model=len(ours) - len(shared),
        n_unmatched_reference=len(theirs) - len(shared),
        n_repeated=len(outputs) - len(ours) + len(reference) - len(theirs),
    )


def generator_name(outputs: Sequence[Output], role: str) -> str:
    """The one name under which these outputs were made.

    Raises:
        DataError: no outputs, or outputs of several generators.
    """
    names = sorted({output.generator for output in outputs})
    if len(names) != 1:
        found = ", ".join(names[:5]) or "none"
        raise DataError(f"The {role} must come from one generator; found: {found}.", "Evaluate one model at a time.")
    return names[0]


def pair_of(model: Output, reference: Output) -> Pair:
    """Two answers to one instruction as an annotator sees them."""
    return Pair(
        instruction=model.instruction,
        input=model.input,
        output_1=reference.output,
        output_2=model.output,
        dataset=model.dataset or reference.dataset,
        finished_1=reference.finished,
        finished_2=model.finished,
    )


def _first_by_id(outputs: Sequence[Output]) -> dict[str, Output]:
    first: dict[str, Output] = {}
    for output in outputs:
        first.setdefault(output.id, output)
    return first
