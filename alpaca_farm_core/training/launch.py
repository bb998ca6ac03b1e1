"""The processes of a run and where their arithmetic happens, on accelerate's state.

One process is the ordinary case; where `training.process` started several, every function here does the
same over all of them. Gradients are summed once per optimiser step instead of by a wrapper around the model,
so micro-batches may differ in number and shape between processes. Where weights are sharded (`models.sharding`),
each backward pass sums them, and every process makes as many passes as the one with the most micro-batches.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import gather, reduce
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.models.device import choose_device, set_threads
from alpaca_farm_core.models.sharding import is_sharded
from alpaca_farm_core.training.config import Precision
from alpaca_farm_core.training.memory import CPU_TOKENS


@dataclass(frozen=True)
class Workers:
    """One process among all that train together.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: Where this process computes.
        precision: Of forward and backward passes.
        mesh: All processes, where weights, gradients and moments are spread over them.
    """

    rank: int
    size: int
    device: torch.device
    precision: Precision
    mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        return values if self.size == 1 else cast(Tensor, reduce(values, "sum"))

    def any(self, flag: bool) -> bool:
        """Tell all processes whether one of them says yes."""
        return flag if self.size == 1 else bool(self.total(torch.tensor(float(flag), device=self.device)))

    def passes(self, own: int) -> int:
        """Passes over a model in training that each process makes: where weights are sharded, the most of any."""
        if self.mesh is None:
            return own
        return int(gather(torch.tensor([own], device=self.device)).max())

    def share(self, rows: list[int]) -> list[int]:
        """Return this process's part of a batch: every `size`-th row from `rank`."""
        return rows[self.rank :: self.size]

    def gather(self, rows: list[Any]) -> list[Any]:
        """Return the rows (plain JSON values) of all processes, those of process 0 first; the same on each."""
        if self.size == 1:
            return rows
        text = torch.tensor(list(json.dumps(rows).encode()), dtype=torch.uint8, device=self.device)
        lengths = gather(torch.tensor([len(text)], device=self.device)).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8, device=self.device)
        padded[: len(text)] = text
        texts = gather(padded[None, :]).cpu()
        return [row for part, length in zip(texts, lengths, strict=True) for row in json.loads(bytes(part[:length]))]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients of all processes in place; a missing one counts as 0. Sharded ones are sums already."""
        if self.size == 1:
            return
        for parameter in parameters:
            if is_sharded(parameter):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(self.total(parameter.grad))

    def arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """Context of forward passes: autocast to bfloat16, or nothing."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def start_workers(execution: ExecutionConfig, precision: Precision) -> tuple[Workers, ExecutionConfig]:
    """Join the other processes, if any; also return the execution settings as this process follows them.

    Those name its own device, and on a CPU at most CPU_TOKENS tokens per micro-batch.

    Raises:
        ModelError: the device asked for does not exist, or another number of processes runs than was asked for.
    """
    set_threads(execution)
    device = choose_device(execution)
    state = PartialState(cpu=device.type == "cpu")
    asked = execution.processes * execution.nodes
    if state.num_processes != asked:
        raise ModelError(
            f"{asked} training processes were asked for, and {state.num_processes} run.",
            "Let the stage start them (execution.processes, execution.nodes); start only one process yourself.",
        )
    if state.num_processes > 1:
        device = state.device
    sharded = execution.parallel == "fsdp" and state.num_processes > 1
    mesh = init_device_mesh(device.type, (state.num_processes,)) if sharded else None
    workers = Workers(state.process_index, state.num_processes, device, precision, mesh)
    tokens = min(execution.micro_batch_tokens, CPU_TOKENS) if device.type == "cpu" else execution.micro_batch_tokens
    return workers, execution.model_copy(update={"device": str(device), "micro_batch_tokens": tokens})
