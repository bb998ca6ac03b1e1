"""The update phase of a step: an objective in, changed weights and averages over its optimiser steps out."""

from __future__ import annotations

import math

import torch

from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.training.launch import Workers
from alpaca_farm_core.training.on_policy.algorithm import Algorithm, Objective
from alpaca_farm_core.training.optimiser import clip_gradients, gradient_norm
from alpaca_farm_core.training.rollouts import Passes


class Update:
    """All optimiser steps on one objective.

    Args:
        algorithm: Whose learners are updated.
        objective: What is minimised.
        passes: How forward passes run.
        workers: The processes.
        max_grad_norm: Gradients are scaled down to this norm; 0 = disabled.
        dropout: Leave the models' dropout on.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        objective: Objective,
        passes: Passes,
        workers: Workers,
        max_grad_norm: float,
        dropout: bool = False,
    ) -> None:
        self._algorithm, self._objective = algorithm, objective
        self._passes, self._workers = passes, workers
        self._max_grad_norm, self._dropout = max_grad_norm, dropout

    def run(self, step: int, last_good_step: int | None) -> dict[str, float]:
        """Make the objective's optimiser steps; return averages over them.

        Raises:
            TrainingDivergedError: a loss or gradient became NaN or infinite; the weights are those before it.
        """
        self._train(self._dropout)
        records: list[dict[str, float]] = []
        for rows in self._objective.minibatches():
            record = self.accumulate(rows)
            record |= self._norms()
            require_finite(record, step, last_good_step)
            self._apply()
            records.append(record)
        self._train(False)
        return {name: sum(record[name] for record in records) / len(records) for name in records[0]}

    def accumulate(self, rows: list[int]) -> dict[str, float]:
        """Gradients of one minibatch, micro-batch by micro-batch; return its sums divided by its weight."""
        weight = torch.as_tensor(self._objective.weight(rows), device=self._passes.device)
        weight_everywhere = float(self._workers.total(weight))
        sums = dict.fromkeys(self._objective.sums, torch.zeros((), device=self._passes.device))
        for part in self._passes.micro_batches(self._objective.responses, rows):
            found = self._objective.backward(part, weight_everywhere if part.counted else math.inf)
            if part.counted:
                sums = {name: sums[name] + found[name].detach() for name in sums}
        totals = self._workers.total(torch.stack([value.float() for value in sums.values()])) / weight_everywhere
        return dict(zip(sums, totals.tolist(), strict=True))

    def _train(self, mode: bool) -> None:
        for learner in self._algorithm.learners.values():
            learner.model.train(mode)

    def _norms(self) -> dict[str, float]:
        """Sum the gradients over all processes and measure them."""
        learners = self._algorithm.learners
        for learner in learners.values():
            self._workers.sum_gradients(learner.parameters)
        self._norm_of = {name: gradient_norm(learner.parameters) for name, learner in learners.items()}
        return {f"{name}_grad_norm": float(norm) for name, norm in self._norm_of.items()}

    def _apply(self) -> None:
        """Clip each model's gradients by its own norm (or all by their common norm), and step."""
        norms, learners = self._norm_of, self._algorithm.learners
        if self._algorithm.clip_together:
            norms = dict.fromkeys(norms, torch.linalg.vector_norm(torch.stack(list(norms.values()))))
        for name, learner in learners.items():
            clip_gradients(learner.parameters, norms[name], self._max_grad_norm)
        for learner in learners.values():
            learner.optimiser.step()
            learner.optimiser.zero_grad(set_to_none=True)
