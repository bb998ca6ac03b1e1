"""Products of few rows from copied weights: the numbers of the plain product, and which layers are copied."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from alpaca_farm_core.models.products import PANEL, Panels, panel_products, panels

WIDTH, OUT = 512, 1024 + 9  # 2**19 numbers and more, and a panel that is not full

with_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="another library makes the products")


def layer(out=OUT, bias=True):
    torch.manual_seed(0)
    return nn.Linear(WIDTH, out, bias=bias)


class TorchProducts(TorchDispatchMode):
    """Names of the matrix products that are made."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def kinds(run):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return {str(name).removeprefix("aten.") for name in counter.get_flop_counts()["Global"]}


@pytest.mark.parametrize("out", [1, PANEL - 1, PANEL, PANEL + 1, 100])
@pytest.mark.parametrize("rows", [1, 8])
def test_a_product_of_panels_is_the_product(rows, out):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 70), torch.randn(out, 70), torch.randn(out)
    exact = x.double() @ weight.double().T + bias.double()
    (with_bias,), (without,) = (panel_products(x, panels([weight]), [(out, one)]) for one in (bias, None))
    torch.testing.assert_close(with_bias, exact.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(without + bias, exact.float(), atol=1e-5, rtol=1e-5)


def test_panels_hold_the_columns_of_one_weight_behind_the_other():
    first, second = torch.arange(2.0 * PANEL + 1)[:, None], -torch.arange(3.0)[:, None]
    found = panels([first, second])
    assert found.shape == (4, 1, PANEL)
    expected = [*range(2 * PANEL + 1), *[0] * (PANEL - 1), 0, -1, -2, *[0] * (PANEL - 3)]
    assert found.flatten().tolist() == expected


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 15, 64, 65])
def test_layers_give_what_they_give_by_themselves(rows, bias):
    linear, x = layer(bias=bias), torch.randn(rows, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(Panels([(linear,)])((linear,), x)[0], linear(x), atol=1e-5, rtol=1e-5)


@with_mkl
@pytest.mark.parametrize(("rows", "in_panels"), [(1, False), (2, True), (64, True), (65, False)])
def test_two_to_64_rows_are_multiplied_by_panels(rows, in_panels):
    linear = layer(bias=False)
    run = Panels([(linear,)])
    assert kinds(lambda: run((linear,), torch.randn(rows, WIDTH))) == ({"bmm"} if in_panels else {"mm"})


@with_mkl
def test_small_weights_are_copied_with_a_model_that_no_cache_holds():
    small, x = layer(out=PANEL, bias=False), torch.randn(8, WIDTH)
    few, many = [(small,), (layer(),)], [(small,), (nn.Linear(2048, 8192),)]
    assert kinds(lambda: Panels(few)((small,), x)) == {"mm"}
    assert kinds(lambda: Panels(many)((small,), x)) == {"bmm"}


@with_mkl
def test_other_precisions_hooks_and_layers_that_were_not_named_are_run_as_they_are():
    x, seen = torch.randn(8, WIDTH), []
    double, hooked, own, unknown = (layer(bias=False) for _ in range(4))
    double.double()
    hooked.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    own.forward = lambda x: x[:, :1]
    run = Panels([(double,), (hooked,), (own,)])
    assert kinds(lambda: run((double,), x.double())) == {"mm"}
    assert kinds(lambda: run((hooked,), x)) == {"mm"}
    assert seen == [(8, OUT)]
    assert run((own,), x)[0].shape == (8, 1)
    assert kinds(lambda: run((unknown,), x)) == {"mm"}


@with_mkl
def test_layers_with_one_input_are_one_product_if_all_are_copied():
    x, first, second = torch.randn(8, WIDTH), layer(), layer(out=OUT + 40, bias=False)
    run = Panels([(first, second)])
    with TorchProducts() as made, torch.no_grad():
        found = run((first, second), x)
    assert made.names == ["bmm"]
    with torch.no_grad():
        for part, linear in zip(found, (first, second), strict=True):
            torch.testing.assert_close(part, linear(x), atol=1e-5, rtol=1e-5)


@with_mkl
def test_of_layers_with_one_input_the_plain_ones_are_copied():
    x, first, hooked = torch.randn(8, WIDTH), layer(), layer(out=OUT + 40, bias=False)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    run = Panels([(hooked, first)])
    assert kinds(lambda: run((hooked, first), x)) == {"mm", "bmm"}
    with torch.no_grad():
        for found, linear in zip(run((hooked, first), x), (hooked, first), strict=True):
            torch.testing.assert_close(found, linear(x), atol=1e-5, rtol=1e-5)
