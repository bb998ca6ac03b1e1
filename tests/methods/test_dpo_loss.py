"""DPO and IPO with their gradients on literals worked out by hand: h = margin, y = target."""

import pytest
import torch

from alpaca_farm_core.methods.dpo.loss import ipo_loss, log_ratios, pair_sums, sigmoid_loss


@pytest.mark.parametrize(
    ("h", "y", "beta", "smoothing", "loss", "gradient"),
    [
        (0.5, 0.0, 0.1, 0.0, 0.668459648, -0.048750260),  # side 1 is better: −log σ(0.05), −0.1 σ(−0.05)
        (-1.2, 0.0, 0.5, 0.0, 1.037487950, -0.322828153),
        (0.5, 1.0, 0.1, 0.0, 0.718459648, 0.051249740),
        (2.0, 0.5, 0.3, 0.0, 0.737487950, 0.043696892),  # a tie pulls back to 0
        (0.8, 0.25, 0.2, 0.1, 0.664343773, -0.032017023),  # y → 0.25 · 0.9 + 0.75 · 0.1 = 0.3
        (0.0, 0.0, 0.1, 0.0, 0.693147181, -0.05),
    ],
)
def test_sigmoid_loss(h, y, beta, smoothing, loss, gradient):
    margins = torch.tensor([h], dtype=torch.float64, requires_grad=True)
    found = sigmoid_loss(margins, torch.tensor([y], dtype=torch.float64), beta, smoothing)
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert margins.grad.item() == pytest.approx(gradient, abs=1e-6)


@pytest.mark.parametrize(
    ("h", "y", "tau", "loss", "gradient"),
    [
        (0.5, 0.0, 0.1, 20.25, -9.0),  # (0.5 − 5)², 2 (0.5 − 5)
        (-1.2, 1.0, 0.5, 0.04, -0.4),  # (−1.2 + 1)²
        (3.0, 0.5, 0.25, 13.0, 6.0),  # ½ (3 − 2)² + ½ (3 + 2)²: a tie pulls back to 0
        (1.0, 0.25, 1.0, 0.75, 1.5),
        (0.0, 0.5, 0.25, 4.0, 0.0),
    ],
)
def test_ipo_loss(h, y, tau, loss, gradient):
    margins = torch.tensor([h], dtype=torch.float64, requires_grad=True)
    found = ipo_loss(margins, torch.tensor([y], dtype=torch.float64), tau)
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert margins.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_log_ratios_are_sums_or_per_token():
    logprobs, reference = torch.tensor([-4.0, -9.0]), torch.tensor([-6.0, -8.0])
    assert log_ratios(logprobs, reference, None).tolist() == [2.0, -1.0]
    assert log_ratios(logprobs, reference, torch.tensor([4, 2])).tolist() == [0.5, -0.5]


def test_figures_follow_the_winner_whichever_side_it_is_on():
    # pairs:              1 wins, right | 2 wins, right | 2 wins, wrong | tie | 1 wins, equal
    first = torch.tensor([1.0, -1.0, 2.0, 9.0, 3.0])
    second = torch.tensor([0.0, 1.0, 1.0, 0.0, 3.0])
    targets = torch.tensor([0.0, 1.0, 0.8, 0.5, 0.0])
    sums = pair_sums(first, second, torch.ones(5), targets, beta=0.5)
    assert [float(value) for value in sums] == [5.0, 2.0, 4.0, 0.5 * (1 + 2 - 1 + 0), 0.5 * 6, 0.5 * 4]
