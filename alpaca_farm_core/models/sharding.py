"""Models whose weights, gradients and moments are spread over the processes (torch's FSDP2), and the way back.

A plain model in; the same object, sharded, out. Whole models and whole tensors are put together on process 0, so
what is published or kept as a checkpoint does not show how many processes made it. Every process must call
whatever gathers, and make the same forward passes in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from alpaca_farm_core.models.backbone import THROUGH
from alpaca_farm_core.models.logprobs import head_obstacle
from alpaca_farm_core.models.lora import sharing_weights
from alpaca_farm_core.models.packing import packing_obstacle

ModelT = TypeVar("ModelT", bound=nn.Module)
_hollow: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def shard(model: nn.Module, mesh: DeviceMesh | None) -> None:
    """Spread a model over the processes of `mesh`, block by block, in place; None leaves it as it is.

    Gradients are summed over processes in the backward pass, not averaged. Parameters that other models share stay
    whole there.
    """
    if mesh is None:
        return
    for module in model.modules():
        # Found by passes through parts of the model, which must be whole for them, and remembered.
        if isinstance(module, PreTrainedModel):
            packing_obstacle(module)
            head_obstacle(module)
    _hollow[model] = _without_weights(model)
    for module in [*_blocks(model), model]:
        # The default keeps the root's weights gathered behind a forward pass without gradients: stale after a step.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    setattr(model, THROUGH, MethodType(_compute, model))
    register_fsdp_forward_method(model, THROUGH)


def whole(model: ModelT) -> ModelT | None:
    """A plain model with the weights of a sharded one, on process 0; None on the others. A plain model itself."""
    if model not in _hollow:
        return model
    plain, first = sharing_weights(_hollow[model]), _is_first(next(model.parameters()))
    gathered: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for name, parameter in _parameters(model):
        if id(parameter) not in gathered:
            tensor = whole_tensor(parameter.detach())
            kept = tensor if first else tensor.new_empty(0)
            gathered[id(parameter)] = nn.Parameter(kept, requires_grad=parameter.requires_grad)
        _put(plain, name, gathered[id(parameter)])
    return cast(ModelT, plain.train(model.training)) if first else None


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only its share."""
    return isinstance(tensor, DTensor)


def whole_tensor(tensor: Tensor) -> Tensor:
    """Put a sharded tensor together on every process; a plain one is returned itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(state: Any) -> Any:
    """Replace the sharded tensors of a state dict by whole ones on the CPU of process 0, and empty ones elsewhere."""

    def gather(tensor: DTensor) -> Tensor:
        gathered = tensor.full_tensor()
        return gathered.cpu() if _is_first(tensor) else gathered.new_empty(0)

    return tree_map_only(DTensor, gather, state)


def spread_weights(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Cut whole weights as those of the same names in the model are cut."""
    own = model.state_dict()
    return {name: _cut(tensor, own[name]) for name, tensor in state.items()}


def spread_moments(state: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Cut an optimiser's whole state as the parameters that it belongs to are cut."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments = {
        number: {
            name: _cut(value, parameters[number]) if isinstance(value, Tensor) and value.ndim else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}


def _compute(model: nn.Module, compute: Any) -> Any:
    """Stands for the model's forward pass; FSDP wants no views as its results."""
    return tree_map_only(Tensor, lambda tensor: tensor.clone() if tensor._is_view() else tensor, compute())


def _blocks(model: nn.Module) -> list[nn.Module]:
    """What Hugging Face says must stay in one piece (the decoder's layers), inner ones first."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    found = [module for module in model.modules() if type(module).__name__ in names and module is not model]
    return found[::-1]


def _without_weights(model: nn.Module) -> nn.Module:
    """The tree of modules over the same buffers, without weights."""
    hollow = sharing_weights(model)
    metas: dict[int, nn.Parameter] = {}
    for name, parameter in list(_parameters(hollow)):
        meta = metas.setdefault(id(parameter), nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
        _put(hollow, name, meta)
    return hollow


def _parameters(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    return model.named_parameters(remove_duplicate=False)


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, parameter)


def _cut(tensor: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor
    # Without a source each process cuts its own copy: nothing is sent.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _is_first(tensor: Tensor) -> bool:
    assert isinstance(tensor, DTensor)
    return tensor.device_mesh.get_rank() == 0
