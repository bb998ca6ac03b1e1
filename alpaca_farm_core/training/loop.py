"""The loop of supervised training: an objective and a config in, trained weights and one metric row per step out.

The loss of a step is a sum over its rows divided by their total weight, so cutting them into micro-batches
changes nothing. Knows nothing of what is learnt: that is the objective's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from alpaca_farm_core.models.packing import micro_batches
from alpaca_farm_core.models.recompute import recompute_activations
from alpaca_farm_core.models.sharding import shard
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.pipeline.stop import StopRequest
from alpaca_farm_core.training.checkpoint import Checkpoint, Checkpointer
from alpaca_farm_core.training.config import LoopConfig
from alpaca_farm_core.training.dropout import seed_dropout
from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.training.launch import Workers
from alpaca_farm_core.training.optimiser import (
    build_optimiser,
    clip_gradients,
    gradient_norm,
    restore_training_state,
    schedule_factor,
    set_learning_rate,
    training_state,
)
from alpaca_farm_core.training.order import epoch_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpaca_farm_core.config.execution import ExecutionConfig
    from alpaca_farm_core.pipeline.stage import StageContext


@dataclass(frozen=True)
class LossSums:
    """Sums over some rows.

    Attributes:
        loss: Summed loss with its graph, a scalar.
        counts: Further sums without graph, by name.
    """

    loss: Tensor
    counts: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """What is minimised, over rows numbered from 0."""

    def __len__(self) -> int:
        """Return the number of training rows."""

    def tokens(self, row: int) -> int:
        """Tokens of a row in a forward pass, for the token budget."""

    def weight(self, row: int) -> float:
        """Share of a row in the divisor of the loss (its trained tokens; 1 per pair)."""

    def loss(self, rows: list[int]) -> LossSums:
        """Forward pass over training rows."""

    def summary(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Metrics made of the summed counts of a step."""

    def evaluate(self) -> dict[str, float]:
        """Metrics on held-out rows; called without gradients, in evaluation mode."""


@dataclass
class Supervised:
    """One training run; `run` goes from the newest checkpoint to the end.

    Attributes:
        model: What is trained; float32 weights on the workers' device. Sharded here where the workers shard.
        objective: What is minimised.
        config: Hyper-parameters.
        workers: The processes.
        checkpointer: Where moments are kept.
        progress: Where to report.
        micro_batch_tokens: Tokens of one forward pass, padding included.
        checkpoint_seconds: At least this long between checkpoints; 0 = after every step.
        stop: Asked after each step.
        rows: Metrics of the steps done.
        tokens_seen: Tokens trained on by this process since it was started.
        seconds: Time spent in steps by this process since it was started.
    """

    model: PreTrainedModel
    objective: Objective
    config: LoopConfig
    workers: Workers
    checkpointer: Checkpointer
    progress: Progress
    micro_batch_tokens: int
    checkpoint_seconds: float
    stop: StopRequest = field(default_factory=StopRequest)
    rows: list[dict[str, Any]] = field(default_factory=list)
    tokens_seen: int = 0
    seconds: float = 0.0

    @classmethod
    def of_stage(
        cls,
        context: StageContext,
        model: PreTrainedModel,
        objective: Objective,
        workers: Workers,
        execution: ExecutionConfig,
    ) -> Supervised:
        """Set up a stage's run: its config, progress and checkpoint folder."""
        if execution.activation_checkpointing:
            recompute_activations(model)
        return cls(
            model,
            objective,
            context.config,
            workers,
            Checkpointer(context.scratch / "checkpoints", context.progress.say),
            context.progress,
            execution.micro_batch_tokens,
            execution.checkpoint_seconds,
            context.stop,
        )

    def __post_init__(self) -> None:
        """Count the steps, shard the model, and make the optimiser."""
        shard(self.model, self.workers.mesh)
        self._per_epoch = math.ceil(len(self.objective) / self.config.batch_size)
        self.total_steps = self._per_epoch * self.config.epochs
        self._warmup = math.ceil(self.total_steps * self.config.warmup_ratio)
        self._optimiser = build_optimiser(self.model, self.config)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]

    def run(self) -> list[dict[str, Any]]:
        """Train to the end; return the metric rows, one per step.

        Raises:
            TrainingDivergedError: loss or gradient became NaN or infinite.
        """
        first = self._restore()
        self.progress.start("Training", total=self.total_steps, unit="steps", done=first)
        saved_at = time.monotonic()
        self.model.train()
        for step in range(first, self.total_steps):
            row = self._step(step)
            self.rows.append(row)
            last = step + 1 == self.total_steps
            stopping = self.workers.any(self.stop.is_asked())
            if last or stopping or time.monotonic() - saved_at >= self.checkpoint_seconds:
                self._save(step + 1)
                saved_at = time.monotonic()
            if stopping:
                self.stop.leave()
            rate = self.tokens_seen / max(self.seconds, 1e-9)
            self.progress.advance(1, {**_numbers(row), "tokens_per_second": rate})
        self.model.eval()
        return self.rows

    def figures(self) -> dict[str, Any]:
        """Metrics of the whole run, for an artifact: steps, the last loss, and the last figures on held-out rows."""
        last = self.rows[-1]
        heldout = {name: value for name, value in last.items() if name.startswith("eval_")}
        return {"steps": self.total_steps, "train_loss": last["loss"], **heldout}

    def timings(self) -> dict[str, float]:
        """How long the steps took that this process made, and how fast they were."""
        rate = self.tokens_seen / self.seconds if self.seconds else 0.0
        return {"train_seconds": self.seconds, "tokens_per_second": rate}

    def _step(self, step: int) -> dict[str, Any]:
        started = time.perf_counter()
        # 1. the rows of this step
        epoch, place = divmod(step, self._per_epoch)
        assert self.config.seed is not None
        seed_dropout(self.config.seed, step, self.workers.rank)
        rows = epoch_batches(len(self.objective), self.config.batch_size, self.config.seed, epoch)[place]
        # 2. forward and backward, micro-batch by micro-batch
        loss, counts = self._accumulate(rows)
        # 3. gradients of all processes together, looked at before they are used
        self.workers.sum_gradients(self._parameters)
        norm = gradient_norm(self._parameters)
        require_finite({"loss": loss, "gradient norm": float(norm)}, step + 1, self.checkpointer.newest_step)
        # 4. one optimiser step
        clip_gradients(self._parameters, norm, self.config.max_grad_norm)
        rate = self.config.learning_rate * schedule_factor(self.config.schedule, step, self.total_steps, self._warmup)
        set_learning_rate(self._optimiser, rate)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.seconds += time.perf_counter() - started
        # 5. what happened
        row = {"step": step + 1, "epoch": epoch + 1, "loss": loss, "learning_rate": rate, "grad_norm": float(norm)}
        return row | self.objective.summary(counts) | self._evaluation(step + 1)

    def _accumulate(self, rows: list[int]) -> tuple[float, dict[str, float]]:
        """Add up the gradients of loss / total weight; return that loss and the counts over all processes."""
        objective = self.objective
        weight = sum(objective.weight(row) for row in rows)
        mine = self.workers.share(rows)
        tokens = [objective.tokens(row) for row in mine]
        sums: dict[str, Tensor] = {"loss": torch.zeros((), device=self.workers.device)}
        groups = [[mine[i] for i in group] for group in micro_batches(self.model, tokens, self.micro_batch_tokens)]
        idle = self.workers.passes(len(groups)) - len(groups)
        for number, group in enumerate([*groups, *[[min(rows, key=objective.tokens)]] * idle]):
            counted = number < len(groups)
            with self.workers.arithmetic():
                part = objective.loss(group)
            (part.loss / (weight if counted else math.inf)).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": part.loss, **part.counts}.items():
                sums[name] = sums.get(name, 0) + (value.detach() if counted else torch.zeros_like(value))
        self.tokens_seen += sum(tokens)
        totals = self.workers.total(torch.stack([value.float() for value in sums.values()])).tolist()
        counts = dict(zip(sums, totals, strict=True))
        return counts.pop("loss") / weight, counts

    def _evaluation(self, step: int) -> dict[str, float]:
        every = self.config.eval_every
        if step != self.total_steps and (not every or step % every):
            return {}
        self.model.eval()
        with torch.no_grad(), self.workers.arithmetic():
            metrics = self.objective.evaluate()
        self.model.train()
        return metrics

    def _save(self, step: int) -> None:
        tensors = training_state(self.model, self._optimiser)
        self.checkpointer.save(Checkpoint(step, tensors, {"rows": self.rows}), self.workers)

    def _restore(self) -> int:
        """Go back to the newest checkpoint; return the number of steps done."""
        checkpoint = self.checkpointer.load(self.workers.rank)
        if checkpoint is None:
            return 0
        restore_training_state(self.model, self._optimiser, checkpoint.tensors)
        self.rows = list(checkpoint.state["rows"])
        self.progress.say(f"Resuming after step {checkpoint.step} of {self.total_steps}.")
        return checkpoint.step


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "step"}
