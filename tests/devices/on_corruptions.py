"""Every corruption on the pretended device: the CPU's images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustbench_local.config.plugins import ATTACKS, find_attack, listing
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws
from robustbench_local.data.load import load_data
from tests.helpers.pretended_device import DEVICE, OnDevice, pretended
from tests.helpers.short_attacks import ELSEWHERE

OF_EACH_KIND = {"gaussian_noise", "shot_noise", "motion_blur", "snow", "elastic_transform", "jpeg_compression"}


def corruptions() -> list[str]:
    names = [row.name for row in listing(ATTACKS) if row.name not in ELSEWHERE]
    return [name for name in names if isinstance(find_attack(name, {}), Corruption)]


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OF_EACH_KIND else [pytest.mark.slow]) for name in corruptions()]
)
def test_images_are_the_cpus(name: str, data: str) -> None:
    x = load_data(data, n=3, source="bundled")[0]
    host = corrupted(name, x)
    with pretended():
        there = corrupted(name, x.to(DEVICE))
    assert isinstance(there, OnDevice) and torch.allclose(there.cpu(), host, rtol=0, atol=1e-6)


def corrupted(name: str, x: Tensor) -> Tensor:
    corruption = find_attack(name, {"severity": 3} if name != "plain_noise" else {"kind": "gaussian"})
    assert isinstance(corruption, Corruption)
    return corruption.apply(x, Draws(0, torch.arange(len(x)).to(x.device)))
