"""Batched decoding: prompts as token ids in, responses as token ids with log-probabilities out.

Knows nothing of text, templates or rewards. Rows are sorted by length and left-padded; finished rows
leave the batch; it stops when all are done. What a row draws depends on its own seed only: other batches,
neighbours and paddings give the same tokens up to floating-point ties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alpaca_farm_core.generation.cache import make_cache
from alpaca_farm_core.generation.sampling import SamplingParams, draw, uniforms

COMPACT_AT = 0.75
"""The batch is compacted when at most this share of its rows is still going."""
LOOK_EVERY_ON_CPU, LOOK_EVERY_ELSEWHERE = 1, 8
"""Steps between two looks at what is finished: free on a CPU, a stall of the queue on a GPU."""


@dataclass(frozen=True)
class Completion:
    """One sampled response.

    Attributes:
        token_ids: Its tokens; the last one is EOS exactly when `finished`.
        logprobs: Log-probability of each token under the temperature-scaled policy before top-k and top-p.
        finished: Whether it ended by itself before the token limit.
    """

    token_ids: list[int]
    logprobs: list[float]
    finished: bool


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    params: SamplingParams,
    eos_id: int,
    pad_id: int,
    batch_size: int = 64,
    on_batch: Callable[[list[Completion]], None] | None = None,
) -> list[Completion]:
    """Sample one completion per prompt; the result is in the order of `prompts`.

    Equal prompts that stand next to each other (several samples of one instruction) share one prefill.

    Args:
        model: A causal LM of transformers, in evaluation mode, on its device.
        prompts: Token ids, none empty.
        seeds: One per prompt, 0 ≤ seed < 2⁶³; equal prompts need different ones.
        params: How to draw.
        eos_id: Token that ends a response.
        pad_id: Token of the padding; never drawn unless it is EOS too, as are those that the model's
            generation config suppresses.
        batch_size: Rows decoded together.
        on_batch: Called with the completions of each batch, for progress.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    if not all(prompts):
        raise ValueError("a prompt is empty: there is nothing to predict the first token from")
    # A stable sort keeps equal prompts together when they were together.
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), prompts[index]))
    results: list[Completion | None] = [None] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _Batch(model, [prompts[row] for row in rows], [seeds[row] for row in rows], params, eos_id, pad_id)
        completions = batch.run()
        for row, completion in zip(rows, completions, strict=True):
            results[row] = completion
        if on_batch:
            on_batch(completions)
    return [completion for completion in results if completion is not None]


class _Batch:
    """State of one batch while it is decoded. B rows at first; A of them still in the tensors."""

    def __init__(
        self, model: Any, prompts: list[list[int]], seeds: list[int], params: SamplingParams, eos_id: int, pad_id: int
    ) -> None:
        self._model, self._params, self._eos_id, self._pad_id = model, params, eos_id, pad_id
        self._banned = [*([] if pad_id == eos_id else [pad_id]), *_suppressed(model)]
        self._device = next(model.parameters()).device
        self._cache, plain_cache = make_cache(model.config)
        # These kernels take an additive mask as it is, which saves building one from the padding at every step.
        self._additive = plain_cache and model.config._attn_implementation in ("sdpa", "eager")
        self._uniforms_BT = uniforms(torch.tensor(seeds, device=self._device), params.max_new_tokens)
        shape = (len(prompts), params.max_new_tokens)
        self._tokens_BT = torch.full(shape, pad_id, device=self._device)
        self._logprobs_BT = torch.zeros(shape, device=self._device)
        self._look_every = LOOK_EVERY_ON_CPU if self._device.type == "cpu" else LOOK_EVERY_ELSEWHERE
        self._prompts = prompts

    def run(self) -> list[Completion]:
        logits_AV = self._prefill()
        rows = len(self._prompts)
        self._rows_A = torch.arange(rows, device=self._device)
        self._going_A = torch.ones(rows, dtype=torch.bool, device=self._device)
        for step in range(self._params.max_new_tokens):
            self._draw(logits_AV, step)
            if step + 1 == self._params.max_new_tokens or not self._keep_going(step):
                break
            logits_AV = self._forward(self._tokens_BT[self._rows_A, step])
        return self._completions()

    def _prefill(self) -> Tensor:
        """Run each distinct prompt once; afterwards cache, mask and positions have one row per sample."""
        distinct: list[list[int]] = []
        source: list[int] = []
        for prompt in self._prompts:
            if not distinct or prompt != distinct[-1]:
                distinct.append(prompt)
            source.append(len(distinct) - 1)
        width = max(map(len, distinct))
        ids = torch.tensor([[self._pad_id] * (width - len(p)) + p for p in distinct], device=self._device)
        lengths = torch.tensor([len(p) for p in distinct], device=self._device)
        mask = torch.arange(width, device=self._device)[None, :] >= (width - lengths)[:, None]
        padded = bool(mask.logical_not().any())
        output = self._model(
            input_ids=ids,
            attention_mask=mask.long() if padded else None,
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        source_B = torch.tensor(source, device=self._device)
        if len(distinct) < len(source):
            self._select(source_B)
        self._positions_A = lengths[source_B]
        self._filled = width
        self._mask_AT: Tensor | None = None
        if padded:
            room = torch.ones(len(source), self._params.max_new_tokens, dtype=torch.bool, device=self._device)
            self._mask_AT = torch.cat([mask[source_B], room], dim=1)
            if self._additive:
                dtype = self._model.dtype
                blocked = torch.finfo(dtype).min
                self._mask_AT = torch.zeros(self._mask_AT.shape, dtype=dtype, device=self._device).masked_fill_(
                    ~self._mask_AT, blocked
                )
        logits: Tensor = output.logits[:, -1][source_B]
        return logits

    def _forward(self, tokens_A: Tensor) -> Tensor:
        """Feed one token per row; return the logits of the next."""
        self._filled += 1
        mask = None
        if self._mask_AT is not None:
            mask = self._mask_AT[:, : self._filled]
            mask = mask[:, None, None, :] if self._additive else mask.long()
        output = self._model(
            input_ids=tokens_A[:, None],
            attention_mask=mask,
            position_ids=self._positions_A[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._positions_A = self._positions_A + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def _draw(self, logits_AV: Tensor, step: int) -> None:
        """Draw and store the tokens of this step; rows that drew EOS are no longer going."""
        drawn = draw(logits_AV, self._uniforms_BT[self._rows_A, step], self._params, self._banned)
        tokens_A = torch.where(self._going_A, drawn.tokens_B, self._pad_id)
        self._tokens_BT[self._rows_A, step] = tokens_A
        self._logprobs_BT[self._rows_A, step] = torch.where(self._going_A, drawn.logprobs_B, 0.0)
        self._going_A = self._going_A & (drawn.tokens_B != self._eos_id)

    def _keep_going(self, step: int) -> bool:
        """Look at what is finished now and then; drop finished rows when they are many. False when all are done."""
        if (step + 1) % self._look_every:
            return True
        going = int(self._going_A.sum())
        if going and going <= COMPACT_AT * len(self._going_A):
            keep = self._going_A.nonzero().squeeze(1)
            self._rows_A, self._positions_A = self._rows_A[keep], self._positions_A[keep]
            self._going_A = self._going_A[keep]
            if self._mask_AT is not None:
                self._mask_AT = self._mask_AT[keep]
            self._select(keep)
        return going > 0

    def _select(self, rows: Tensor) -> None:
        for layer in self._cache.layers:
            layer.batch_select_indices(rows)

    def _completions(self) -> list[Completion]:
        ended_BT = self._tokens_BT == self._eos_id
        lengths = torch.where(ended_BT.any(1), ended_BT.long().argmax(1) + 1, self._params.max_new_tokens).tolist()
        finished = ended_BT.any(1).tolist()
        rows = zip(self._tokens_BT.tolist(), self._logprobs_BT.tolist(), lengths, finished, strict=True)
        return [Completion(tokens[:n], logprobs[:n], done) for tokens, logprobs, n, done in rows]


def _suppressed(model: Any) -> list[int]:
    """Tokens that answers of this model never hold (prompts may)."""
    return list(getattr(getattr(model, "generation_config", None), "suppress_tokens", None) or [])
