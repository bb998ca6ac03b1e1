"""How much memory a stage will need at its peak, from its settings and the sizes of its models. No torch here.

In: a stage's config, the execution settings and the architectures of its models. Out: bytes by purpose, of the phase
that needs most. Counted are the tensors that the code holds: activations as autograd keeps them for Llama-like
blocks (other architectures are taken for such), logits as the chunked head makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.models.architecture import Architecture
from alpaca_farm_core.models.config import LoraConfig

FLOAT32, BFLOAT16 = 4, 2
CHUNK_LOGITS = 2**25
"""Logits of one chunk of the head; a rest of a quarter at most goes with the last."""
CPU_TOKENS = 1024
"""Largest micro-batch on a CPU: half of it is 4 % slower where rows are packed, twice of it no faster."""
LARGE_WEIGHT, BEYOND_CACHE = 2**19, 2**24
"""Numbers in a weight, and in all weights, from which on decoding keeps a copy in another order (`models.products`)."""
CACHE_BLOCK = 64
"""Capacities of a key/value cache are multiples of this many positions."""
LIBRARIES = 420 * 2**20
"""Resident memory of a process that has imported torch and transformers (CPU build)."""
RUNTIME = 40 * 2**20
"""What kernels, threads, tokenizer, rows and Python's own objects take besides, in the runs of the benchmark."""
RESPONSE_SHARE = 0.5
"""Part of a row's tokens that are its response and go through the head, where no setting bounds them."""

PROMPT_TOKENS = 128
"""Tokens of a prompt where no setting bounds them."""

Phases = Mapping[str, Mapping[str, int]]
Critic = Literal["none", "separate", "shared_trunk"]
Models = Mapping[str, Architecture]
"""Role of an input (or "base") → sizes of its model."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak of one process.

    Attributes:
        phase: What it does then.
        parts: Purpose → bytes.
    """

    phase: str
    parts: Mapping[str, int]

    @property
    def peak(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @classmethod
    def largest(cls, phases: Mapping[str, Mapping[str, int]]) -> MemoryPlan:
        """The phase that needs most; purposes without need are left out."""
        plans = [cls(name, {part: size for part, size in parts.items() if size}) for name, parts in phases.items()]
        return max(plans, key=lambda plan: plan.peak)

    def __str__(self) -> str:
        """Readable, for example "5.1 GB while updating: 2.2 optimiser, 1.6 weights"."""
        parts = sorted(self.parts.items(), key=lambda part: -part[1])
        shown = ", ".join(f"{gigabytes(size)} {name}" for name, size in parts if size >= 0.02 * self.peak)
        return f"{gigabytes(self.peak)} GB while {self.phase}: {shown}"


def gigabytes(size: int) -> str:
    """Two digits, at least."""
    return f"{size / 1e9:.1f}" if size >= 1e9 else f"{size / 1e9:.2f}"


# --- parts

_SHARDED = ("weights", "optimiser", "gradients", "reference", "reward model")
"""Purposes of which each process holds a share under `execution.parallel = "fsdp"`."""


def of_each_process(phases: Phases, execution: ExecutionConfig, model: Architecture) -> Phases:
    """What one process holds: of sharded models its share, the block at work whole, and one model whole at the end.

    Args:
        phases: Phase → purpose → bytes, as if each process held everything; "updating" is one of them.
        execution: How many processes there are.
        model: What is trained, and put together by process 0 to be published.
    """
    processes = execution.processes * execution.nodes
    if execution.parallel == "ddp" or processes == 1:
        return phases
    ends = model.embedding * (1 if model.tied else 2)
    at_work = {"gathered weights": 2 * FLOAT32 * (ends + model.block)}  # and their gradients
    shares: dict[str, dict[str, int]] = {
        phase: {part: -(-size // processes) if part in _SHARDED else size for part, size in parts.items()} | at_work
        for phase, parts in phases.items()
    }
    resting = {part: size for part, size in shares["updating"].items() if part in (*_SHARDED, "libraries")}
    return {**shares, "publishing": {**resting, "gradients": 0, "whole model": FLOAT32 * model.parameters}}


def trained_parameters(model: Architecture, lora: LoraConfig) -> int:
    """Numbers that the optimiser changes: all, or those of the adapters."""
    if not lora.rank:
        return model.parameters
    return model.layers * sum(lora.rank * sum(model.linear_layers[name]) for name in _adapted(model, lora))


def _adapted(model: Architecture, lora: LoraConfig) -> list[str]:
    """Linear layers of a block that get adapters."""
    layers = model.linear_layers if lora.rank else {}
    return [name for name in layers if lora.targets == ("all-linear",) or name in lora.targets]


def activations(model: Architecture, tokens: int, precision: str, recomputed: bool, packed: bool = False) -> int:
    """Bytes that autograd keeps of the backbone for one micro-batch, and what one block needs on top in its turn.

    Of packed rows attention keeps what it gives once per row and once in all; norms and gates of `models.blocks` keep
    two states and a gate less than those of transformers. Norms of queries and keys, as in Qwen 3, are left out (10 %).
    """
    lean = packed and model.own_blocks
    hidden, wide = model.hidden, (3 if lean else 4) * model.feed_forward
    # queries, keys, values and what attention gives
    width = (3 if packed else 2) * model.query_width + 2 * model.key_width
    norms = 2 if lean else 4
    if precision == "bfloat16":
        # The residual stream stays in float32; each linear layer keeps its input as it was cast for it.
        block = FLOAT32 * norms * hidden + BFLOAT16 * (5 * hidden + width + wide)
    else:
        block = FLOAT32 * ((2 + norms) * hidden + width + wide)
    ends = FLOAT32 * 4 * hidden
    in_turn = FLOAT32 * (2 * hidden + 3 * model.feed_forward)
    blocks = model.layers * FLOAT32 * hidden + block if recomputed else model.layers * block
    return tokens * (blocks + ends + in_turn)


def cast_weights(model: Architecture, precision: str) -> int:
    """Bytes of the weights in the precision of the arithmetic, while a graph holds them."""
    return BFLOAT16 * model.layers * model.block if precision == "bfloat16" else 0


def logits(model: Architecture, positions: int) -> int:
    """Bytes of the head's work on one chunk: logits, their log-softmax, and with entropies a gradient more."""
    return 3 * FLOAT32 * min(positions, CHUNK_LOGITS // model.vocabulary * 5 // 4) * model.vocabulary


def key_value_cache(model: Architecture, rows: int, tokens: int, size: int) -> int:
    """Bytes of the cache when it is full."""
    blocks = -(-(tokens + 1) // CACHE_BLOCK) * CACHE_BLOCK
    return 2 * size * model.layers * model.key_width * rows * blocks


def panels(
    model: Architecture, rows: int, size: int, execution: ExecutionConfig, lora: LoraConfig | None = None
) -> int:
    """Bytes of the weights that decoding several rows copies, on a CPU in float32; of layers without adapters."""
    if execution.device != "cpu" or size != FLOAT32 or rows == 1:
        return 0
    adapted = _adapted(model, lora) if lora else []
    layers = [inputs * outputs for name, (inputs, outputs) in model.linear_layers.items() if name not in adapted]
    sizes = layers * model.layers + [model.embedding]
    least = 0 if sum(sizes) >= BEYOND_CACHE else LARGE_WEIGHT
    return FLOAT32 * sum(size for size in sizes if size >= least)


def decoding(model: Architecture, rows: int, prompt: int, new: int, size: int) -> dict[str, int]:
    """Cache, last logits, and the prefill of the prompts."""
    prefill = rows * prompt * FLOAT32 * (4 * model.hidden + 3 * model.feed_forward)
    step = 6 * FLOAT32 * rows * model.vocabulary
    return {"key/value cache": key_value_cache(model, rows, prompt + new, size), "decoding": max(prefill, step)}


def micro_batch_tokens(execution: ExecutionConfig, rows: int, row_tokens: int) -> int:
    """Tokens of the largest micro-batch: the budget, never less than one row or more than all of them.

    Rows of 0 tokens are of a length that is not known: the budget.
    """
    budget = execution.micro_batch_tokens
    if execution.device == "cpu":
        budget = min(budget, CPU_TOKENS)
    return min(max(budget, row_tokens), rows * row_tokens) if row_tokens else budget


# --- stages


def supervised_memory(
    config: Any, execution: ExecutionConfig, model: Architecture, row_tokens: int = 0, lm_head: bool = True
) -> MemoryPlan:
    """Training on rows.

    Args:
        config: An `AdaptableConfig`.
        execution: As the training process follows it: `device` is not "auto".
        model: What is trained.
        row_tokens: Of the longest row; 0 = not known. Of a pair the limit of one side: both reach it in no real data.
        lm_head: Whether the loss is of tokens; otherwise of rewards.
    """
    tokens = micro_batch_tokens(execution, config.batch_size, row_tokens)
    weights = FLOAT32 * (model.parameters if lm_head else model.backbone)
    trained = min(FLOAT32 * trained_parameters(model, config.lora), weights if not config.lora.rank else 1 << 62)
    updating = {
        **_process(execution),
        "weights": weights + (trained if config.lora.rank else 0),
        "optimiser": 2 * trained,
        "gradients": trained,
        "activations": _graph(model, tokens, config.precision, execution),
        **_head(model, round(RESPONSE_SHARE * tokens) if lm_head else 0, config.lora),
    }
    return MemoryPlan.largest(of_each_process({"updating": updating}, execution, model))


def on_policy_memory(
    config: Any, execution: ExecutionConfig, models: Models, critic: Critic = "none", uses_reference: bool = False
) -> MemoryPlan:
    """Training on answers of the policy itself.

    Args:
        config: An `OnPolicyConfig`.
        execution: As the training process follows it.
        models: Sizes of "policy" and, where there is one, "reward_model".
        critic: A model of its own, a head on the policy, or none.
        uses_reference: Updates run the reference, which never waits on the CPU then.
    """
    policy = models["policy"]
    reward = models.get("reward_model") if config.reward.needs_reward_model else None
    lora = config.lora
    trained = FLOAT32 * trained_parameters(policy, lora)
    own_critic = FLOAT32 * (trained_parameters(policy, lora) if lora.rank else policy.backbone)
    critics = own_critic if critic == "separate" else 0
    row = config.max_prompt_tokens + config.max_new_tokens
    per_process = -(-config.minibatch_size // (execution.processes * execution.nodes))
    tokens = micro_batch_tokens(execution, per_process, row)
    size = BFLOAT16 if config.precision == "bfloat16" else FLOAT32
    sharded = execution.parallel == "fsdp" and execution.processes * execution.nodes > 1
    # With adapters one frozen base serves policy, critic and reference; the reward model is taken to be one of its own.
    held = {
        **_process(execution),
        "weights": FLOAT32 * policy.parameters + (trained + critics if lora.rank else critics),
        "optimiser": 2 * (trained + critics),
        "reference": FLOAT32 * policy.parameters if not lora.rank else 0,
        "reward model": FLOAT32 * reward.backbone if reward else 0,
        "copy for decoding": size * policy.parameters if config.precision == "bfloat16" or sharded else 0,
    }
    updating = dict(held)
    if execution.offload and execution.device.startswith("cuda"):
        updating |= {"reward model": 0} if uses_reference else {"reward model": 0, "reference": 0}
    rows = min(execution.decode_batch_size, max(config.rollout_batch_size, config.eval_prompts))
    phases = {
        "decoding": held
        | decoding(policy, rows, config.max_prompt_tokens, config.max_new_tokens, size)
        | {"panels of weights": panels(policy, rows, size, execution, lora)},
        "updating": updating
        | _head(policy, min(tokens, per_process * config.max_new_tokens), lora)
        | {
            "gradients": trained + critics,
            "activations": _graph(policy, tokens, config.precision, execution),
        },
    }
    return MemoryPlan.largest(of_each_process(phases, execution, policy))


def decoding_memory(config: Any, execution: ExecutionConfig, models: Models) -> MemoryPlan:
    """Answers of a policy (`GenerateConfig`), and their rewards where a reward model is among the models."""
    policy, reward = models["policy"], models.get("reward_model")
    size = BFLOAT16 if config.precision == "bfloat16" else FLOAT32
    rows = max(execution.decode_batch_size, 1)
    held = {
        **_process(execution),
        "weights": size * policy.parameters,
        "reward model": size * reward.backbone if reward else 0,
        "panels of weights": panels(policy, rows, size, execution),
    }
    return MemoryPlan.largest({"decoding": held | decoding(policy, rows, PROMPT_TOKENS, config.max_new_tokens, size)})


def scoring_memory(config: Any, execution: ExecutionConfig, model: Architecture, row_tokens: int) -> MemoryPlan:
    """Log-probabilities of rows under a policy, nothing trained."""
    tokens = max(execution.micro_batch_tokens, row_tokens)
    return MemoryPlan.largest(
        {
            "scoring": {
                **_process(execution),
                "weights": FLOAT32 * model.parameters,
                "activations": tokens * FLOAT32 * (4 * model.hidden + 3 * model.feed_forward),
                "logits": logits(model, tokens),
            }
        }
    )


def _process(execution: ExecutionConfig) -> dict[str, int]:
    """What a process needs before the first tensor; a GPU's memory holds none of it."""
    return {} if execution.device.startswith("cuda") else {"libraries": LIBRARIES + RUNTIME}


def _graph(model: Architecture, tokens: int, precision: str, execution: ExecutionConfig) -> int:
    """What the backward pass needs of the backbone: activations, and weights as they were cast."""
    packed = execution.device == "cpu"
    kept = activations(model, tokens, precision, execution.activation_checkpointing, packed)
    return kept + cast_weights(model, precision)


def _head(model: Architecture, positions: int, lora: LoraConfig) -> dict[str, int]:
    """Logits of a chunk; or, later, the embeddings' gradients: each use of the matrix has one until they are added."""
    making = 0 if lora.rank else FLOAT32 * model.embedding * (2 if model.tied and positions else 1)
    return {"logits": max(logits(model, positions), making)}
