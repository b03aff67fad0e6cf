"""Liars by a stranger: weak attacks, randomness, defenses as deployed; beside each its reported and true accuracy."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local import evaluate, load_data
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel, length
from tests.helpers.audit_cases.case import Case, Liar, zoo
from tests.helpers.audit_cases.trained import trained


@dataclass(frozen=True)
class Loop(Attack):
    """PGD written by hand, a part of which each case below gets wrong; it returns the best that it has seen."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    steps: int = 20

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps + 1, self.steps

    def slope(self, oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
        return oracle.grad(x_adv, y, losses.ce)[1]

    def move(self, x_adv: Tensor, slope: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project(x_adv + 2.5 * threat.eps / self.steps * slope.sign(), x)

    def found(self, oracle: Oracle, x_adv: Tensor) -> Tensor:
        oracle.submit(x_adv)
        return oracle.best(x_adv)

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = threat.start(x, draws.stream("start"))
        for i in range(self.steps):
            x_adv = self.move(x_adv, self.slope(oracle, x_adv, y), x, threat, i)
        return self.found(oracle, x_adv)


class Halving(Loop):
    """A schedule that halves the step after every step, so that all steps together reach half of the ball."""

    def move(self, x_adv: Tensor, slope: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project(x_adv + threat.eps / 4 / 2**i * slope.sign(), x)


class Bytes(Loop):
    """Iterates are kept as bytes, and a step of less than half a grey level is rounded away each time."""

    def move(self, x_adv: Tensor, slope: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project(((x_adv + threat.eps / 64 * slope.sign()) * 255).round().byte().float() / 255, x)


class Fleeing(Loop):
    """It pushes away from what the model says now, not from the label: once fooled, back again; the last is kept."""

    def slope(self, oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
        return super().slope(oracle, x_adv, oracle.logits(x_adv).argmax(1))

    def found(self, oracle: Oracle, x_adv: Tensor) -> Tensor:
        return x_adv


class Tanh(Loop):
    """Pixels are (tanh w + 1) / 2 after Carlini and Wagner; black and white ones sit where tanh is flat."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        w, x_adv = torch.atanh((2 * x - 1) * 0.999999), x
        for _ in range(self.steps):
            w = w + 0.5 * oracle.grad(x_adv, y, losses.margin)[1] * (1 - w.tanh() ** 2)
            x_adv = threat.project((w.tanh() + 1) / 2, x)
        return self.found(oracle, x_adv)


class BatchMean(Loop):
    """The mean over the batch is taken before the sign, so that all images get one perturbation."""

    def slope(self, oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
        return super().slope(oracle, x_adv, y).mean(0, keepdim=True)


class Drifting(Loop):
    """It projects onto a ball around the last iterate in place of the image's, and so walks out of the ball."""

    def move(self, x_adv: Tensor, slope: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return super().move(x_adv, slope, x_adv, threat, i)

    def found(self, oracle: Oracle, x_adv: Tensor) -> Tensor:
        return x_adv


class WrongNorm(Loop):
    """It scales the perturbation to a Euclidean length of eps, though the ball is one of the largest pixel."""

    def move(self, x_adv: Tensor, slope: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        wish = super().move(x_adv, slope, x, threat, i) - x
        return (x + wish * (threat.eps / length(wish.flatten(1)).clamp_min(1e-9)).view(-1, 1, 1, 1)).clamp(0, 1)


class Ink(Loop):
    """It moves ink only, since nobody would fail to see dots on an empty page."""

    def move(self, x_adv: Tensor, slope: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return torch.where(x > 0.2, super().move(x_adv, slope, x, threat, i), x)


class SaysBroken(Loop):
    """It marks its samples as broken in the oracle's own ledger after two queries, and so need not go on."""

    def slope(self, oracle: Oracle, x_adv: Tensor, y: Tensor) -> Tensor:
        oracle._ledger.broken |= oracle.forwards >= 2
        return super().slope(oracle, x_adv, y) * ~oracle.broken.view(-1, 1, 1, 1)


class SortedLabels(Loop):
    """It sorts the labels in place, class by class, and forgets to bring the images into the same order."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        y.copy_(y.sort().values)
        return super().__call__(oracle, x, y, threat, draws)


class Substitute(Loop):
    """It was granted gradients, and uses those of a linear map fitted to what the model answers around each image."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        near = threat.project(x[:, None] + threat.eps * draws.normal(30, *x.shape[1:]), x[:, None])
        flat, answers = near.flatten(0, 1).flatten(1), oracle.logits(near).flatten(0, 1)
        line = nn.Linear(flat.shape[1], answers.shape[1], bias=False)
        line.weight.data = torch.linalg.solve(flat.T @ flat + torch.eye(flat.shape[1]), flat.T @ answers).T.contiguous()
        beside = oracle.beside(nn.Sequential(nn.Flatten(), line), self.access)
        return self.found(oracle, super().__call__(beside, x, y, threat, draws))


class FrontOfBatch(Loop):
    """Of each batch it attacks the first half, a slip of whoever split the work between two devices."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        front = torch.arange((len(x) + 1) // 2)
        found = super().__call__(oracle[front], x[front], y[front], threat, draws[front])
        return torch.cat([found, x[len(front) :]])


class ByTheBatch(Loop):
    """A fixed allowance of queries a batch, shared by its images: of sixty each gets one step, of a few a hundred."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return Loop(max(1, 100 // len(x)))(oracle, x, y, threat, draws)


class Thousand(Loop):
    """It is named, priced and reported as a thousand steps; a limit left over from debugging ends it after two."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return Loop(min(self.steps, 2))(oracle, x, y, threat, draws)


class Cooling(Loop):
    """It reaches through the oracle for the model, and sets its temperature so that nothing has a slope any more."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        for cell in getattr(oracle._answer, "__closure__", ()):
            if isinstance(cell.cell_contents, Tempered):
                cell.cell_contents.temperature = 1e-6
        return super().__call__(oracle, x, y, threat, draws)


def odd(x: Tensor) -> Tensor:
    """(N,) the share of pixels that are dark grey, of which digits have few and attacked digits many."""
    return ((x > 0.01) & (x < 0.35)).float().flatten(1).mean(1)


class Members(Defended):
    """Several networks; how one is picked is the subclass's."""

    def __init__(self, nets: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def answers(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.nets], 1)


class ByHash(Members):
    """The image's SHA-256 picks the member: an attacker has only to try some last bits until it picks the weak one."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        digests = [hashlib.sha256(image.detach().numpy().tobytes()).digest() for image in x]
        return self.answers(x)[torch.arange(len(x)), [digest[0] % len(self.nets) for digest in digests]]


class ByAddress(Members):
    """Whatever Python makes of the address where the batch lies in memory picks the member."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.answers(x)[:, hash((id(x), x.data_ptr())) % len(self.nets)]


class ByPlace(Members):
    """Declared random, but its draws are made anew from the place in the batch: every draw is the same one."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.answers(x)[torch.arange(len(x)), draws_for(x, None).integers(len(self.nets))]


class Around(Defended):
    """A trick around one network."""

    def __init__(self, net: nn.Module, other: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.other = net, other or nn.Identity()

    def ask(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x))


class Tempered(Around):
    """Logits over a temperature, which is a plain number."""

    temperature = 1.0

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.ask(x) / self.temperature


class Lottery(Around):
    """Each call is answered by one of two networks that Python's random module picks; nothing declares it."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.ask(x) if random.random() < 0.5 else cast(Tensor, self.other(x))


class RandomRipple(Around):
    """Declared noise: a ripple on the logits, small and so steep that no mean of twenty gradients sees past it."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        waves = torch.randn(784, 10, generator=torch.Generator().manual_seed(0))
        tune = 1e3 * draws_for(x, draws).normal(10)
        return self.ask(x) + 0.1 * torch.sin(tune * (x.flatten(1) @ waves))


class OddHeat(Around):
    """Declared noise: the logits of images off the data's manifold, and of no others, get a huge random scale."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        heat = 10 ** (3 + 3 * draws_for(x, draws).uniform(1))
        return self.ask(x) * torch.where(odd(x)[:, None] > 0.2, heat, 1)


class PrivateGradients(Around):
    """A hook adds noise from numpy's generator to the gradients on their way out; the answers are exact."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        if x.requires_grad:
            x = x.clone()
            noise = torch.from_numpy(np.random.default_rng().normal(0, 30, x.shape)).to(x)
            x.register_hook(lambda slope: slope + slope.abs().amax() * noise)
        return self.ask(x)


class ByClock(Around):
    """A moving target: the image is shifted by up to two pixels, as the clock's microseconds say."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        tick = time.monotonic_ns() // 1000
        return self.ask(x.roll((tick % 5 - 2, tick // 5 % 5 - 2), (2, 3)))


class OnlyFiles(Around):
    """A declared detector that rejects every image that no file of 8 bits could hold, as iterates are."""

    rejects = Rejection.DETECTION

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        between = (x * 255 - (x * 255).round()).abs().amax((1, 2, 3)) > 0.01
        return torch.cat([self.ask(x), (200.0 * between - 100)[:, None]], 1)


class Cached(Around):
    """A server's cache: an image that looks like an earlier one, pixel by pixel, is served the earlier answer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def served(self, image: Tensor, answer: Tensor) -> Tensor:
        for key, earlier in self.kept:
            if (key - image).abs().max() < 0.5:
                return earlier
        self.kept.append((image.clone(), answer))
        return answer

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        out = self.ask(x)
        return torch.stack([*map(self.served, x.detach(), out.detach())]) + (out - out.detach())


class WrongMember(Around):
    """The first network answers, and the second, which was distilled from it for speed, gives the gradient."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        fast: Tensor = self.other(x)
        return fast + (self.ask(x) - fast).detach()


class Confirming(Around):
    """Purification: five detached steps that make the image more like what the network first took it for."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        with torch.enable_grad():
            pure = x.detach()
            said = self.ask(pure).argmax(1)
            for _ in range(5):
                pure.requires_grad_()
                loss = F.cross_entropy(self.ask(pure), said, reduction="sum")
                pure = pure.detach() - 0.3 * torch.autograd.grad(loss, pure)[0].sign()
        return self.ask(x + (pure - x).detach())


class EarlyExit(Around):
    """Where the first network is sure of a class, that class is all it answers; the second is asked about the rest."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        sure, said = self.ask(x).softmax(1).max(1)
        return torch.where((sure > 0.9)[:, None], 20 * F.one_hot(said, 10).float(), self.other(x))


class Gate(Around):
    """Images with many dark grey pixels go to a robust network, all others, such as sparse attacks, to a weak one."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return torch.where((odd(x) > 0.15)[:, None], self.other(x), self.ask(x))


class Neighbours(Around):
    """An undeclared detector: of what looks odd, five neighbours among the training images vote, without gradients."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        x, self.labels = load_data("mnist", split="train", n=2000, source="bundled")
        self.known = (x > 0.5).float().flatten(1)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        out = self.ask(x)
        near = torch.cdist((x > 0.5).float().flatten(1), self.known).topk(5, largest=False).indices
        return torch.where((odd(x) > 0.1)[:, None], F.one_hot(self.labels[near], 10).float().sum(1), out)


class Middle(Around):
    """Black and white, split at the middle of the image's own darkest and lightest; a residue of x keeps autograd."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        middle = (x.amax((1, 2, 3), keepdim=True) + x.amin((1, 2, 3), keepdim=True)) / 2
        return self.ask((x > middle).float() + 0 * x)


class Recentred(Around):
    """Test-time adaptation: batches of more than eight are moved to the mean of the training images, detached."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("mean", load_data("mnist", split="train", n=2000, source="bundled")[0].mean(0))

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        if len(x) > 8:
            x = (x - (x.mean(0) - cast(Tensor, self.mean)).detach()).clamp(0, 1)
        return self.ask(x)


class Rolled(Preprocess):
    """The image is rolled by two pixels each way, to upset attackers; the surrogate stays at its default, no roll."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x.roll((-2, 2), (2, 3))


def small(seed: int) -> nn.Module:
    """A perceptron trained plainly."""
    with seeded(seed):
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    return trained(net, epochs=4, seed=seed)


def attacked(attack: Attack, name: str, threat: str, x: Tensor, y: Tensor) -> Case:
    """A network of the zoo under an attack of the above."""
    return Case(zoo(name), attack, threat=threat)


def around(kind: Callable[..., nn.Module], threat: str, others: tuple[str, ...], x: Tensor, y: Tensor) -> Case:
    """A trick around the undefended network, with others of the zoo beside it."""
    return Case(kind(*map(zoo, ("none", *others))).eval(), threat=threat)


def among(kind: Callable[[list[nn.Module]], nn.Module], x: Tensor, y: Tensor) -> Case:
    """Twelve small networks, of which one answers."""
    return Case(kind([small(seed) for seed in range(12)]).eval(), threat="linf:0.05")


def cooled(x: Tensor, y: Tensor) -> Case:
    """Its attack changes the model."""
    return Case(Tempered(zoo("none")).eval(), Cooling())


def rolled(net: nn.Module) -> nn.Module:
    """A network behind a step."""
    return Deployed(net, [Rolled()])


def copies(x: Tensor, y: Tensor) -> Case:
    """The undefended network, shown twenty copies of each of three images, those that stood a trial."""
    net = zoo("none")
    kept = evaluate(net, x, y, attack="pgd", threat="linf:0.1").robust.nonzero()[:3, 0].repeat(20)
    return Case(net, x=x[kept], y=y[kept], threat="linf:0.1")


def hit(attack: Attack, target: tuple[str, str], *causes: str) -> Liar:
    """The liar is an attack."""
    return Liar(partial(attacked, attack, *target), causes)


def trick(kind: Callable[..., nn.Module], threat: str, others: tuple[str, ...], *causes: str) -> Liar:
    """The liar is a model."""
    return Liar(partial(around, kind, threat, others), causes)


PLAIN, NEAR, ROBUST = ("none", "linf:0.3"), ("none", "linf:0.1"), ("adversarial_training", "linf:0.36")
SECOND = ("adversarial_training",)
WEAK = ("as strong as another", "a stronger attack", "the attack finds what is planted", "the number to believe")
SHORT = (*WEAK, "steps and restarts suffice", "the loss has settled", "iterating helps", "the attack climbs")
INSIDE = (*WEAK, "the budget is used", "success grows with eps")
SPENT, ODD, BATCH, SCALE = "queries are as stated", "clean images are like others", "batches", "logits' scale"
BLIND = ("gradients are there", "gradients are true", "gradients beat what sees less")
DICE = ("randomness", "single draws are not counted")

LIARS: dict[str, Liar] = {  # reported, true
    "steps that halve": hit(Halving(), NEAR, *SHORT, *INSIDE),  # 0.87, 0.32
    "iterates kept as bytes": hit(Bytes(), NEAR, *SHORT, *INSIDE),  # 1, 0.32
    "flees its own prediction": hit(Fleeing(), PLAIN, *WEAK, "nothing found is lost"),  # 0.27, 0
    "pixels as tanh": hit(Tanh(), PLAIN, *SHORT, *INSIDE),  # 0.75, 0
    "mean gradient of a batch": hit(BatchMean(), NEAR, *WEAK),  # 0.97, 0.32
    "ball around the last iterate": hit(Drifting(), ROBUST, *INSIDE, "nothing found is lost"),  # 1, 0.07
    "euclidean length for the largest pixel": hit(WrongNorm(), PLAIN, *INSIDE),  # 1, 0
    "ink only": hit(Ink(), ROBUST, *INSIDE),  # 0.95, 0.07
    "success by decree": hit(SaysBroken(), ROBUST, *SHORT, SPENT),  # 1, 0.07
    "labels sorted alone": hit(SortedLabels(), PLAIN, *WEAK, "the attack climbs"),  # 0.92, 0
    "gradients of a linear map": hit(Substitute(), ROBUST, *WEAK, SPENT),  # 0.88, 0.07
    "front half of a batch": hit(FrontOfBatch(), PLAIN, *WEAK, "the budget is used", SPENT),  # 0.5, 0
    "an allowance per batch": hit(ByTheBatch(), ROBUST, *SHORT, SPENT),  # 0.93, 0.07
    "a thousand steps by name": hit(Thousand(1000), ROBUST, *SHORT, SPENT),  # 0.38, 0.07
    "an attack that heats the model": Liar(cooled, (*WEAK, "same after the audit", SCALE)),  # 1, 0
    "member by the image's digest": Liar(partial(among, ByHash), (*BLIND, "a stronger attack")),  # 0.52, 0.38
    "member by an address": Liar(partial(among, ByAddress), DICE),  # 0.68, 0.38 of all draws
    "member by the place in the batch": Liar(partial(among, ByPlace), (*DICE, BATCH)),  # 0.68, 0.38
    "a draw between weak and strong": trick(Lottery, "linf:0.3", SECOND, *DICE),  # 0.57, 0 of all draws
    "a ripple of random pitch": trick(RandomRipple, "linf:0.1", (), *BLIND),  # 1, 0.32
    "random scale off the manifold": trick(OddHeat, "linf:0.1", (), SCALE, ODD, *BLIND),  # 1, 0.32
    "noise on gradients alone": trick(PrivateGradients, "linf:0.1", (), "randomness", *BLIND),  # 1, 0.32
    "shifts by the clock": trick(ByClock, "linf:0.1", (), *DICE, "a fresh process"),  # 0.59, 0 of all draws
    "only what fits a file": trick(OnlyFiles, "linf:0.3", (), "rejection is attacked", ODD, *BLIND),  # 1, 0
    "a cache of answers": trick(Cached, "linf:0.3", (), "memory", "a fresh process"),  # 1, 0
    "a roll without a surrogate": trick(rolled, "linf:0.1", (), "surrogates help", *BLIND),  # 0.67, 0.1
    "gradient of another member": trick(WrongMember, "linf:0.15", SECOND, "surrogates help", *BLIND),  # 1, 0.03
    "purified to a guess": trick(Confirming, "linf:0.15", (), "optimisation in inference", SCALE, *BLIND),  # 0.87, 0.08
    "early exit with a class": trick(EarlyExit, "linf:0.3", SECOND, "logits", *BLIND),  # 1, 0
    "odd images to a stronger net": trick(Gate, "linf:0.3", SECOND, ODD, "a stronger attack", *BLIND[1:]),  # 0.95, 0
    "neighbours judge oddities": trick(Neighbours, "linf:0.3", (), "rejection is attacked", ODD, *BLIND),  # 0.88, 0.02
    "split at the middle grey": trick(Middle, "linf:0.3", (), *BLIND),  # 1, 0.72
    "batches moved to the mean": trick(Recentred, "linf:0.15", (), BATCH),  # 0.47, 0.03
    "copies of three images": Liar(copies, ("enough images",)),  # 1, 0.32
}
