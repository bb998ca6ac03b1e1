"""PPO: policy, reward model and prompts in; the best policy, its checkpoints, metrics and sampled rollouts out.

One step: answer prompts → judge the answers → advantages → updates → KL controller → record and evaluate →
checkpoint. How it differs from the textbook and from AlpacaFarm:
1. whitening, losses and means are over response tokens of the whole batch, never over padding;
2. the KL penalty is the unclamped k1 estimate; k2 or k3 can be a term of the loss;
3. a response that does not end can be given a penalty instead of its reward, decided on token ids;
4. learning rates, prompts and random numbers are functions of the step, so a resumed run cannot drift.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.keep import Keeper
from alpaca_farm_core.methods.ppo.record import heldout_metrics, rollout_metrics, sample_rows, value_metrics
from alpaca_farm_core.methods.ppo.rollout import Judged, judge, learnable
from alpaca_farm_core.methods.ppo.setup import Prompts, Setup, set_up
from alpaca_farm_core.methods.ppo.update import Update
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.seeding import stable_seed
from alpaca_farm_core.training.checkpoint import Checkpoint, Checkpointer
from alpaca_farm_core.training.finite import require_finite
from alpaca_farm_core.training.kl import AdaptiveKL, FixedKL
from alpaca_farm_core.training.optimiser import schedule_factor, set_learning_rate
from alpaca_farm_core.training.order import stream_rows


def train(context: StageContext) -> StageResult:
    """Body of the stage `ppo`.

    Raises:
        DataError: too few prompts for one step.
        ModelError: policy and reward model do not fit together.
        TrainingDivergedError: a reward, loss or gradient became NaN or infinite.
    """
    run = PPO(context, set_up(context))
    run.run()
    return run.result()


class PPO:
    """One run; `run` goes from the newest checkpoint to the end."""

    def __init__(self, context: StageContext, setup: Setup) -> None:
        self._context, self._setup = context, setup
        self._config: PPOConfig = context.config
        config = self._config
        self.total_steps = config.steps or len(setup.prompts) * config.passes // config.rollout_batch_size
        if not self.total_steps:
            raise DataError(
                f"{len(setup.prompts)} prompts × {config.passes} passes do not fill one rollout batch of "
                f"{config.rollout_batch_size}.",
                "Lower rollout_batch_size, raise passes, or set steps.",
            )
        self._sampling = SamplingParams(config.max_new_tokens, config.temperature)
        self._checkpointer = Checkpointer(context.scratch / "checkpoints", context.progress.say)
        self._keeper = Keeper(setup.loaded, setup.stored_dtype, context.output, context.scratch)
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

    def run(self) -> None:
        """Train to the end, keeping checkpoints on the way."""
        first = self._restore()
        if not self._start:
            self._start = self._evaluate()
            require_finite(self._start, 0, None)
        self._context.progress.start("PPO", total=self.total_steps, unit="steps", done=first)
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
        config, setup = self._config, self._setup
        # 1. answers of the current policy to the next prompts
        rate = self._set_learning_rates(step)
        rows = self._prompt_rows(step)
        judged = self._answer(setup.prompts, rows, "rollout", step)
        # 2. rewards, checked before anything learns from them
        metrics = rollout_metrics(judged, setup.workers.total)
        require_finite(metrics, step, self._checkpointer.newest_step)
        # 3. advantages from shaped rewards and values
        kl_coef = self._controller.coefficient
        targets = learnable(judged, setup.learners.critic, setup.passes, config, kl_coef, setup.workers.total)
        metrics |= value_metrics(judged, targets, setup.workers.total)
        # 4. updates of policy and critic
        update = Update(setup.learners, judged, targets, setup.passes, setup.workers, config)
        metrics |= update.run(step, self._checkpointer.newest_step)
        # 5. the next KL coefficient
        self._controller.update(metrics["kl"])
        self._seconds += time.perf_counter() - started
        self._tokens += sum(map(len, judged.responses.response_ids))
        # 6. what happened, and what is kept of it
        self._note_samples(step, judged, rows)
        row = {"step": step, "learning_rate": rate, "kl_coef": kl_coef, **metrics, **self._evaluation(step)}
        self._rows.append(row)
        if setup.workers.is_main and config.save_every and step % config.save_every == 0:
            self._keeper.keep_checkpoint(step)
        return row

    def result(self) -> StageResult:
        """Write the artifact's files and sum up."""
        config, setup = self._config, self._setup
        chosen = self._best[0] if self._best and config.select == "best" else None
        if setup.workers.is_main:
            self._keeper.publish(chosen)
            write_jsonl(self._context.output / "metrics.jsonl", self._rows)
            write_jsonl(self._context.output / "rollouts.jsonl", self._samples)
        selected = chosen or self.total_steps
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
            },
        )

    def _prompt_rows(self, step: int) -> list[int]:
        """Prompts of this process: its share of the step's slice of the endless shuffled stream."""
        size = self._config.rollout_batch_size
        assert self._config.seed is not None
        return stream_rows(len(self._setup.prompts), self._config.seed, (step - 1) * size, size)

    def _answer(self, prompts: Prompts, rows: list[int], purpose: str, step: int) -> Judged:
        """Sample and judge this process's share; a row's draws depend on seed, purpose, step and place only."""
        setup, config = self._setup, self._config
        assert config.seed is not None
        places = setup.workers.share(list(range(len(rows))))
        seeds = [stable_seed(purpose, config.seed, step, place) for place in places]
        tokens = [prompts.token_ids[rows[place]] for place in places]
        responses = setup.sampler.sample(tokens, seeds, self._sampling)
        policy = setup.learners.policy
        return judge(responses, policy, setup.reference, setup.reward_model, setup.passes, config)

    def _set_learning_rates(self, step: int) -> float:
        config, learners = self._config, self._setup.learners
        factor = schedule_factor(config.schedule, step - 1, self.total_steps, config.warmup_steps)
        set_learning_rate(learners.policy_optimiser, factor * config.learning_rate)
        critic_rate = config.critic_learning_rate or config.learning_rate
        set_learning_rate(learners.critic_optimiser, factor * critic_rate)
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
            if self._setup.workers.is_main and self._config.select == "best":
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
        instructions = [self._setup.prompts.instructions[row] for row in self._setup.workers.share(rows)]
        self._samples += sample_rows(step, judged, instructions, self._setup.loaded, self._config.log_rollouts)

    def _save(self, step: int) -> None:
        if not self._setup.workers.is_main:
            return
        learners = self._setup.learners
        tensors = {
            "policy": learners.policy.state_dict(),
            "critic": learners.critic.state_dict(),
            "policy_optimiser": learners.policy_optimiser.state_dict(),
            "critic_optimiser": learners.critic_optimiser.state_dict(),
        }
        state = {
            "start": self._start,
            "rows": self._rows,
            "samples": self._samples,
            "best": self._best,
            "kl_coef": self._controller.coefficient,
        }
        self._checkpointer.save(Checkpoint(step, tensors, state))
        self._keeper.prune(self._best[0] if self._best else None)

    def _restore(self) -> int:
        """Go back to the newest checkpoint; return the number of steps done."""
        checkpoint = self._checkpointer.load()
        if checkpoint is None:
            return 0
        learners, state = self._setup.learners, checkpoint.state
        learners.policy.load_state_dict(checkpoint.tensors["policy"])
        learners.critic.load_state_dict(checkpoint.tensors["critic"])
        learners.policy_optimiser.load_state_dict(checkpoint.tensors["policy_optimiser"])
        learners.critic_optimiser.load_state_dict(checkpoint.tensors["critic_optimiser"])
        self._start, self._rows, self._samples = state["start"], list(state["rows"]), list(state["samples"])
        self._best = (int(state["best"][0]), float(state["best"][1])) if state["best"] else None
        self._controller.coefficient = float(state["kl_coef"])
        if self._setup.workers.is_main:
            self._keeper.prune(self._best[0] if self._best else None)
        self._context.progress.say(f"Resuming after step {checkpoint.step} of {self.total_steps}.")
        return checkpoint.step


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "step"}
