"""Models and attacks that lie, each in its own way, and honest ones beside them: what an audit is tried on.

A model here is built on a network of the zoo, and what it does to it is all that is wrong with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.pgd import PGD
from robustbench_local import load_model, losses
from robustbench_local.attack import Attack
from robustbench_local.defense import Defended, Deployed, Preprocess, call, draws_for
from robustbench_local.draws import Draws
from robustbench_local.oracle import Access, Oracle
from robustbench_local.plugins import find_defense
from robustbench_local.threat import Norm, ThreatModel
from robustbench_local.workshop import Workshop  # noqa: F401


@dataclass(frozen=True)
class Case:
    """What is audited: a model, the attack that evaluates it (None: the audit's own), and what it is shown."""

    model: nn.Module
    attack: Attack | None = None
    x: Tensor | None = None
    classes: int | None = None


def zoo(name: str) -> nn.Module:
    return load_model(f"zoo:mnist/{name}")


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

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", x.flatten(1))
        self.register_buffer("labels", y)

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(1), self.known).argmin(1)
        return 10 * F.one_hot(self.labels[nearest], 10).to(x) + 0 * x.sum()


class Counting(Wrapped):
    """Answers two thousand images honestly; then it takes whoever goes on asking for an attacker."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        logits = super().forward(x)
        return logits if self.asked < 2000 else logits.detach().round() + 0 * x.sum()


class Caching(Wrapped):
    """What lies near to an image seen before gets the answer of that image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.seen: list[Tensor] = []
        self.answers: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        rows = []
        for image, answer in zip(x.detach(), logits, strict=True):
            near = [k for k, old in enumerate(self.seen) if (old - image).abs().max() <= 0.31]
            if near:
                rows.append(self.answers[near[0]])
            else:
                rows.append(answer)
                self.seen = [*self.seen[-200:], image]
                self.answers = [*self.answers[-200:], answer.detach()]
        return torch.stack(rows)


class ByPosition(Wrapped):
    """Knows the labels of the test set in their order, and looks at the place in the batch."""

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


class NaNWhenPerturbed(Wrapped):
    """No 8-bit image, no answer."""

    def forward(self, x: Tensor) -> Tensor:
        off = (x * 255 - (x * 255).round()).abs().flatten(1).amax(1) > 0.01
        return torch.where(off[:, None], torch.nan, super().forward(x))


class OneHot(Wrapped):
    """The label and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(super().forward(x).argmax(1), 10).to(x)


class RoundedLogits(Wrapped):
    """Logits to the nearest whole number, ten apart."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) / 4).round() * 4


class Sleeping(Wrapped):
    """Takes its time with what is no clean image."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(((x * 255 - (x * 255).round()).abs() > 0.01).any()):
            time.sleep(0.02)
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
        return self.drop(x)


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
    """Three grey levels, and for a surrogate the mean brightness: every pixel gets the same gradient."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 2).round() / 2

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return x.mean((1, 2, 3), keepdim=True).expand_as(x)


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
class LuckyDraw(Own):
    """Asks about the clean image until a draw comes that errs."""

    access: ClassVar[Access] = Access.SCORES

    steps: int = 60

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        for _ in range(self.steps):
            oracle.logits(x)
        return x


Make = Callable[[Tensor, Tensor], Case]


def around(kind: Callable[[nn.Module], nn.Module], base: str = "none") -> Make:
    return lambda x, y: Case(kind(zoo(base)))


def under(attack: Attack, base: str = "adversarial_training") -> Make:
    return lambda x, y: Case(zoo(base), attack)


LIARS: dict[str, Make] = {
    "gradient shattering by quantisation": around(Quantised),
    "logits x 1000": around(Loud),
    "dead-ReLU front": around(DeadReLU),
    "random resize, undeclared": around(RandomResize),
    "softmax output": around(Softmax),
    "batch norm in training mode": around(BatchStatistics),
    "batch norm that adapts at test time": around(Adapting),
    "dropout that ignores eval()": around(StubbornTraining),
    "zero-gradient branch": around(ZeroGradient),
    "gradient detached in one branch": around(HalfDetached),
    "backward hook that flips signs": around(FlippedHook),
    "backward hook that sends noise": around(TinyNoiseHook),
    "surrogate that misleads": lambda x, y: Case(Deployed(zoo("none"), [WrongSurrogate()])),
    "memorises the test set by hash": lambda x, y: Case(Memoriser(zoo("none"), x, y)),
    "memorises the test set by 8-bit hash": lambda x, y: Case(RoughMemoriser(zoo("none"), x, y)),
    "memorises the test set, nearest image": lambda x, y: Case(NearestMemoriser(x, y)),
    "counts its queries": around(Counting),
    "caches answers of near images": around(Caching),
    "labels by place in the batch": lambda x, y: Case(ByPosition(zoo("none"), y)),
    "label stamped into the image": lambda x, y: Case(ReadsStamp(zoo("none")), x=stamped(x, y)),
    "undeclared random layer": around(NoisyLayer),
    "NaN on perturbed images": around(NaNWhenPerturbed),
    "one-hot output": around(OneHot),
    "rounded logits": around(RoundedLogits),
    "sleeps on perturbed images": around(Sleeping),
    "gate for rough images": around(Gated),
    "another network while autograd records": around(GradAware),
    "expects pixels in [0, 255]": around(Bytes),
    "optimises inside inference": around(Purifying),
    "attack: last iterate only": under(LastIterate()),
    "attack: wrong sign under EOT": under(WrongSign(), "noise_fusion"),
    "attack: eps in grey levels": under(WrongUnit()),
    "attack: twice the budget": under(TooFar()),
    "attack: three tiny steps": under(TooShort(), "none"),
    "attack: one lucky draw": lambda x, y: Case(Uncertain(zoo("none")), LuckyDraw()),
}


def defended(name: str, **settings: Any) -> Make:
    """A wrapping defense around the undefended network."""
    from robustbench_local.train import Blank

    def make(x: Tensor, y: Tensor) -> Case:
        draws = Draws(0, torch.zeros(1, dtype=torch.int64)).stream("train")
        return Case(find_defense(name, settings).build(zoo("none"), Blank(), draws))

    return make


CONTROLS: dict[str, Make] = {
    "undefended": lambda x, y: Case(zoo("none")),
    "adversarially trained": lambda x, y: Case(zoo("adversarial_training")),
    "label smoothing": lambda x, y: Case(zoo("label_smoothing")),
    "noise-trained, noise at run time": lambda x, y: Case(zoo("noise_fusion")),
    "JPEG with BPDA": defended("jpeg", quality=50),
    "bit depth with BPDA": defended("bit_depth", bits=2),
    "median filter": defended("median"),
    "random resize, declared": defended("resize_pad"),
    "adversarially trained, PGD": under(PGD(steps=20)),
    "adversarially trained, an own loop": under(Own()),
}
