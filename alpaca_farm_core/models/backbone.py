"""The part of a model below its head: token ids in, hidden states out.

Positions count real tokens, so padding on either side does not move them.
Works on any Hugging Face decoder (causal LM, sequence classifier or bare); knows nothing of heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ResultT = TypeVar("ResultT")
THROUGH = "compute_with_parts"
"""Method of a sharded model that runs a function of its parts as if it were its forward pass."""


def with_parts(model: nn.Module, compute: Callable[[], ResultT]) -> ResultT:
    """Run what uses parts of a model (backbone, head) and not the model itself; sharded weights are there meanwhile.

    Such calls must not be nested for one model. Tensors that gradients flow through stand in the result itself, or in
    its (named) tuples, lists and dicts.
    """
    through: Callable[[Callable[[], ResultT]], ResultT] | None = getattr(model, THROUGH, None)
    return through(compute) if through else compute()


def backbone_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model without its head; a bare model is its own backbone."""
    return cast("PreTrainedModel", model.base_model)


def position_ids(attention_mask_BT: Tensor) -> Tensor:
    """Count real tokens from 0 in each row; padding in front gets 0, padding behind goes on counting nothing.

    Returns:
        Integer tensor [B, T]; [[0, 0, 1, 1]] for [[0, 1, 1, 0]].
    """
    return (attention_mask_BT.long().cumsum(dim=-1) - 1).clamp(min=0)


def hidden_states(
    model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor, wanted_BT: Tensor | None = None
) -> Tensor:
    """Run the backbone once, without a cache; where rows can be packed, not on padding nor twice on a shared prefix.

    Args:
        model: Any decoder.
        input_ids_BT: Tokens.
        attention_mask_BT: 1 at tokens, 0 at padding.
        wanted_BT: Positions whose states are read; the last block may then spare the others. None = all.

    Returns:
        hidden_BTD of the last layer (after the final norm): what the head sees. Undefined at padding and where it is
        not wanted.
    """
    from alpaca_farm_core.models.packing import packed_hidden_states, packing_obstacle

    backbone = backbone_of(model)
    if not packing_obstacle(backbone) and bool(attention_mask_BT.any(1).all()):
        return packed_hidden_states(backbone, input_ids_BT, attention_mask_BT, wanted_BT)
    if is_right_padded(attention_mask_BT):
        # Behind a causal model right padding needs no mask; one of ones selects the fused causal kernel.
        attention_mask_BT = torch.ones_like(attention_mask_BT)
    return plain_hidden_states(backbone, input_ids_BT, attention_mask_BT)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have a model in evaluation mode for a probe; each of its modules is in its own mode again afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


def before(mask_BT: Tensor) -> Tensor:
    """Positions [B, T] whose states predict the tokens under a mask [B, T]: the mask one place to the left."""
    return nn.functional.pad(mask_BT[:, 1:], (0, 1))


def is_right_padded(attention_mask_BT: Tensor) -> bool:
    """Whether all padding stands behind the tokens."""
    return bool((attention_mask_BT[:, 1:] <= attention_mask_BT[:, :-1]).all())


def plain_hidden_states(backbone: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Run the backbone over the batch as it is, padding included."""
    keywords = {"position_ids": position_ids(attention_mask_BT)} if takes_position_ids(backbone) else {}
    output = backbone(
        input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False, return_dict=True, **keywords
    )
    return cast(Tensor, output.last_hidden_state)


def takes_position_ids(module: nn.Module) -> bool:
    """Whether `forward` takes `position_ids` (models with relative biases, such as BLOOM or MPT, do not)."""
    return "position_ids" in inspect.signature(module.forward).parameters
