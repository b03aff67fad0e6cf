"""The least change on the way to a twin, where it is known."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.gallery.segment import HALVINGS, least_change


def brighter(x: Tensor) -> Tensor:
    """1 where the mean of an image is more than a half."""
    return (x.flatten(1).mean(1) > 0.5).long()


def test_it_ends_just_beyond_the_boundary() -> None:
    x = torch.tensor([0.1, 0.45, 0.4]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    x_adv = torch.tensor([0.9, 0.55, 0.45]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    images, answers, found = least_change(brighter, x, x_adv)
    assert found.tolist() == [True, True, False] and answers.tolist() == [1, 1, 0]
    assert brighter(images).tolist() == [1, 1, 0]
    beyond = images[:2].flatten(1).mean(1) - 0.5
    assert bool((beyond > 0).all()) and bool((beyond <= torch.tensor([0.8, 0.1]) * 2.0**-HALVINGS + 1e-6).all())
    assert torch.equal(images[2], x_adv[2])  # nothing to look for: it is the twin
