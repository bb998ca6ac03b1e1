"""Activation checkpointing: the blocks of a model keep only what goes into them, and run again in the backward pass.

A model in, the same model changed in place; losses and gradients are the same bits. transformers' own switch works in
training mode alone, and policies are updated in evaluation mode (dropout off).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from alpaca_farm_core.errors import ModelError


@dataclass
class _Recomputed:
    """Stands in for the `forward` of a block."""

    layer: nn.Module

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        forward = type(self.layer).forward
        if not torch.is_grad_enabled():
            return forward(self.layer, *arguments, **keywords)
        return checkpoint(forward, self.layer, *arguments, use_reentrant=False, **keywords)


def recompute_activations(model: nn.Module) -> None:
    """Let every block of a model run again in its backward pass; a lone layer, such as a head, is left as it is.

    Raises:
        ModelError: the model has no blocks that transformers knows to run again.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks and any(True for _ in model.children()):
        raise ModelError(
            f"{type(model).__name__} has no blocks that can be run again.", "Unset execution.activation_checkpointing."
        )
    for block in blocks:
        block.forward = _Recomputed(block)


def is_recomputed(block: nn.Module) -> bool:
    """Whether a block runs again in its backward pass."""
    return isinstance(block.forward, _Recomputed)
