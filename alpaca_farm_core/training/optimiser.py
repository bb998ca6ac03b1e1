"""AdamW over a model's weights, gradient clipping, and learning rates as a function of the step.

The schedule has no state: the learning rate of step k is computed from k, so a resumed run cannot drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alpaca_farm_core.models.lora import load_trained_state, trained_state
from alpaca_farm_core.models.sharding import spread_moments, spread_weights, whole_state, whole_tensor
from alpaca_farm_core.training.config import OptimiserConfig, Schedule


def build_optimiser(model: nn.Module, config: OptimiserConfig, learning_rate: float = 0.0) -> torch.optim.AdamW:
    """AdamW with fused kernels where the device has them; vectors (norms, biases) are not decayed.

    Args:
        model: Its parameters that require gradients are trained.
        config: Hyper-parameters.
        learning_rate: Replaces the config's; 0 = the config's.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate or config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=all(p.device.type in ("cpu", "cuda") for p in trained),
    )


def schedule_factor(schedule: Schedule, step: int, total_steps: int, warmup_steps: int) -> float:
    """Share of the highest learning rate that optimiser step `step` (from 0) uses.

    Rises linearly from 1/(warmup_steps + 1) … 1, then falls to 0 behind the last step along a half
    cosine or a line, or stays.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, those of other processes' shards too; a scalar."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return whole_tensor(nn.utils.get_total_norm(gradients))


def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, max_norm: float) -> None:
    """Scale gradients of total norm `norm` down to `max_norm`; 0 = disabled."""
    if max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)


def training_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Trained weights and moments, for a checkpoint; of a sharded model in one piece, on process 0."""
    return {"model": whole_state(trained_state(model)), "optimiser": whole_state(optimiser.state_dict())}


def restore_training_state(model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take back what `training_state` gave, sharded or not, on however many processes."""
    load_trained_state(model, spread_weights(state["model"], model))
    optimiser.load_state_dict(spread_moments(state["optimiser"], optimiser))
