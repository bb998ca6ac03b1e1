"""Batched decoding: prompts as token ids in, responses as token ids with log-probabilities out.

Knows nothing of text, templates or rewards. Prompts are sorted by length; a finished row leaves the batch and prompts
of the queue take the free places, several at a time, so that the batch stays full to the end of the queue. What a row
draws depends on its own seed only: other batches, neighbours and paddings give the same tokens up to floating-point
ties. Which rows are decoded together depends on the arguments and the tokens drawn alone: same call, same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from alpaca_farm_core.generation.cache import make_cache
from alpaca_farm_core.generation.sampling import SamplingParams, draw
from alpaca_farm_core.generation.slots import Completion, Slots

__all__ = ["Completion", "generate"]

REFILL_SHARE = 0.25
"""Prompts are taken from the queue when this share of the places is free: a prefill has a price of its own."""
SHRINK_SHARE = 0.25
"""Caches that are copied whole to drop a row are when at least this share of the rows is done."""
PREFILL_TOKENS = 8192
"""Tokens of one prefill at most, padding included, where the cache can take several."""
LOOK_EVERY_ON_CPU, LOOK_EVERY_ELSEWHERE = 1, 8
"""Steps between two looks at what is finished: free on a CPU, a stall of the queue on a GPU."""
MASK_AHEAD = 64
"""Columns of a mask ahead of the position it is made at."""


@dataclass(frozen=True)
class _Group:
    """Rows that sample from the same prompt: they share one prefill."""

    prompt: list[int]
    rows: list[int]


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    params: SamplingParams,
    eos_id: int,
    pad_id: int,
    batch_size: int = 64,
    on_done: Callable[[list[Completion]], None] | None = None,
    limits: Sequence[int] | None = None,
) -> list[Completion]:
    """Sample one completion per prompt; the result is in the order of `prompts`.

    Equal prompts (several samples of one instruction) share one prefill, `batch_size` of them at most.

    Args:
        model: A causal LM of transformers, in evaluation mode, on its device.
        prompts: Token ids, none empty.
        seeds: One per prompt, 0 ≤ seed < 2⁶³; equal prompts need different ones.
        params: How to draw.
        eos_id: Token that ends a response.
        pad_id: Token of the padding; never drawn unless it is EOS too, as are those that the model's
            generation config suppresses.
        batch_size: Rows decoded together at most.
        on_done: Called now and then with the completions that came in since, for progress.
        limits: Tokens of each response at most; none = `params.max_new_tokens` for all.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    if not all(prompts):
        raise ValueError("a prompt is empty: there is nothing to predict the first token from")
    limits = [params.max_new_tokens] * len(prompts) if limits is None else limits
    queue = deque(_groups(prompts, batch_size))
    batch = _Batch(model, seeds, limits, params, eos_id, pad_id, min(batch_size, len(prompts)))
    results: list[Completion | None] = [None] * len(prompts)
    news: list[Completion] = []
    while queue or batch.n:
        if queue and batch.takes(queue):
            if on_done and news:
                on_done(news)
                news = []
            batch.admit(queue)
        for row, completion in batch.step():
            results[row] = completion
            news.append(completion)
    if on_done and news:
        on_done(news)
    return [completion for completion in results if completion is not None]


def _groups(prompts: Sequence[list[int]], most: int) -> list[_Group]:
    """Rows by prompt, the shortest prompts first; the prompts of a prefill then have similar lengths."""
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), prompts[row]))
    groups = []
    for prompt, equal in groupby(order, key=lambda row: prompts[row]):
        rows = list(equal)
        groups += [_Group(prompt, rows[start : start + most]) for start in range(0, len(rows), most)]
    return groups


class _Batch:
    """The rows that are decoded together: A of them at a time, in the first A of `slots` slots."""

    def __init__(
        self,
        model: Any,
        seeds: Sequence[int],
        limits: Sequence[int],
        params: SamplingParams,
        eos_id: int,
        pad_id: int,
        slots: int,
    ) -> None:
        self._model, self._params, self._eos_id, self._pad_id = model, params, eos_id, pad_id
        self._seeds, self._limits, self._capacity = seeds, limits, slots
        self._banned = [*([] if pad_id == eos_id else [pad_id]), *_suppressed(model)]
        self._device = next(model.parameters()).device
        self._look_every = LOOK_EVERY_ON_CPU if self._device.type == "cpu" else LOOK_EVERY_ELSEWHERE
        self._cache = make_cache(model.config, slots)
        # These kernels take an additive mask as it is, which saves building one from the padding at every step.
        self._additive = self._cache.refillable and model.config._attn_implementation in ("sdpa", "eager")
        self._slots = Slots(slots, params.max_new_tokens, self._device)
        self._mask_AT: Tensor | None = None
        self._steps = 0

    @property
    def n(self) -> int:
        """Rows in the batch."""
        return self._slots.n

    def takes(self, queue: Sequence[_Group]) -> bool:
        """Whether prompts of the queue are due: enough places are free for the next one, and for a prefill's sake."""
        if not self._cache.refillable:
            return not self.n
        wanted = max(len(queue[0].rows), REFILL_SHARE * self._capacity)
        return self._capacity - self.n >= wanted

    def admit(self, queue: deque[_Group]) -> None:
        """Read as many prompts of the queue as have places for all their rows."""
        logits = [self._logits_AV] if self.n else []
        free = self._capacity - self.n
        groups: list[_Group] = []
        while queue and len(queue[0].rows) <= free:
            tokens = len(queue[0].prompt) * (len(groups) + 1)  # prompts come sorted: the newest is the widest
            if groups and self._cache.refillable and tokens > PREFILL_TOKENS:
                logits.append(self._prefill(groups))
                groups = []
            free -= len(queue[0].rows)
            groups.append(queue.popleft())
        logits.append(self._prefill(groups))
        self._logits_AV = torch.cat(logits) if len(logits) > 1 else logits[0]
        self._fit()

    def step(self) -> list[tuple[int, Completion]]:
        """Draw a token for each row, take out the rows that are done, and run the model on the others."""
        drawn = draw(self._logits_AV, self._slots.uniforms_A, self._params, self._banned)
        self._slots.write(drawn, self._eos_id)
        self._steps += 1
        done = self._take_done() if self._steps % self._look_every == 0 else []
        if self.n:
            self._logits_AV = self._forward()
        return done

    def _prefill(self, groups: list[_Group]) -> Tensor:
        """Run each prompt once, left-padded; afterwards it has one slot per sample. Returns their logits."""
        width = max(len(group.prompt) for group in groups)
        prompts = [group.prompt for group in groups]
        ids = torch.tensor([[self._pad_id] * (width - len(p)) + p for p in prompts], device=self._device)
        lengths = torch.tensor([len(p) for p in prompts], device=self._device)
        mask = torch.arange(width, device=self._device)[None, :] >= (width - lengths)[:, None]
        padded = any(len(p) < width for p in prompts)
        prefilled = DynamicCache(config=self._model.config)
        output = self._model(
            input_ids=ids,
            attention_mask=mask.long() if padded else None,
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
            past_key_values=prefilled,
            use_cache=True,
            logits_to_keep=1,
        )
        rows = [row for group in groups for row in group.rows]
        source = [place for place, group in enumerate(groups) for _ in group.rows]
        source_B = torch.tensor(source, device=self._device)
        self._cache.add(prefilled, source_B, width)
        self._slots.add(
            rows,
            [len(prompts[place]) for place in source],
            [self._limits[row] for row in rows],
            [self._seeds[row] for row in rows],
        )
        logits: Tensor = output.logits[:, -1][source_B]
        return logits

    def _forward(self) -> Tensor:
        """Feed the newest token of each row; return the logits of the next."""
        mask = self._mask_AT
        if mask is not None:
            if self._cache.width == mask.shape[1]:
                self._fit()
                mask = self._mask_AT
            assert mask is not None
            mask = mask[:, : self._cache.width + 1]
            mask = mask[:, None, None, :] if self._additive else mask.long()
        output = self._model(
            input_ids=self._slots.newest_A[:, None],
            attention_mask=mask,
            position_ids=self._slots.lengths_A[:, None],
            past_key_values=self._cache.past,
            use_cache=True,
        )
        self._cache.width += 1
        self._slots.step()
        logits: Tensor = output.logits[:, -1]
        return logits

    def _take_done(self) -> list[tuple[int, Completion]]:
        n_done = self.n - self._slots.n_going()
        if not n_done or not (self._cache.refillable or n_done == self.n or n_done >= SHRINK_SHARE * self.n):
            return []
        found, moves = self._slots.take_done(self._eos_id)
        self._cache.remove(*moves)
        if self.n:
            self._fit()
        return found

    def _fit(self) -> None:
        """Cut off what no row needs any more, and mask what stands in front of the shorter rows."""
        lengths_A = self._slots.lengths_A
        self._cache.trim(int(lengths_A.max()))
        pads_A = self._cache.width - lengths_A
        self._mask_AT = None
        if bool(pads_A.any()):
            columns = torch.arange(self._cache.width + MASK_AHEAD, device=self._device)
            seen_AT = columns[None, :] >= pads_A[:, None]
            self._mask_AT = self._as_added(seen_AT) if self._additive else seen_AT

    def _as_added(self, seen_AT: Tensor) -> Tensor:
        dtype = self._model.dtype
        blocked = torch.finfo(dtype).min
        return torch.zeros(seen_AT.shape, dtype=dtype, device=self._device).masked_fill_(~seen_AT, blocked)


def _suppressed(model: Any) -> list[int]:
    """Tokens that answers of this model never hold (prompts may)."""
    return list(getattr(getattr(model, "generation_config", None), "suppress_tokens", None) or [])
