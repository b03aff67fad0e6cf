"""An adversarial example that is known to be there: an attack that misses it is broken, not the model robust.

In the spirit of the binarization test of Zimmermann et al. 2022 ("Increasing Confidence in Adversarial Robustness
Evaluations"): on the features of a network a linear readout learns to tell points well inside the ball from one point
at its edge, for one image at a time. Whatever else the network does, that point is a success inside the ball.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.attacks.noise import Noise
from robustbench_local.attacks.pgd import PGD
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import evaluate

SHAPE, IMAGES, INNER = (1, 8, 8), 20, 200


def features() -> nn.Module:
    """A small untrained convolutional network, 256 features."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        ).double()


def planted(net: nn.Module, x: Tensor, threat: ThreatModel, number: int) -> tuple[nn.Module, Tensor]:
    """(a model of two classes with an adversarial example inside the ball around x, that example)."""
    draws = Draws(number, torch.arange(INNER + 1), dtype=torch.float64)
    inner = ThreatModel(threat.norm, threat.eps / 2)
    around = inner.start(x.expand(INNER + 1, *SHAPE), draws)
    direction = 2 * draws.stream("edge").integers(2, *SHAPE)[-1:] - 1.0
    example = x + direction * threat.eps / threat.distance(x + direction, x)
    with torch.no_grad():
        found = torch.cat([net(x), net(around[:INNER]), net(example)])
    wanted = torch.tensor([-1.0] * (INNER + 1) + [1.0], dtype=torch.float64)
    weight = torch.tensor([1.0] * (INNER + 1) + [float(INNER)], dtype=torch.float64).sqrt()
    middle = found.mean(0)
    system = torch.cat([found - middle, torch.ones(INNER + 2, 1)], 1) * weight[:, None]
    ridge = 1e-3 * torch.eye(system.shape[1], dtype=torch.float64)
    slope = torch.linalg.solve(system.T @ system + ridge, system.T @ (weight * wanted))
    score = (found - middle) @ slope[:-1]
    offset = -(score[:-1].max() + score[-1]) / 2
    assert score[-1] > score[:-1].max(), "the readout cannot tell them apart: nothing is planted"
    readout = nn.Linear(256, 2).double()
    readout.weight.data = torch.stack([-slope[:-1], slope[:-1]])
    readout.bias.data = torch.stack([slope[:-1] @ middle - offset, offset - slope[:-1] @ middle])
    return nn.Sequential(net, readout), example


def found_share(attack: Attack, threat: ThreatModel) -> float:
    net = features()
    x = 0.3 + 0.4 * torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = 0
    for number in range(IMAGES):
        image = x[number : number + 1]
        model, example = planted(net, image, threat, number)
        assert threat.contains(example, image) and model(example).argmax() == 1
        verdict = evaluate(model, image, torch.tensor([0]), attack, threat, precision="float64")
        assert verdict.clean.all()
        found += int(not verdict.robust.any())
    return found / IMAGES


THREATS = [ThreatModel.parse("linf:0.1"), ThreatModel.parse("l2:0.5")]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_pgd_finds_what_is_planted(threat: ThreatModel) -> None:
    assert found_share(PGD(restarts=3), threat) == 1


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_what_is_too_weak_does_not(threat: ThreatModel) -> None:
    assert found_share(PGD(steps=1, step_size=threat.eps / 100, random_start=False), threat) == 0
    assert found_share(Noise(), threat) < 0.2
