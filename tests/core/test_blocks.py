"""What is done a block of samples at a time is what is done to all at once, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustbench_local.core import blocks
from robustbench_local.core.threat import ThreatModel

THREATS = ["linf:8/255", "l2:0.5", "l1:12", "l0:20", "none"]


def seen(x: Tensor) -> list[int]:
    """How many samples each call gets."""
    sizes: list[int] = []

    def note(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return part

    assert torch.equal(blocks.in_blocks(note, x), x)
    return sizes


@pytest.mark.parametrize("text", THREATS)
@pytest.mark.parametrize("count", [21, 64])  # 21 images are a block, 64 are three and a lone one
def test_a_step_in_blocks_is_the_same_to_the_last_bit(text: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threat, numbers = ThreatModel.parse(text), torch.Generator().manual_seed(count)
    x = torch.rand(count, 3, 32, 32, generator=numbers).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(x.shape, generator=numbers).contiguous(memory_format=torch.channels_last)
    x_adv = threat.project(x + 0.1 * grad, x)
    x_adv[:3] = x[:3]  # inside, beside those outside
    assert len(seen(x)) == (1 if count == 21 else 4)
    found = threat.project(x_adv + 0.1 * grad, x) if text == "none" else threat.climb(x_adv, grad, x, 0.3)
    monkeypatch.setattr(blocks, "CACHED", 2**40)
    assert len(seen(x)) == 1
    whole = threat.project(x_adv + 0.1 * grad, x) if text == "none" else threat.climb(x_adv, grad, x, 0.3)
    assert torch.equal(found, whole) and found.is_contiguous(memory_format=torch.channels_last)


def test_samples_that_torch_adds_up_in_threads_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    large = torch.rand(3, 1, 182, 182)  # 33,124 values each
    assert seen(large) == [3] and seen(torch.rand(5, 1, 181, 181)) == [2, 2, 1]
    monkeypatch.setattr(blocks, "SPLIT", 2**40)
    assert seen(large) == [1, 1, 1]


def test_no_samples_are_no_trouble() -> None:
    assert seen(torch.zeros(0, 3, 4, 4)) == [0]
