"""An attack that learns from images of its own before it sees a judged one, and what it is tried on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors

LINF = ThreatModel.parse("linf:0.1")
COUNT = 20


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def images(count: int, seed: int, first: int = 0) -> Tensors:
    x = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return Tensors(x, network()(x).argmax(1), first + torch.arange(count))


JUDGED, POOL = images(COUNT, 1), images(50, 2, first=1000)
SEEN: list[tuple[Tensor, Tensor]] = []  # what prepare was given


@dataclass(frozen=True)
class Learner(Attack):
    """Asks three times about each of its own images, learns their mean brightness, and later says what it knows."""

    access: ClassVar[Access] = Access.LABELS

    wanted: int = 5
    known: float = 0.0

    @property
    def own_images(self) -> int:
        return self.wanted

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        SEEN.append((x, y))
        labels = oracle.labels(x[:, None].expand(-1, 3, -1, -1, -1))
        assert torch.equal(labels, y[:, None].expand(-1, 3))
        return replace(self, known=float(x.mean() + draws.uniform().mean()))

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        oracle.note("known", torch.full_like(x[:, 0, 0, 0], self.known))
        high = x[:, 0, 0, 0] > 0.5
        oracle[high].note("high", x[high, 0, 0, 0])
        return x
