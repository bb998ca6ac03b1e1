"""A toy world for trainers: words to repeat, a nano model, and preferences for short answers; all through run_stage."""

from __future__ import annotations

from dataclasses import dataclass

from alpaca_farm_core.artifacts.files import write_jsonl
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.methods.dpo.stage import STAGE_REFERENCE as REFERENCE
from alpaca_farm_core.methods.expert_iteration.stage import STAGE_SAMPLES as EXPERT_SAMPLES
from alpaca_farm_core.methods.registry import methods
from alpaca_farm_core.methods.reward_model.stage import STAGE as REWARD_MODEL
from alpaca_farm_core.methods.sft.stage import STAGE as SFT
from alpaca_farm_core.pipeline.progress import SilentProgress
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.types import Instruction, Preference

WORDS = ("apple", "bridge", "candle", "dragon", "eagle", "forest", "garden", "hammer", "island", "jacket", "kettle")
EXECUTION = ExecutionConfig(
    device="cpu",
    threads=1,
    checkpoint_seconds=0,
    decode_batch_size=8,
    micro_batch_tokens=256,
    own_process="when_needed",
)
MODEL = {
    "template": "plain",
    "max_length": 96,
    "nano": {"hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 64, "vocab_size": 320},
}
SFT_VALUES = {
    "seed": 0, "model": MODEL, "epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "eval_every": 3, "n_samples": 2,
    "sample_max_new_tokens": 8,
}  # fmt: skip
REWARD_VALUES = {
    "seed": 0, "epochs": 1, "batch_size": 6, "learning_rate": 2e-3, "eval_every": 2, "eval_size": 6, "max_length": 96,
}  # fmt: skip
PPO_VALUES = {
    "seed": 0, "steps": 4, "rollout_batch_size": 12, "minibatch_size": 6, "epochs": 2, "max_prompt_tokens": 40,
    "max_new_tokens": 10, "learning_rate": 1e-3, "warmup_steps": 1, "eval_every": 2, "eval_prompts": 5, "save_every": 2,
    "log_rollouts_every": 2, "log_rollouts": 2, "unfinished_penalty": -1.0,
}  # fmt: skip


METHOD_VALUES = {
    "seed": 0, "epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "eval_every": 2, "eval_size": 5, "max_length": 96,
    "n_samples": 2, "sample_max_new_tokens": 8, "n": 4, "max_new_tokens": 10, "top_p": 1.0, "unfinished": "keep",
}  # fmt: skip


class Killed(BaseException):
    """Stands for kill -9: nothing in the code catches it."""


class KillAt(SilentProgress):
    """Kills the run after so many advances."""

    def __init__(self, n: int) -> None:
        self._left = n
        self.said: list[str] = []

    def advance(self, n=1, metrics=None):
        self._left -= 1
        if self._left < 0:
            raise Killed

    def say(self, message):
        self.said.append(message)


class NoConfig(Config):
    """The toy stages have one setting."""

    size: int = Field(24, description="Rows.")


def _dataset(context: StageContext) -> StageResult:
    size = context.config.size
    for number, split in enumerate(("sft", "preference", "unlabeled", "val", "eval")):
        rows = [_instruction(number, row) for row in range(size if split in ("sft", "unlabeled") else 6)]
        write_jsonl(context.output / f"{split}.jsonl", [row.to_row() for row in rows])
    return StageResult()


def _instruction(split: int, row: int) -> Instruction:
    word, times = WORDS[(split + row) % len(WORDS)], 1 + row % 3
    return Instruction(f"Say {word} {times} times ({split}).", "loud" if row % 4 == 0 else "", " ".join([word] * times))


def _preferences(context: StageContext) -> StageResult:
    rows = []
    for row in range(context.config.size):
        word = WORDS[row % len(WORDS)]
        short, long = word, " ".join([word] * 3)
        first, second = (short, long) if row % 2 else (long, short)
        preference = 1.5 if row % 8 == 7 else (1.0 if row % 2 else 2.0)
        instruction = f"Say {word} ({row})."
        rows.append(
            Preference(instruction, "", first, second, preference, "toy", finished_1=True, finished_2=row % 3 > 0)
        )
    rows.append(Preference("Say nothing.", "", "a", "b", None, "toy", state="unparsable"))
    write_jsonl(context.output / "preferences.jsonl", [row.to_row() for row in rows])
    return StageResult(n_missing=1)


DATASET = Stage("toy_dataset", 1, NoConfig, {}, "dataset", _dataset)
PREFERENCES = Stage("toy_preferences", 1, NoConfig, {}, "preferences", _preferences)


@dataclass
class World:
    """A store with all inputs, made once."""

    store: Store
    data: Artifact
    preferences: Artifact
    policy: Artifact
    reward_model: Artifact


def make_world(store: Store) -> World:
    data = run_stage(DATASET, NoConfig(), {}, store=store, name="data").artifact
    preferences = run_stage(PREFERENCES, NoConfig(), {}, store=store, name="preferences").artifact
    policy = sft(store, data)
    reward = reward_model(store, policy, preferences)
    return World(store, data, preferences, policy, reward)


def make(store, stage, values, inputs, progress=None, execution=EXECUTION, name=""):
    """Run a stage, or find what it made; the artifact."""
    config = stage.config_class.build(values)
    name = name or stage.name
    return run_stage(stage, config, inputs, store=store, name=name, execution=execution, progress=progress).artifact


def sft(store, data, progress=None, execution=EXECUTION, **values):
    return make(store, SFT, {**SFT_VALUES, **values}, {"data": data}, progress, execution)


def reward_model(store, policy, preferences, progress=None, execution=EXECUTION, **values):
    inputs = {"policy": policy, "preferences": preferences}
    return make(store, REWARD_MODEL, {**REWARD_VALUES, **values}, inputs, progress, execution, "rm")


def ppo(store, world: World, progress=None, execution=EXECUTION, **values):
    return on_policy("ppo", store, world, progress, execution, **values)


def method_stage(store, stage, inputs, progress=None, execution=EXECUTION, **values):
    """Run any stage of a method on the toy world, with those values that it knows."""
    known = stage.config_class.model_fields
    values = {name: value for name, value in {**METHOD_VALUES, **values}.items() if name in known}
    return make(store, stage, values, inputs, progress, execution)


def method_inputs(world: World, stage) -> dict[str, Artifact]:
    """The world's artifacts by the stage's roles, with an earlier stage's result where it needs one."""
    roles = [role.removesuffix("*") for role in stage.inputs]
    inputs = {role: getattr(world, role) for role in roles if hasattr(world, role)}
    if "reference" in stage.inputs:
        inputs["reference"] = method_stage(world.store, REFERENCE, method_inputs(world, REFERENCE))
    if "samples" in stage.inputs:
        inputs["samples"] = method_stage(world.store, EXPERT_SAMPLES, method_inputs(world, EXPERT_SAMPLES))
    return inputs


GROUP_VALUES = {name: value for name, value in PPO_VALUES.items() if name != "epochs"} | {"group_size": 3}
QUARK_VALUES = {name: value for name, value in PPO_VALUES.items() if name != "epochs"}


def on_policy(method, store, world: World, progress=None, execution=EXECUTION, reward_model=True, **values):
    """Run one of ppo, rloo, grpo, quark."""
    base = {"ppo": PPO_VALUES, "quark": QUARK_VALUES}.get(method, GROUP_VALUES)
    inputs = {"policy": world.policy, "data": world.data}
    if reward_model:
        inputs["reward_model"] = world.reward_model
    return make(store, methods()[method].stages[-1], {**base, **values}, inputs, progress, execution)
