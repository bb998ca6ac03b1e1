"""What a method adds to the shared on-policy loop: what it trains, its advantages and its loss.

The loop samples, rewards, records, evaluates and keeps checkpoints; an algorithm turns a judged rollout
batch into an objective, which cuts itself into minibatches and adds up gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from alpaca_farm_core.training.launch import Workers
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.optimiser import restore_training_state, training_state
from alpaca_farm_core.training.order import permutation
from alpaca_farm_core.training.rollouts import MicroBatch, Responses

if TYPE_CHECKING:
    from alpaca_farm_core.models.heads import ValueHead


@dataclass(frozen=True)
class Learner:
    """A model in training.

    Attributes:
        model: The model; only its parameters that require gradients change.
        optimiser: Of those parameters.
        learning_rate: Highest learning rate.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    learning_rate: float
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        object.__setattr__(self, "parameters", trained)

    def state(self) -> dict[str, Any]:
        """Trained weights and optimiser, for a checkpoint."""
        return training_state(self.model, self.optimiser)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        restore_training_state(self.model, self.optimiser, state)


class Objective(Protocol):
    """What one step's updates minimise.

    Attributes:
        responses: What is learnt from, as rows numbered from 0.
    """

    responses: Responses

    @property
    def sums(self) -> Sequence[str]:
        """Names of what `backward` returns; every process adds up the same ones, also one without rows."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """What is known before the first update."""

    def minibatches(self) -> Sequence[list[int]]:
        """Rows of this process for each optimiser step; as many lists on every process."""

    def weight(self, rows: list[int]) -> Tensor | float:
        """What the minibatch's sums are divided by (its tokens, its responses …), summed over processes later."""

    def backward(self, part: MicroBatch, weight: float) -> dict[str, Tensor]:
        """Add the gradients of a micro-batch's share of loss ÷ weight; return sums by name, for the record."""


class Algorithm(Protocol):
    """One method.

    Attributes:
        title: What people read.
        group_size: Answers to each prompt of a rollout.
        clip_together: Clip all learners' gradients by their common norm.
        width: Response positions of all grids; 0 = those of the longest response.
        value_head: Of a critic on the policy's own states, whose values come with its log-probabilities.
        uses_reference: The updates run the reference, which must not wait elsewhere then.
        reference_parts: They run parts of it, which must then be whole.
    """

    title: str
    group_size: int
    clip_together: bool
    width: int
    value_head: ValueHead | None
    uses_reference: bool
    reference_parts: bool

    @property
    def learners(self) -> Mapping[str, Learner]:
        """What is trained, by name; the policy is called "policy"."""

    def objective(self, judged: Judged, step: int, kl_coef: float) -> Objective:
        """Advantages, targets, pools …: everything between rewards and updates of step `step`.

        May add gradients of its first minibatch already, where a pass serves both.
        """

    def shown(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """The prompts as the policy is shown them when it samples."""

    def tensors(self) -> Mapping[str, Any]:
        """State besides the learners, for a checkpoint: tensors only."""

    def restore(self, tensors: Mapping[str, Any]) -> None:
        """Take back what `tensors` gave."""


class Plain:
    """What most algorithms have in common: no state besides the learners, prompts shown as they are."""

    group_size = 1
    clip_together = False
    width = 0
    value_head: ValueHead | None = None
    uses_reference = False
    reference_parts = False

    def shown(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """Return the prompts."""
        return prompt_ids

    def tensors(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def restore(self, tensors: Mapping[str, Any]) -> None:
        """Nothing."""


def epoch_minibatches(
    n: int, size: int, epochs: int, seed: int, step: int, workers: Workers, group_size: int = 1
) -> list[list[int]]:
    """Cut `epochs` shuffled passes over the n rows of all processes into full minibatches; return this one's part.

    The minibatches are the same however many processes there are. Rows were dealt to processes group by group.
    """
    orders = [permutation(n, "update", seed, step, epoch, 0) for epoch in range(epochs)]
    minibatches = [order[start : start + size] for order in orders for start in range(0, n - size + 1, size)]
    return [_mine(rows, workers, group_size) for rows in minibatches]


def _mine(rows: Sequence[int], workers: Workers, group_size: int) -> list[int]:
    """Which of this process's rows are among these rows of the whole batch."""
    placed = ((*divmod(row // group_size, workers.size), row % group_size) for row in rows)
    return [group * group_size + member for group, rank, member in placed if rank == workers.rank]
