"""What is known of each row being decoded: one slot a row, slots 0 … n − 1 in use.

Tensors [S] and [S, T] of S slots and T tokens; rows are added behind, drawn tokens are written down, and finished
rows are taken out by moving the last ones into their slots. Knows nothing of models and caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alpaca_farm_core.generation.sampling import Drawn, uniforms


@dataclass(frozen=True)
class Completion:
    """One sampled response.

    Attributes:
        token_ids: Its tokens; the last one is EOS exactly when `finished`.
        logprobs: Log-probability of each token under the temperature-scaled policy before top-k and top-p.
        finished: Whether it ended by itself before the token limit.
        entropies: Of that policy at each token, in nats; none where nobody asked for them.
    """

    token_ids: list[int]
    logprobs: list[float]
    finished: bool
    entropies: list[float]


class Moves(NamedTuple):
    """How slots are rearranged: slots `movers` are copied over slots `holes`, then the first `n` are in use."""

    holes: Tensor
    movers: Tensor
    n: int


class Slots:
    """The rows being decoded."""

    def __init__(self, slots: int, max_new_tokens: int, device: torch.device) -> None:
        def whole(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.long, device=device)

        self.n = 0
        self._has_entropies = False
        self._rows_S, self._limits_S = whole(slots), whole(slots)
        self._lengths_S, self._drawn_S = whole(slots), whole(slots)
        self._going_S = torch.zeros(slots, dtype=torch.bool, device=device)
        # One column more than tokens: a row that ended and has not been taken out yet writes there.
        self._tokens_ST = whole(slots, max_new_tokens + 1)
        self._logprobs_ST = torch.zeros(slots, max_new_tokens + 1, device=device)
        self._entropies_ST = torch.zeros(slots, max_new_tokens + 1, device=device)
        self._uniforms_ST = torch.zeros(slots, max_new_tokens + 1, dtype=torch.float64, device=device)
        self._all = [
            self._rows_S, self._limits_S, self._lengths_S, self._drawn_S, self._going_S, self._tokens_ST,
            self._logprobs_ST, self._entropies_ST, self._uniforms_ST,
        ]  # fmt: skip

    @property
    def lengths_A(self) -> Tensor:
        """Tokens of each row so far that the model has read: the position of its newest token."""
        return self._lengths_S[: self.n]

    @property
    def uniforms_A(self) -> Tensor:
        """The uniform number of each row's next draw."""
        return self._uniforms_ST[: self.n].gather(1, self._drawn_S[: self.n, None]).squeeze(1)

    @property
    def newest_A(self) -> Tensor:
        """The token that each row drew last."""
        return self._tokens_ST[: self.n].gather(1, self._drawn_S[: self.n, None] - 1).squeeze(1)

    def add(self, rows: Sequence[int], lengths: Sequence[int], limits: Sequence[int], seeds: Sequence[int]) -> None:
        """Take in rows, whose prompts have been read: `lengths` tokens each."""
        new = slice(self.n, self.n + len(rows))
        device, width = self._rows_S.device, self._uniforms_ST.shape[1]
        columns = torch.tensor([rows, limits, lengths], device=device)
        self._rows_S[new], self._limits_S[new], self._lengths_S[new] = columns
        self._drawn_S[new], self._going_S[new] = 0, True
        self._uniforms_ST[new] = uniforms(torch.tensor(seeds, device=device), width)
        self.n = new.stop

    def write(self, drawn: Drawn, eos_id: int) -> None:
        """Note a drawn token and what is known of it for each row; rows at EOS or at their limit are done."""
        going_A, place_A1 = self._going_S[: self.n], self._drawn_S[: self.n, None]
        self._tokens_ST[: self.n].scatter_(1, place_A1, drawn.tokens_B[:, None])
        self._logprobs_ST[: self.n].scatter_(1, place_A1, drawn.logprobs_B[:, None])
        if drawn.entropies_B is not None:
            self._has_entropies = True
            self._entropies_ST[: self.n].scatter_(1, place_A1, drawn.entropies_B[:, None])
        self._drawn_S[: self.n] += going_A
        going_A &= (drawn.tokens_B != eos_id) & (self._drawn_S[: self.n] < self._limits_S[: self.n])

    def step(self) -> None:
        """Count the newest token of each row as read."""
        self._lengths_S[: self.n] += self._going_S[: self.n]

    def n_going(self) -> int:
        """Rows in use that are not done."""
        return int(self._going_S[: self.n].sum())

    def take_done(self, eos_id: int) -> tuple[list[tuple[int, Completion]], Moves]:
        """Take out the rows that are done: (index of the row, completion), and which slots moved where."""
        going_A = self._going_S[: self.n]
        done = (~going_A).nonzero().squeeze(1)
        parts = (self._rows_S, self._drawn_S, self._tokens_ST, self._logprobs_ST, self._entropies_ST)
        found = []
        for row, count, tokens, *scores in zip(*(part[done].tolist() for part in parts), strict=True):
            logprobs, entropies = (values[:count] for values in scores)
            noted = entropies if self._has_entropies else []
            found.append((row, Completion(tokens[:count], logprobs, tokens[count - 1] == eos_id, noted)))
        return found, self._close_up(going_A.nonzero().squeeze(1))

    def _close_up(self, kept: Tensor) -> Moves:
        """Keep these slots only: the last ones move into the free ones before them."""
        n = len(kept)
        free = torch.ones(n, dtype=torch.bool, device=kept.device)
        free[kept[kept < n]] = False
        moves = Moves(free.nonzero().squeeze(1), kept[kept >= n], n)
        if len(moves.holes):
            for part in self._all:
                part[moves.holes] = part[moves.movers]
        self.n = n
        return moves
