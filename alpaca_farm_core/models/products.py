"""Products of few rows with the same large weights again and again, as decoding makes them on a CPU.

Such a product is the reading of its weight. MKL first copies the weight into an order of its own, at every product, and
reads it twice so; here that is done once, in advance: panels of PANEL columns that lie one behind the other, each of
which goes into a small product that copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

Apply = Callable[[tuple[nn.Module, ...], Tensor], list[Tensor]]
"""Runs layers on one input: the layers and the input [M, K] → [M, N] of each."""

PANEL = 32
"""Columns of a panel, that is rows of the weight: two registers of AVX-512 or four of AVX2."""
_FEWEST, _MOST = 2, 64
"""Rows for which panels pay (measured, see tests/benchmarks/LOG.md): one row needs no order, many hide the copying."""
LARGE_WEIGHT, BEYOND_CACHE = 2**19, 2**24
"""Numbers in a weight, and in all weights together, from which on they come from memory or fill a cache near it."""


def call_layers(layers: tuple[nn.Module, ...], x_MK: Tensor) -> list[Tensor]:
    """Run layers as they are."""
    return [layer(x_MK) for layer in layers]


def is_watched(module: nn.Module) -> bool:
    """Whether calling a module runs more than its class's forward pass: hooks, or a forward pass of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


class Panels:
    """Runs layers, plain linear ones with few rows from copies of their weights, equal but for rounding. An `Apply`.

    For float32 on a CPU with MKL; other layers are run as they are. The copies are of the weights as they are now: not
    for longer than these stay the same. No gradients flow through a copy.

    Args:
        groups: Layers that will be run, those with one input together; large ones are copied, or all of a model that no
            cache holds. A group that is copied whole is one product.
    """

    def __init__(self, groups: Iterable[tuple[nn.Module, ...]]) -> None:
        groups = list(groups)
        plain = [layer for group in groups for layer in group if _is_plain(layer)]
        all_of_them = sum(layer.weight.numel() for layer in plain) >= BEYOND_CACHE
        copied = {layer for layer in plain if all_of_them or layer.weight.numel() >= LARGE_WEIGHT}
        self._of: dict[tuple[nn.Module, ...], Tensor] = {}
        for group in groups:
            parts = [group] if copied.issuperset(group) else [(layer,) for layer in group if layer in copied]
            self._of |= {part: panels([cast(nn.Linear, layer).weight for layer in part]) for part in parts}

    def __call__(self, layers: tuple[nn.Module, ...], x_MK: Tensor) -> list[Tensor]:
        """What `layers` give, [M, N] each."""
        if not _FEWEST <= len(x_MK) <= _MOST:
            return call_layers(layers, x_MK)
        panels_bKP = self._of.get(layers)
        if panels_bKP is not None:
            linear = [cast(nn.Linear, layer) for layer in layers]
            return panel_products(x_MK, panels_bKP, [(layer.out_features, layer.bias) for layer in linear])
        if len(layers) == 1:
            return call_layers(layers, x_MK)
        return [self((layer,), x_MK)[0] for layer in layers]


@torch.no_grad()
def panels(weights: Sequence[Tensor]) -> Tensor:
    """Copy weights [N, K], one behind the other, into panels [Σ ⌈N / PANEL⌉, K, PANEL]; zeros fill the last of each."""
    width = weights[0].shape[1]
    panels_bKP = weights[0].new_empty(sum(map(_count, weights)), width, PANEL)
    place = 0
    for weight_NK in weights:
        whole, rest = divmod(len(weight_NK), PANEL)
        panels_bKP[place : place + whole] = weight_NK[: whole * PANEL].view(whole, PANEL, width).transpose(1, 2)
        if rest:
            last_KP = panels_bKP[place + whole].zero_()
            last_KP[:, :rest] = weight_NK[-rest:].T
        place += _count(weight_NK)
    return panels_bKP


def panel_products(x_MK: Tensor, panels_bKP: Tensor, weights: Sequence[tuple[int, Tensor | None]]) -> list[Tensor]:
    """Multiply x with weights in `panels`, one behind the other: x Wᵀ + b, [M, N] each.

    Args:
        x_MK: Input.
        panels_bKP: Panels of all weights.
        weights: Rows N of each weight, and its bias.
    """
    product_bMP = torch.bmm(x_MK.expand(len(panels_bKP), -1, -1), panels_bKP)
    product_MN = product_bMP.transpose(0, 1).reshape(len(x_MK), -1)
    found, end = [], 0
    for columns, bias_N in weights:
        part_MN = product_MN[:, end : end + columns]
        found.append(part_MN if bias_N is None else part_MN + bias_N)
        end += -(-columns // PANEL) * PANEL
    return found


def _count(weight_NK: Tensor) -> int:
    return -(-len(weight_NK) // PANEL)


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
