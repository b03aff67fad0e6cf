"""What a model costs: who is asked how often, and what counts as shipped."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.models.int8 import deployed_state
from robustbench_local.models.measured import latency, nonzero, size
from robustbench_local.models.variants import make_variant

NET = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10)).eval()
X = torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append((len(x), torch.is_inference_mode_enabled()))
        return x.flatten(1)


def test_latency_is_the_median_of_repeats_after_a_warm_up() -> None:
    net = Counting()
    found = latency(net, X, repeats=5, warmup=3)
    assert net.asked == [(7, True)] * 8 and found.repeats == 5
    assert 0 < found.fastest <= found.seconds <= found.slowest
    assert "ms an image" in str(found)


def test_size_is_that_of_the_file_and_counts_no_twin() -> None:
    file = io.BytesIO()
    torch.save(NET.state_dict(), file)
    assert size(NET) == pytest.approx(len(file.getvalue()), rel=0.01)
    made = make_variant(NET, "int8", X)
    assert not any("twin" in name for name in deployed_state(made))
    assert sum(tensor.nbytes for tensor in deployed_state(made).values()) < size(made) < size(NET) / 3


def test_the_share_that_is_not_zero() -> None:
    assert nonzero(NET) == 1 and nonzero(make_variant(NET, "pruned:0.9")) == pytest.approx(0.1, abs=1e-4)
    assert nonzero(nn.Flatten()) != nonzero(nn.Flatten())  # NaN: there are no weights
