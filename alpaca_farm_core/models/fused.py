"""Formulas of decoder blocks with backward passes of their own: fewer passes over memory, less kept for later.

Tensors in, tensors out; knows nothing of models. Each is the plain formula of its docstring to float32's rounding. On a
CPU, what stands between the matrix products of small models costs up to half of their time.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Weight ⊙ x / √(mean(x²) + ε) over the last dimension of x, [..., D] → [..., D].

    Taken in float32 (float64 of float64), given in the dtype of x times the weight's.

    Source: Zhang and Sennrich 2019, "Root mean square layer normalization", equation 4; ε as in Llama.
    """
    if not torch.is_grad_enabled():  # a function of one's own costs more than this formula for a few rows
        return _normed(x, weight_D, eps)[0]
    return cast(Tensor, _RMSNorm.apply(x, weight_D, eps))  # type: ignore[no-untyped-call]


def rotate(x_NHW: Tensor, cos_N1h: Tensor, sin_N1h: Tensor) -> Tensor:
    """Rotary positions: (a, b) → (a cos − b sin, b cos + a sin), a and b the halves of the last dimension.

    Source: Su et al. 2021, "RoFormer", equation 34, with Llama's pairing of dimensions.

    Args:
        x_NHW: Queries or keys of N tokens, H heads, width W.
        cos_N1h: Cosines of the token's angles, h = W / 2.
        sin_N1h: Their sines.
    """
    if not torch.is_grad_enabled():
        return _turned(x_NHW, cos_N1h, sin_N1h, 1)
    return cast(Tensor, _Rotate.apply(x_NHW, cos_N1h, sin_N1h))  # type: ignore[no-untyped-call]


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) ⊙ up, of one shape and dtype; silu is computed again for the gradient instead of being kept.

    Source: Shazeer 2020, "GLU variants improve transformer", equation 6.
    """
    if not torch.is_grad_enabled():
        return silu(gate).mul_(up)
    return cast(Tensor, _Gated.apply(gate, up))  # type: ignore[no-untyped-call]


def chosen_logprobs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Log softmax of each row at its target, [N], in the dtype of the logits.

    d log p_t / d z = 1_t − p: made in place of the log-probabilities kept, which are as large as the logits [N, V].

    Raises:
        RuntimeError: by torch, in a second backward pass over the same graph.
    """
    return cast(Tensor, _ChosenLogprobs.apply(logits_NV, targets_N))  # type: ignore[no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    """Keeps the input and one number per row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        normed, scale = _normed(x, weight_D, eps)
        ctx.save_for_backward(x, weight_D, scale)
        ctx.dtype = x.dtype
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight_D, scale = ctx.saved_tensors
        width, needs_weight = x.shape[-1], ctx.needs_input_grad[1]
        grad, x, weight = grad.to(scale.dtype), x.to(scale.dtype), weight_D.to(scale.dtype)
        # LayerNorm's backward pass given a mean of 0 has one term more, − scale · mean(grad ⊙ weight): taken back.
        # Half the time of single operations.
        for_x, for_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [width], torch.zeros_like(scale), scale, weight, None, [True, needs_weight, False]
        )
        for_x.add_((grad @ weight).unsqueeze(-1).mul_(scale).div_(width))
        return for_x.to(ctx.dtype), for_weight.to(weight_D.dtype) if needs_weight else None, None


class _Gated(torch.autograd.Function):
    """Keeps its inputs only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), silu(gate).mul_(grad)


class _Rotate(torch.autograd.Function):
    """Keeps angles only: the gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _turned(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1).to(ctx.dtype), None, None


class _ChosenLogprobs(torch.autograd.Function):
    """Keeps all log-probabilities, and nothing else of the size of the logits."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        logprobs_NV = torch.log_softmax(logits_NV, dim=-1)
        ctx.save_for_backward(logprobs_NV, targets_N)
        return logprobs_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        logprobs_NV, targets_N = ctx.saved_tensors
        grad_N1 = grad_N.unsqueeze(-1)
        # In place: torch itself refuses a second backward pass over a kept tensor that was changed.
        grad_NV = logprobs_NV.exp_().mul_(-grad_N1)
        return grad_NV.scatter_add_(-1, targets_N.unsqueeze(-1), grad_N1), None


def _normed(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of `rms_norm`, and 1/√(mean(x²) + ε), [..., 1]."""
    exact = torch.promote_types(x.dtype, torch.float32)
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
    scale = norms.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    normed: Tensor = x.to(exact) * scale
    if x.dtype == weight_D.dtype == exact:
        return normed.mul_(weight_D), scale
    return normed.to(x.dtype) * weight_D, scale


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    turned = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, cos.dtype), device=x.device)
    for_a, for_b = turned.chunk(2, -1)
    a, b = x.chunk(2, -1)
    torch.mul(a, cos, out=for_a).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=for_b).addcmul_(a, sin, value=sign)
    return turned
