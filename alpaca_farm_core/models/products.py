"""Products of few rows with the same large weights again and again, as decoding makes them on a CPU.

Such a product is the reading of its weight. MKL first copies the weight into an order of its own, at every product, and
reads it twice so; here that is done once, in advance: panels of PANEL columns that lie one behind the other, each of
which goes into a small product that copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

Apply = Callable[[nn.Module, Tensor], Tensor]
"""Runs a layer: the layer and its input [M, K] → [M, N]."""

PANEL = 32
"""Columns of a panel, that is rows of the weight: two registers of AVX-512 or four of AVX2."""
_FEWEST, _MOST = 2, 64
"""Rows for which panels pay (measured, see tests/benchmarks/LOG.md): one row needs no order, many hide the copying."""
LARGE_WEIGHT, BEYOND_CACHE = 2**19, 2**24
"""Numbers in a weight, and in all weights together, from which on they come from memory or fill a cache near it."""


def call_layer(layer: nn.Module, x_MK: Tensor) -> Tensor:
    """Run a layer as it is."""
    return cast(Tensor, layer(x_MK))


def is_watched(module: nn.Module) -> bool:
    """Whether calling a module runs more than its class's forward pass: hooks, or a forward pass of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


class Panels:
    """Runs layers, plain linear ones with few rows from copies of their weights, equal but for rounding. An `Apply`.

    For float32 on a CPU with MKL; other layers are run as they are. The copies are of the weights as they are now: not
    for longer than these stay the same. No gradients flow through a copy.

    Args:
        layers: Those that will be run; large ones are copied, or all of a model that no cache holds.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        plain = [layer for layer in layers if _is_plain(layer)]
        all_of_them = sum(layer.weight.numel() for layer in plain) >= BEYOND_CACHE
        copied = [layer for layer in plain if all_of_them or layer.weight.numel() >= LARGE_WEIGHT]
        self._of = {layer: panels(layer.weight) for layer in copied}

    def __call__(self, layer: nn.Module, x_MK: Tensor) -> Tensor:
        """What `layer` gives, [M, N]."""
        panels_bKP = self._of.get(cast(nn.Linear, layer))
        if panels_bKP is None or not _FEWEST <= len(x_MK) <= _MOST:
            return call_layer(layer, x_MK)
        linear = cast(nn.Linear, layer)
        return panel_product(x_MK, panels_bKP, linear.out_features, linear.bias)


@torch.no_grad()
def panels(weight_NK: Tensor) -> Tensor:
    """Copy a weight [N, K] into panels [⌈N / PANEL⌉, K, PANEL], with zeros behind its last row."""
    missing = -len(weight_NK) % PANEL
    padded = nn.functional.pad(weight_NK, (0, 0, 0, missing)) if missing else weight_NK
    return padded.view(-1, PANEL, weight_NK.shape[1]).transpose(1, 2).contiguous()


def panel_product(x_MK: Tensor, panels_bKP: Tensor, columns: int, bias_N: Tensor | None = None) -> Tensor:
    """Multiply x with a weight in `panels`: x Wᵀ + b, [M, N], of the first N = `columns` rows of W."""
    product_bMP = torch.bmm(x_MK.expand(len(panels_bKP), -1, -1), panels_bKP)
    product_MN = product_bMP.transpose(0, 1).reshape(len(x_MK), -1)[:, :columns]
    return product_MN if bias_N is None else product_MN + bias_N


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        type(layer) is nn.Linear
        and not is_watched(layer)
        and type(layer.weight) is nn.Parameter
        and layer.weight.layout == torch.strided
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    )
