"""The substitute: a network trained on the target's own answers is attacked in the target's place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.attacks._learning import check_fit, minibatches
from robustbench_local.config.plugins import find_attack, named
from robustbench_local.config.settings import check_counts
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.decision import success_margin
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, ThreatError, did_you_mean
from robustbench_local.core.model_state import seeded
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.build import build_model

MLP = "mlp"
_CHUNK = 512  # images per gradient of the substitute


@dataclass(frozen=True)
class Substitute(Attack):
    """Papernot et al. 2017, algorithm 1: of the target only labels are asked for, and few of them.

    In each of `rounds` the substitute F learns the labels of all points so far (`epochs` of Adam at `lr`), then every
    point x has a child x + step_size sign(dF_k(x)/dx), k the target's label, and the target is asked about the child.
    The sign of the step flips every `flip` rounds. From round `sigma` on (None: never) only about `kappa` random points
    have a child: reservoir sampling, here as many for each seed, and at least one. queries: how many labels are bought
    at most.

    substitute: an architecture of the house, or `mlp`, two hidden layers of 200. white_box: the attack that runs on it,
    a name or {name: {setting: value}}. The defaults are those CleverHans published for MNIST: 4,800 labels in all.

    seeds: images that it begins with, at least 1. rounds: of learning and asking, at least 1. epochs: of learning in
    each round, at least 1. lr: Adam's learning rate, above 0. batch: points per step of learning, at least 1.
    step_size: how far a child is from its point, above 0, where white is 1. flip: after how many rounds the step's sign
    flips, at least 1. sigma: the round from which on few points have a child, null for never. kappa: how many then have
    one, at least 1.

    Costs seeds * 2^(rounds - 1) labels before, unless sigma or queries end it sooner, then 2 per image, for the notes:
    agreement (of the substitute's label of the clean image with the target's) and transfer (of the images that succeed
    on the substitute: success on the target).
    """

    access: ClassVar[Access] = Access.LABELS
    summary: ClassVar[str] = "a network trained on the target's labels is attacked in its place"
    paper: ClassVar[str] = "Papernot et al. 2017, arXiv:1602.02697"

    substitute: str = MLP
    white_box: str | dict[str, Any] = "fgsm"
    seeds: int = 150
    rounds: int = 6
    epochs: int = 10
    lr: float = 1e-3
    batch: int = 128
    step_size: float = 0.1
    flip: int = 3
    sigma: int | None = None
    kappa: int = 400
    queries: int | None = None

    def __post_init__(self) -> None:
        if self.substitute not in (MLP, *ARCHITECTURES):
            known = [MLP, *ARCHITECTURES]
            hint = did_you_mean(self.substitute, known)
            raise ConfigError(f'unknown substitute "{self.substitute}"{hint}: one of {", ".join(known)}')
        check_counts(self, "seeds", "rounds", "epochs", "batch", "flip", "kappa")
        for name in ("lr", "step_size"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.queries is not None and self.queries < self.seeds:
            raise ConfigError(f"queries is {self.queries}: a label of each of the {self.seeds} seeds costs more")
        if self.inner.own_images:
            raise ConfigError(f"white_box {self.white_box} learns from images itself: give an attack that does not")

    @property
    def inner(self) -> Attack:
        return find_attack(*named(self.white_box, "white-box attack"))

    @property
    def own_images(self) -> int:
        return self.seeds

    def sources(self) -> dict[str, str]:
        """The white-box attack, with all its settings."""
        return {"white_box": json.dumps([type(self.inner).__name__, self.inner.version, asdict(self.inner)])}

    def prepare(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Attack:
        if threat.norm not in self.inner.norms:
            known = ", ".join(sorted(self.inner.norms))
            raise ThreatError(f"white_box {self.white_box} does not know the norm {threat.norm}: it knows {known}")
        net = self.build(x, oracle.classes, draws)
        adam = torch.optim.Adam(net.parameters(), self.lr)
        points = x[:, None]  # (seeds, points of each, C, H, W)
        labels = oracle.labels(points)
        for restart in range(self.rounds):
            mine = draws.stream(f"round:{restart}")
            self.fit(net, adam, points.flatten(0, 1), labels.flatten(), mine)
            born = self.births(restart, *labels.shape) if restart + 1 < self.rounds else 0
            if born:
                parents = mine.uniform(labels.shape[1]).argsort(dim=1, stable=True)[:, :born]
                each = torch.arange(len(x), device=x.device)[:, None]
                step = self.step_size * (-1) ** (restart // self.flip)
                slope = rising(net, points[each, parents].flatten(0, 1), labels[each, parents].flatten())
                children = (points[each, parents] + step * slope.sign().view(len(x), born, *x.shape[1:])).clamp(0, 1)
                points = torch.cat([points, children], 1)
                labels = torch.cat([labels, oracle.labels(children)], 1)
        return Trained(net.requires_grad_(False), self.inner)

    def build(self, x: Tensor, classes: int, draws: Draws) -> nn.Module:
        seed = int(draws[:1].stream("weights").integers(2**31))
        if self.substitute == MLP:
            with seeded(seed):
                sizes = (x[0].numel(), 200), (200, 200), (200, classes)
                first, second, last = (nn.Linear(*size) for size in sizes)
            net: nn.Module = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last)
        else:
            net = build_model(self.substitute, seed=seed)
        net = net.to(x.device, x.dtype).eval()
        check_fit(net, x, classes, f"substitute {self.substitute}")
        return net

    def births(self, restart: int, seeds: int, size: int) -> int:
        """How many children each seed's points have in this round."""
        born = size
        if self.sigma is not None and restart >= self.sigma:
            born = min(born, max(1, self.kappa // seeds))
        if self.queries is not None:
            born = min(born, self.queries // seeds - size)
        return born

    def fit(self, net: nn.Module, adam: torch.optim.Optimizer, x: Tensor, y: Tensor, draws: Draws) -> None:
        """Some epochs on the points whose label the target gave: it gives none once the budget is spent."""
        known = (y >= 0).nonzero()[:, 0]
        net.train()
        with torch.enable_grad():
            for rows in minibatches(len(known), self.batch, self.epochs, draws):
                adam.zero_grad(set_to_none=True)
                F.cross_entropy(net(x[known[rows]]), y[known[rows]]).backward()
                adam.step()
        net.eval()

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return 2, 0

    def prepare_cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        points = 1
        for restart in range(self.rounds - 1):
            points += self.births(restart, self.seeds, points)
        return self.seeds * points, 0


def rising(net: nn.Module, x: Tensor, k: Tensor) -> Tensor:
    """The gradient of logit k (M,) at x (M, C, H, W)."""
    slopes = []
    for rows in torch.arange(len(x), device=x.device).split(_CHUNK):
        leaf = x[rows].requires_grad_()
        with torch.enable_grad():
            raised = net(leaf).gather(1, k[rows, None].clamp_min(0)).sum()
        slopes.append(torch.autograd.grad(raised, leaf)[0])
    return torch.cat(slopes)


@dataclass(frozen=True, eq=False)
class Trained(Attack):
    """A white-box attack on a finished substitute; what it makes is then shown to the target."""

    access: ClassVar[Access] = Access.LABELS

    net: nn.Module
    inner: Attack

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        own = oracle.beside(self.net, self.inner.access, minimises=self.inner.minimises)
        x_adv = threat.project(self.inner(own, x, y, threat, draws), x)
        answers = oracle.labels(torch.stack([x, x_adv], 1))
        with torch.no_grad():
            agreement = (self.net(x).argmax(1) == answers[:, 0]).to(x)
            fooled = success_margin(self.net(x_adv), y, targeted=oracle.targeted) >= 0
        transferred = ((answers[:, 1] == y) == oracle.targeted).to(x)
        asked = answers[:, 0] >= 0
        oracle.note("agreement", torch.where(asked, agreement, torch.nan))
        oracle.note("transfer", torch.where(asked & fooled, transferred, torch.nan))
        return x_adv
