"""The loop of on-policy methods: a setup and an algorithm in; the best policy, metrics and sampled rollouts out.

One step: answer prompts → judge the answers → the algorithm's objective → updates → KL controller → record and
evaluate → checkpoint. Learning rates, prompts and random numbers are functions of the step, so a resumed run
cannot drift.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.seeding import stable_seed
from alpaca_farm_core.training.checkpoint import Checkpoint, Checkpointer
from alpaca_farm_core.training.dropout import seed_dropout
from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.training.heap import keeping_memory, returning_memory
from alpaca_farm_core.training.kl import AdaptiveKL, FixedKL
from alpaca_farm_core.training.on_policy.algorithm import Algorithm
from alpaca_farm_core.training.on_policy.config import OnPolicyConfig
from alpaca_farm_core.training.on_policy.judged import Judged, judge
from alpaca_farm_core.training.on_policy.keep import Keeper
from alpaca_farm_core.training.on_policy.record import heldout_metrics, rollout_metrics, sample_rows
from alpaca_farm_core.training.on_policy.setup import Prompts, Setup
from alpaca_farm_core.training.on_policy.update import Update
from alpaca_farm_core.training.optimiser import schedule_factor, set_learning_rate
from alpaca_farm_core.training.order import stream_rows
from alpaca_farm_core.training.rewards.base import Answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class OnPolicy:
    """One run; `run` goes from the newest checkpoint to the end.

    Args:
        context: Of the stage.
        setup: Models, reward and prompts.
        algorithm: How the policy learns.

    Raises:
        DataError: too few prompts for one step.
    """

    def __init__(self, context: StageContext, setup: Setup, algorithm: Algorithm) -> None:
        self._context, self._setup, self._algorithm = context, setup, algorithm
        setup.shard_frozen(keep_reference=algorithm.reference_parts)
        self._config: OnPolicyConfig = context.config
        config = self._config
        self._prompts_per_step = config.rollout_batch_size // algorithm.group_size
        self.total_steps = config.steps or len(setup.prompts) * config.passes // self._prompts_per_step
        if not self.total_steps:
            raise DataError(
                f"{len(setup.prompts)} prompts × {config.passes} passes do not fill one rollout batch of "
                f"{self._prompts_per_step}.",
                "Lower rollout_batch_size, raise passes, or set steps.",
            )
        self._sampling = SamplingParams(config.max_new_tokens, config.temperature)
        self._checkpointer = Checkpointer(context.scratch / "checkpoints", context.progress.say)
        self._keeper = Keeper(setup.loaded, setup.stored_dtype, context.output, context.scratch, setup.workers.is_main)
        self._controller = (
            AdaptiveKL(config.kl_coef, config.kl_target, config.kl_gain)
            if config.kl_controller == "adaptive"
            else FixedKL(config.kl_coef)
        )
        self._start: dict[str, float] = {}
        self._rows: list[dict[str, Any]] = []
        self._samples: list[dict[str, Any]] = []
        self._best: tuple[int, float] | None = None
        self._seconds, self._tokens = 0.0, 0

    def train(self) -> StageResult:
        """Train to the end and write the artifact.

        Raises:
            TrainingDivergedError: a reward, loss or gradient became NaN or infinite.
            AnnotationError: an answer got no reward; the run resumes from its last checkpoint.
        """
        # In float32 a step asks for what the one before has freed; in bfloat16 a process grows (see returning_memory).
        with keeping_memory(self._setup.passes.device.type == "cpu" and self._config.precision == "float32"):
            self.run()
        return self.result()

    def run(self) -> None:
        """Train to the end, keeping checkpoints on the way."""
        first = self._restore()
        if not self._start:
            self._start = self._evaluate()
            require_finite(self._start, 0, None)
        self._context.progress.start(self._algorithm.title, total=self.total_steps, unit="steps", done=first)
        saved_at = time.monotonic()
        for step in range(first + 1, self.total_steps + 1):
            row = self._step(step)
            due = time.monotonic() - saved_at >= self._context.execution.checkpoint_seconds
            stopping = self._setup.workers.any(self._context.stop.is_asked())
            if due or stopping or step == self.total_steps:
                self._save(step)
                saved_at = time.monotonic()
            if stopping:
                self._context.stop.leave()
            rate = self._tokens / max(self._seconds, 1e-9)
            self._context.progress.advance(1, {**_numbers(row), "tokens_per_second": rate})

    def _step(self, step: int) -> dict[str, Any]:
        started = time.perf_counter()
        config, setup, algorithm = self._config, self._setup, self._algorithm
        # 1. answers of the current policy to the next prompts
        rate = self._set_learning_rates(step)
        rows = self._prompt_rows(step)
        judged = self._answer(setup.prompts, rows, "rollout", step, algorithm.group_size)
        # 2. rewards, checked before anything learns from them
        metrics = rollout_metrics(judged, setup.workers.total)
        require_finite(metrics, step, self._checkpointer.newest_step)
        kl_coef = self._controller.coefficient
        grows = config.precision == "bfloat16"  # measured: in float32 a run does not
        offloaded = setup.offloaded(algorithm.learners.values(), algorithm.uses_reference)
        with offloaded, returning_memory(grows):
            # 3. the algorithm's objective: advantages, targets
            objective = algorithm.objective(judged, step, kl_coef)
            metrics |= objective.metrics
            # 4. updates
            update = Update(
                algorithm, objective, setup.passes, setup.workers, config.max_grad_norm, dropout=config.dropout
            )
            assert config.seed is not None
            seed_dropout(config.seed, step, setup.workers.rank)
            metrics |= update.run(step, self._checkpointer.newest_step)
        # 5. the next KL coefficient
        self._controller.update(metrics["kl"])
        self._seconds += time.perf_counter() - started
        self._tokens += sum(map(len, judged.responses.response_ids))
        # 6. what happened, and what is kept of it
        self._note_samples(step, judged, rows)
        row = {"step": step, "learning_rate": rate, "kl_coef": kl_coef, **metrics, **self._evaluation(step)}
        self._rows.append(row)
        if config.save_every and step % config.save_every == 0:
            self._keeper.keep_checkpoint(step)
        return row

    def result(self) -> StageResult:
        """Write the artifact's files and sum up."""
        config, setup = self._config, self._setup
        chosen = self._best[0] if self._best and config.select == "best" else None
        self._keeper.publish(chosen)
        if setup.workers.is_main:
            write_jsonl(self._context.output / "metrics.jsonl", self._rows)
            write_jsonl(self._context.output / "rollouts.jsonl", self._samples)
        selected = chosen or self.total_steps
        stats = setup.reward.stats
        spent = setup.workers.total(torch.tensor(stats.spent_usd, dtype=torch.float64, device=setup.workers.device))
        final = next(row for row in self._rows if row["step"] == selected)
        return StageResult(
            metrics={
                "steps": self.total_steps,
                "selected_step": selected,
                "n_prompts": len(setup.prompts),
                "n_too_long": setup.prompts.n_too_long,
                "n_heldout_prompts": len(setup.heldout),
                **{f"start_{name}": value for name, value in self._start.items()},
                **{name: value for name, value in final.items() if name.startswith("heldout_")},
                "kl": self._rows[-1]["kl"],
                "reward": self._rows[-1]["reward"],
            },
            timings={
                "train_seconds": self._seconds,
                "response_tokens_per_second": self._tokens / self._seconds if self._seconds else 0.0,
                **(stats.timings() if stats.n_requests else {}),
            },
            cost_usd=float(spent),
        )

    def _prompt_rows(self, step: int) -> list[int]:
        """Prompts of this process: its share of the step's slice of the endless shuffled stream."""
        size = self._prompts_per_step
        assert self._config.seed is not None
        return stream_rows(len(self._setup.prompts), self._config.seed, (step - 1) * size, size)

    def _answer(self, prompts: Prompts, rows: list[int], purpose: str, step: int, group_size: int = 1) -> Judged:
        """Sample and judge this process's share; a row's draws depend on seed, purpose, step and place only.

        A group of answers to one prompt stays together, on one process.
        """
        setup, config, algorithm = self._setup, self._config, self._algorithm
        assert config.seed is not None
        groups = setup.workers.share(list(range(len(rows))))
        places = [group * group_size + member for group in groups for member in range(group_size)]
        seeds = [stable_seed(purpose, config.seed, step, place) for place in places]
        chosen = [rows[place // group_size] for place in places]
        tokens = [prompts.token_ids[row] for row in chosen]
        shown = algorithm.shown(tokens)
        responses = setup.sampler.sample(shown, seeds, self._sampling)
        answers = Answers(
            [prompts.instructions[row] for row in chosen],
            replace(responses, prompt_ids=tokens),
            setup.loaded.tokenizer,
        )
        return judge(
            answers,
            cast("PreTrainedModel", setup.policy.model),
            setup.reference,
            setup.reward,
            setup.passes,
            config,
            algorithm.width,
            shown,
            algorithm.value_head,
        )

    def _set_learning_rates(self, step: int) -> float:
        config = self._config
        factor = schedule_factor(config.schedule, step - 1, self.total_steps, config.warmup_steps)
        for learner in self._algorithm.learners.values():
            set_learning_rate(learner.optimiser, factor * learner.learning_rate)
        return factor * config.learning_rate

    def _evaluation(self, step: int) -> dict[str, float]:
        """Evaluate when due; remember the best policy so far."""
        every = self._config.eval_every
        if step != self.total_steps and (not every or step % every):
            return {}
        metrics = self._evaluate()
        require_finite(metrics, step, self._checkpointer.newest_step)
        if self._best is None or metrics["heldout_objective"] > self._best[1]:
            self._best = (step, metrics["heldout_objective"])
            if self._config.select == "best":
                self._keeper.keep_best(step)
        return metrics

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Answer the held-out prompts, always with the same random numbers."""
        heldout = self._setup.heldout
        judged = self._answer(heldout, list(range(len(heldout))), "heldout", 0)
        return heldout_metrics(judged, self._config, self._setup.workers.total)

    def _note_samples(self, step: int, judged: Judged, rows: list[int]) -> None:
        every = self._config.log_rollouts_every
        if not every or (step != 1 and step % every):
            return
        mine = self._setup.workers.share(rows)
        repeated = [row for row in mine for _ in range(self._algorithm.group_size)]
        instructions = [self._setup.prompts.instructions[row] for row in repeated]
        self._samples += sample_rows(step, judged, instructions, self._setup.loaded, self._config.log_rollouts)

    def _save(self, step: int) -> None:
        tensors = {name: learner.state() for name, learner in self._algorithm.learners.items()}
        tensors["algorithm"] = dict(self._algorithm.tensors())
        state = {
            "start": self._start,
            "rows": self._rows,
            "samples": self._samples,
            "best": self._best,
            "kl_coef": self._controller.coefficient,
        }
        self._checkpointer.save(Checkpoint(step, tensors, state), self._setup.workers)
        self._keeper.prune(self._best[0] if self._best else None)

    def _restore(self) -> int:
        """Go back to the newest checkpoint; return the number of steps done."""
        checkpoint = self._checkpointer.load(self._setup.workers.rank)
        if checkpoint is None:
            return 0
        state = checkpoint.state
        for name, learner in self._algorithm.learners.items():
            learner.restore(checkpoint.tensors[name])
        self._algorithm.restore(checkpoint.tensors["algorithm"])
        self._start, self._rows, self._samples = state["start"], list(state["rows"]), list(state["samples"])
        self._best = (int(state["best"][0]), float(state["best"][1])) if state["best"] else None
        self._controller.coefficient = float(state["kl_coef"])
        self._keeper.prune(self._best[0] if self._best else None)
        self._context.progress.say(f"Resuming after step {checkpoint.step} of {self.total_steps}.")
        return checkpoint.step


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "step"}
