"""Products of few rows: the same numbers as one plain product, made of small ones where that is the point."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alpaca_farm_core.models.products import PIECE, apply_linear, few_rows_linear

WIDTH, OUT = 512, 1024 + 9  # 2**19 numbers and more, and a rest behind the last piece


def layer(bias=True):
    torch.manual_seed(0)
    return nn.Linear(WIDTH, OUT, bias=bias)


def kinds(run):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return {str(name).removeprefix("aten.") for name in counter.get_flop_counts()["Global"]}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 4, 9, 15, 16, 40])
def test_equals_the_product_in_float64(rows, bias):
    linear = layer(bias)
    x = torch.randn(rows, WIDTH)
    exact = x.double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
    with torch.no_grad():
        torch.testing.assert_close(apply_linear(linear, x), exact.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="another library makes the products")
@pytest.mark.parametrize(("rows", "in_pieces"), [(3, False), (4, True), (15, True), (16, False)])
def test_four_to_fifteen_rows_are_multiplied_in_pieces(rows, in_pieces):
    made = kinds(lambda: apply_linear(layer(bias=False), torch.randn(rows, WIDTH)))
    assert made == ({"bmm", "mm"} if in_pieces else {"mm"})  # the rest behind the last piece is a plain one


def test_a_small_weight_another_precision_and_a_gradient_take_the_plain_product():
    x, weight = torch.randn(8, WIDTH), torch.randn(OUT, WIDTH)
    assert kinds(lambda: few_rows_linear(x, weight[: 2 * PIECE])) == {"mm"}
    assert kinds(lambda: few_rows_linear(x.double(), weight.double())) == {"mm"}
    learnt = weight.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        few_rows_linear(x, learnt).sum().backward()
    assert not any("bmm" in str(name) for name in counter.get_flop_counts()["Global"])
    torch.testing.assert_close(learnt.grad, x.sum(0).expand(OUT, -1), atol=1e-4, rtol=1e-4)


def test_hooks_of_a_layer_are_called():
    linear, seen = layer(), []
    linear.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with torch.no_grad():
        apply_linear(linear, torch.randn(8, WIDTH))
    assert seen == [(8, OUT)]
