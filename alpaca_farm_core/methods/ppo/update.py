"""The update phase of PPO: a rollout batch in, changed weights and averages over its optimiser steps out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.loss import policy_loss, value_loss
from alpaca_farm_core.methods.ppo.rollout import Judged, Learnable
from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.training.kl import kl_estimate
from alpaca_farm_core.training.launch import Workers
from alpaca_farm_core.training.masking import masked_sum
from alpaca_farm_core.training.optimiser import clip_gradients, gradient_norm
from alpaca_farm_core.training.order import permutation
from alpaca_farm_core.training.rollouts import MicroBatch, Passes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpaca_farm_core.models.heads import ValueModel


# Every process must add up the same sums, also one without a response in a minibatch.
_SUMS = ("policy_loss", "clip_fraction", "approx_kl", "kl_loss", "value_loss", "value_clip_fraction", "value_error")


@dataclass(frozen=True)
class Learners:
    """What is updated.

    Attributes:
        policy: Actor.
        critic: Value model.
        policy_optimiser: Of the actor.
        critic_optimiser: Of the critic.
    """

    policy: PreTrainedModel
    critic: ValueModel
    policy_optimiser: torch.optim.Optimizer
    critic_optimiser: torch.optim.Optimizer

    def train(self, mode: bool) -> None:
        """Turn dropout on or off."""
        self.policy.train(mode)
        self.critic.train(mode)


class Update:
    """All optimiser steps on one rollout batch."""

    def __init__(
        self,
        learners: Learners,
        judged: Judged,
        targets: Learnable,
        passes: Passes,
        workers: Workers,
        config: PPOConfig,
    ) -> None:
        self._learners, self._judged, self._targets = learners, judged, targets
        self._passes, self._workers, self._config = passes, workers, config

    def run(self, step: int, last_good_step: int | None) -> dict[str, float]:
        """Make `epochs` passes in shuffled minibatches; return averages over the optimiser steps.

        Raises:
            TrainingDivergedError: a loss or gradient became NaN or infinite; the weights are those before it.
        """
        config = self._config
        self._learners.train(config.dropout)
        n, size = config.rollout_batch_size, config.minibatch_size
        records: list[dict[str, float]] = []
        for epoch in range(config.epochs):
            assert config.seed is not None
            order = permutation(n, "update", config.seed, step, epoch, 0)
            for start in range(0, n - size + 1, size):
                record = self._accumulate(self._mine(order[start : start + size]))
                record |= self._norms()
                require_finite(record, step, last_good_step)
                self._apply()
                records.append(record)
        self._learners.train(False)
        return {name: sum(record[name] for record in records) / len(records) for name in records[0]}

    def _mine(self, rows: Sequence[int]) -> list[int]:
        """Which of this process's responses are among these rows of the whole batch (`Workers.share` dealt them)."""
        size, rank = self._workers.size, self._workers.rank
        return [row // size for row in rows if row % size == rank]

    def _accumulate(self, rows: list[int]) -> dict[str, float]:
        """Gradients of one minibatch, micro-batch by micro-batch; return its losses and shares per token."""
        counted = (
            len(rows) * self._config.max_new_tokens if self._config.paper_compat else self._judged.mask_NR[rows].sum()
        )
        counted_everywhere = float(self._workers.total(torch.as_tensor(counted, device=self._passes.device)))
        names = _SUMS if self._config.kl_loss_coef else [name for name in _SUMS if name != "kl_loss"]
        sums = dict.fromkeys(names, torch.zeros((), device=self._passes.device))
        for part in self._passes.micro_batches(self._judged.responses, rows):
            for name, value in self._forward_backward(part, counted_everywhere).items():
                sums[name] = sums[name] + value.detach()
        totals = self._workers.total(torch.stack([value.float() for value in sums.values()])) / counted_everywhere
        return dict(zip(sums, totals.tolist(), strict=True))

    def _forward_backward(self, part: MicroBatch, counted: float) -> dict[str, Tensor]:
        config, judged, targets = self._config, self._judged, self._targets
        rows, width = part.rows, part.width
        mask = judged.mask_NR[rows, :width]
        logprobs = self._passes.token_scores(self._learners.policy, part, config.temperature).logprobs_BT
        actor = policy_loss(
            logprobs, judged.logprobs_NR[rows, :width], targets.advantages_NR[rows, :width], mask, config.clip_range
        )
        loss, sums = (
            actor.loss,
            {"policy_loss": actor.loss, "clip_fraction": actor.clipped, "approx_kl": actor.approx_kl},
        )
        if config.kl_loss_coef:
            kl = masked_sum(kl_estimate(logprobs, judged.reference_logprobs_NR[rows, :width], config.kl_loss), mask)
            loss, sums["kl_loss"] = loss + config.kl_loss_coef * kl, kl
        (loss / counted).backward()  # type: ignore[no-untyped-call]
        values = self._passes.values(self._learners.critic, part)
        critic = value_loss(
            values,
            targets.values_NR[rows, :width],
            targets.returns_NR[rows, :width],
            mask,
            config.value_clip_range,
        )
        (config.vf_coef * critic.loss / counted).backward()  # type: ignore[no-untyped-call]
        return sums | {
            "value_loss": critic.loss,
            "value_clip_fraction": critic.clipped,
            "value_error": critic.squared_error,
        }

    def _norms(self) -> dict[str, float]:
        """Sum the gradients over all processes and measure them."""
        for model in (self._learners.policy, self._learners.critic):
            self._workers.sum_gradients(model.parameters())
        self._policy_norm = gradient_norm(self._learners.policy.parameters())
        self._critic_norm = gradient_norm(self._learners.critic.parameters())
        return {"policy_grad_norm": float(self._policy_norm), "critic_grad_norm": float(self._critic_norm)}

    def _apply(self) -> None:
        """Clip each model's gradients by its own norm (the original: both by their common norm), and step."""
        learners, limit = self._learners, self._config.max_grad_norm
        policy_norm, critic_norm = self._policy_norm, self._critic_norm
        if self._config.paper_compat:
            policy_norm = critic_norm = torch.linalg.vector_norm(torch.stack([policy_norm, critic_norm]))
        clip_gradients(learners.policy.parameters(), policy_norm, limit)
        clip_gradients(learners.critic.parameters(), critic_norm, limit)
        for optimiser in (learners.policy_optimiser, learners.critic_optimiser):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
