"""What every attack that lives on scores alone is asked, whichever it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.evaluation.evaluate import Tensors, evaluate
from robustbench_local.evaluation.judge import Judge
from tests.helpers.small_networks import COUNT, MODELS, chosen, images, network


class NoGradients(nn.Module):
    """A model that gives scores and refuses to be differentiated."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        assert not (torch.is_grad_enabled() and x.requires_grad), "asked for a gradient"
        scores: Tensor = self.net(x)
        return scores


class Stubborn(nn.Module):
    """Always class 0 of three, though its scores move with the image."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1)
        return torch.stack([9 + bright, bright, -bright], 1)


def watched_inside(ball: ThreatModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every query from now on must be in ball ∩ box -> a list that fills with their kinds, "grad" or "logits"."""
    asked: list[str] = []

    def watch(name: str) -> None:
        ask = getattr(Oracle, name)

        def watched(self: Oracle, x_adv: Tensor, *rest: object) -> object:
            assert ball.contains(x_adv, self._x).all()
            asked.append(name)
            return ask(self, x_adv, *rest)

        monkeypatch.setattr(Oracle, name, watched)

    watch("grad")
    watch("logits")
    return asked


def company_changes_nothing(attack: Attack, threat: ThreatModel, kind: str) -> None:
    """In float64 batch size, order and who else is attacked leave every sample's result as it is."""
    net = network()
    data = images(net, torch.float64)
    before, model = data.x.clone(), MODELS[kind](net)

    def verdict(rows: Tensor, batch: int) -> Verdict:
        judge = Judge(seed=3, precision="float64", batch_size=batch, eot=2, draws=3)
        return judge(model, chosen(data, rows), attack, threat)

    whole = verdict(torch.arange(COUNT), COUNT)
    assert torch.equal(data.x, before)
    assert 0.1 < whole.robust_accuracy < 0.8  # some broken, some robust
    shuffled = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for rows, batch in ((torch.arange(COUNT), 7), (shuffled[:9], 1), (shuffled, 11)):
        part = verdict(rows, batch)
        for name in ("clean", "robust", "robust_8bit", "forwards", "backwards"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name
        if whole.bits is not None:
            assert part.bits is not None and torch.equal(part.bits, whole.bits[rows])
        assert torch.allclose(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)


def stays_inside(attack: Attack, threat: ThreatModel, channels: int, targeted: bool = False) -> None:
    """Every query, and what comes back, lies in ball and box, also where pixels touch 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    x = (3 * torch.rand(12, channels, 7, 6, generator=generator) - 1).clamp(0, 1)
    assert (x == 0).any() and (x == 1).any()
    y, seen = torch.zeros(len(x), dtype=torch.int64), 0
    ask = Oracle._ask

    def checked(oracle: Oracle, images: Tensor) -> Tensor:
        nonlocal seen
        every = images.flatten(1, -4) if images.ndim > 4 else images.unsqueeze(1)
        for member in every.unbind(1):
            assert threat.contains(member, oracle._x).all(), threat.distance(member, oracle._x).max()
            seen += len(member)
        return ask(oracle, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Oracle, "_ask", checked)
        oracle = Oracle(Stubborn(), x, y, threat, attack.access, Draws(0, torch.arange(len(x))), targeted=targeted)
        x_adv = attack(oracle, x.clone(), y, threat, Draws(1, torch.arange(len(x))))
    assert threat.contains(x_adv, x).all() and seen == oracle.forwards.sum() > 0


def costs_what_it_says(attack: Attack, threat: ThreatModel) -> None:
    """cost() is the meter of images that are never broken, and no gradient is asked for."""
    x, y = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(5, dtype=torch.int64)
    verdict = evaluate(NoGradients(Stubborn()), x, y, attack, threat)
    assert verdict.robust.all()
    forwards, backwards = attack.cost(3)
    assert verdict.forwards.tolist() == [forwards] * 5 and verdict.backwards.tolist() == [backwards] * 5


def reaches_targets(attack: Attack, threat: ThreatModel) -> None:
    """Some images reach the class they are to reach, and fewer than the untargeted attack breaks."""
    model = network()
    data = images(model)
    given = (data.labels + 2) % 4
    verdict = Judge(targets=given)(NoGradients(model), data, attack, threat)
    broken = verdict.clean & ~verdict.robust
    with torch.no_grad():
        assert torch.equal(broken, verdict.clean & (model(verdict.x_adv).argmax(1) == given))
    assert broken.sum() > 2
    assert Judge()(model, data, attack, threat).robust_accuracy < verdict.robust_accuracy


def pixels_that_matter(count: int, pixels: int) -> tuple[nn.Module, Tensors, Tensor]:
    """(linear model of two classes, images of 3x4x4, ratio): ratio of each image's gap to what `pixels` pixels close.

    A pixel moves the gap by the sum over channels of weight times change, so that its best colour is a corner of the
    cube, and the best pixels are those of largest gain: exactly the ratios up to 1 can be broken.
    """
    generator = torch.Generator().manual_seed(4)
    x = 0.2 + 0.6 * torch.rand(count, 3, 4, 4, generator=generator)
    weight = torch.randn(3, 4, 4, generator=generator)
    gain = torch.where(weight > 0, weight * (1 - x), -weight * x).sum(1).flatten(1).topk(pixels, dim=1).values.sum(1)
    ratio = torch.linspace(0.7, 1.3, count)
    return LinearWithGaps(weight, x, ratio * gain), Tensors(x, torch.zeros(count).long(), torch.arange(count)), ratio


class LinearWithGaps(nn.Module):
    """Class 1 leads by weight . (image - its clean image) - gap, the clean image being the nearest one of a list."""

    def __init__(self, weight: Tensor, x: Tensor, gap: Tensor) -> None:
        super().__init__()
        self.weight, self.x, self.gap = weight, x, gap

    def forward(self, image: Tensor) -> Tensor:
        same = (image[:, None] == self.x).all(2).flatten(2).sum(2)  # few pixels changed: most are equal
        mine = same.argmax(1)
        lead = ((image - self.x[mine]) * self.weight).flatten(1).sum(1) - self.gap[mine]
        return torch.stack([-lead / 2, lead / 2], 1)
