"""Products of few rows: the same numbers as one plain product, made of small ones where that is the point."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alpaca_farm_core.models.products import PIECE, apply_linear, in_pieces

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


@pytest.mark.parametrize("shape", [(8, 31), (8, 32), (1, 33), (4, 100)])
def test_pieces_fit_any_number_of_rows_of_a_weight(shape):
    rows, out = shape
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 70), torch.randn(out, 70), torch.randn(out)
    exact = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(in_pieces(x, weight, bias), exact.float(), atol=1e-5, rtol=1e-5)


def test_a_small_weight_another_shape_or_precision_takes_the_plain_product():
    small, whole = nn.Linear(WIDTH, PIECE, bias=False), layer(bias=False)
    assert kinds(lambda: apply_linear(small, torch.randn(8, WIDTH))) == {"mm"}
    assert kinds(lambda: apply_linear(layer(bias=False).double(), torch.randn(8, WIDTH).double())) == {"mm"}
    assert apply_linear(whole, torch.randn(8, 1, WIDTH)).shape == (8, 1, OUT)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert apply_linear(whole, torch.randn(8, WIDTH)).dtype == torch.bfloat16


def test_with_gradients_the_layer_itself_is_called():
    linear, x = layer(), torch.randn(8, WIDTH)
    with FlopCounterMode(display=False) as counter:
        apply_linear(linear, x).sum().backward()
    assert not any("bmm" in str(name) for name in counter.get_flop_counts()["Global"])
    torch.testing.assert_close(linear.weight.grad, x.sum(0).expand(OUT, -1), atol=1e-4, rtol=1e-4)


def test_hooks_and_forward_passes_of_a_layers_own_are_run():
    linear, seen = layer(), []
    handle = linear.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with torch.no_grad():
        apply_linear(linear, torch.randn(8, WIDTH))
        assert seen == [(8, OUT)]
        handle.remove()
        linear.forward = lambda x: x[:, :1]
        assert apply_linear(linear, torch.randn(8, WIDTH)).shape == (8, 1)
