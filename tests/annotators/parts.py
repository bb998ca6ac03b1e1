"""Small parts that the tests of annotators share: pairs, a samples stage, a patient-less retry policy."""

from __future__ import annotations

from pathlib import Path

from alpaca_farm_core.annotators.broker import Judge
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.client import ApiJudge
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.llm import LLMAnnotator
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.annotators.retry import RetryPolicy
from alpaca_farm_core.annotators.spec import load_spec
from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.types import Output, Pair

QUICK = RetryPolicy(tries=4, tries_unreached=2, first_delay_s=0.01, max_delay_s=0.05, timeout_s=2.0, deadline_s=5.0)


def make_pairs(n: int) -> list[Pair]:
    """Pairs where output 1 is the shorter one when the row number is even, the longer one otherwise."""
    short, long = "a few words", "a good many words more than needed"
    return [
        Pair(f"Instruction number {i}.", "", f"{short} {i}" if i % 2 == 0 else f"{long} {i}",
             f"{long} {i}" if i % 2 == 0 else f"{short} {i}")
        for i in range(n)
    ]  # fmt: skip


def api_judge(base_url: str, concurrency: int = 8, policy: RetryPolicy = QUICK) -> ApiJudge:
    return ApiJudge(Endpoint.find(base_url), concurrency, policy)


def llm(
    calls: Path,
    judge: Judge,
    name: str = "greedy",
    *,
    model: str = "",
    seed: int = 0,
    label_flip: float = 0.0,
    purse: Purse | None = None,
) -> LLMAnnotator:
    cache = CallCache(calls)
    return LLMAnnotator(load_spec(name), judge, cache, model=model, seed=seed, label_flip=label_flip, purse=purse)


class SamplesConfig(Config):
    n: int = Field(20, description="Instructions.")


def _samples(context: StageContext) -> StageResult:
    rows = [
        Output(pair.instruction, pair.input, text, "toy", sample_id=sample_id, finished=True, n_tokens=3)
        for pair in make_pairs(context.config.n)
        for sample_id, text in enumerate([pair.output_1, pair.output_2])
    ]
    write_jsonl(context.output / "outputs.jsonl", [row.to_row() for row in rows])
    return StageResult()


SAMPLES = Stage("toy_samples", 1, SamplesConfig, {}, "outputs", _samples)
