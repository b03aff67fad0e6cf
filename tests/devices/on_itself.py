"""The pretended device itself: it refuses what a GPU refuses, and counts what makes the host wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_local.attacks.noise import Noise
from robustbench_local.core.device import hardware, has_float64, pick_device
from robustbench_local.core.errors import ConfigError
from robustbench_local.evaluation.judge import Judge
from tests.helpers.pretended_device import DEVICE, OnDevice, pretended
from tests.helpers.small_networks import LINF, network
from tests.helpers.synchronisations import on_device


@pytest.fixture(autouse=True)
def met() -> Iterator[dict[str, int]]:
    with pretended() as counted:
        yield counted


def test_arithmetic_and_gradients_are_the_cpus() -> None:
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    slopes = []
    for device in ("cpu", DEVICE):
        leaf = x.to(device).requires_grad_()
        out = network().to(device)(leaf)
        assert out.device.type == device.partition(":")[0]
        slopes.append(torch.autograd.grad(out.square().sum(), leaf)[0])
    assert isinstance(slopes[1], OnDevice) and torch.equal(slopes[0], slopes[1].cpu())


MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "sum": lambda here, host: here + host,
    "product of matrices": lambda here, host: here @ host,
    "where": lambda here, host: torch.where(here > 0, here, host),
    "index of the host's": lambda here, host: host[here.long()],
    "in place": lambda here, host: host.add_(here),
    "NumPy": lambda here, host: np.asarray(here),
    "numpy()": lambda here, host: here.numpy(),
    "float64": lambda here, host: here.double(),
    "made in float64": lambda here, host: torch.zeros(2, dtype=torch.float64, device=DEVICE),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_a_gpu_refuses_is_refused(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"same device|on pretended|no float64"):
        MIXED[name](torch.ones(2, 2, device=DEVICE), torch.ones(2, 2))


WAITS: dict[str, tuple[Callable[[Tensor, Tensor], object], dict[str, int]]] = {
    "arithmetic": (lambda x, mask: torch.where(mask, x * 2 + 1, x).sum(), {}),
    "a number of the host": (lambda x, mask: x * torch.tensor(2.0), {}),
    "item": (lambda x, mask: x.sum().item(), {"item": 1}),
    "if": (lambda x, mask: bool(mask.any()), {"item": 1}),
    "list": (lambda x, mask: x.tolist(), {"item": 1}),
    "equal": (lambda x, mask: torch.equal(x, x), {"item": 1}),
    "nonzero": (lambda x, mask: mask.nonzero(), {"nonzero": 1}),
    "rows by a mask": (lambda x, mask: x[mask], {"nonzero": 1}),
    "rows by indices": (lambda x, mask: x[torch.arange(2, device=DEVICE)], {}),
    "values put by a mask": (lambda x, mask: x.index_put_((mask,), x.new_ones(2)), {"nonzero": 1}),
    "one value put by a mask": (lambda x, mask: x.index_put_((mask,), x.new_ones(())), {}),
    "upload": (lambda x, mask: torch.ones(2).to(DEVICE), {"upload": 1}),
    "tensor of a list": (lambda x, mask: torch.tensor([1.0, 2.0], device=DEVICE), {"upload": 1}),
    "rows by a list": (lambda x, mask: x[[0, 1]], {"upload": 1}),
    "download": (lambda x, mask: x.cpu(), {"download": 1}),
    "copied into the host's": (lambda x, mask: torch.ones(4).copy_(x), {"download": 1}),
    "another dtype": (lambda x, mask: x.half().to(DEVICE), {}),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_makes_the_host_wait_is_counted(name: str, met: dict[str, int]) -> None:
    ask, expected = WAITS[name]
    x, mask = torch.rand(4).to(DEVICE), torch.tensor([True, False, True, False]).to(DEVICE)
    met.clear()
    ask(x, mask)
    assert met == expected


def test_it_is_a_device_like_any_other() -> None:
    place = pick_device(DEVICE)
    assert place.type == DEVICE and hardware(place) == "a pretended accelerator"


def test_float64_is_refused_where_there_is_none() -> None:
    assert not has_float64(torch.device(DEVICE)) and has_float64(torch.device("cpu"))
    model, data = on_device()
    with pytest.raises(ConfigError, match="float64 does not exist on pretended:0: take float32"):
        Judge(precision="float64")(model, data, Noise(), LINF)
