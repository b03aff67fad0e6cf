"""Honest models that resemble liars."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.attacks.pgd import PGD
from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import Defended, Preprocess, Rejection, call
from robustbench_local.core.draws import Draws
from robustbench_local.core.training import NoTraining
from robustbench_local.defenses.randomized_smoothing import Smoothed
from tests.helpers.audit_cases.attacks import Own
from tests.helpers.audit_cases.case import Case, Make, zoo


class Declared(Defended):
    """The same detector, softer, and declared: attacks have to pass it."""

    rejects = Rejection.DETECTION

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = call(self.net, x, None)
        rough = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return torch.cat([logits, (logits.amax(1) + 40 * (rough - 0.2))[:, None]], 1)


class BitSqueeze(Preprocess):
    """Three grey levels behind an identity surrogate: BPDA, as it should be."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 2).round() / 2


def defended(name: str, **settings: Any) -> Make:
    """A wrapping defense around the undefended network."""

    def make(x: Tensor, y: Tensor) -> Case:
        draws = Draws(0, torch.zeros(1, dtype=torch.int64)).stream("train")
        return Case(find_defense(name, settings).build(zoo("none"), NoTraining(), draws))

    return make


def smoothed(x: Tensor, y: Tensor) -> Case:
    net = zoo("noise_fusion").net
    assert isinstance(net, nn.Module)
    return Case(Smoothed(net, sigma=0.1, samples=6, alpha=0.1), classes=10)


HONEST: dict[str, Make] = {
    "undefended": lambda x, y: Case(zoo("none")),
    "adversarially trained": lambda x, y: Case(zoo("adversarial_training")),
    "label smoothing": lambda x, y: Case(zoo("label_smoothing")),
    "noise-trained, noise at run time": lambda x, y: Case(zoo("noise_fusion")),
    "noise in every layer": lambda x, y: Case(zoo("noise_layers")),
    "randomized smoothing": smoothed,
    "JPEG with BPDA": defended("jpeg", quality=50),
    "bit depth with BPDA": defended("bit_depth", bits=2),
    "median filter": defended("median"),
    "random resize, declared": defended("resize_pad"),
    "detector, declared": lambda x, y: Case(Declared(zoo("none")), classes=10),
    "adversarially trained, PGD": lambda x, y: Case(zoo("adversarial_training"), PGD(steps=20)),
    "adversarially trained, an own loop": lambda x, y: Case(zoo("adversarial_training"), Own()),
}
