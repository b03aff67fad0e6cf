"""Every defense on the pretended device: built there, trained for an epoch where it trains; answers and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robustbench_local.config.plugins import DEFENSES, find_defense, listing
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.progress import Progress
from robustbench_local.data.load import load_data, open_data
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.training.trainer import TrainingLoop
from tests.helpers.pretended_device import DEVICE, OnDevice, pretended
from tests.helpers.tiny_training import TINY, tiny_net

SHORT: dict[str, dict[str, Any]] = {
    "adversarial_training": {"threat": "linf:0.1", "steps": 2},
    "autoencoder": {"width": 4},
    "binary_detector": {"threat": "linf:0.3", "images": 40, "steps": 1, "epochs": 1, "width": 2},
    "density_detector": {"images": 100},
    "ensemble": {"members": 2},
    "ibp": {"threat": "linf:0.1", "steps": 2, "ratio": 0.5, "warmup": 0.0, "ramp": 0.5},
    "mart": {"threat": "linf:0.1", "steps": 2},
    "purifier": {"images": 40, "epochs": 1, "steps": 2, "width": 4},
    "randomized_smoothing": {"samples": 20},
    "total_variation": {"steps": 3},
    "trades": {"threat": "linf:0.1", "steps": 2},
}
OF_EACH_KIND = {"adversarial_training", "density_detector", "jpeg", "noise_layers", "non_local_means", "resize_pad"}
# not adam: its first steps are the gradient's signs, which one rounding turns where the gradient is all but zero
ONE_EPOCH = replace(TINY, epochs=1, optimizer="sgd", lr=0.02, watched=8)
NAMES = [row.name for row in listing(DEFENSES)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OF_EACH_KIND else [pytest.mark.slow]) for name in NAMES]
)
def test_answers_and_gradients_are_the_cpus(name: str) -> None:
    host = answered(name, "cpu")
    with pretended():
        there = answered(name, DEVICE)
        assert all(isinstance(each, OnDevice) for each in there)
        for mine, theirs in zip(there, host, strict=True):
            assert torch.allclose(mine.cpu(), theirs, rtol=0, atol=2e-3)  # after an epoch of rounding apart


def answered(name: str, device: str) -> tuple[Tensor, Tensor]:
    """(logits, their sum's gradient), of a tiny network with this defense, trained on that device."""
    images = open_data("mnist", split="train", source="bundled", n=160, device=device)
    loop = TrainingLoop(images, ONE_EPOCH, progress=Progress())
    net = tiny_net().to(device)
    before = weights_digest(net)
    defense = find_defense(name, SHORT.get(name, {}))
    model = defense.build(net, loop, Draws(0, images.ids[:1]).stream("build")).to(device).eval()
    assert defense.trains == (weights_digest(net) != before) or name == "ensemble"  # which trains copies
    x = load_data("mnist", n=3, source="bundled", device=device)[0].requires_grad_()
    logits = call(model, x, Draws(0, torch.arange(3).to(device)))
    return logits.detach(), torch.autograd.grad(logits.sum(), x)[0]
