"""This project's side of the training tables, as a command: JOB.json → one line of JSON.

Runs the real stage on a store of its own, from the world's folders and texts; the seconds are those of its
optimiser steps: loading, reference log-probabilities made in advance, the figures on held-out rows that a run ends with
(the other side evaluates nothing) and writing the artifact are not in them.
Sampled answers end after the job's `lengths`, which come to the decoder as limits, a mark at which a row is done.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers  # noqa: F401 — counted as imported code, as on the other side

from alpaca_farm_core.artifacts.files import read_jsonl, write_jsonl
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.methods.dpo.stage import STAGE as DPO
from alpaca_farm_core.methods.dpo.stage import STAGE_REFERENCE as REFERENCE
from alpaca_farm_core.methods.ppo.stage import STAGE as PPO
from alpaca_farm_core.methods.reward_model.stage import STAGE as REWARD
from alpaca_farm_core.methods.rloo.stage import STAGE as RLOO
from alpaca_farm_core.methods.sft.stage import STAGE as SFT
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training import rollouts
from alpaca_farm_core.training.loop import Supervised
from alpaca_farm_core.training.on_policy.loop import OnPolicy
from alpaca_farm_core.types import Instruction, Preference


class Place(Config):
    """Where a ready-made folder lies, or how many rows to write."""

    path: str = Field("", description="Folder.")
    rows: int = Field(0, description="Rows.")


def _copy(context: StageContext) -> StageResult:
    shutil.copytree(context.config.path, context.output, dirs_exist_ok=True)
    return StageResult()


def _dataset(context: StageContext) -> StageResult:
    texts = json.loads((Path(context.config.path) / "rows.json").read_text())["texts"]
    rows = [
        Instruction(prompt, "", response).to_row()
        for prompt, response in zip(texts["prompts"], texts["responses"], strict=True)
    ]
    for split in ("sft", "preference", "unlabeled", "eval"):
        write_jsonl(context.output / f"{split}.jsonl", rows[: context.config.rows])
    write_jsonl(context.output / "val.jsonl", rows[-1:])
    return StageResult()


def _preferences(context: StageContext) -> StageResult:
    texts = json.loads((Path(context.config.path) / "rows.json").read_text())["texts"]
    columns = zip(texts["prompts"], texts["responses"], texts["others"], strict=True)
    rows = [
        Preference(prompt, "", first, second, 1.0 + number % 2, "bench").to_row()
        for number, (prompt, first, second) in enumerate(columns)
    ]
    write_jsonl(context.output / "preferences.jsonl", rows[: context.config.rows + 2])  # two are held out
    return StageResult()


POLICY = Stage("bench_policy", 1, Place, {}, "policy", _copy)
REWARD_MODEL = Stage("bench_reward_model", 1, Place, {}, "reward_model", _copy)
DATASET = Stage("bench_dataset", 1, Place, {}, "dataset", _dataset)
PREFERENCES = Stage("bench_preferences", 1, Place, {}, "preferences", _preferences)


@dataclass
class Study:
    """A store with the world's artifacts."""

    job: Mapping[str, Any]
    store: Store
    execution: ExecutionConfig

    def make(self, stage: Stage, values: Mapping[str, Any], inputs: Mapping[str, Artifact] | None = None) -> Artifact:
        config = stage.config_class.build(values)
        found = run_stage(stage, config, inputs or {}, store=self.store, name=stage.name, execution=self.execution)
        return found.artifact

    def given(self, stage: Stage, part: str) -> Artifact:
        path = str(Path(self.job["world"]) / part)
        return self.make(stage, {"path": path, "rows": self.job["rows"]})


def common(job: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of supervised training: one epoch, nothing evaluated or sampled on the way."""
    return {
        "seed": 0, "epochs": 1, "batch_size": job["batch"], "learning_rate": 1e-5, "schedule": "constant",
        "warmup_ratio": 0.0, "eval_every": 0, "precision": job["precision"],
    }  # fmt: skip


def sft(study: Study) -> Artifact:
    template = str(Path(study.job["world"]) / "endless" / "prompt_template.json")
    model = {"source": str(Path(study.job["world"]) / "endless"), "template": template, "max_length": 512}
    values = {**common(study.job), "model": model, "n_samples": 0}
    return study.make(SFT, values, {"data": study.given(DATASET, "")})


def reward(study: Study) -> Artifact:
    inputs = {"policy": study.given(POLICY, "endless"), "preferences": study.given(PREFERENCES, "")}
    return study.make(REWARD, {**common(study.job), "eval_size": 2}, inputs)


def dpo(study: Study) -> Artifact:
    inputs = {"policy": study.given(POLICY, "endless"), "preferences": study.given(PREFERENCES, "")}
    precision = study.job["precision"]
    reference = study.make(REFERENCE, {"precision": precision}, inputs)
    data = study.given(DATASET, "")
    return study.make(
        DPO, {**common(study.job), "eval_size": 2, "n_samples": 0}, {**inputs, "data": data, "reference": reference}
    )


def on_policy(study: Study, stage: Stage, **more: Any) -> Artifact:
    job = study.job
    values = {
        "seed": 0, "steps": job["steps"], "rollout_batch_size": job["episodes"], "minibatch_size": job["episodes"],
        "epochs": job["epochs"], "max_prompt_tokens": 160, "max_new_tokens": job["max_new_tokens"], "kl_coef": 0.05,
        "learning_rate": 1e-6, "schedule": "constant", "warmup_steps": 0, "precision": job["precision"],
        "eval_prompts": 1, "eval_every": 0, "save_every": 0, "log_rollouts_every": 0, "select": "last", **more,
        **job.get("settings", {}),
    }  # fmt: skip
    inputs = {
        "policy": study.given(POLICY, "endless"),
        "reward_model": study.given(REWARD_MODEL, "reward"),
        "data": study.given(DATASET, ""),
    }
    return study.make(stage, values, inputs)


def ppo(study: Study) -> Artifact:
    return on_policy(study, PPO, whiten_rewards=False, lam=0.95)


def rloo(study: Study) -> Artifact:
    return on_policy(study, RLOO, group_size=study.job["group"])


class Clock:
    """Time spent in steps, evaluation apart, and of it in sampling; what was sampled, each of the next given length.

    `steps_before` of them are not timed, and what they sampled is not told.
    """

    def __init__(self, lengths: Sequence[int], steps_before: int = 0) -> None:
        self._lengths, self._left = iter(lengths), steps_before
        self.seconds = self.cpu_seconds = self.decode_seconds = 0.0
        self.lengths: list[int] = []
        self.prompts: list[int] = []

    def watch(self) -> None:
        """Look on from now on."""
        for loop in (Supervised, OnPolicy):
            self._time_steps(loop)
        self._force_lengths()
        self._time_sampling()

    def _time_steps(self, loop: Any) -> None:
        for name, sign in (("_step", 1), ("_evaluation", -1)):  # the second is a part of the first
            setattr(loop, name, self._counted(getattr(loop, name), sign))

    def _counted(self, method: Any, sign: int) -> Any:
        def counted(run: Any, number: int) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            found = method(run, number)
            self.seconds += sign * (time.perf_counter() - wall)
            self.cpu_seconds += sign * (time.process_time() - cpu)
            if method.__name__ == "_step" and self._left:
                self._left -= 1
                self.seconds = self.cpu_seconds = self.decode_seconds = 0.0
                self.lengths, self.prompts = [], []
            return found

        return counted

    def _force_lengths(self) -> None:
        generate = rollouts.generate

        def forced(model: Any, prompts: Any, *rest: Any, **named: Any) -> Any:
            if len(prompts) > 1:  # the one held-out prompt is no episode
                named["limits"] = list(islice(self._lengths, len(prompts)))
            return generate(model, prompts, *rest, **named)

        rollouts.generate = forced

    def _time_sampling(self) -> None:
        sample = rollouts.Sampler.sample

        def timed(sampler: Any, prompts: Any, *rest: Any, **named: Any) -> Any:
            began = time.perf_counter()
            responses = sample(sampler, prompts, *rest, **named)
            if len(prompts) > 1:  # the one held-out prompt is no part of a step
                self.decode_seconds += time.perf_counter() - began
                self.lengths += map(len, responses.response_ids)
                self.prompts += map(len, prompts)
            return responses

        rollouts.Sampler.sample = timed  # type: ignore[method-assign]


def main(path: str) -> None:
    imports_mb = psutil.Process().memory_info().rss / 2**20
    job = json.loads(Path(path).read_text())
    execution = ExecutionConfig(
        device="cpu", checkpoint_seconds=1e9, own_process="when_needed", min_free_gb=0, **job.get("execution", {})
    )
    study = Study(job, Store(Path(job["folder"]) / "store"), execution)
    clock = Clock(job["lengths"], job["steps"] - job["timed_steps"] if job["kind"] in ("ppo", "rloo") else 0)
    clock.watch()
    artifact = {"sft": sft, "reward": reward, "dpo": dpo, "ppo": ppo, "rloo": rloo}[job["kind"]](study)
    rows = list(read_jsonl(artifact.path / "metrics.jsonl"))
    result = {
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "imports_mb": imports_mb,
        "state_mb": job["state_mb"],
        "losses": [row["loss"] for row in rows if "loss" in row],
    }
    if clock.lengths:
        result |= {
            "episodes_per_s": len(clock.lengths) / result["seconds"],
            "decode_s": clock.decode_seconds,
            "mean_length": sum(clock.lengths) / len(clock.lengths),
            "mean_prompt": sum(clock.prompts) / len(clock.prompts),
            "lengths": clock.lengths,
            "prompt_lengths": clock.prompts,
        }
    else:
        result["tokens_per_s"] = job["tokens"] / result["seconds"]
    print(json.dumps(result))


if __name__ == "__main__":
    torch.manual_seed(0)
    main(sys.argv[1])
