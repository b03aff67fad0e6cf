"""Ways to average over draws: who leads where draws disagree, and the table of what they left."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.unshared import WAYS, by_error, of_the_shared, plain, table


def two_groups() -> tuple[Tensor, Tensor]:
    """Seven draws agree upon a direction; three go the other way, each ten times as far. Two images, alike."""
    toward = torch.zeros(10, 2, 1, 2, 2)
    toward[:, :, 0, 0, 0] = torch.tensor([1.0] * 7 + [-10.0] * 3)[:, None]
    toward[:, :, 0, 1, 1] = 0.1 * torch.arange(-5.0, 5.0)[:, None]
    return toward, torch.tensor([-0.5] * 7 + [-9.0] * 3)[:, None].expand(10, 2)


def test_the_larger_group_leads_and_the_louder_one_does_not() -> None:
    grads, margins = two_groups()
    assert (plain(grads, margins)[:, 0, 0, 0] < 0).all()
    assert (of_the_shared(grads, margins)[:, 0, 0, 0] > 0.5).all()


def test_draws_that_are_about_to_turn_count_most() -> None:
    grads, margins = two_groups()
    assert (by_error(grads, margins)[:, 0, 0, 0] > 0.5).all()
    assert torch.allclose(by_error(grads, torch.zeros(10, 2)), plain(grads, margins))


def test_draws_that_agree_are_averaged_by_all() -> None:
    grads = 1 + 0.01 * torch.randn(10, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    for _, way in WAYS.values():
        assert torch.allclose(way(grads, torch.full((10, 3), -1.0)), plain(grads, grads[:, :, 0, 0, 0]), atol=0.02)


def test_the_table_pairs_images_and_adds_the_worst_of_ten() -> None:
    rows = [
        {
            "model": "mnist purifier",
            "threat": "linf:0.1",
            "steps": 40,
            "first": first,
            "shares": {"clean": [1.0, 1.0], "ce": [0.9, 0.5]}
            | {way: [0.9, 0.3] for way in ("margin", "error", "shared")},
            "seconds": 1.0,
            "hardware": "H",
        }
        for first in (0, 2)
    ]
    text = table(rows)
    assert "| mnist purifier | linf:0.1 | 40 | ce | 4 | 70.0 | – | 16.6 | – |" in text
    assert "| mnist purifier | linf:0.1 | 40 | shared | 4 | 60.0 | -10.0 ± 9.8 | 16.5 |" in text
