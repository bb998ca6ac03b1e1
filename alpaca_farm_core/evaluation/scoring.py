"""Scores annotation files: one row of figures per model, with the intervals and tables asked for.

In: files in AlpacaEval's schema, ours or anybody's. Out: rows for a table or JSON, rates in percent.
Makes no call and needs no network. Nothing is left out without a count in the row. Light: numpy and
scikit-learn load only for what needs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation.annotation_file import ModelAnnotations, read_annotations
from alpaca_farm_core.evaluation.intervals import normal, wilson
from alpaca_farm_core.evaluation.paired import PairedComparison, compare, scores_by_instruction
from alpaca_farm_core.evaluation.power import power, spread
from alpaca_farm_core.evaluation.win_rate import IntervalMethod, to_scores, win_rate_of_scores

if TYPE_CHECKING:
    from alpaca_farm_core.evaluation.length_control.control import LengthControl

Cluster = Literal["instruction", "dataset"]


@dataclass(frozen=True)
class ScoreOptions:
    """How to score.

    Attributes:
        annotator: One annotator's name, `pool`, `each`, or empty; see `read_annotations`.
        interval: Method of the interval of the win rate; None takes the one that fits.
        cluster: Rows of one cluster are not independent: widens intervals.
        bootstrap_samples: Resamples of the bootstrap.
        seed: Of the bootstrap.
        by: Field whose values get a table row each.
        power: Also say what so many instructions would give; 0 = do not.
        invalid_as_missing: Count preferences off the scale (AlpacaEval drops them) as missing instead of refusing.
        drop_duplicates: Count only the first of equal rows; AlpacaEval counts all.
        length_control: Also the length-controlled win rate.
    """

    annotator: str = ""
    interval: IntervalMethod | None = None
    cluster: Cluster | None = None
    bootstrap_samples: int = 2000
    seed: int = 0
    by: str = ""
    power: int = 0
    invalid_as_missing: bool = False
    drop_duplicates: bool = False
    length_control: LengthControl | None = None

    def __post_init__(self) -> None:
        """Refuse an interval that knows no clusters where clusters were asked for."""
        if self.interval == "wilson" and self.cluster is not None:
            raise UsageError(
                "Wilson's interval knows no clusters.", "With --cluster take --interval normal or bootstrap."
            )


@dataclass(frozen=True)
class ScoredModel:
    """A model's rows, their scores, and its figures.

    Attributes:
        annotations: Its rows.
        scores: s in [0, 1] per row; None missing.
        row: Its figures; rates in percent.
    """

    annotations: ModelAnnotations
    scores: Sequence[float | None]
    row: dict[str, Any]

    @property
    def by_instruction(self) -> dict[str, float]:
        """Mean score per instruction, by content."""
        return scores_by_instruction(self.annotations.keys, self.scores)


def score_annotations(*paths: Path, options: ScoreOptions | None = None) -> list[dict[str, Any]]:
    """Score every model of some annotation files, best first.

    Returns one object per model (`generator_2`; without it the file's or folder's name): `model`,
    AlpacaEval's columns, our intervals, and the counts of duplicates, invalid and left-out rows.
    The two length-controlled columns are None unless asked for.

    Raises:
        DataError: a file is missing, malformed, empty or not an annotation file, or a model is in two.
    """
    return [scored.row for scored in score_files(paths, options or ScoreOptions())]


def score_files(paths: Sequence[Path], options: ScoreOptions) -> list[ScoredModel]:
    """Score every model of some files, best first; errors as in `score_annotations`."""
    groups = [group for path in paths for group in read_annotations(path, options.annotator, options.by)]
    _refuse_one_model_twice(groups)
    cleaned = [_clean(group, options) for group in groups]
    if options.length_control is not None:
        options.length_control.prepare([(group, scores) for group, scores, _ in cleaned])
    scored = [ScoredModel(group, scores, _row(group, scores, left_out, options)) for group, scores, left_out in cleaned]
    return sorted(scored, key=_best_first)


def compare_models(scored: Sequence[ScoredModel], model: str, other: str) -> PairedComparison:
    """Compare two of the scored models on the instructions they share.

    Raises:
        DataError: one is not there, they have other baselines, or they share no instruction.
    """
    first, second = _find(scored, model), _find(scored, other)
    baselines = [one.annotations.baseline for one in (first, second)]
    if baselines[0] != baselines[1]:
        raise DataError(
            f"{model} was compared with {baselines[0]} and {other} with {baselines[1]}.",
            "Compare models that were evaluated against the same baseline.",
        )
    return compare(model, first.by_instruction, other, second.by_instruction)


def _find(scored: Sequence[ScoredModel], model: str) -> ScoredModel:
    for one in scored:
        if one.annotations.model == model:
            return one
    known = ", ".join(one.annotations.model for one in scored)
    raise DataError(f"There are no annotations of the model '{model}'.", f"There are some of: {known}.")


def _best_first(one: ScoredModel) -> tuple[bool, float, str]:
    rate = one.row["win_rate"]
    return rate is None, -(rate or 0.0), one.row["model"]


def _refuse_one_model_twice(groups: Sequence[ModelAnnotations]) -> None:
    seen: dict[str, str] = {}
    for group in groups:
        if group.model in seen:
            raise DataError(
                f"The model {group.model} is in {seen[group.model]} and in {group.source}.",
                "Score one of the files, or rename generator_2 in one of them.",
            )
        seen[group.model] = group.source


def _clean(
    group: ModelAnnotations, options: ScoreOptions
) -> tuple[ModelAnnotations, Sequence[float | None], dict[str, int]]:
    """Scores of a group and how many rows became missing or went, by reason."""
    n_invalid = n_dropped = 0
    if options.drop_duplicates and group.n_duplicates:
        kept = group.without_duplicates()
        n_dropped = len(group.preferences) - len(kept.preferences)
        group = kept
    if options.invalid_as_missing:
        valid = [value if _on_scale(value) else None for value in group.preferences]
        n_invalid = valid.count(None) - list(group.preferences).count(None)
        group = replace(group, preferences=valid)
    scores = to_scores(group.preferences, group.row_numbers, group.source)
    return group, scores, {"n_invalid": n_invalid, "n_duplicates_dropped": n_dropped}


def _on_scale(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (value == 0 or 1 <= value <= 2)


def _row(
    group: ModelAnnotations, scores: Sequence[float | None], left_out: Mapping[str, int], options: ScoreOptions
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": group.model,
        **win_rate_of_scores(scores, group.lengths).to_row(),
        "length_controlled_winrate": None,
        "lc_standard_error": None,
        "n_duplicates": group.n_duplicates,
        "n_other_annotators": group.n_other_annotators,
        **left_out,
        "baseline": group.baseline,
        "annotators": group.annotators,
        "cost_usd": None if group.prices is None else math.fsum(price or 0.0 for price in group.prices),
    }
    row |= _asked_interval(group, scores, options)
    if options.length_control is not None:
        row |= options.length_control.score(group, scores, row["win_rate"]).to_row()
    if options.by:
        row["by"] = {"field": options.by, "groups": breakdown(group.groups or [], scores)}
    if options.power:
        row["power"] = power(options.power, spread(scores))
    return row


def breakdown(names: Sequence[str], scores: Sequence[float | None]) -> list[dict[str, Any]]:
    """Win rate of each group of rows, by name; `group` is the name."""
    groups: dict[str, list[float | None]] = {}
    for name, score in zip(names, scores, strict=True):
        groups.setdefault(name, []).append(score)
    return [{"group": name, **win_rate_of_scores(groups[name]).to_row()} for name in sorted(groups)]


def _asked_interval(group: ModelAnnotations, scores: Sequence[float | None], options: ScoreOptions) -> dict[str, Any]:
    """Interval by the method and clusters asked for; nothing where none was asked for or nothing is annotated."""
    if options.interval is None and options.cluster is None:
        return {}
    kept = [score for score in scores if score is not None]
    if not kept:
        return {}
    if options.interval == "wilson":
        share = sum(kept) / len(kept)
        return {"interval": list(wilson(share, len(kept))), "interval_method": "wilson"}
    return _clustered(kept, _cluster_names(group, scores, options.cluster), options)


def _clustered(kept: Sequence[float], names: Sequence[str] | None, options: ScoreOptions) -> dict[str, Any]:
    from alpaca_farm_core.evaluation.clustered import Clusters

    clusters = Clusters.of(kept, names)
    error = clusters.standard_error()
    found: dict[str, Any] = {}
    if names is not None:
        found = {"n_clusters": clusters.n, "clustered_standard_error": None if error is None else 100 * error}
    if error is None:  # one cluster says nothing of the spread between clusters
        return {**found, "interval": None, "interval_method": None}
    if options.interval == "bootstrap":
        interval = clusters.bootstrap(options.bootstrap_samples, options.seed)
    else:
        interval = normal(clusters.mean, error)
    return {**found, "interval": interval and list(interval), "interval_method": options.interval or "normal"}


def _cluster_names(
    group: ModelAnnotations, scores: Sequence[float | None], cluster: Cluster | None
) -> Sequence[str] | None:
    if cluster is None:
        return None
    names = group.keys if cluster == "instruction" else [name or "" for name in group.texts["dataset"]]
    return [name for name, score in zip(names, scores, strict=True) if score is not None]
