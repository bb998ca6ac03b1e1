"""Best-of-n: policy, reward model and instructions in; the best answers, all samples and the curve out.

Follows AlpacaFarm's best_of_n.py (sample, score, arg-max) and Nakano et al. 2021 for the curve. It differs:
1. the curve for n = 1 … N comes from the one set of samples by the unbiased estimator, with KL(n);
2. samples are scored as the texts they are, EOS shown where finished, without padding to a fixed width;
3. a prompt too long for the context is dropped and counted, not cut;
4. a sample that does not end can be given a penalty instead of its reward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from statistics import fmean, stdev
from typing import Any, NamedTuple

from alpaca_farm_core.artifacts.files import write_json, write_jsonl
from alpaca_farm_core.generation.answers import Answers, load_decoder, sample_answers
from alpaca_farm_core.generation.rewards import rewards_of_outputs
from alpaca_farm_core.methods.best_of_n.config import BestOfNConfig
from alpaca_farm_core.methods.best_of_n.estimator import best_of_n_curve, choose, kl_of_best_of_n
from alpaca_farm_core.models.device import DTYPES
from alpaca_farm_core.models.loading import load_reward_model
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.types import Output

SAMPLES_FILE, CURVE_FILE = "samples.jsonl", "curve.json"


class Scored(NamedTuple):
    """The samples of one instruction and their rewards."""

    samples: list[Output]
    rewards: list[float]


def select(context: StageContext) -> StageResult:
    """Body of the stages that choose by reward; writes `outputs.jsonl`, `samples.jsonl` and `curve.json`.

    Raises:
        DataError: no instruction of the split fits into the policy's context.
        TrainingDivergedError: a reward is NaN or infinite.
    """
    config: BestOfNConfig = context.config
    # 1. n samples per instruction; those of one prompt share its prefill
    answers = sample_answers(context, load_decoder(context))
    # 2. rewards
    groups = _score(context, answers)
    # 3. the best of each instruction, and what every smaller n would have given
    best = [_best(context, group) for group in groups]
    curve = _curve(groups)
    write_jsonl(context.output / "outputs.jsonl", (row.to_row() for row in best))
    write_jsonl(context.output / SAMPLES_FILE, _sample_rows(groups))
    write_json(context.output / CURVE_FILE, curve)
    return StageResult(
        metrics={
            **answers.metrics(),
            "n_samples": len(answers.rows),
            "n_outputs": len(best),
            "n_all_equal": sum(len({row.output for row in group.samples}) == 1 for group in groups),
            "n_all_unfinished": sum(not any(row.finished for row in group.samples) for group in groups),
            "finished_share": sum(row.finished for row in best) / len(best),
            "tokens_mean": sum(row.n_tokens for row in best) / len(best),
            "reward_of_one": curve[0]["reward"],
            "reward": curve[-1]["reward"],
            "kl": kl_of_best_of_n(config.n),
        },
        timings=answers.timings(),
    )


def _score(context: StageContext, answers: Answers) -> list[Scored]:
    config: BestOfNConfig = context.config
    reward = load_reward_model(context.inputs["reward_model"].path, context.execution)
    reward.model.to(DTYPES[config.precision])
    rewards = rewards_of_outputs(reward, answers.rows, context.execution, config.unfinished_penalty)
    require_finite({"reward": math.fsum(rewards)}, 0, None)
    pairs = zip(answers.rows, rewards, strict=True)
    groups = []
    for _, group in groupby(pairs, key=lambda pair: pair[0].id):
        samples, values = zip(*group, strict=True)
        groups.append(Scored(list(samples), list(values)))
    return groups


def _best(context: StageContext, group: Scored) -> Output:
    config: BestOfNConfig = context.config
    row = group.samples[choose(group.rewards)]
    generator = config.generator or f"best-of-{config.n}"
    return Output(row.instruction, row.input, row.output, generator, row.dataset, 0, row.finished, row.n_tokens)


def _curve(groups: list[Scored]) -> list[dict[str, Any]]:
    """One row per n: KL(n), and the mean and standard error over instructions of the expected best reward."""
    curves = [best_of_n_curve(group.rewards) for group in groups]
    rows = []
    for place in range(min(map(len, curves))):
        values = [curve[place] for curve in curves]
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        rows.append({"n": place + 1, "kl": kl_of_best_of_n(place + 1), "reward": fmean(values), "reward_se": error})
    return rows


def _sample_rows(groups: list[Scored]) -> Iterator[dict[str, Any]]:
    for group in groups:
        for row, reward in zip(group.samples, group.rewards, strict=True):
            yield {**row.to_row(), "reward": reward}
