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
_ROWS = range(4, 16)
"""From there on the plain product reads the weight once for 16 rows together, and is as fast."""
_SMALL = 2**19
"""Numbers in a weight below which the plain product is as fast."""


def apply_linear(layer: nn.Module, x_MK: Tensor) -> Tensor:
    """What `layer` gives for M rows, [M, N], a plain linear layer's by `few_rows_linear` where that is faster."""
    if type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks:
        return few_rows_linear(x_MK, layer.weight, layer.bias)
    return cast(Tensor, layer(x_MK))


def few_rows_linear(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Multiply rows with a layer's weight, x Wᵀ + b, [M, N], where it helps (float32, a CPU with MKL) in pieces of W.

    Equal to the plain product but for rounding. Measured in tests/benchmarks/LOG.md: 1.2 to 3 times as fast where the
    weight comes from memory.
    """
    in_pieces = (
        len(x_MK) in _ROWS
        and weight_NK.numel() >= _SMALL
        and x_MK.dtype == weight_NK.dtype == torch.float32
        and x_MK.device.type == "cpu"
        and not torch.is_grad_enabled()
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    )
    return _in_pieces(x_MK, weight_NK, bias_N) if in_pieces else linear(x_MK, weight_NK, bias_N)


def _in_pieces(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    n_rows, n_pieces = len(x_MK), len(weight_NK) // PIECE
    whole = n_pieces * PIECE
    pieces_bKP = weight_NK[:whole].view(n_pieces, PIECE, -1).transpose(1, 2)
    product_MN = x_MK.new_empty(n_rows, len(weight_NK))
    product_MN[:, :whole].view(n_rows, n_pieces, PIECE).copy_(
        torch.bmm(x_MK.expand(n_pieces, -1, -1), pieces_bKP).transpose(0, 1)
    )
    if whole < len(weight_NK):
        product_MN[:, whole:] = linear(x_MK, weight_NK[whole:])
    return product_MN if bias_N is None else product_MN.add_(bias_N)
