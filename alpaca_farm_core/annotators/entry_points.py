"""Annotate from Python: pairs, several samples of one model, or two models against each other.

In: lists of dictionaries or DataFrames. Out: the same kind, a row per comparison, order and repeats
kept; a comparison without label has a state that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpaca_farm_core.annotators.base import Annotator
from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.factory import build_annotator
from alpaca_farm_core.annotators.frames import Row, take_rows
from alpaca_farm_core.annotators.pairs import match_samples, pair_of
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.preference_files import labelled_pair
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.types import Annotation, Output

Judging = str | AnnotatorConfig | Annotator
UNMATCHED = "unmatched"


def annotate_pairs(
    rows: Any,
    annotator: Judging,
    *,
    calls: Path | None = None,
    execution: ExecutionConfig | None = None,
    progress: Progress | None = None,
) -> Any:
    """Annotate pairs of outputs.

    Args:
        rows: Objects with `instruction`, `output_1`, `output_2` and perhaps `input` and `dataset`;
            further keys are kept, an earlier annotation is replaced.
        annotator: A name, settings, or an annotator already built (then `calls` and `execution` are its own).
        calls: Folder of the call cache; None = the default store's.
        execution: Endpoint and concurrency.
        progress: Where to report.

    Returns:
        The rows, each with `preference` (1, 2, between them, or None when missing), `annotator`, `state`,
        `explanation` and `passport` (None for ties and noised labels, which no judge made).

    Raises:
        DataError: a row lacks a field or holds something else than text; row and field are named.
        AnnotationError: the judge cannot be used; answers bought before are kept.
    """
    taken, give_back = take_rows(rows)
    pairs = [labelled_pair(_unlabelled(row), f"Row {number}", False).pair for number, row in enumerate(taken, start=1)]
    annotations = _annotator(annotator, calls, execution).annotate(pairs, progress)
    return give_back([row | annotation_columns(a) for row, a in zip(taken, annotations, strict=True)])


def annotate_samples(
    rows: Any,
    annotator: Judging,
    *,
    pairs_per_instruction: int = 1,
    seed: int = 0,
    calls: Path | None = None,
    execution: ExecutionConfig | None = None,
    progress: Progress | None = None,
) -> Any:
    """Compare several samples for the same instruction with each other; see `pairs.match_samples`.

    Args:
        rows: Objects with `instruction`, perhaps `input`, and `output`: a list of samples, or one sample where an
            instruction has several rows.
        annotator: As in `annotate_pairs`.
        pairs_per_instruction: Most comparisons per instruction; each sample is used at most once.
        seed: Of the choice among more than two samples.
        calls: As in `annotate_pairs`.
        execution: As in `annotate_pairs`.
        progress: Where to report.

    Returns:
        Rows as of `annotate_pairs`, in the order in which the instructions first appear, with `sample_id_1` and
        `sample_id_2` (the places of the samples among those of their instruction, from 0).

    Raises:
        DataError: a malformed row, or an instruction with a single sample.
        AnnotationError: the judge cannot be used; answers bought before are kept.
    """
    taken, give_back = take_rows(rows)
    if not taken:
        return give_back([])
    samples: list[Output] = []
    counts: dict[tuple[str, str], int] = {}
    for number, row in enumerate(taken, start=1):
        texts = row["output"] if isinstance(row.get("output"), list) else None
        if texts == []:
            raise DataError(f"Row {number}: 'output' is an empty list.", "Sample at least two answers per instruction.")
        for one in [row] if texts is None else [row | {"output": text} for text in texts]:
            output = _output(one, f"Row {number}")
            place = (output.instruction, output.input)
            samples.append(_numbered(output, counts.get(place, 0)))
            counts[place] = counts.get(place, 0) + 1
    matches = match_samples(samples, pairs_per_instruction, seed)
    made = _annotator(annotator, calls, execution)
    annotations = made.annotate([pair_of(*match) for match in matches], progress)
    return give_back(
        [
            _compared(first, second)
            | {"sample_id_1": first.sample_id, "sample_id_2": second.sample_id}
            | annotation_columns(annotation)
            for (first, second), annotation in zip(matches, annotations, strict=True)
        ]
    )


def annotate_head2head(
    outputs_1: Any,
    outputs_2: Any,
    annotator: Judging,
    *,
    calls: Path | None = None,
    execution: ExecutionConfig | None = None,
    progress: Progress | None = None,
) -> Any:
    """Compare two models' outputs instruction by instruction (matched by content, never by position).

    Args:
        outputs_1: The baseline's: objects with `instruction`, perhaps `input`, `generator`, and `output`.
        outputs_2: The model's.
        annotator: As in `annotate_pairs`.
        calls: As in `annotate_pairs`.
        execution: As in `annotate_pairs`.
        progress: Where to report.

    Returns:
        Rows as of `annotate_pairs` in the order of `outputs_2`, `output_1` being the baseline's, with `generator_1`
        and `generator_2`. The k-th of several outputs for one instruction meets the other model's k-th. An output
        without a partner keeps a row, in state "unmatched"; the baseline's come last.

    Raises:
        DataError: a malformed row, or no instruction in common.
        AnnotationError: the judge cannot be used; answers bought before are kept.
    """
    (first_rows, _), (second_rows, give_back) = take_rows(outputs_1, "outputs_1"), take_rows(outputs_2, "outputs_2")
    baseline = [_output(row, f"Row {number} of outputs_1") for number, row in enumerate(first_rows, start=1)]
    model = [_output(row, f"Row {number} of outputs_2") for number, row in enumerate(second_rows, start=1)]
    matches = _match(baseline, model)
    paired = [(first, second) for first, second in matches if first is not None and second is not None]
    if matches and not paired:
        raise DataError("The two lists of outputs have no instruction in common.", "Give outputs for the same ones.")
    judge = _annotator(annotator, calls, execution)
    labels = iter(judge.annotate([pair_of(*match) for match in paired], progress))
    made = []
    for first, second in matches:
        found = next(labels) if first is not None and second is not None else None
        made.append(_compared(first, second) | (annotation_columns(found) if found else _without_partner(judge.name)))
    return give_back(made)


def annotation_columns(annotation: Annotation) -> Row:
    """What an annotation adds to a row."""
    return {
        "preference": annotation.preference,
        "annotator": annotation.annotator,
        "state": annotation.state,
        "explanation": annotation.explanation,
        "passport": annotation.passport.to_row() if annotation.passport else None,
    }


def _annotator(annotator: Judging, calls: Path | None, execution: ExecutionConfig | None) -> Annotator:
    if isinstance(annotator, str):
        annotator = AnnotatorConfig.build({"name": annotator}, at="annotator")
    if isinstance(annotator, AnnotatorConfig):
        return build_annotator(annotator, calls or Store().calls, execution or ExecutionConfig())
    return annotator


def _unlabelled(row: Row) -> Row:
    """The row without an earlier annotation, which is to be replaced."""
    return {key: value for key, value in row.items() if key not in ("preference", "label", "annotator")}


def _output(row: Row, place: str) -> Output:
    """Read one output by the rule of `preference_files`."""
    values = {**_unlabelled(row), "output_1": row.get("output"), "output_2": ""}
    if "output" not in row:
        raise DataError(f"{place} has no 'output'.", "Every row needs 'instruction' and 'output'.")
    try:
        pair = labelled_pair(values, place, labelled=False).pair
    except DataError as error:
        raise DataError(error.headline.replace("'output_1'", "'output'"), error.next_action) from None
    return Output(pair.instruction, pair.input, pair.output_1, str(row.get("generator") or ""), pair.dataset)


def _numbered(output: Output, sample_id: int) -> Output:
    return Output(output.instruction, output.input, output.output, output.generator, output.dataset, sample_id)


def _match(baseline: Sequence[Output], model: Sequence[Output]) -> list[tuple[Output | None, Output | None]]:
    waiting: dict[str, list[Output]] = {}
    for output in reversed(baseline):
        waiting.setdefault(output.id, []).append(output)
    matches: list[tuple[Output | None, Output | None]] = []
    for output in model:
        partners = waiting.get(output.id)
        matches.append((partners.pop() if partners else None, output))
    left = {id(output) for partners in waiting.values() for output in partners}
    return matches + [(output, None) for output in baseline if id(output) in left]


def _compared(first: Output | None, second: Output | None) -> Row:
    known = second or first
    assert known is not None
    return {
        "instruction": known.instruction,
        "input": known.input,
        "output_1": first.output if first else None,
        "output_2": second.output if second else None,
        "generator_1": first.generator if first else None,
        "generator_2": second.generator if second else None,
        "dataset": known.dataset,
    }


def _without_partner(annotator: str) -> Row:
    explanation = "the other model has no output for this instruction"
    missing = {"preference": None, "annotator": annotator, "state": UNMATCHED}
    return {**missing, "explanation": explanation, "passport": None}
