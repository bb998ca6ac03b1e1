"""One step of decoding: the newest token of each row in, the logits of the next out; the cache grows by a position.

Through the model's own forward pass; or, of models whose backbone `runs_blocks`, through this project's blocks, which
do without much of what transformers does between the products, with weights in the order that few rows need.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from alpaca_farm_core.generation.cache import ShrinkingCache, SlotCache, SlotLayer
from alpaca_farm_core.models.backbone import backbone_of
from alpaca_farm_core.models.blocks import flat_states, linear_layers, runs_blocks
from alpaca_farm_core.models.logprobs import head_obstacle
from alpaca_farm_core.models.packing import packing_obstacle
from alpaca_farm_core.models.products import Apply, Panels, call_layers, is_watched

Step = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Newest token of each row [A], its position [A], mask [A, T] of T positions (None = all are seen) → logits [A, V]."""

_WORTH_COPYING = 16
"""Steps whose time is saved in fewer than these, where the rows are few."""


def make_step(model: Any, cache: SlotCache | ShrinkingCache, additive: bool, steps: int) -> Step:
    """How a model steps with a cache.

    Args:
        model: A causal LM, in evaluation mode.
        cache: Of the rows being decoded.
        additive: Masks are 0 at what is seen and very low elsewhere; else true where seen.
        steps: How many there may be: for a few, weights are not worth copying into another order.
    """
    if isinstance(cache, SlotCache) and additive and _runs_here(model):
        worth_copying = cache.slots > 1 and steps >= _WORTH_COPYING
        apply = Panels([*linear_layers(backbone_of(model)), _head(model)]) if worth_copying else call_layers
        return partial(_through_blocks, model, cache, apply)
    return partial(_through_forward, model, cache, additive)


def _runs_here(model: Any) -> bool:
    if not isinstance(model, PreTrainedModel) or packing_obstacle(model) or is_watched(model):
        return False
    return runs_blocks(backbone_of(model)) and not head_obstacle(model)


def _through_blocks(
    model: PreTrainedModel, cache: SlotCache, apply: Apply, ids_A: Tensor, positions_A: Tensor, mask_AT: Tensor | None
) -> Tensor:
    attends = [partial(_attend, layer, mask_AT) for layer in cache.past.layers]
    states_AD = flat_states(backbone_of(model), ids_A, positions_A, attends, apply=apply)
    return apply(_head(model), states_AD)[0]


def _head(model: PreTrainedModel) -> tuple[nn.Module]:
    return (cast(nn.Module, model.get_output_embeddings()),)


def _attend(
    layer: SlotLayer,
    mask_AT: Tensor | None,
    query_AHW: Tensor,
    key_AKW: Tensor,
    value_AKW: Tensor,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """Attention of each row's newest token to all of the row, [A, H, W]."""
    keys_AKTW, values_AKTW = layer.update(key_AKW[:, :, None], value_AKW[:, :, None])
    n_rows, n_heads = key_AKW.shape[:2]
    # The queries that share a head of keys stand where a sequence's queries do: its keys are read once.
    grouped = query_AHW.view(n_rows, n_heads, -1, query_AHW.shape[-1])
    mask = None if mask_AT is None else mask_AT[:, None, None, :]
    attended = scaled_dot_product_attention(grouped, keys_AKTW, values_AKTW, mask, dropout, scale=scale)
    return attended.reshape(query_AHW.shape)


def _through_forward(
    model: Any,
    cache: SlotCache | ShrinkingCache,
    additive: bool,
    ids_A: Tensor,
    positions_A: Tensor,
    mask_AT: Tensor | None,
) -> Tensor:
    if mask_AT is not None:
        mask_AT = mask_AT[:, None, None, :] if additive else mask_AT.long()
    output = model(
        input_ids=ids_A[:, None],
        attention_mask=mask_AT,
        position_ids=positions_A[:, None],
        past_key_values=cache.past,
        use_cache=True,
    )
    return cast(Tensor, output.logits[:, -1])
