"""Batched decoding: prompts as token ids in, responses as token ids with log-probabilities out.

Knows nothing of text, templates or rewards. Prompts are sorted by length and read several at a time; a finished row
leaves the batch and one that waits takes its place at once, so that the batch stays full to the end of the queue.
What a row draws depends on its own seed only: other batches, neighbours and paddings give the same tokens up to
floating-point ties. Which rows are decoded together depends on the arguments and the drawn tokens alone: same call,
same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alpaca_farm_core.generation.cache import make_cache
from alpaca_farm_core.generation.prefill import Read, Reader
from alpaca_farm_core.generation.sampling import SamplingParams, draw
from alpaca_farm_core.generation.slots import Completion, Slots
from alpaca_farm_core.generation.step import make_step

__all__ = ["Completion", "generate"]

READ_AHEAD = 0.25
"""Rows whose prompts are read together when none waits, as a share of the places: a pass has a price of its own."""
READ_TOKENS = 8192
"""Tokens of prompts read together at most, padding included, where the cache lets rows come one after the other."""
SHRINK_SHARE = 0.25
"""Caches that are copied whole to drop a row are when at least this share of the rows is done."""
LOOK_EVERY_ON_CPU, LOOK_EVERY_ELSEWHERE = 1, 8
"""Steps between two looks at what is finished: free on a CPU, a stall of the queue on a GPU. The tests run both on a
CPU; on a GPU this engine has not been timed."""
MASK_AHEAD = 64
"""Columns of a mask ahead of the position it is made at."""


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
    entropies: bool = False,
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
        entropies: Note the policy's entropy at each token.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    if not all(prompts):
        raise ValueError("a prompt is empty: there is nothing to predict the first token from")
    limits = [params.max_new_tokens] * len(prompts) if limits is None else limits
    slots = min(batch_size, len(prompts))
    reader = Reader(model, prompts, pad_id, slots)
    most = max((len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)), default=0)
    batch = _Batch(model, seeds, limits, params, eos_id, pad_id, slots, most, entropies)
    results: dict[int, Completion] = {}
    news: list[Completion] = []
    while reader or batch.has_rows:
        if batch.admit(reader) and on_done and news:
            on_done(news)
            news = []
        for row, completion in batch.step():
            results[row] = completion
            news.append(completion)
    if on_done and news:
        on_done(news)
    return [results[row] for row in range(len(prompts))]


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
        most: int,
        entropies: bool,
    ) -> None:
        self._model, self._params, self._eos_id, self._entropies = model, params, eos_id, entropies
        self._seeds, self._limits, self._capacity = seeds, limits, slots
        self._banned = [*([] if pad_id == eos_id else [pad_id]), *_suppressed(model)]
        self._device = next(model.parameters()).device
        self._look_every = LOOK_EVERY_ON_CPU if self._device.type == "cpu" else LOOK_EVERY_ELSEWHERE
        self._cache = make_cache(model.config, slots, most)
        # These kernels take an additive mask as it is, which saves building one from the padding at every step.
        self._additive = self._cache.refillable and model.config._attn_implementation in ("sdpa", "eager")
        self._run = make_step(model, self._cache, self._additive, max(limits, default=0))
        self._slots = Slots(slots, params.max_new_tokens, self._device)
        self._logits_AV = torch.empty(0)
        self._waiting: Read | None = None
        self._mask_AT: Tensor | None = None
        self._steps = 0

    @property
    def n(self) -> int:
        """Rows in the batch."""
        return self._slots.n

    @property
    def has_rows(self) -> bool:
        """Whether a row is being decoded or waits for a place."""
        return bool(self.n or self._waiting)

    def admit(self, reader: Reader) -> bool:
        """Fill the free places with rows that wait, reading on when none does; returns whether prompts were read."""
        logits = [self._logits_AV] if self.n else []
        seated, has_read = self.n, False
        while (free := self._free_places()) and (self._waiting or reader):
            if not self._waiting:
                self._waiting, has_read = self._read(reader), True
            logits.append(self._seat(self._waiting, free))
            if not self._waiting.rows:
                self._waiting = None
        if self.n > seated:
            self._logits_AV = torch.cat(logits)
            self._fit()
        return has_read

    def step(self) -> list[tuple[int, Completion]]:
        """Draw a token for each row, take out the rows that are done, and run the model on the others."""
        drawn = draw(self._logits_AV, self._slots.uniforms_A, self._params, self._banned, self._entropies)
        self._slots.write(drawn, self._eos_id)
        self._steps += 1
        done = self._take_done() if self._steps % self._look_every == 0 else []
        if self.n:
            self._logits_AV = self._forward()
        return done

    def _free_places(self) -> int:
        return self._capacity - self.n if self._cache.refillable or not self.n else 0

    def _read(self, reader: Reader) -> Read:
        if self._cache.refillable:
            return reader.read(int(READ_AHEAD * self._capacity), READ_TOKENS)
        return reader.read(self._capacity, None)

    def _seat(self, read: Read, most: int) -> Tensor:
        """Give places to rows that wait; returns the logits of their first tokens."""
        rows = [read.rows.popleft() for _ in range(min(most, len(read.rows)))]
        source_A = torch.tensor([row.place for row in rows], device=self._device)
        self._cache.add(read.cache, source_A, read.width)
        self._slots.add(
            [row.row for row in rows],
            [row.length for row in rows],
            [self._limits[row.row] for row in rows],
            [self._seeds[row.row] for row in rows],
        )
        return read.logits_PV[source_A]

    def _forward(self) -> Tensor:
        """Feed the newest token of each row; return the logits of the next."""
        mask = self._mask_AT
        if mask is not None:
            if self._cache.width == mask.shape[1]:
                self._fit()
                mask = self._mask_AT
            assert mask is not None
            mask = mask[:, : self._cache.width + 1]
        logits_AV = self._run(self._slots.newest_A, self._slots.lengths_A, mask)
        self._cache.width += 1
        self._slots.step()
        return logits_AV

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
