"""Blocks of Llama's kind (Llama, Mistral, Qwen 2 and 3) over a flat sequence, as this project runs them.

In: a backbone of transformers, tokens that lie end to end, and how they attend to each other or to what was read before
(packing trains and scores so, decoding steps). Out: the states that it gives, from its own weights and linear layers
(adapters included) with the formulas of `fused` between them; the last block's wide part runs for the wanted tokens
only. `runs_blocks` tells which backbones it is for: none whose blocks or norms something watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import SiLUActivation

from alpaca_farm_core.models.backbone import evaluating
from alpaca_farm_core.models.fused import gated, rms_norm, rotate
from alpaca_farm_core.models.products import Apply, call_layers, is_watched
from alpaca_farm_core.models.recompute import is_recomputed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Attend = Callable[[Tensor, Tensor, Tensor, float | None, float], Tensor]
"""What `causal_attention` is for one row, for a block and all tokens of a flat sequence. One that writes the tokens'
keys down, as decoding does, must not be run again in a backward pass."""

_KINDS = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Whose code was read: by structure and a probe alone others would come in, as with a scale that sets in far behind."""
_known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def runs_blocks(backbone: PreTrainedModel) -> bool:
    """Tell whether the backbone is of these kinds, gives the same states here as by itself (remembered), unwatched."""
    if backbone not in _known:
        _known[backbone] = _is_of_kind(backbone) and _probe_agrees(backbone)
    return _known[backbone] and not any(map(_needs_its_call, _passed_over(backbone)))


def causal_attention(
    query_NHW: Tensor, key_NKW: Tensor, value_NKW: Tensor, scale: float | None, dropout: float
) -> Tensor:
    """Attention of one row's N tokens to themselves and those before, [N, H, W]; K heads of keys serve H of queries.

    Scores are multiplied by `scale` (None = 1/√W); `dropout` is the chance that a weight is dropped.
    """
    query, key, value = (states.transpose(0, 1)[None] for states in (query_NHW, key_NKW, value_NKW))
    grouped = query.shape[1] != key.shape[1]
    attended = nn.functional.scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, scale=scale, is_causal=True, enable_gqa=grouped
    )
    return attended[0].transpose(0, 1)


def flat_states(
    backbone: PreTrainedModel,
    ids_N: Tensor,
    positions_N: Tensor,
    attends: Sequence[Attend],
    wanted_M: Tensor | None = None,
    apply: Apply = call_layers,
) -> Tensor:
    """Run the backbone over one flat sequence; states behind the final norm, [N, D]. Gradients flow.

    Args:
        backbone: One that `runs_blocks`.
        ids_N: Tokens.
        positions_N: Place of each in its row.
        attends: Each block's attention.
        wanted_M: Indices of the tokens whose states are wanted, [M, D] then; None = all.
        apply: Runs the linear layers.
    """
    parts: Any = backbone
    hidden_ND = parts.embed_tokens(ids_N)
    cos, sin = parts.rotary_emb(hidden_ND, positions_N[None])  # [1, N, W]: both halves of W are alike
    half = cos.shape[-1] // 2
    angles = cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()
    last = len(parts.layers) - 1
    for index, (block, attend) in enumerate(zip(parts.layers, attends, strict=True)):
        arguments = (block, hidden_ND, *angles, attend, wanted_M if index == last else None, apply)
        if is_recomputed(block) and torch.is_grad_enabled():
            hidden_ND = checkpoint(_block, *arguments, use_reentrant=False)
        else:
            hidden_ND = _block(*arguments)
    return _norm(parts.norm, hidden_ND)


def linear_layers(backbone: PreTrainedModel) -> Iterator[tuple[nn.Module, ...]]:
    """The layers of the blocks that `flat_states` applies, those with one input together."""
    for block in cast(Any, backbone).layers:
        attention, feed = block.self_attn, block.mlp
        yield from (_queries_keys_values(attention), (attention.o_proj,), _gate_and_up(feed), (feed.down_proj,))


def _block(
    block: Any,
    hidden_ND: Tensor,
    cos_N1h: Tensor,
    sin_N1h: Tensor,
    attend: Attend,
    wanted_M: Tensor | None,
    apply: Apply,
) -> Tensor:
    attention, feed = block.self_attn, block.mlp
    normed_ND = _norm(block.input_layernorm, hidden_ND)
    query, key, value = (
        states.view(len(normed_ND), -1, attention.head_dim)
        for states in apply(_queries_keys_values(attention), normed_ND)
    )
    if hasattr(attention, "q_norm"):
        query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
    query, key = rotate(query, cos_N1h, sin_N1h), rotate(key, cos_N1h, sin_N1h)
    dropout = attention.attention_dropout if block.training else 0.0
    attended_ND = attend(query, key, value, attention.scaling, dropout).flatten(1)
    if wanted_M is not None:  # nothing reads what comes of the others
        hidden_ND, attended_ND = hidden_ND.index_select(0, wanted_M), attended_ND.index_select(0, wanted_M)
    hidden_ND = hidden_ND + apply((attention.o_proj,), attended_ND)[0]
    normed_ND = _norm(block.post_attention_layernorm, hidden_ND)
    gate_NF, up_NF = apply(_gate_and_up(feed), normed_ND)
    is_silu = type(feed.act_fn) in (SiLUActivation, nn.SiLU) and not is_watched(feed.act_fn)
    wide_NF = gated(gate_NF, up_NF) if is_silu else feed.act_fn(gate_NF) * up_NF
    return hidden_ND + apply((feed.down_proj,), wide_NF)[0]


def _queries_keys_values(attention: Any) -> tuple[nn.Module, ...]:
    return attention.q_proj, attention.k_proj, attention.v_proj


def _gate_and_up(feed: Any) -> tuple[nn.Module, ...]:
    return feed.gate_proj, feed.up_proj


def _passed_over(backbone: PreTrainedModel) -> Iterator[nn.Module]:
    """Modules whose parts are used here, and which are not called themselves."""
    parts: Any = backbone
    yield from (parts, parts.norm)
    for block in parts.layers:
        attention = block.self_attn
        yield from (block, attention, block.mlp, block.input_layernorm, block.post_attention_layernorm)
        if hasattr(attention, "q_norm"):
            yield from (attention.q_norm, attention.k_norm)


def _needs_its_call(module: nn.Module) -> bool:
    """Whether a module does more when it is called than its parts do here."""
    if is_recomputed(module):
        return bool(module._forward_hooks or module._forward_pre_hooks)
    return is_watched(module) or bool(getattr(module, "gradient_checkpointing", False))


def _norm(norm: Any, x: Tensor) -> Tensor:
    return rms_norm(x, norm.weight, norm.variance_epsilon)


def _is_of_kind(backbone: nn.Module) -> bool:
    kind = next((kind for kind in _KINDS if type(backbone).__name__ == f"{kind}Model"), None)
    if kind is None or not type(backbone).__module__.startswith("transformers.models."):
        return False
    parts = {
        "self_attn": "Attention",
        "mlp": "MLP",
        "input_layernorm": "RMSNorm",
        "post_attention_layernorm": "RMSNorm",
    }
    layers: Any = backbone.layers
    return bool(len(layers)) and all(
        type(getattr(block, name)).__name__ == f"{kind}{part}" for block in layers for name, part in parts.items()
    )


@torch.no_grad()
def _probe_agrees(backbone: PreTrainedModel) -> bool:
    device = backbone.device
    size = min(int(backbone.config.get_text_config().vocab_size), 50)
    ids_N = torch.arange(12, device=device) * 7 % size
    try:
        with evaluating(backbone), torch.autocast(device.type, enabled=False):
            ours = flat_states(
                backbone, ids_N, torch.arange(12, device=device), [causal_attention] * len(backbone.layers)
            )
            theirs = backbone(input_ids=ids_N[None], use_cache=False, return_dict=True).last_hidden_state[0]
    except (AttributeError, TypeError, RuntimeError, ValueError, IndexError):
        return False  # another release of transformers builds them otherwise
    tolerance = 1e-4 if ours.dtype == torch.float32 else 0.1
    return torch.allclose(ours.float(), theirs.float(), rtol=tolerance, atol=tolerance)
