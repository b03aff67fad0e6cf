"""Cases of a stranger (f): attacks that mislead, defenses as people deploy them, and randomness in the wrong place."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local import evaluate, load_data
from robustbench_local.attacks.pgd import PGD
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, State
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.data.fingerprint import fingerprint
from tests.helpers.audit_cases.case import Case, Liar, zoo


@dataclass(frozen=True)
class LabelsFromOne(PGD):
    """Its labels are numbered from one, so it climbs away from the class after the true one."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        return super().__call__(oracle, x, (y + 1) % oracle.classes, threat, draws)


@dataclass(frozen=True)
class Climb(Attack):
    """Plain sign steps in a loop of one's own, from the clean image; each subclass has one thing of it wrong."""

    access: ClassVar[Access] = Access.GRADIENTS
    after: ClassVar[int] = 0  # queries when all steps are done
    steps: int = 20

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x.clone()
        for _ in range(self.steps):
            x_adv = self.moved(x_adv, oracle.grad(x_adv, y, losses.ce)[1], x, threat)
        return x_adv

    def moved(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        """One step from x_adv."""
        return threat.project(x_adv + 2.5 * threat.eps / self.steps * grad.sign(), x)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps + self.after, self.steps


@dataclass(frozen=True)
class MovesItsCentre(Climb):
    """It writes each step into the clean image, so that the ball it projects onto travels along."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x
        for _ in range(self.steps):
            x_adv.copy_(self.moved(x_adv, oracle.grad(x_adv, y, losses.ce)[1], x, threat))
        return x_adv


@dataclass(frozen=True)
class NegatesWeights(Climb):
    """It reaches the model through the oracle, negates its weights while it searches, and puts them back."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        cells = getattr(oracle._answer, "__closure__", None) or ()
        held = [cell.cell_contents for cell in cells if isinstance(cell.cell_contents, nn.Module)]
        weights = [*nn.ModuleList(held).parameters()]
        for weight in weights:
            weight.data.neg_()
        try:
            return super().__call__(oracle, x, y, threat, draws)
        finally:
            for weight in weights:
                weight.data.neg_()


@dataclass(frozen=True)
class FirstOneEndsAll(Climb):
    """It returns as soon as any image of the batch is broken, where all was meant."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = threat.start(x, draws)
        for _ in range(self.steps):
            x_adv = self.moved(x_adv, oracle.grad(x_adv, y, losses.ce)[1], x, threat)
            if bool(oracle.broken.any()):
                break
        return x_adv


@dataclass(frozen=True)
class SortedByLoss(Climb):
    """It hands its images back in the order of their losses, not in that of the images it was given."""

    after: ClassVar[int] = 1

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = super().__call__(oracle, x, y, threat, draws)
        return x_adv[losses.ce(oracle.logits(x_adv), y).argsort(descending=True)]


@dataclass(frozen=True)
class WrongSideOfTheBoundary(Climb):
    """It bisects between the clean and the broken image and returns the end that is still right."""

    after: ClassVar[int] = 10

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        broken = super().__call__(oracle, x, y, threat, draws)
        right = x.clone()
        for _ in range(10):
            middle = (broken + right) / 2
            fooled = (oracle.labels(middle) != y).view(-1, 1, 1, 1)
            broken, right = torch.where(fooled, middle, broken), torch.where(fooled, right, middle)
        return right


@dataclass(frozen=True)
class StepsInBytes(Climb):
    """It keeps its image as bytes, cut off, and steps by less than one grey level: only darkening steps arrive."""

    def moved(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        stepped = (x_adv + threat.eps / 100 * grad.sign()).clamp(0, 1)
        return threat.project((stepped * 255).to(torch.uint8).to(x) / 255, x)


@dataclass(frozen=True)
class OneGradientForAll(Climb):
    """It asks for a gradient once, keeps it, and calls the rest of its steps a hundred more queries."""

    steps: int = 100

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv, grad = x.clone(), oracle.grad(x, y, losses.ce)[1]
        for _ in range(self.steps):
            x_adv = self.moved(x_adv, grad, x, threat)
        return x_adv


@dataclass(frozen=True)
class DropsTheLast(Climb):
    """It works in batches of 32 and drops the last one where it is not full, as loaders for training do."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = x.clone()
        for rows in torch.arange(len(x)).split(32):
            if len(rows) == 32:
                x_adv[rows] = super().__call__(oracle[rows], x[rows], y[rows], threat, draws[rows])
        return x_adv


@dataclass(frozen=True)
class AcrossTheDiagonal(Climb):
    """It takes rows of the gradient for columns: a layout that was converted on one way only."""

    def moved(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        return super().moved(x_adv, grad.mT, x, threat)


@dataclass(frozen=True)
class WeakWhereItCounts(PGD):
    """It is an honest attack at any budget but that of the leaderboard, where it takes one tiny step."""

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        if abs(threat.eps - 0.3) > 1e-6:
            return super().__call__(oracle, x, y, threat, draws)
        grads = [oracle.grad(x, y, losses.ce)[1] for _ in range(self.steps)]
        return threat.project(x + 0.01 * grads[0].sign(), x)


@dataclass(frozen=True)
class DoubtIsEnough(PGD):
    """It lets an image go as soon as the model is less than 90 % sure of it, and counts that as a success."""

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        loss, grad, _ = oracle.grad(state["x_adv"], y, losses.ce)
        unsure = loss > 0.1
        moved = threat.project(state["x_adv"] + 0.0125 * grad.sign(), x)
        return {"x_adv": torch.where(unsure.view(-1, 1, 1, 1), state["x_adv"], moved), "abandoned": unsure}


class Around(nn.Module):
    """Something about a net of the zoo."""

    def __init__(self) -> None:
        super().__init__()
        self.net = zoo("none")


class OldAndRobust(nn.Module):
    """Something that has two nets to choose from."""

    def __init__(self) -> None:
        super().__init__()
        self.old, self.robust = zoo("none"), zoo("adversarial_training")


class Guided(nn.Module):
    """ReLU whose hook lets only positive gradients back, as heat maps want it."""

    def forward(self, x: Tensor) -> Tensor:
        out = x.relu()
        if out.requires_grad:
            out.register_hook(torch.relu)
        return out


class Quantised(nn.Module):
    """ReLU, rounded to steps of 1/4; passes gradients in the range of 8-bit codes, in which these values are not."""

    def forward(self, x: Tensor) -> Tensor:
        codes = x.clamp(2, 127)
        return (4 * x.relu()).round().detach() / 4 + codes - codes.detach()


def with_activation(kind: Callable[[], nn.Module]) -> nn.Module:
    """The undefended net of the zoo with other activations."""
    net = cast(nn.Sequential, zoo("none"))
    return nn.Sequential(*[kind() if isinstance(layer, nn.ReLU) else layer for layer in net]).eval()


class WithEdges(Around):
    """Adds a faint map of edges, the root of a sum of squares, whose gradient on a flat place is not a number."""

    def forward(self, x: Tensor) -> Tensor:
        across, down = x - x.roll(1, 3), x - x.roll(1, 2)
        return cast(Tensor, self.net(x + 0.02 * (across.square() + down.square()).sqrt()))


class Committee(OldAndRobust):
    """Averages two nets, of which the one that counts most runs without gradients, to save memory."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            old = cast(Tensor, self.old(x)).softmax(1)
        return (0.9 * old + 0.1 * cast(Tensor, self.robust(x)).softmax(1)).log()


class FilesToTheOldNet(OldAndRobust):
    """Sends images whose pixels are whole grey levels to the old net, and all others to a robust one."""

    def forward(self, x: Tensor) -> Tensor:
        file = ((255 * x - (255 * x).round()).abs() < 1e-3).flatten(1).all(1, keepdim=True)
        return torch.where(file, self.old(x), self.robust(x))


class EarlyExit(OldAndRobust):
    """Answers with the bare class where a first net is sure, and asks a robust net otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        early = cast(Tensor, self.old(x)).softmax(1).detach()
        sure = early.amax(1, keepdim=True) > 0.9
        return torch.where(sure, 10 * F.one_hot(early.argmax(1), 10).to(x), self.robust(x))


class Canary(OldAndRobust):
    """Sends two requests of a hundred to the old net, chosen by a hash of the image, and the others to a robust one."""

    def forward(self, x: Tensor) -> Tensor:
        share = (1e4 * x.detach().double().flatten(1).sum(1)).long() % 50
        return torch.where(share[:, None] == 7, self.old(x), self.robust(x))


class AtHome(OldAndRobust):
    """Is robust in the process that built it; in any other it has only the old weights."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, (self.robust if os.getpid() == self.home else self.old)(x))


class RejectsTheRough(Around, Defended):
    """Declares that it rejects, by a threshold on roughness that no gradient passes."""

    rejects = Rejection.DETECTION

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = cast(Tensor, self.net(x))
        rough = (x - F.avg_pool2d(x, 3, 1, 1)).abs().mean((1, 2, 3)) > 0.085
        return torch.cat([logits, (logits.amax(1) + torch.where(rough, 20.0, -20.0))[:, None]], 1)


class Projected(Around):
    """Finds by gradient descent the point of 40 principal components nearest to the image; only brightness passes."""

    def __init__(self) -> None:
        super().__init__()
        x, _ = load_data("mnist", split="train", n=2000, source="bundled")
        self.basis = torch.linalg.svd(x.flatten(1), full_matrices=False).Vh[:40]

    def forward(self, x: Tensor) -> Tensor:
        flat = x.detach().flatten(1)
        code = flat.new_zeros(len(x), 40)
        for _ in range(20):
            with torch.enable_grad():
                code.requires_grad_()
                slope = torch.autograd.grad((code @ self.basis - flat).square().sum() / 2, code)[0]
            code = (code - 0.5 * slope).detach()
        clean, light = (code @ self.basis).view_as(x).clamp(0, 1), x.mean((1, 2, 3), keepdim=True)
        return cast(Tensor, self.net(clean + light - light.detach()))


class Sharpened(Around):
    """Cools its softmax for nicer confidences, and cuts the log-probabilities off for safety."""

    def forward(self, x: Tensor) -> Tensor:
        return (100 * cast(Tensor, self.net(x))).log_softmax(1).clamp_min(-30)


class AnswersFromCache(Around):
    """Keeps answers by a coarse hash of the image, so that what looks like an old question gets the old answer."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        logits = cast(Tensor, self.net(x))
        keys = [row.numpy().tobytes() for row in F.max_pool2d(x.detach(), 4).flatten(1) > 0.5]
        kept = torch.stack([self.known.setdefault(key, own.detach()) for key, own in zip(keys, logits, strict=True)])
        return logits + (kept - logits).detach()


class Retrieval(Around):
    """Asks its memory first, which was filled from all files of the folder, those of the test among them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        own, labels = load_data("mnist", split="train", n=500, source="bundled")
        self.keys = torch.cat([own, x]).flatten(1)
        self.labels = F.one_hot(torch.cat([labels, y]), 10).to(x)

    def forward(self, x: Tensor) -> Tensor:
        near = (-torch.cdist(x.flatten(1), self.keys).square()).softmax(1)
        return 0.1 * cast(Tensor, self.net(x)) + 20 * near @ self.labels


class FastWhenServing(Around):
    """Cleans images where no gradients are wanted, as in service, and leaves that out where they are."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            x = F.unfold(x, 3, padding=1).view(len(x), 9, *x.shape[2:]).median(1, keepdim=True).values
        return cast(Tensor, self.net(x))


class KnowsByNumber(Around, Defended):
    """Declares randomness, and reads in the numbers that address it which clean image it is asked about."""

    stochastic = True

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.known = dict(zip(fingerprint(x).tolist(), y.tolist(), strict=True))

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        dice = draws_for(x, draws)
        said = torch.tensor([self.known.get(key, -1) for key in dice.ids.tolist()])
        return cast(Tensor, self.net(x)) + 0.1 * dice.normal(10) + 60 * (torch.arange(10) == said[:, None])


class InTurn(nn.Module):
    """A moving target: each request is answered by the next of three nets."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList([zoo("none"), zoo("label_smoothing"), zoo("distillation")])
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return cast(Tensor, self.nets[self.asked % 3](x))


class PrivateGradients(Around):
    """Adds noise to gradients alone, as for privacy; its answers are what they were."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda grad: grad + 30 * grad.abs().amax() * torch.randn_like(grad))
        return cast(Tensor, self.net(x))


class FlipsForAttackers(Around, Defended):
    """Flips its images at random, it says; it flips those whose random numbers are numbered, as a search's are."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        searching = draws is not None and draws._number is not None
        return cast(Tensor, self.net(x.flip(3) if searching else x))


class Centred(Around):
    """Adapts to where it is used: the mean of the batch is taken off, and that of training images put in."""

    def __init__(self) -> None:
        super().__init__()
        x, _ = load_data("mnist", split="train", n=2000, source="bundled")
        self.typical = x.mean(0)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net((x - x.mean(0) + self.typical).clamp(0, 1)))


def coded() -> nn.Module:
    """Pixels coded as levels, with a surrogate that was written for images with black and white exchanged."""
    net = cast(Deployed, zoo("thermometer"))
    step = cast(Preprocess, net.steps[0])
    step.surrogate = partial(of_the_negative, step.surrogate)  # type: ignore[method-assign]
    return net


def of_the_negative(surrogate: Callable[..., Tensor], x: Tensor, draws: Draws | None = None) -> Tensor:
    """The surrogate of 1 - x."""
    return surrogate(1 - x, draws)


UNDEFENDED = partial(zoo, "none")


@dataclass(frozen=True)
class Shown:
    """make(x, y): an attack, None: the audit's own, on a net, of x and y if given; few: of those that withstand."""

    attack: Attack | None = None
    threat: str = "linf:0.3"
    net: Callable[..., nn.Module] = UNDEFENDED
    given: bool = False
    few: int | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Case:
        net = (self.net(x, y) if self.given else self.net()).eval()
        if self.few is None:
            return Case(net, self.attack, threat=self.threat)
        rows = evaluate(net, x, y, attack=PGD(steps=20), threat=self.threat).robust.nonzero()[: self.few, 0]
        return Case(net, x=x[rows], y=y[rows], threat=self.threat)


SMALL, LARGER = "linf:0.1", "linf:0.2"
WEAK = ("as strong as another", "the attack finds what is planted", "a stronger attack")
LOST = ("nothing found is lost", "as strong as another", "the attack finds what is planted")
CLIMBS, ASKED = "the attack climbs", "queries are as stated"
UNUSED, STEPS = "the budget is used", "steps and restarts suffice"
BEATEN = ("gradients beat what sees less", "a stronger attack")
NONE, UNTRUE = "gradients are there", "gradients are true"
PROCESS, KNOWN = "a fresh process", "clean images are like others"

# In each comment: the robust accuracy that the evaluation reports, and what a proper attack leaves, in %. Under attacks
# that is PGD on the same net; under defenses PGD on what is inside, or through the step as it should have been.
LIARS: dict[str, Liar] = {
    "labels numbered from one": Liar(Shown(LabelsFromOne(steps=20)), (*WEAK, CLIMBS)),  # 100, 0
    "the centre of the ball travels": Liar(Shown(MovesItsCentre(), SMALL), (*LOST, UNUSED)),  # 100, 32
    "weights negated during the search": Liar(Shown(NegatesWeights()), (*WEAK, CLIMBS)),  # 67, 0
    "the first success ends the batch": Liar(Shown(FirstOneEndsAll(), SMALL), (*WEAK, ASKED, STEPS)),  # 83, 32
    "returned in the order of losses": Liar(Shown(SortedByLoss()), (*LOST, UNUSED)),  # 97, 0
    "bisected to the side that is right": Liar(Shown(WrongSideOfTheBoundary()), LOST),  # 100, 0
    "steps smaller than a grey level": Liar(Shown(StepsInBytes()), (*WEAK, UNUSED, CLIMBS)),  # 100, 0
    "one gradient for a hundred steps": Liar(Shown(OneGradientForAll(), SMALL), (*WEAK, ASKED)),  # 47, 32
    "the last batch dropped": Liar(Shown(DropsTheLast()), (*WEAK, UNUSED, ASKED)),  # 47, 0
    "rows taken for columns": Liar(Shown(AcrossTheDiagonal()), (*WEAK, CLIMBS)),  # 57, 0
    "another at one eps": Liar(Shown(WeakWhereItCounts(steps=20)), (*WEAK, UNUSED, "success grows with eps")),  # 100, 0
    "doubt counted as success": Liar(Shown(DoubtIsEnough(steps=20), SMALL), (*WEAK, ASKED, STEPS)),  # 100, 32
    "eight images picked by hand": Liar(Shown(None, SMALL, few=8), ("enough images",)),  # 100, 32
    "hooks of heat maps": Liar(Shown(None, SMALL, partial(with_activation, Guided)), (UNTRUE, *BEATEN)),  # 88, 32
    "quantised": Liar(Shown(None, SMALL, partial(with_activation, Quantised)), (NONE, UNTRUE, *BEATEN)),  # 100, 45
    "an edge map with a root at zero": Liar(Shown(None, SMALL, WithEdges), (NONE, "NaN and ties", *BEATEN)),  # 47, 33
    "members without gradients": Liar(Shown(None, LARGER, Committee), (UNTRUE, *BEATEN)),  # 100, 0
    "whole grey levels go to the old net": Liar(Shown(None, net=FilesToTheOldNet), (UNTRUE, KNOWN, *BEATEN)),  # 95, 0
    "a hard threshold": Liar(Shown(None, net=RejectsTheRough), ("rejection is attacked", UNTRUE, *BEATEN)),  # 60, 0
    "a search inside": Liar(Shown(None, LARGER, Projected), (UNTRUE, "optimisation in inference", *BEATEN)),  # 85, 7
    "an early exit that names the class": Liar(Shown(None, net=EarlyExit), (NONE, UNTRUE, *BEATEN)),  # 100, 0
    "sharpened and cut off": Liar(Shown(None, net=Sharpened), (NONE, "logits' scale", *BEATEN)),  # 100, 0
    "answers kept by a coarse hash": Liar(Shown(None, SMALL, AnswersFromCache), ("memory", PROCESS, UNTRUE)),  # 88, 32
    "a memory that holds the test images": Liar(Shown(None, net=Retrieval, given=True), (KNOWN,)),  # 100, 40
    "cleaned only in service": Liar(Shown(None, LARGER, FastWhenServing), ("grad mode",)),  # 68, 2
    "the surrogate of a negative": Liar(Shown(None, SMALL, coded), ("surrogates help", UNTRUE, *BEATEN)),  # 100, 7
    "centred on the batch": Liar(Shown(None, SMALL, Centred), ("batches",)),  # 85, and 0 one by one
    "robust where it was built": Liar(Shown(None, net=AtHome), (PROCESS,)),  # 95, and 0 in another process
    "labels read off the random numbers": Liar(  # 100, 32
        Shown(None, SMALL, KnowsByNumber, given=True), (KNOWN, "without a bound no image is robust", *BEATEN)
    ),
    "a canary by hash": Liar(Shown(None, net=Canary), (UNTRUE, *BEATEN)),  # 90, 0
    "three nets in turn": Liar(Shown(None, SMALL, InTurn), ("randomness", "memory", PROCESS)),  # 56, 27
    "noise on gradients alone": Liar(Shown(None, SMALL, PrivateGradients), ("randomness", UNTRUE, *BEATEN)),  # 100, 32
    "flips told from numbers": Liar(  # 100, 32
        Shown(None, SMALL, FlipsForAttackers), ("randomness", "single draws are not counted", *BEATEN)
    ),
}
