"""Rounding as gradients see it, and what a straight-through gradient does not find."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.defenses.bit_depth import BitDepth
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.ops.soft_rounding import smooth_round
from tests.helpers.wrapping import deployed


@pytest.mark.parametrize("blur", [0.2, 0.25, 0.4])
def test_it_is_the_mean_of_rounding_under_noise(blur: float) -> None:
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = (z[:, None] + blur * noise).round().mean(1)
    torch.testing.assert_close(smooth_round(z, blur), mean, atol=0.012, rtol=0)
    assert blur > 0.3 or (mean - z).abs().max() > 0.08  # the identity would not pass


def test_its_slope_is_nowhere_zero() -> None:
    z = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(smooth_round(z, 0.2).sum(), z)
    assert slope.min() > 0.09 and slope.max() < 1.92


class Brightness(nn.Module):
    """Whether more than one pixel of a hundred is white."""

    def forward(self, x: Tensor) -> Tensor:
        over = x.mean((1, 2, 3)) - 0.01
        return torch.stack([-over, over], 1) * 100


class StraightThrough(BitDepth):
    def soft(self, x: Tensor, draws: object) -> Tensor:
        return x


def test_straight_through_is_blind_where_few_pixels_can_turn() -> None:
    """Twelve pixels of 784 are nearly white enough for one bit. An L2 step spread over all of them turns none."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(10, 1, 28, 28)
    for image in x:
        image.view(-1)[torch.randperm(784, generator=generator)[:12]] = 0.3
    y = torch.zeros(10, dtype=torch.int64)
    left = [
        evaluate(deployed(kind(1), Brightness()), x, y, attack="apgd", threat="l2:1", steps=30).robust_accuracy
        for kind in (StraightThrough, BitDepth)
    ]
    assert left == [1.0, 0.0]
