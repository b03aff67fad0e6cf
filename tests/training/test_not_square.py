"""Training on images that are not square: augmented, attacked, validated, and then as robust as it was told to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustbench_local.config.plugins import find_defense
from robustbench_local.core.training import Recipe
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data
from tests.helpers.tiny_training import TINY, accuracy, fit


def wide(n: int = 120) -> Images:
    """(n, 3, 20, 36): of class k the third of the rows that is bright is the k-th."""
    labels = torch.arange(n) % 3
    pixels = torch.randint(0, 60, (n, 3, 20, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for k in range(3):
        pixels[labels == k, :, 6 * k : 6 * k + 6] += 150
    some = open_data("cifar10", source="bundled", n=n)
    return replace(some, pixels=pixels, labels=labels, classes=("top", "middle", "bottom"))


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pooled = nn.AdaptiveAvgPool2d((5, 3))
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), pooled, nn.Flatten(), nn.Linear(90, 3))


@pytest.mark.parametrize("name", ["adversarial_training", "trades", "mart", "randomized_smoothing"])
def test_it_learns(name: str) -> None:
    images, recipe = wide(), find_defense(name)
    assert isinstance(recipe, Recipe)
    schedule = replace(TINY, epochs=6, lr=1e-2, crop=1, flip=True)
    trained, _ = fit(recipe, schedule, images=images, net=net())
    assert accuracy(trained, images[:], images.labels) > 0.9 > accuracy(net(), images[:], images.labels)
