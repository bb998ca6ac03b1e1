"""Reference log-probabilities for DPO: policy and preferences in, one row per pair out.

Made once and shared by every β, loss, seed of the order and epoch, so that DPO holds one model in memory.
Works through chunks of fixed composition; each finished one is a file in scratch.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from alpaca_farm_core.artifacts.files import read_jsonl, write_jsonl
from alpaca_farm_core.data.collate import token_budget_micro_batches
from alpaca_farm_core.data.pairs import TokenisedPairs, tokenise_pairs
from alpaca_farm_core.data.rows import read_preferences
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.answers import context_length
from alpaca_farm_core.methods.dpo.config import ReferenceLogprobsConfig
from alpaca_farm_core.methods.dpo.pairs import LOGPROBS_FILE, side_logprobs
from alpaca_farm_core.models.loading import load_policy
from alpaca_farm_core.models.packing import packing_obstacle
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.training.launch import start_workers

CHUNK_PAIRS = 512
"""Pairs between two writes to scratch."""


@torch.no_grad()
def score_reference(context: StageContext) -> StageResult:
    """Body of the stage `reference_logprobs`; writes `logprobs.jsonl`.

    Raises:
        DataError: no pair fits into `max_length`.
        ModelError: the policy cannot be loaded.
        TrainingDivergedError: a log-probability is NaN or infinite.
    """
    config: ReferenceLogprobsConfig = context.config
    # One process, as this stage does not train: several are started for those that do.
    alone = context.execution.model_copy(update={"processes": 1, "nodes": 1})
    workers, execution = start_workers(alone, config.precision)
    loaded = load_policy(context.inputs["policy"].path, execution)
    loaded.model.float()
    rows = read_preferences(context.inputs["preferences"].path / "preferences.jsonl")
    limit = min(config.max_length, context_length(loaded.model))
    pairs = tokenise_pairs(loaded.tokenizer, loaded.template, rows, limit, eos=True)
    if not len(pairs):
        raise DataError(f"None of {len(rows)} pairs fits into {limit} tokens.", "Raise reference_logprobs.max_length.")
    began, n_tokens = time.perf_counter(), 0
    context.progress.start("Reference log-probs", total=len(pairs), unit="pairs")
    scored: dict[int, dict[str, Any]] = {}
    for start in range(0, len(pairs), CHUNK_PAIRS):
        path = context.scratch / f"logprobs_{start:08d}.jsonl"
        chosen = list(range(start, min(start + CHUNK_PAIRS, len(pairs))))
        if not path.is_file():
            with workers.arithmetic():
                found = _score(loaded.model, pairs, chosen, int(loaded.tokenizer.pad_token_id), execution)
            write_jsonl(path, found)
            n_tokens += sum(pairs.tokens(index) for index in chosen)
        scored.update({row["row"]: row for row in read_jsonl(path)})
        context.progress.advance(len(chosen))
    unscored = {"tokens_1": None, "tokens_2": None, "logprob_1": None, "logprob_2": None}
    write_jsonl(
        context.output / LOGPROBS_FILE,
        ({"row": number, "id": row.id, **unscored, **scored.get(number, {})} for number, row in enumerate(rows)),
    )
    seconds = time.perf_counter() - began
    values = list(scored.values())
    return StageResult(
        metrics={
            "n_pairs": len(pairs),
            "n_too_long": pairs.n_too_long,
            "logprob_mean": sum(row["logprob_1"] + row["logprob_2"] for row in values) / (2 * len(values)),
            "tokens_mean": sum(row["tokens_1"] + row["tokens_2"] for row in values) / (2 * len(values)),
        },
        timings={"seconds": seconds, "tokens_per_second": n_tokens / seconds},
    )


def _score(model: Any, pairs: TokenisedPairs, chosen: list[int], pad_id: int, execution: Any) -> list[dict[str, Any]]:
    found = []
    padded = bool(packing_obstacle(model))
    lengths = [pairs.tokens(index, padded) for index in chosen]
    for group in token_budget_micro_batches(lengths, execution.micro_batch_tokens, padded):
        members = [chosen[place] for place in group]
        sides = side_logprobs(model, pairs, members, pad_id)
        for index, first, second in zip(members, sides.first_B.tolist(), sides.second_B.tolist(), strict=True):
            require_finite({"log-probability": first + second}, 0, None)
            found.append(
                {
                    "row": pairs.numbers[index],
                    "tokens_1": len(pairs.response_1_ids[index]),
                    "tokens_2": len(pairs.response_2_ids[index]),
                    "logprob_1": first,
                    "logprob_2": second,
                }
            )
    return found
