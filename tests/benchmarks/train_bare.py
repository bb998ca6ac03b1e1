"""The limit of the training tables, as a command: JOB.json → one line of JSON.

The least that training on the same tokens can do with transformers' model: forward and backward passes over the
rows laid end to end and cut into equal pieces without any padding, the head only where there is something to
learn, logits kept from the forward to the backward pass, one fused AdamW step per batch. No loop, no masks, no
metrics, no shuffling; attention runs across the cuts, so nothing useful is learnt. The better of two sizes of
micro-batch counts (on samples: the larger).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

WIDTH = 128
SIZES = (512, 1024)
"""Tokens of a micro-batch."""


def rows_of(job: Mapping[str, Any]) -> list[tuple[list[int], list[int]]]:
    """(prompt, response) of all rows; of both sides of pairs; of sampled episodes, by their lengths."""
    if "prompt_lengths" in job:
        group = job["group"] if job["kind"] == "rloo" else 1  # answers to one prompt, which is computed once
        columns = zip(job["prompt_lengths"], job["lengths"], strict=True)
        return [([5] * (0 if row % group else prompt), [6] * new) for row, (prompt, new) in enumerate(columns)]
    rows = json.loads((Path(job["world"]) / "rows.json").read_text())
    sides = ("responses",) if job["kind"] == "sft" else ("responses", "others")
    return [
        (prompt, side)
        for index, prompt in enumerate(rows["prompts"][: job["rows"]])
        for side in (rows[name][index] for name in sides)
    ]


def micro_batches(rows: list[tuple[list[int], list[int]]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and whether they are learnt, [n, WIDTH] each; what is left over at the end is left out."""
    ids = list(chain.from_iterable(prompt + response for prompt, response in rows))
    learnt = list(chain.from_iterable([False] * len(prompt) + [True] * len(response) for prompt, response in rows))
    whole = len(ids) // WIDTH * WIDTH
    ids_NT, learnt_NT = torch.tensor(ids[:whole]).view(-1, WIDTH), torch.tensor(learnt[:whole]).view(-1, WIDTH)
    yield from zip(ids_NT.split(size // WIDTH), learnt_NT.split(size // WIDTH), strict=True)


def run(job: Mapping[str, Any], size: int) -> dict[str, float]:
    """Seconds for one pass over the rows in batches."""
    model: Any = AutoModelForCausalLM.from_pretrained(Path(job["world"]) / "endless", dtype=torch.float32).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    rows = rows_of(job)
    per_step = job["batch"] * (1 if job["kind"] == "sft" else 2)
    tokens, wall, cpu = 0, time.perf_counter(), time.process_time()
    for start in range(0, len(rows), per_step):
        for ids_NT, learnt_NT in micro_batches(rows[start : start + per_step], size):
            with _arithmetic(job):
                if job["kind"] == "reward":
                    loss = model.base_model(ids_NT, use_cache=False).last_hidden_state.float().square().mean()
                else:
                    loss = logprobs_of(model, ids_NT, learnt_NT)
            loss.backward()
            tokens += ids_NT.numel()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "tokens_per_s": tokens / seconds,
        "micro_batch_tokens": size,
    }


def run_on_policy(job: Mapping[str, Any], size: int) -> dict[str, float]:
    """Seconds for the passes of ours: reference and reward model forward; then policy and PPO's critic trained.

    In bfloat16 a copy decodes, whose log-probabilities are not those of training: the policy runs forward too. The
    first step is made twice, and timed the second time.
    """
    place, n_critics = Path(job["world"]) / "endless", 1 if job["kind"] == "ppo" else 0
    policy, reference, reward, *critics = (
        AutoModelForCausalLM.from_pretrained(place).train() for _ in range(3 + n_critics)
    )
    trained = [policy, *critics]
    optimisers = [torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True) for model in trained]
    rows = rows_of(job)
    for number, start in enumerate([0, *range(0, len(rows), job["episodes"])]):
        if number <= 1:
            tokens, wall, cpu = 0, time.perf_counter(), time.process_time()
        parts = list(micro_batches(rows[start : start + job["episodes"]], size))
        for ids_NT, learnt_NT in parts:
            with torch.no_grad(), _arithmetic(job):
                for model in (policy, reference) if job["precision"] == "bfloat16" else (reference,):
                    logprobs_of(model, ids_NT, learnt_NT)
                reward.base_model(ids_NT, use_cache=False)
            tokens += ids_NT.numel()
        for _ in range(job["epochs"]):
            for ids_NT, learnt_NT in parts:
                with _arithmetic(job):
                    loss = logprobs_of(policy, ids_NT, learnt_NT)
                loss.backward()
                for critic in critics:
                    with _arithmetic(job):
                        hidden_NTD = critic.base_model(ids_NT, use_cache=False).last_hidden_state
                    hidden_NTD.float().square().mean().backward()
            for model, optimiser in zip(trained, optimisers, strict=True):
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "tokens_per_s": tokens / seconds,
        "micro_batch_tokens": size,
    }


def logprobs_of(model: Any, ids_NT: Tensor, learnt_NT: Tensor) -> Tensor:
    """Mean cross-entropy of the learnt tokens; the head runs for them alone."""
    hidden_NTD = model.base_model(ids_NT, use_cache=False).last_hidden_state
    wanted_NT = learnt_NT[:, 1:]
    logits_MV = model.get_output_embeddings()(hidden_NTD[:, :-1][wanted_NT]).float()
    return cross_entropy(logits_MV, ids_NT[:, 1:][wanted_NT])


def _arithmetic(job: Mapping[str, Any]) -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=job["precision"] == "bfloat16")


def main(path: str) -> None:
    imports_mb = psutil.Process().memory_info().rss / 2**20
    job = json.loads(Path(path).read_text())
    found = [run_on_policy(job, SIZES[-1])] if "prompt_lengths" in job else [run(job, size) for size in SIZES]
    best = max(found, key=lambda one: one["tokens_per_s"])
    sizes = {str(one["micro_batch_tokens"]): one["tokens_per_s"] for one in found}
    print(json.dumps({**best, "sizes": sizes, "imports_mb": imports_mb, "state_mb": job["state_mb"]}))


if __name__ == "__main__":
    main(sys.argv[1])
