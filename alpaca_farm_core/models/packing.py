"""Hidden states of a padded batch without computing on padding, nor twice on a prefix that rows share.

In: a backbone and a padded batch. Out: what the backbone gives for it, zeros at padding. The rows' tokens lie end to
end in one sequence, a prefix shared with another row (a prompt of two answers) only once; linear layers run over all
of them together, and attention runs row by row over exactly the tokens that each row consists of. For CPUs, where
one big batch is no faster than several small ones; `packing_obstacle` tells where it does not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alpaca_farm_core.data.collate import token_budget_micro_batches
from alpaca_farm_core.models.backbone import evaluating, plain_hidden_states, takes_position_ids
from alpaca_farm_core.models.blocks import causal_attention, flat_states, runs_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MIN_SHARED = 8
"""A common prefix shorter than this is not worth attending to a second time."""
_KEYWORD = "packed_pieces"
_SHARDED = "set_reshard_after_backward"
"""A method of modules under FSDP2; the class itself is slow to import. Such modules must not be run by a probe."""
_known_obstacles: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Piece:
    """One row in the flat sequence: tokens of its own, behind a prefix that another row brought along.

    Attributes:
        start: Where its own tokens begin.
        length: How many they are.
        prefix_start: Where the shared prefix begins.
        prefix_length: How long that is; 0 = nothing is shared.
    """

    start: int
    length: int
    prefix_start: int = 0
    prefix_length: int = 0


def lay_out(rows: Sequence[list[int]]) -> tuple[list[int], list[Piece]]:
    """Lay rows end to end, each common prefix once: the order of rows in the sequence, and one piece per row.

    Rows are gone through in lexicographic order, so those that share a prefix are neighbours; each shares with the
    last row that lies there whole. A row's last token is always its own.
    """
    order = sorted(range(len(rows)), key=lambda index: rows[index])
    pieces: list[Piece] = [Piece(0, 0)] * len(rows)
    place, whole = 0, order[0]
    for index in order:
        row = rows[index]
        shared = 0 if index == whole else min(_common(rows[whole], row), len(row) - 1)
        if shared < MIN_SHARED:
            shared, whole = 0, index
        pieces[index] = Piece(place, len(row) - shared, pieces[whole].start if shared else 0, shared)
        place += len(row) - shared
    return order, pieces


def packed_hidden_states(
    backbone: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor, wanted_BT: Tensor | None = None
) -> Tensor:
    """Run the backbone over real tokens only; hidden_BTD with zeros at padding. Gradients flow.

    The model must have no `packing_obstacle`, each row a token. With `wanted_BT` the other positions may hold zeros.
    """
    mask_BT = attention_mask_BT.bool()
    flat, lengths = input_ids_BT[mask_BT].tolist(), mask_BT.sum(1).tolist()
    ends = torch.tensor(lengths).cumsum(0).tolist()
    rows = [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    order, pieces = lay_out(rows)
    ids = [token for index in order for token in rows[index][pieces[index].prefix_length :]]
    positions = [position for index in order for position in range(pieces[index].prefix_length, len(rows[index]))]
    places_M = torch.tensor([place for piece in pieces for place in _places(piece)], device=input_ids_BT.device)
    ids_N, positions_N = (torch.tensor(values, device=input_ids_BT.device) for values in (ids, positions))
    in_order = [pieces[index] for index in order]
    if runs_blocks(backbone):
        wanted_U = None
        if wanted_BT is not None:
            wanted_BT = wanted_BT.bool()
            wanted_U, places_M = torch.unique(places_M[wanted_BT[mask_BT]], return_inverse=True)
            mask_BT = mask_BT & wanted_BT
        attends = [partial(_attend, in_order)] * len(cast(Any, backbone).layers)
        hidden_ND = flat_states(backbone, ids_N, positions_N, attends, wanted_U)
    else:
        hidden_ND = _through_forward(backbone, ids_N, positions_N, in_order)
    hidden_MD = hidden_ND.index_select(0, places_M)
    hidden_BTD = hidden_MD.new_zeros(*mask_BT.shape, hidden_MD.shape[1])
    return hidden_BTD.masked_scatter(mask_BT[:, :, None], hidden_MD)


def packing_obstacle(model: PreTrainedModel) -> str:
    """Return why rows of this model cannot be packed; empty when they can. Remembered per backbone.

    A tiny pass of three rows, two of them with a common prefix, is compared with the padded one.
    """
    backbone = cast("PreTrainedModel", model.base_model)
    if backbone.device.type != "cpu":
        return "the model is not on a CPU"
    if any(hasattr(module, _SHARDED) for module in backbone.modules()):
        return "its weights are spread over processes"
    if backbone not in _known_obstacles:
        _known_obstacles[backbone] = _find_obstacle(backbone)
    return _known_obstacles[backbone]


def micro_batches(model: PreTrainedModel, lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows for passes of this model: by their tokens where rows are packed, else padding included.

    Args:
        model: Who runs them.
        lengths: Tokens of each row; tokens that rows of one group share may be counted once where they are packed.
        budget: Tokens of a group, at most.
    """
    return token_budget_micro_batches(lengths, budget, padded=bool(packing_obstacle(model)))


def _places(piece: Piece) -> list[int]:
    """Where the tokens of a whole row lie, prefix included."""
    own = range(piece.start, piece.start + piece.length)
    return [*range(piece.prefix_start, piece.prefix_start + piece.prefix_length), *own]


def _common(first: list[int], second: list[int]) -> int:
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def _find_obstacle(backbone: PreTrainedModel) -> str:
    config = backbone.config.get_text_config()
    if config._attn_implementation != "sdpa":
        return f"its attention is '{config._attn_implementation}', not SDPA"
    if not takes_position_ids(backbone):
        return "it takes no positions"
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "not all of its layers attend to everything before"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "its attention has a sliding window"
    return "" if _probe_agrees(backbone) else "the packed pass differs from the padded one"


@torch.no_grad()
def _probe_agrees(backbone: PreTrainedModel) -> bool:
    size = min(int(backbone.config.get_text_config().vocab_size), 50)
    ids = (torch.arange(3 * (MIN_SHARED + 4)) * 7 % size).view(3, -1)
    ids[1, :MIN_SHARED] = ids[0, :MIN_SHARED]
    mask = torch.ones_like(ids)
    mask[2, 4:] = 0
    try:
        with evaluating(backbone), torch.autocast("cpu", enabled=False):
            ours, theirs = packed_hidden_states(backbone, ids, mask), plain_hidden_states(backbone, ids, mask)
    except (TypeError, RuntimeError, ValueError, IndexError):
        return False  # an architecture that reads a mask of its own form, or knows no such keyword
    wanted = mask.bool()
    tolerance = 1e-4 if ours.dtype == torch.float32 else 0.1
    return torch.allclose(ours[wanted].float(), theirs[wanted].float(), rtol=tolerance, atol=tolerance)


def _through_forward(backbone: PreTrainedModel, ids_N: Tensor, positions_N: Tensor, pieces: list[Piece]) -> Tensor:
    """Run the model's own forward pass, which reaches `_attention` with the pieces."""
    output = backbone(
        input_ids=ids_N[None],
        position_ids=positions_N[None],
        # Four dimensions: the model takes it for a finished mask and makes none; attention here needs none.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids_N.device),
        use_cache=False,
        return_dict=True,
        **{_KEYWORD: pieces},
    )
    return cast(Tensor, output.last_hidden_state)[0]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """SDPA as transformers has it; of a packed sequence row by row, [1, heads, N, width] → [1, N, heads, width]."""
    pieces: list[Piece] | None = keywords.pop(_KEYWORD, None)
    if pieces is None:
        return cast(
            tuple[Tensor, None],
            sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **keywords),
        )
    flat = [states[0].transpose(0, 1) for states in (query, key, value)]
    return _attend(pieces, flat[0], flat[1], flat[2], scaling, dropout)[None], None


def _attend(
    pieces: list[Piece], query: Tensor, key: Tensor, value: Tensor, scale: float | None, dropout: float
) -> Tensor:
    """Causal attention of each row of a flat sequence, queries [N, H, W], keys and values [N, K, W] → [N, H, W]."""
    # split, not slices: the gradient of a slice is as long as the whole sequence
    lengths = [piece.length for piece in pieces]
    columns = [torch.split(states, lengths) for states in (query, key, value)]
    rows = {piece.start: list(row) for piece, row in zip(pieces, zip(*columns, strict=True), strict=True)}
    parts = []
    for piece in pieces:
        row = rows[piece.start]
        if shared := piece.prefix_length:
            row = [torch.cat([whole[:shared], own]) for whole, own in zip(rows[piece.prefix_start], row, strict=True)]
        parts.append(causal_attention(row[0], row[1], row[2], scale, dropout)[shared:])
    return torch.cat(parts)


# Under the name that models already carry, so that all that looks at it (decoding, the choice of a kernel) holds.
AttentionInterface.register("sdpa", _attention)
