"""Models that wait on the CPU while others are updated on a GPU; weights that these share stay where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def offloaded(idle: Iterable[nn.Module], busy: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Move what `idle` models have for themselves to the CPU, and back at the end; nothing happens on a CPU."""
    waiting = own_tensors(idle, busy) if device.type == "cuda" else []
    for tensor in waiting:
        tensor.data = tensor.data.to("cpu")
    try:
        yield
    finally:
        for tensor in waiting:
            tensor.data = tensor.data.to(device)


def own_tensors(idle: Iterable[nn.Module], busy: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters of `idle` models, each once, without those that a `busy` one shares."""
    shared = {id(parameter) for model in busy for parameter in model.parameters()}
    own = {id(parameter): parameter for model in idle for parameter in model.parameters()}
    return [parameter for key, parameter in own.items() if key not in shared]
