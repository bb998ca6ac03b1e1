"""The pool of answers that Quark learns from: rollouts in, rows with their quantile out; tensors for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Pool:
    """Answers and their rewards, oldest first."""

    prompt_ids: list[list[int]] = field(default_factory=list)
    response_ids: list[list[int]] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self.rewards)

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows of (prompt ids, response ids, finished, reward)."""
        for prompt, response, finished, reward in rows:
            self.prompt_ids.append(list(prompt))
            self.response_ids.append(list(response))
            self.finished.append(bool(finished))
            self.rewards.append(float(reward))

    def clear(self) -> None:
        """Forget all."""
        for column in (self.prompt_ids, self.response_ids, self.finished, self.rewards):
            column.clear()

    def state(self) -> dict[str, Tensor]:
        """All columns as tensors."""
        return {
            "prompt_lengths": torch.tensor([len(ids) for ids in self.prompt_ids]),
            "prompt_ids": torch.tensor([token for ids in self.prompt_ids for token in ids], dtype=torch.int32),
            "response_lengths": torch.tensor([len(ids) for ids in self.response_ids]),
            "response_ids": torch.tensor([token for ids in self.response_ids for token in ids], dtype=torch.int32),
            "finished": torch.tensor(self.finished),
            "rewards": torch.tensor(self.rewards, dtype=torch.float64),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Pool:
        """Read back what `state` gave."""
        return cls(
            _cut(state["prompt_ids"], state["prompt_lengths"]),
            _cut(state["response_ids"], state["response_lengths"]),
            [bool(done) for done in state["finished"].tolist()],
            state["rewards"].tolist(),
        )


def quantiles(rewards: Sequence[float], n_quantiles: int, by_rank: bool = False) -> list[int]:
    """Quantile of each reward, 0 = the best.

    Sorted by falling reward, the rewards are cut into equal parts, the remainder going to the last. Equal
    rewards belong to the best part that one of them reaches, so a quantile may be empty; `by_rank` cuts
    through them, the earlier ones being the better, as AlpacaFarm does.

    Source: Lu et al. 2022, "Quark: controllable text generation with reinforced unlearning", section 2.1.
    """
    order = sorted(range(len(rewards)), key=lambda row: (-rewards[row], row))
    size = max(1, len(rewards) // n_quantiles)
    found = [0] * len(rewards)
    for rank, row in enumerate(order):
        tied = rank > 0 and rewards[row] == rewards[order[rank - 1]] and not by_rank
        found[row] = found[order[rank - 1]] if tied else min(rank // size, n_quantiles - 1)
    return found


def _cut(flat: Tensor, lengths: Tensor) -> list[list[int]]:
    return [part.tolist() for part in torch.split(flat, lengths.tolist())] if len(lengths) else []
