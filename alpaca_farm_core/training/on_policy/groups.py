"""What critic-free methods share: one learner, groups of answers to a prompt, one advantage per response.

A method gives its advantages and its loss; there is no critic anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from alpaca_farm_core.training.advantages import equal_groups
from alpaca_farm_core.training.masking import masked_mean
from alpaca_farm_core.training.on_policy.algorithm import Plain, epoch_minibatches
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.on_policy.setup import Setup
from alpaca_farm_core.training.rollouts import MicroBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Rows(NamedTuple):
    """Some responses of a minibatch, [B, T] over their tokens unless the name says otherwise."""

    logprobs_BT: Tensor
    old_logprobs_BT: Tensor
    reference_logprobs_BT: Tensor
    advantages_B: Tensor
    mask_BT: Tensor


class GroupAlgorithm(Plain, ABC):
    """A critic-free method.

    Attributes:
        sums: Names of the sums that `loss` returns.
    """

    sums: tuple[str, ...] = ("policy_loss", "clip_fraction", "approx_kl")

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.config: Any = setup.config
        self.learners = {"policy": setup.policy}
        self.group_size: int = self.config.group_size

    @abstractmethod
    def advantages(self, judged: Judged, kl_coef: float) -> Tensor:
        """One advantage per response, [N]."""

    @abstractmethod
    def loss(self, rows: Rows, kl_coef: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed loss, and sums for the record."""

    def weight(self, mask_NR: Tensor) -> Tensor | float:
        """What sums over a minibatch are divided by: its responses."""
        return float(len(mask_NR))

    def objective(self, judged: Judged, step: int, kl_coef: float) -> GroupObjective:
        """Compare the answers of each group."""
        return GroupObjective(self, judged, step, kl_coef)


class GroupObjective:
    """A critic-free loss on one judged rollout batch."""

    def __init__(self, algorithm: GroupAlgorithm, judged: Judged, step: int, kl_coef: float) -> None:
        self._algorithm, self._judged, self._step, self._kl_coef = algorithm, judged, step, kl_coef
        self._setup = algorithm.setup
        self.responses = judged.responses
        self.sums = algorithm.sums
        self.advantages_N = algorithm.advantages(judged, kl_coef)
        everywhere = torch.ones_like(self.advantages_N, dtype=torch.bool)
        total = self._setup.workers.total
        equal_N = equal_groups(judged.penalised_N, algorithm.group_size)
        self.metrics = {
            "advantage_size": float(masked_mean(self.advantages_N.abs(), everywhere, total)),
            "equal_groups_share": float(masked_mean(equal_N, everywhere, total)),
        }

    def minibatches(self) -> list[list[int]]:
        """`epochs` shuffled passes over the rollout batch."""
        config, workers = self._algorithm.config, self._setup.workers
        n, size = config.rollout_batch_size, config.minibatch_size
        return epoch_minibatches(n, size, config.epochs, config.seed, self._step, workers, self._algorithm.group_size)

    def weight(self, rows: list[int]) -> Tensor | float:
        """What the method divides by."""
        return self._algorithm.weight(self._judged.mask_NR[rows])

    def backward(self, part: MicroBatch, weight: float) -> dict[str, Tensor]:
        """Gradients of the policy."""
        judged, rows, width = self._judged, part.rows, part.width
        policy = cast("PreTrainedModel", self._setup.policy.model)
        seen = Rows(
            self._setup.passes.token_scores(
                policy, part, self._algorithm.config.temperature, entropies=False
            ).logprobs_BT,
            judged.logprobs_NR[rows, :width],
            judged.reference_logprobs_NR[rows, :width],
            self.advantages_N[rows],
            judged.mask_NR[rows, :width],
        )
        loss, sums = self._algorithm.loss(seen, self._kl_coef)
        (loss / weight).backward()  # type: ignore[no-untyped-call]
        return sums
