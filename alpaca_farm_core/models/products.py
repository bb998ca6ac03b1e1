"""Products of a few rows with a large weight, as decoding makes them on a CPU.

Such a product is the reading of its weight. MKL's, from four rows on, copies the weight into an order of its own first,
and so reads it twice; its products of small matrices do not, so the weight is cut into those.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

PIECE = 32
"""Rows of the weight in a piece."""
_FEWEST, _MOST = 4, 15
"""Rows for which pieces pay: fewer, and 16, the plain product reads the weight once for."""
_SMALL = 2**19
"""Numbers in a weight below which the plain product is as fast."""


def apply_linear(layer: nn.Module, x_MK: Tensor) -> Tensor:
    """What `layer` gives for M rows, [M, N]; of a plain linear layer that nothing watches, where it pays, in pieces."""
    if type(layer) is nn.Linear and not is_watched(layer) and _pays(x_MK, layer.weight):
        return in_pieces(x_MK, layer.weight, layer.bias)
    return cast(Tensor, layer(x_MK))


def is_watched(module: nn.Module) -> bool:
    """Whether calling a module runs more than its class's forward pass: hooks, or a forward pass of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def in_pieces(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """X Wᵀ + b, [M, N], from products with pieces of W of PIECE rows; but for rounding the plain product."""
    n_rows, n_pieces = len(x_MK), len(weight_NK) // PIECE
    whole = n_pieces * PIECE
    pieces_bKP = weight_NK[:whole].view(n_pieces, PIECE, weight_NK.shape[1]).transpose(1, 2)
    product_MN = x_MK.new_empty(n_rows, len(weight_NK))
    product_MN[:, :whole].view(n_rows, n_pieces, PIECE).copy_(
        torch.bmm(x_MK.expand(n_pieces, -1, -1), pieces_bKP).transpose(0, 1)
    )
    if whole < len(weight_NK):
        product_MN[:, whole:] = linear(x_MK, weight_NK[whole:])
    return product_MN if bias_N is None else product_MN.add_(bias_N)


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Measured for float32 and MKL: 1.2 to 3 times as fast where the weight comes from memory."""
    return (
        x.dim() == 2
        and _FEWEST <= len(x) <= _MOST
        and weight.numel() >= _SMALL
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and type(weight) in (Tensor, nn.Parameter)
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    )
