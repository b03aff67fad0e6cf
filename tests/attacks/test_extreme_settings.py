"""A setting of a defense or a corruption that is no number, or far too large, is refused, or harmless: never a NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from robustbench_local.config.plugins import ATTACKS, DEFENSES, find_attack, find_defense, listing
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.defense import call
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import RobustBenchError
from robustbench_local.core.training import NoTraining
from tests.helpers.small_networks import AnySize

EXTREMES = (-1.0, 0.0, 1e-30, 1e300, math.inf, math.nan)


def floats(settings: Mapping[str, object]) -> list[str]:
    return [name for name, value in settings.items() if isinstance(value, float)]


@pytest.mark.parametrize("name", [row.name for row in listing(DEFENSES) if floats(row.settings)])
def test_a_defense_refuses_what_would_leave_no_numbers(name: str) -> None:
    settings = next(row.settings for row in listing(DEFENSES) if row.name == name)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0] = 0
    x.requires_grad_()
    for setting in floats(settings):
        for value in EXTREMES:
            model = built(name, {setting: value})
            logits = None if model is None else call(model, x, Draws(0, torch.arange(2)))
            assert logits is None or logits.isfinite().all(), (setting, value)
            assert logits is None or torch.autograd.grad(logits.sum(), x)[0].isfinite().all(), (setting, value)


def built(name: str, settings: Mapping[str, float]) -> nn.Module | None:
    """None where the defense refuses them."""
    try:
        model: nn.Module = find_defense(name, settings).build(AnySize(3), NoTraining(), Draws(0, torch.arange(1)))
        return model.eval()
    except RobustBenchError:
        return None


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "laplace", "salt_pepper", "speckle"])
def test_noise_of_any_amplitude_that_is_allowed_has_numbers(kind: str) -> None:
    adjustable = [row.name for row in listing(ATTACKS) if "severity" in row.settings and floats(row.settings)]
    assert adjustable == ["plain_noise"]
    x = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    refused = 0
    for value in EXTREMES:
        try:
            corruption = find_attack("plain_noise", {"kind": kind, "amplitude": value})
        except RobustBenchError:
            refused += 1
            continue
        assert isinstance(corruption, Corruption)
        assert corruption.apply(x, Draws(0, torch.arange(2))).isfinite().all()
    assert refused == 4
