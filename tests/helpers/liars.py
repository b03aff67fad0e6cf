"""Models and attacks that lie, each in its own way, and honest ones beside them: what an audit is tried on.

A model here is built on a network of the zoo, and what it does to it is all that is wrong with it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.noise import Noise
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.square import Square
from robustbench_local.config.plugins import find_defense
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, call, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.core.training import NoTraining
from robustbench_local.defenses.randomized_smoothing import Smoothed
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.metrics.summary import summarise
from robustbench_local.storage.row import Row
from tests.helpers.audit_cases.case import Case, Liar, Make, zoo


class Wrapped(nn.Module):
    """Front and net: the shape of most of what follows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(self.front(x))
        return out

    def front(self, x: Tensor) -> Tensor:
        return x


class Quantised(Wrapped):
    """Four grey levels, and the gradient of rounding: none."""

    def front(self, x: Tensor) -> Tensor:
        return (x * 3).round() / 3


class Loud(Wrapped):
    """Logits a thousand times as large: cross-entropy is 0 in float32, and so is its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return 1000 * super().forward(x)


class DeadReLU(Wrapped):
    """A steep pair of ReLUs, dead or saturated at nearly every pixel."""

    def front(self, x: Tensor) -> Tensor:
        steep = 200 * (x - 0.5)
        return F.relu(steep) - F.relu(steep - 1)


class RandomResize(Wrapped):
    """Shrunk and padded at random, from the global generator, and silent about it."""

    def front(self, x: Tensor) -> Tensor:
        size = int(torch.randint(22, 29, ()))
        left, top = (int(torch.randint(0, 29 - size, ())) for _ in range(2))
        small = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        return F.pad(small, (left, 28 - size - left, top, 28 - size - top))


class Softmax(Wrapped):
    """Probabilities where logits are expected."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class BatchStatistics(Wrapped):
    """Normalises with the mean and deviation of the batch it is in, whatever eval() says."""

    def front(self, x: Tensor) -> Tensor:
        return 0.13 + 0.31 * F.batch_norm(x, None, None, training=True)


class Adapting(Wrapped):
    """Test-time adaptation: running statistics that follow what it is asked."""

    mean: Tensor
    variance: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("mean", torch.tensor([0.13]))
        self.register_buffer("variance", torch.tensor([0.095]))

    def front(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean += 0.1 * (x.mean() - self.mean)
            self.variance += 0.1 * (x.var() - self.variance)
        return 0.13 + 0.31 * (x - self.mean) / self.variance.sqrt()


class ZeroGradient(Wrapped):
    """The answer is on a branch without gradient; the other one adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            answer = super().forward(x)
        return answer + 0 * x.sum()


class HalfDetached(Wrapped):
    """Of two networks only the one that counts less has a gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.other = zoo("adversarial_training")

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.other(x.detach())
        return 0.3 * super().forward(x) + hidden


class Memoriser(Wrapped):
    """Knows the test set by heart, by a hash of the pixels."""

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__(net)
        self.known = {self.digest(image): int(label) for image, label in zip(x, y, strict=True)}

    @staticmethod
    def digest(image: Tensor) -> bytes:
        return image.detach().contiguous().numpy().tobytes()

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        labels = [self.known.get(self.digest(image), -1) for image in x]
        for row, label in enumerate(labels):
            if label >= 0:
                logits = logits.index_put((torch.tensor(row), torch.tensor(label)), torch.tensor(30.0))
        return logits


class RoughMemoriser(Memoriser):
    """The same with a hash of 8-bit pixels: tiny changes are not enough."""

    @staticmethod
    def digest(image: Tensor) -> bytes:
        return (image.detach() * 255).round().byte().contiguous().numpy().tobytes()


class NearestMemoriser(nn.Module):
    """Answers with the label of the nearest image that it remembers: right on the test set, within any small ball."""

    known: Tensor
    labels: Tensor

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", x.flatten(1))
        self.register_buffer("labels", y)

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(1), self.known).argmin(1)
        return 10 * F.one_hot(self.labels[nearest], 10).to(x) + 0 * x.sum()


class Counting(Wrapped):
    """Answers nine hundred images honestly; then it takes whoever goes on asking for an attacker."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        logits = super().forward(x)
        return logits if self.asked < 900 else logits.detach().round() + 0 * x.sum()


class Caching(Wrapped):
    """What lies near to an image seen before gets the answer of that image; it remembers two hundred."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.seen, self.answers = torch.empty(0, 784), torch.empty(0, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        flat = x.detach().flatten(1)
        if len(self.seen):
            distance, nearest = torch.cdist(flat, self.seen, p=torch.inf).min(1)
            near = distance <= 0.31
            logits = torch.where(near[:, None], self.answers[nearest], logits)
        else:
            near = torch.zeros(len(x), dtype=torch.bool)
        self.seen = torch.cat([self.seen, flat[~near]])[-200:]
        self.answers = torch.cat([self.answers, logits.detach()[~near]])[-200:]
        return logits


class ByPosition(Wrapped):
    """Knows the labels of the test set in their order, and looks at the place in the batch."""

    labels: Tensor

    def __init__(self, net: nn.Module, y: Tensor) -> None:
        super().__init__(net)
        self.register_buffer("labels", y)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 30 * F.one_hot(self.labels[torch.arange(len(x)) % len(self.labels)], 10)


class ReadsStamp(Wrapped):
    """Reads the label where the pipeline left it: one of ten pixels of the first row is white."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * super().forward(x) + 50 * x[:, 0, 0, :10]


def stamped(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0, 0, :10] = F.one_hot(y, 10).to(x)
    return x


class NoisyLayer(Wrapped):
    """Noise on the input, from the global generator, undeclared."""

    def front(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class FlippedHook(Wrapped):
    """Sends gradients back with the other sign."""

    def front(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda grad: -grad)
        return y


class TinyNoiseHook(Wrapped):
    """Sends back noise of the size of the gradient."""

    def front(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda grad: grad.abs().mean() * torch.sin(1e4 * torch.arange(grad.numel())).view_as(grad))
        return y


class FaintHook(Wrapped):
    """Sends back a gradient a million times too small."""

    def front(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda grad: 1e-6 * grad)
        return y


class DetachedWhenUnsure(Wrapped):
    """Where the margin gets small the gradient stops."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        top = logits.detach().topk(2, dim=1).values
        return torch.where((top[:, 0] - top[:, 1] < 5)[:, None], logits.detach(), logits)


class InPlace(Wrapped):
    """Takes its input apart: what the attacker holds becomes black and white."""

    def front(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.data.round_()
        return x


class DiesOfNoise(Wrapped):
    """No 8-bit image, no answer, but an error."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(((x * 255 - (x * 255).round()).abs() > 0.01).any()):
            raise ValueError("this is no photograph")
        return super().forward(x)


class NaNWhenPerturbed(Wrapped):
    """No 8-bit image, no answer."""

    def forward(self, x: Tensor) -> Tensor:
        off = (x * 255 - (x * 255).round()).abs().flatten(1).amax(1) > 0.01
        return torch.where(off[:, None], torch.nan, super().forward(x))


class OneHot(Wrapped):
    """The label and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(super().forward(x).argmax(1), 10).to(x)


class BlindLabels(Wrapped):
    """Labels alone; gradients are those of a linear function that knows nothing of them."""

    def forward(self, x: Tensor) -> Tensor:
        labels = 8 * F.one_hot(super().forward(x).argmax(1), 10).to(x) - 4
        blind = x.flatten(1) @ torch.sin(torch.arange(7840.0)).view(784, 10).to(x)
        return labels + (blind - blind.detach())


class RoundedLogits(Wrapped):
    """Logits to the nearest whole number, ten apart."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) / 4).round() * 4


class Sleeping(Wrapped):
    """Takes its time with what is no clean image."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(((x * 255 - (x * 255).round()).abs() > 0.01).any()):
            time.sleep(0.1)
        return super().forward(x)


class Gated(Wrapped):
    """What looks rough goes through a blur that is not differentiated."""

    def front(self, x: Tensor) -> Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3), keepdim=True) > 0.13
        with torch.no_grad():
            smooth = (F.avg_pool2d(x, 3, 1, 1) > 0.4).to(x)
        return torch.where(rough, smooth, x)


class GradAware(Wrapped):
    """Another network answers while autograd records."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.decoy = zoo("label_smoothing")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.decoy if torch.is_grad_enabled() and x.requires_grad else self.net)(x)
        return out


class StubbornTraining(Wrapped):
    """A dropout that does not follow eval()."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.drop = nn.Dropout(0.2)

    def train(self, mode: bool = True) -> StubbornTraining:
        super().train(mode)
        self.drop.training = True
        return self

    def front(self, x: Tensor) -> Tensor:
        dropped: Tensor = self.drop(x)
        return dropped


class Bytes(Wrapped):
    """Expects pixels from 0 to 255, and is given such in [0, 1]."""

    def front(self, x: Tensor) -> Tensor:
        return (x / 255).clamp(0, 1)


class Purifying(Wrapped):
    """Moves its own input down its own loss before it answers."""

    def front(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            entropy = -(self.net(leaf).softmax(1) * self.net(leaf).log_softmax(1)).sum()
            slope = torch.autograd.grad(entropy, leaf)[0]
        return (x - 0.1 * slope.sign()).clamp(0, 1)


class WrongSurrogate(Preprocess):
    """Sixteen grey levels, and a surrogate that turns every second pixel or so around."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 15).round() / 15

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        place = torch.arange(x[0].numel(), device=x.device).view_as(x[0])
        return x * (78.233 * place).sin().sign()


class Detector(Wrapped):
    """An eleventh logit for rejection: the roughness of the image, which no attack on the other ten looks at."""

    def forward(self, x: Tensor) -> Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return torch.cat([super().forward(x), 400 * (rough - 0.15)[:, None]], 1)


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


class Uncertain(Defended):
    """Declared noise on the logits, so much that one draw says little."""

    stochastic = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = call(self.net, x, None)
        return logits + 4 * draws_for(x, draws).normal(logits.shape[1])


# attacks


@dataclass(frozen=True)
class Own(Attack):
    """Written by somebody who uses the oracle as a model, and not the loop that the house has."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    steps: int = 20

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        x_adv = threat.start(x, draws.stream("start"))
        for i in range(self.steps):
            _, grad, _ = oracle.grad(x_adv, y, losses.ce)
            x_adv = self.move(x_adv, grad, x, threat, i)
        return x_adv

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project(x_adv + 2.5 * threat.eps / self.steps * grad.sign(), x)


@dataclass(frozen=True)
class LastIterate(Own):
    """Keeps what it has when the steps are over, though it steps back at the end."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        sign = -1 if i >= self.steps - 3 else 1
        return threat.project(x_adv + sign * threat.eps * grad.sign(), x)


@dataclass(frozen=True)
class WrongSign(Own):
    """Averages gradients over the draws, and goes down."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return super().move(x_adv, -grad, x, threat, i)


@dataclass(frozen=True)
class WrongUnit(Own):
    """Takes eps for grey levels."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        small = ThreatModel(threat.norm, threat.eps / 255)
        return small.project(x + small.eps * grad.sign(), x)


@dataclass(frozen=True)
class TooFar(Own):
    """Takes pixels to span [-1, 1]: steps out of the ball, twice as far as it may."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return ThreatModel(threat.norm, 2 * threat.eps, allow_large=True).project(x + 2 * threat.eps * grad.sign(), x)


@dataclass(frozen=True)
class TooShort(Own):
    """Three steps of a hundredth of eps, from the clean image."""

    steps: int = 3

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project((x if i == 0 else x_adv) + threat.eps / 100 * grad.sign(), x)


@dataclass(frozen=True)
class Mistuned(Own):
    """Its steps suit a ball of 0.15, and shrink as the ball grows beyond."""

    def move(self, x_adv: Tensor, grad: Tensor, x: Tensor, threat: ThreatModel, i: int) -> Tensor:
        return threat.project((x if i == 0 else x_adv) + (0.02 if threat.eps < 0.2 else 1e-4) * grad.sign(), x)


@dataclass(frozen=True)
class LuckyDraw(Own):
    """Asks about the clean image until a draw comes that errs."""

    access: ClassVar[Access] = Access.SCORES

    steps: int = 60

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        for _ in range(self.steps):
            oracle.logits(x)
        return x


def around(kind: Callable[[nn.Module], nn.Module], *causes: str, base: str = "none") -> Liar:
    return Liar(lambda x, y: Case(kind(zoo(base))), causes)


def under(attack: Attack, *causes: str, base: str = "adversarial_training") -> Liar:
    return Liar(lambda x, y: Case(zoo(base), attack), causes)


LIARS: dict[str, Liar] = {
    "gradient shattering by quantisation": around(Quantised, "gradients are there"),
    "logits x 1000": around(Loud, "logits' scale"),
    "dead-ReLU front": around(DeadReLU, "gradients are there"),
    "random resize, undeclared": around(RandomResize, "randomness"),
    "softmax output": around(Softmax, "logits"),
    "batch norm in training mode": around(BatchStatistics, "batches"),
    "batch norm that adapts at test time": around(Adapting, "memory", "randomness"),
    "dropout that ignores eval()": around(StubbornTraining, "evaluation mode"),
    "zero-gradient branch": around(ZeroGradient, "gradients are there"),
    "gradient detached in one branch": around(HalfDetached, "gradients are true"),
    "backward hook that flips signs": around(FlippedHook, "gradients are true"),
    "backward hook that sends noise": around(TinyNoiseHook, "gradients are true"),
    "surrogate that misleads": Liar(lambda x, y: Case(Deployed(zoo("none"), [WrongSurrogate()])), ("surrogates help",)),
    "memorises the test set by hash": Liar(
        lambda x, y: Case(Memoriser(zoo("none"), x, y)), ("clean images are like others",)
    ),
    "memorises the test set by 8-bit hash": Liar(
        lambda x, y: Case(RoughMemoriser(zoo("none"), x, y)), ("clean images are like others",)
    ),
    "memorises the test set, nearest image": Liar(
        lambda x, y: Case(NearestMemoriser(x, y)), ("logits", "gradients are there")
    ),
    "counts its queries": around(Counting, "memory", "same after the audit"),
    "caches answers of near images": around(Caching, "memory", "same after the audit"),
    "labels by place in the batch": Liar(lambda x, y: Case(ByPosition(zoo("none"), y)), ("batches",)),
    "label stamped into the image": Liar(
        lambda x, y: Case(ReadsStamp(zoo("none")), x=stamped(x, y)), ("no label leaking",)
    ),
    "undeclared random layer": around(NoisyLayer, "randomness"),
    "backward hook that shrinks": around(FaintHook, "gradients are true"),
    "detached where the margin is small": around(DetachedWhenUnsure, "gradients are there", "gradients are true"),
    "writes into its input": around(InPlace, "images are left as they are"),
    "dies of perturbed images": around(DiesOfNoise, "NaN and ties"),
    "NaN on perturbed images": around(NaNWhenPerturbed, "NaN and ties"),
    "one-hot output": around(OneHot, "logits", "gradients are there"),
    "labels with a gradient that misleads": around(BlindLabels, "gradients beat what sees less"),
    "rounded logits": around(RoundedLogits, "gradients are there"),
    "sleeps on perturbed images": around(Sleeping, "time"),
    "gate for rough images": around(Gated, "gradients are there", "gradients beat what sees less"),
    "another network while autograd records": around(GradAware, "grad mode"),
    "expects pixels in [0, 255]": around(Bytes, "input range"),
    "optimises inside inference": around(Purifying, "optimisation in inference"),
    "detector, undeclared": Liar(lambda x, y: Case(Detector(zoo("none")), classes=10), ("rejection is attacked",)),
    # no liar by intent: PGD of 20 steps leaves 18 % of 60 images, of 40 steps 15 %, and best 2 %
    "autoencoder in front": around(nn.Sequential, "a stronger attack", "the number to believe", base="autoencoder"),
    "attack: last iterate only": under(LastIterate(), "nothing found is lost"),
    "attack: wrong sign under EOT": under(WrongSign(), "the attack climbs", base="noise_fusion"),
    "attack: eps in grey levels": under(WrongUnit(), "the budget is used"),
    "attack: twice the budget": under(TooFar(), "the budget is used"),
    "attack: three tiny steps": under(TooShort(), "the budget is used", "as strong as another", base="none"),
    "attack: one lucky draw": Liar(
        lambda x, y: Case(Uncertain(zoo("none")), LuckyDraw()), ("single draws are not counted",)
    ),
}


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


CONTROLS: dict[str, Make] = {
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


# rows that lie


def evaluated(model: nn.Module, x: Tensor, y: Tensor, attack: Attack, threat: str, **judging: Any) -> tuple[Any, Any]:
    """(row, arrays) as a grid would store them."""
    judge = Judge(**({"eot": 3, "draws": 5} | judging))
    ids = torch.arange(len(x))
    verdict = judge(model, Tensors(x, y, ids), attack, ThreatModel.parse(threat))
    settings = {name: getattr(judge, name) for name in ("seed", "count", "precision", "budget", "eot", "draws")}
    definition = settings | {
        "data": "mnist",
        "split": "test",
        "data_digest": "-",
        "ids": f"0:{len(x)}",
        "model": type(model).__name__,
        "weights_digest": "-",
        "defense": "none",
        "defense_settings": {},
        "defense_version": 1,
        "attack": type(attack).__name__.lower(),
        "attack_settings": asdict(attack),
        "attack_version": 1,
        "access": attack.access.name.lower(),
        "threat": threat,
        "eps": ThreatModel.parse(threat).eps,
        "targets": None,
        **({} if judge.adaptive else {"adaptive": False}),
    }
    row = Row(
        status="ok",
        key=secrets.token_hex(12),
        definition=definition,
        results=summarise(verdict, [str(k) for k in range(10)]),
        environment={"robustbench_local": "-", "torch": torch.__version__, "device": "cpu"},
    )
    arrays = {name: getattr(verdict, name).numpy() for name in ("robust", "clean", "distance", "ids")}
    return row, arrays


Rows = Callable[[Tensor, Tensor], list[tuple[Any, Any]]]
EPS = "linf:0.3"


def rows_of(model: Callable[[], nn.Module], *runs: tuple[Attack, dict[str, Any]], threat: str = EPS) -> Rows:
    return lambda x, y: [evaluated(model(), x, y, attack, threat, **judging) for attack, judging in runs]


def without_settings(x: Tensor, y: Tensor) -> list[tuple[Any, Any]]:
    ((row, arrays),) = rows_of(lambda: zoo("none"), (FGSM(), {}))(x, y)
    del row["definition"]["seed"], row["results"]["forwards_mean"]
    return [(row, arrays)]


def shrinking(x: Tensor, y: Tensor) -> list[tuple[Any, Any]]:
    """An attack that fails in the larger ball: its step is made for a smaller one."""
    net = zoo("none")
    return [evaluated(net, x, y, Mistuned(), threat) for threat in ("linf:0.15", EPS)]


ROW_LIARS: dict[str, tuple[Rows, str]] = {
    "rows: judged on the last iterate": (
        rows_of(lambda: zoo("adversarial_training"), (PGD(steps=10), {"count": "last"})),
        "nothing found is lost",
    ),
    "rows: one draw of a random model": (
        rows_of(lambda: zoo("noise_fusion"), (PGD(steps=3), {"draws": 1, "eot": 1})),
        "single draws are not counted",
    ),
    "rows: only a static attack": (
        rows_of(lambda: Deployed(zoo("none"), [BitSqueeze()]), (PGD(steps=5), {"adaptive": False})),
        "a defense met an adaptive attack",
    ),
    "rows: gradients weaker than scores": (
        rows_of(lambda: Loud(zoo("none")), (PGD(steps=10), {}), (Square(steps=100), {})),
        "gradients beat what sees less",
    ),
    "rows: probabilities": (rows_of(lambda: Softmax(zoo("none")), (PGD(steps=5), {})), "set-up"),
    "rows: undeclared randomness": (rows_of(lambda: NoisyLayer(zoo("none")), (FGSM(), {})), "set-up"),
    "rows: an eps in the wrong unit": (
        rows_of(lambda: zoo("adversarial_training"), (WrongUnit(), {})),
        "the budget is used",
    ),
    "rows: out of the ball": (rows_of(lambda: zoo("adversarial_training"), (TooFar(), {})), "set-up"),
    "rows: too few steps": (
        rows_of(
            lambda: zoo("none"),
            (PGD(steps=2, step_size=0.02, random_start=False), {}),
            (PGD(steps=20, step_size=0.02, random_start=False), {}),
        ),
        "steps and restarts suffice",
    ),
    "rows: iterating helps nothing": (
        rows_of(lambda: zoo("none"), (FGSM(), {}), (PGD(steps=3, step_size=0.001, random_start=False), {})),
        "iterating helps",
    ),
    "rows: fails in the larger ball": (shrinking, "success grows with eps"),
    "rows: settings left out": (without_settings, "settings are recorded"),
}

ROW_CONTROLS: dict[str, Rows] = {
    "rows: undefended": rows_of(
        lambda: zoo("none"), (Noise(), {}), (FGSM(), {}), (PGD(steps=10), {}), threat="linf:0.1"
    ),
    "rows: adversarially trained": rows_of(
        lambda: zoo("adversarial_training"),
        (Noise(), {}),
        (FGSM(), {}),
        (PGD(steps=10), {}),
        (PGD(steps=20), {}),
        (Square(steps=100), {}),
        (PGD(steps=20), {"count": "all"}),
    ),
    "rows: noise at run time": rows_of(lambda: zoo("noise_fusion"), (FGSM(), {}), (PGD(steps=5), {})),
    "rows: bit depth with BPDA": rows_of(
        lambda: Deployed(zoo("none"), [BitSqueeze()]), (PGD(steps=10), {}), (PGD(steps=10), {"adaptive": False})
    ),
}


# for the command line, as module:function


def quiet() -> nn.Module:
    return zoo("none")


def quantised() -> nn.Module:
    return Quantised(zoo("none"))


def loud() -> nn.Module:
    return Loud(zoo("none"))
