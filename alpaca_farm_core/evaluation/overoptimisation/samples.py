"""The stage `judge_samples`: judge's win rate and gold utility of best-of-n for every n, from one set of samples.

In: the samples of best-of-n with their rewards, and the reference's answers. Out: curve.json, a row per n = 1, 2, 4
… N: KL, and the expected reward, score against the reference and gold utility of the sample that the reward would
choose among n. All are the unbiased estimates of `best_of_n.estimator`, so no n needs samples of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from alpaca_farm_core.annotators.factory import build_annotator
from alpaca_farm_core.annotators.summary import refuse_too_many_missing
from alpaca_farm_core.artifacts.files import read_jsonl, write_json
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.data.rows import read_outputs
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.config import EvaluationConfig
from alpaca_farm_core.evaluation.gold import score_output
from alpaca_farm_core.evaluation.intervals import mean_and_standard_error
from alpaca_farm_core.evaluation.matching import pair_of
from alpaca_farm_core.evaluation.overoptimisation.curve import SAMPLE_CURVE
from alpaca_farm_core.evaluation.win_rate import to_scores
from alpaca_farm_core.meadow.families import parse
from alpaca_farm_core.methods.best_of_n.estimator import best_of_n_curve, kl_of_best_of_n
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.types import Output, Pair

SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True)
class Group:
    """The samples of one instruction.

    Attributes:
        id: Content identity of the instruction.
        rewards: Of each sample.
        scores: Of each sample against the reference's answer, in [0, 1]; None without annotation.
        utilities: Gold utility of each sample; empty outside of the embedded world.
    """

    id: str
    rewards: Sequence[float]
    scores: Sequence[float | None]
    utilities: Sequence[float]


def judge_samples(context: StageContext) -> StageResult:
    """Body of the stage `judge_samples`.

    Raises:
        DataError: the answers come without the samples they were chosen from, or the reference lacks an instruction.
        MissingAnnotationsError: too many samples have no annotation.
    """
    config: EvaluationConfig = context.config
    samples, rewards = _read(context.inputs["samples"])
    pairs = _pairs(samples, context.inputs["reference"])
    annotator = build_annotator(config.seeded_annotator(), context.calls, context.execution)
    annotations = annotator.annotate(pairs, context.progress)
    scores = to_scores([one.preference for one in annotations], range(len(annotations)), "annotations")
    groups = list(_groups(samples, rewards, scores))
    rows = curve_rows(groups)
    write_json(context.output / SAMPLE_CURVE, rows)
    n_missing = refuse_too_many_missing(annotations, config.annotator.max_missing)
    return StageResult(
        metrics={
            "n_instructions": len(groups),
            "n_samples": len(samples),
            "n_instructions_without_score": sum(None in group.scores for group in groups),
            **{name: rows[-1][name] for name in ("n", "kl", "proxy", "win_rate")},
        },
        n_missing=n_missing,
        timings=annotator.stats.timings(),
        cost_usd=annotator.stats.spent_usd,
    )


def curve_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Rows of curve.json.

    Instructions with a sample that has no annotation are in no win rate; `utilities` is by instruction.
    """
    most = min(len(group.rewards) for group in groups)
    rewards = {group.id: best_of_n_curve(group.rewards) for group in groups}
    wins = {
        group.id: best_of_n_curve(group.rewards, [score or 0.0 for score in group.scores])
        for group in groups
        if None not in group.scores
    }
    golds = {group.id: best_of_n_curve(group.rewards, group.utilities) for group in groups if group.utilities}
    return [_row(n, rewards, wins, golds) for n in _sizes(most)]


def _row(
    n: int,
    rewards: Mapping[str, Sequence[float]],
    wins: Mapping[str, Sequence[float]],
    golds: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    rate, error = mean_and_standard_error([curve[n - 1] for curve in wins.values()])
    return {
        "n": n,
        "kl": kl_of_best_of_n(n),
        "proxy": mean_and_standard_error([curve[n - 1] for curve in rewards.values()])[0],
        "win_rate": None if rate is None else 100 * rate,
        "win_rate_se": None if error is None else 100 * error,
        "utilities": {key: curve[n - 1] for key, curve in golds.items()},
    }


def _sizes(most: int) -> list[int]:
    """1, 2, 4 … and the largest."""
    return sorted({*(2**k for k in range(most.bit_length())), most})


def _read(artifact: Artifact) -> tuple[list[Output], list[float]]:
    path = artifact.path / SAMPLES_FILE
    if not path.exists():
        raise DataError(f"{artifact.reference} holds no samples to choose from.", "Give answers of best-of-n.")
    return read_outputs(path), [float(row["reward"]) for row in read_jsonl(path)]


def _pairs(samples: Sequence[Output], reference: Artifact) -> list[Pair]:
    answers = {answer.id: answer for answer in read_outputs(reference.path / "outputs.jsonl")}
    unknown = {sample.id for sample in samples} - answers.keys()
    if unknown:
        raise DataError(
            f"{reference.reference} has no answer to {len(unknown)} of the instructions of the samples.",
            "Decode the reference on the split that best_of_n.split names.",
        )
    return [pair_of(sample, answers[sample.id]) for sample in samples]


def _groups(samples: Sequence[Output], rewards: Sequence[float], scores: Sequence[float | None]) -> list[Group]:
    found = []
    rows = zip(samples, rewards, scores, strict=True)
    for key, members in groupby(rows, key=lambda row: row[0].id):
        outputs, values, judged = zip(*members, strict=True)
        inside = parse(outputs[0].instruction, outputs[0].input) is not None
        utilities = [score_output(output).total for output in outputs] if inside else []
        found.append(Group(key, values, judged, utilities))
    return found
