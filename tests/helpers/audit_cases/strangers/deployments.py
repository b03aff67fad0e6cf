"""Honest models of unusual forms, written by a stranger to the audit.

The numbers beside each case: robust images (of 60; means over draws where it is random) under its own attack, or else
20 steps of PGD / under `best` (random ones: `autoattack`'s rand; scores: 10,000 steps of Square; labels: HopSkipJump).
"""

from __future__ import annotations

import base64
import copy
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn import functional as F

import robustbench_local as rbl
from robustbench_local import Access, Attack, Defended, Deployed, Draws, Norm, Oracle, Preprocess, ThreatModel
from robustbench_local.attacks.apgd import APGD
from robustbench_local.attacks.hopskipjump import HopSkipJump
from robustbench_local.attacks.square import Square
from robustbench_local.core import losses
from robustbench_local.core.defense import Rejection, draws_for
from robustbench_local.core.model_state import evaluating, seeded
from robustbench_local.defenses._wrapper import Step as SuiteStep
from robustbench_local.defenses.jpeg import JPEG
from robustbench_local.defenses.median import Median
from robustbench_local.models.architectures import Normalise, lenet5
from robustbench_local.ops.soft_rounding import smooth_round
from tests.helpers.audit_cases.case import Case, Make
from tests.helpers.audit_cases.trained import trained

Array = npt.NDArray[np.float32]
Function = Callable[[Tensor, Draws], Tensor]


def lessons() -> tuple[Tensor, Tensor]:
    """The 2,000 bundled training images and their labels."""
    return rbl.load_data("mnist", split="train", n=2000, source="bundled")


def small(seed: int = 0, classes: int = 10, side: int = 7, channels: int = 1) -> nn.Sequential:
    """A fresh convolutional network: two strided layers, two dense ones."""
    with seeded(seed):
        first, second = nn.Conv2d(channels, 16, 4, 2, 1), nn.Conv2d(16, 32, 4, 2, 1)
        dense = nn.Linear(32 * side**2, 64), nn.ReLU(), nn.Linear(64, classes)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), *dense)


def chain(*parts: Callable[[], nn.Module]) -> nn.Module:
    """Fresh layers, one behind the other."""
    return nn.Sequential(*(part() for part in parts))


@dataclass(frozen=True)
class Grown:
    """The case of a network that is trained here, behind `step` if any; `after` is what is made of it afterwards."""

    build: Callable[[], nn.Module] = small
    threat: str = "linf:0.1"
    eps: float = 0.1
    epochs: int = 6
    attack: Attack | None = None
    step: Callable[[], Preprocess] | None = None
    after: Callable[[nn.Module], nn.Module] | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Case:
        step, (images, labels) = self.step and self.step(), lessons()
        with seeded(0):
            data = (step(images) if step else images, labels)
            net = trained(self.build(), eps=self.eps, epochs=self.epochs, data=data)
        net = Deployed(net, [step]) if step else net
        return Case(evaluating(self.after(net) if self.after else net), self.attack, threat=self.threat)


def black_box(build: Callable[[], Any], attack: Attack, threat: str, x: Tensor, y: Tensor) -> Case:
    """The case of a function on arrays."""
    access: Any = "labels" if attack.access is Access.LABELS else "scores"
    return Case(rbl.wrap(build(), access=access, classes=10), attack, threat=threat)


def pooled(images: Array, size: int, stride: int) -> Array:
    """Means of squares, (N, pixels)."""
    return cast(Array, F.avg_pool2d(torch.from_numpy(images), size, stride, size % 2).flatten(1).numpy())


class Forest:
    """Forty trees of depth nine on smoothed pixels; each has one vote."""

    def __init__(self) -> None:
        images, labels = lessons()
        grown = RandomForestClassifier(40, max_depth=9, random_state=0).fit(pooled(images.numpy(), 3, 1), labels)
        self.trees = [(tree.tree_, tree.tree_.value[:, 0].argmax(1)) for tree in grown.estimators_]

    def __call__(self, images: Array) -> Array:
        seen = pooled(images, 3, 1)
        return cast(Array, np.eye(10, dtype=np.float32)[[to[tree.apply(seen)] for tree, to in self.trees]].sum(0))


class Fitted:
    """A classifier of scikit-learn that names a class, on images of half the side."""

    def __init__(self, classifier: Any, count: int = 2000) -> None:
        images, labels = lessons()
        self.classifier = clone(classifier).fit(pooled(images[:count].numpy(), 2, 2), labels[:count])

    def __call__(self, images: Array) -> npt.NDArray[np.int64]:
        return cast("npt.NDArray[np.int64]", self.classifier.predict(pooled(images, 2, 2)))


class Endpoint:
    """A service that takes pixels as base64 in JSON, and answers scores in JSON, as over HTTP."""

    def __init__(self) -> None:
        self.net = trained(small(), eps=0.1, epochs=6)

    @torch.no_grad()
    def __call__(self, images: Array) -> Array:
        asked = json.loads(json.dumps({"shape": images.shape, "pixels": base64.b64encode(images.tobytes()).decode()}))
        pixels = np.frombuffer(base64.b64decode(asked["pixels"]), dtype=np.float32)
        answer = json.dumps({"scores": self.net(torch.tensor(pixels).view(asked["shape"])).tolist()})
        return np.array(json.loads(answer)["scores"], dtype=np.float32)


class ArrayNet:
    """Two dense layers in plain NumPy."""

    def __init__(self) -> None:
        with seeded(1):
            net = nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 10))
        self.weights = [each.detach().numpy().copy() for each in trained(net, eps=0.1).parameters()]

    def __call__(self, images: Array) -> Array:
        first, shift, second, offset = self.weights
        return cast(Array, np.maximum(images.reshape(len(images), -1) @ first.T + shift, 0) @ second.T + offset)


@dataclass(frozen=True)
class Stripes(Attack):
    """Random search by scores: redraw the sign of the change in a random rectangle, keep what raises the margin."""

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    steps: int = 4000

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        high, wide = x.shape[2:]
        signs = 2.0 * draws.integers(2, x.shape[1], 1, wide).to(x).expand_as(x) - 1
        best = losses.margin(oracle.logits(threat.project(x + threat.eps * signs, x)), y)
        for i in range(self.steps):
            side = max(1.0, 0.4 * high * (1 - i / self.steps) ** 3)
            top, left, tall, broad = (draws.uniform(4) * torch.tensor([high, wide, side, side])).T[:, :, None]
            rows = (torch.arange(high) - top.floor()) // tall.ceil() == 0
            columns = (torch.arange(wide) - left.floor()) // broad.ceil() == 0
            here = rows[:, None, :, None] & columns[:, None, None, :]
            tried = torch.where(here, 2.0 * draws.integers(2, 1, 1, 1).to(x) - 1, signs)
            value = losses.margin(oracle.logits(threat.project(x + threat.eps * tried, x)), y)
            signs = torch.where((value > best).view(-1, 1, 1, 1), tried, signs)
            best = torch.maximum(best, value)
        return oracle.best(threat.project(x + threat.eps * signs, x))

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps + 1, 0


@dataclass(frozen=True)
class Descent(Attack):
    """PGD from scratch, on the margin, with momentum and steps that shrink; untargeted, or for each class in turn."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2})
    steps: int = 30
    restarts: int = 2
    momentum: float = 0.0
    every_target: bool = False

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        aims: list[losses.Loss] = [losses.margin] * self.restarts
        if self.every_target:
            order = oracle.logits(x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True).T[:-1]
            aims = [partial(losses.margin_to, target=target) for target in order]
        x_adv = x
        for restart, aim in enumerate(aims):
            x_adv, velocity = threat.start(x, draws.stream(restart)), torch.zeros_like(x)
            for i in range(self.steps):
                slope = threat.steepest(oracle.grad(x_adv, y, aim)[1], x_adv, x)
                velocity = self.momentum * velocity + (1 - self.momentum) * slope
                x_adv = threat.project(x_adv + threat.eps * (1 - i / self.steps) / 2 * velocity, x)
            oracle.submit(x_adv)
        return oracle.best(x_adv)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        rounds = classes - 1 if self.every_target else self.restarts
        return rounds * (self.steps + 1) + self.every_target, rounds * self.steps


class Step(Preprocess):
    """A function as a step before a network; gradients are its own, or those of another."""

    def __init__(self, hard: Function, soft: Function | None = None, stochastic: bool = False) -> None:
        super().__init__()
        self.hard, self.soft, self.stochastic = hard, soft or hard, stochastic

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.hard(x, draws_for(x, draws))

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.soft(x, draws_for(x, draws))


def crop(x: Tensor, draws: Draws) -> Tensor:
    """A window of the image's size, anywhere in the image framed by two black pixels."""
    top, left = draws.integers(5, 2).T
    return F.pad(x, (2, 2, 2, 2)).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)[range(len(x)), :, top, left]


def snow(x: Tensor, draws: Draws) -> Tensor:
    """Gaussian noise added, and a pixel in ten black."""
    noise, kept = draws.normal(2, *x.shape[1:]).unbind(1)
    return (x + 0.2 * noise) * (kept > -1.28)


def mixed_in(others: Tensor, x: Tensor, draws: Draws) -> Tensor:
    """A quarter of another image, drawn among those given."""
    return 0.75 * x + 0.25 * others[draws.integers(len(others))]


def levels(top: int, x: Tensor, draws: Draws) -> Tensor:
    """Whole levels of grey, from 0 to `top`."""
    return (top * x).round() / top


def soft_levels(top: int, x: Tensor, draws: Draws) -> Tensor:
    """Levels of grey, rounded smoothly."""
    return smooth_round(top * x, 0.25) / top


def flattened(x: Tensor, draws: Draws) -> Tensor:
    """Twelve explicit steps down the smoothed total variation, through which gradients pass."""
    u = x
    for _ in range(12):
        down, across = (u.diff(dim=k) / (u.diff(dim=k).square() + 0.01).sqrt() for k in (2, 3))
        pull = F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0)) + F.pad(across, (0, 1)) - F.pad(across, (1, 0))
        u = u + 0.05 * (x - u + 0.3 * pull)
    return u


class Around(Defended):
    """Something around a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Dropped(Around):
    """The dropout before the last layer stays on at run time, by declared draws."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        *body, dropout, head = cast(nn.Sequential, self.net)
        features: Tensor = nn.Sequential(*body)(x)
        share = cast(nn.Dropout, dropout).p
        return cast(Tensor, head(features * (draws_for(x, draws).uniform(*features.shape[1:]) >= share) / (1 - share)))


class Committee(Around):
    """The mean logits of a network and of two others: one hardened, one not."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.others = nn.ModuleList([trained(small(1), eps=0.1, epochs=4), trained(small(2), epochs=3)])

    def answers(self, x: Tensor) -> Tensor:
        return torch.stack([self.net(x), *(other(x) for other in self.others)])

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.answers(x).mean(0)


class OneOfThem(Committee):
    """One member, drawn anew for every image, answers."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return self.answers(x)[draws_for(x, draws).integers(3), range(len(x))]


class OffTheSpan(Around):
    """A detector: rejects images far from the span of the training images' 60 leading components."""

    rejects = Rejection.DETECTION

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        axes = torch.linalg.svd(lessons()[0].flatten(1), full_matrices=False)[2][:60]
        self.register_buffer("rest", torch.eye(784) - axes.T @ axes)
        self.limit = self.distance(lessons()[0]).quantile(0.99).item()

    def distance(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ cast(Tensor, self.rest)).square().sum(1).add(1e-6).sqrt()

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits: Tensor = self.net(x)
        return torch.cat([logits, (logits.amax(1) + 3 * (self.distance(x) - self.limit))[:, None]], 1)


class Unsure(Around):
    """Abstains, which is an error, where the second class comes within one of the first."""

    rejects = Rejection.ABSTENTION

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits: Tensor = self.net(x)
        return torch.cat([logits, logits.topk(2).values[:, 1:] + 1], 1)


class Bytes(Around):
    """Takes images as eight bits, and passes gradients straight through the rounding."""

    surrogate_gradients = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        hard = (255 * x.detach()).round() / 255
        return cast(Tensor, self.net(hard + (x - x.detach())))


def recalibrated(temperature: float, bias: float, net: nn.Module) -> nn.Module:
    """Logits divided by a temperature and moved by a bias that grows with the class."""
    layer = nn.Linear(10, 10)
    layer.weight.data, layer.bias.data = torch.eye(10) / temperature, bias * torch.linspace(-1, 1, 10)
    return nn.Sequential(net, layer)


class Experts(nn.Module):
    """Three networks, weighed by a fourth that looks at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(small(seed) for seed in (1, 2, 3))
        self.gate = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.stack([expert(x) for expert in self.experts], 2)
        return cast(Tensor, answers @ self.gate(x)[:, :, None])[:, :, 0]


class Shifts(Around):
    """The mean probability of the image and of its four shifts by a pixel."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        moved = [x, *(x.roll(by, axis) for by in (-1, 1) for axis in (2, 3))]
        return torch.stack([self.net(each) for each in moved]).log_softmax(2).logsumexp(0)


class Rows(nn.Module):
    """A recurrent network that reads an image line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.head = nn.GRU(28, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.reader(x[:, 0])[0].mean(1)))


class Patches(nn.Module):
    """Sixteen patches that attend to each other, once."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.head = nn.Conv2d(1, 48, 7, 7), nn.Linear(48, 10)
        self.place = nn.Parameter(0.1 * torch.randn(16, 48))
        self.mix = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.mix(self.cut(x).flatten(2).mT + self.place).mean(1)))


class Prototypes(nn.Module):
    """Minus the squared distances of features to a learnt point for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.points = small(classes=16), nn.Parameter(torch.randn(10, 16))

    def forward(self, x: Tensor) -> Tensor:
        return -cast(Tensor, self.features(x)[:, None] - self.points).square().sum(2)


def mixing() -> Preprocess:
    """The step that mixes in one of 64 fixed images."""
    return Step(partial(mixed_in, lessons()[0][:64]), stochastic=True)


def through_onnx(net: nn.Module) -> nn.Module:
    """The network, written as ONNX and loaded from there."""
    file = Path(tempfile.mkdtemp()) / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(net, (lessons()[0][:2],), file, dynamic_shapes=axes, dynamo=True, verbose=False)
    return rbl.load_model(str(file))


def odd_digits(x: Tensor, y: Tensor) -> Case:
    """Two classes, odd digits and even ones, and one logit for both."""
    images, labels = lessons()
    net, odds = trained(small(classes=2), eps=0.1, data=(images, labels % 2)), nn.Linear(2, 1, bias=False)
    odds.weight.data = torch.tensor([[-1.0, 1.0]])
    return Case(evaluating(nn.Sequential(net, odds)), x=x, y=y % 2, classes=2, threat="linf:0.08")


def tinted(x: Tensor) -> Tensor:
    """Images of a quarter of the size, in yellow."""
    return F.avg_pool2d(x, 2) * torch.tensor([1.0, 0.8, 0.5]).view(3, 1, 1)


def looked_at(see: Callable[[Tensor], Tensor], net: nn.Module, count: int, threat: str, x: Tensor, y: Tensor) -> Case:
    """The first so many of other images, and a network that was trained on such."""
    images, labels = lessons()
    net = trained(copy.deepcopy(net), eps=0.08, epochs=6, data=(see(images), labels))
    return Case(net, x=see(x[:count]), y=y[:count], threat=threat)


def quarters(count: int) -> tuple[Tensor, Tensor]:
    """Images of which one quarter is brighter, by 0.6 to 1; which it is."""
    dice = torch.Generator().manual_seed(count)
    label, light = torch.randint(4, (count,), generator=dice), 0.6 + 0.4 * torch.rand(count, 1, generator=dice)
    return F.interpolate((F.one_hot(label, 4) * light).view(count, 1, 2, 2), (28, 28)), label


def which_quarter(x: Tensor, y: Tensor) -> Case:
    """Four classes of drawn images, in a big ball."""
    with seeded(0):
        net = nn.Sequential(nn.AvgPool2d(14), nn.Flatten(), nn.Linear(4, 4))
    return Case(trained(net, lr=0.05, data=quarters(500)), Descent(every_target=True), *quarters(60), 4, "linf:0.4")


NEAREST, DISCRIMINANTS = KNeighborsClassifier(5, algorithm="brute"), LinearDiscriminantAnalysis("lsqr", 0.5)
LABELS_ALONE = HopSkipJump(steps=20)
WITH_DROPOUT = nn.Flatten, partial(nn.Linear, 784, 128), nn.ReLU, partial(nn.Dropout, 0.4), partial(nn.Linear, 128, 10)
HONEST: dict[str, Make] = {
    "a forest of hard votes": partial(black_box, Forest, Square(steps=2500), "linf:0.02"),  # 17/18
    "neighbours that name one": partial(black_box, partial(Fitted, NEAREST, 1500), LABELS_ALONE, "l2:0.5"),  # 49/48
    "discriminants that name one": partial(black_box, partial(Fitted, DISCRIMINANTS), LABELS_ALONE, "l2:0.5"),  # 47/47
    "a network behind requests in json": partial(black_box, Endpoint, Square(steps=2000), "linf:0.1"),  # 49/49
    "a numpy function, searched at random": partial(black_box, ArrayNet, Stripes(), "linf:0.08"),  # 42/43
    "pgd from scratch": Grown(attack=Descent()),  # 49/49
    "pgd with momentum in l2": Grown(threat="l2:1", attack=Descent(momentum=0.7)),  # 52/52
    "every class as a target": Grown(threat="linf:0.11", attack=Descent(steps=20, every_target=True)),  # 46/46
    "dropout at run time": Grown(partial(chain, *WITH_DROPOUT), "linf:0.08", after=Dropped),  # 38.6/37.4
    "a random crop": Grown(threat="linf:0.08", step=partial(Step, crop, stochastic=True)),  # 52.6/52.1
    "noise and lost pixels": Grown(threat="linf:0.08", eps=0, step=partial(Step, snow, stochastic=True)),  # 25.6/25.0
    "mixed with fixed images": Grown(step=mixing),  # 49.6/49.1
    "three networks together": Grown(threat="linf:0.08", after=Committee),  # 50/49
    "one of three networks": Grown(threat="linf:0.08", after=OneOfThem),  # 40.5/40.1
    "rejects what is off the span": Grown(after=OffTheSpan),  # 49/49
    "abstains where it is unsure": Grown(threat="linf:0.08", after=Unsure),  # 50/50
    "eight bits straight through": Grown(after=Bytes),  # 49/49
    "one bit": Grown(small, "linf:0.3", 0, step=partial(Step, partial(levels, 1), partial(soft_levels, 1))),  # 35/33
    "two bits": Grown(step=partial(Step, partial(levels, 3), partial(soft_levels, 3))),  # 56/55
    "jpeg": Grown(step=partial(SuiteStep, JPEG(quality=40))),  # 51/51
    "a median": Grown(threat="linf:0.06", step=partial(SuiteStep, Median(size=3))),  # 57/56
    "total variation": Grown(step=partial(Step, flattened)),  # 50/49
    "a blur": Grown(partial(chain, partial(nn.AvgPool2d, 3, 1, 1), small), "linf:0.04", eps=0),  # 52/51
    "a network from an onnx file": Grown(after=through_onnx),  # 49/49
    "temperature": Grown(after=partial(recalibrated, 0.6, 0.0)),  # 49/49
    "logits with a bias": Grown(after=partial(recalibrated, 1.0, 1.5)),  # 37/36
    "log probabilities": Grown(partial(chain, small, partial(nn.LogSoftmax, 1))),  # 49/49
    "normalised inside": Grown(partial(chain, partial(Normalise, (0.1307,), (0.3081,)), small)),  # 53/52
    "resized": Grown(partial(chain, partial(nn.AdaptiveAvgPool2d, 20), partial(small, side=5)), "linf:0.08"),  # 45/43
    "padded": Grown(partial(chain, partial(nn.Conv2d, 1, 3, 1, padding=2), lenet5), "linf:0.06", 0.1, 4),  # 54/54
    "mean of shifts": Grown(after=Shifts),  # 53/52
    "experts behind a gate": Grown(Experts, "linf:0.07", epochs=5),  # 57/56
    "lines read one by one": Grown(Rows, "l1:1", 0, 16, APGD(loss="dlr", targets=5, larger_eps=True)),  # 31/29
    "patches that attend": Grown(Patches, "l2:0.4", eps=0.02, epochs=8),  # 42/42
    "distances to prototypes": Grown(Prototypes, "linf:0.08"),  # 52/52
    "one linear layer": Grown(partial(chain, nn.Flatten, partial(nn.Linear, 784, 10)), "linf:3/255", 0),  # 55/54
    "one logit for two classes": odd_digits,  # 58/58
    "black digits on white": partial(looked_at, partial(torch.rsub, other=1), small(), 60, "linf:0.1"),  # 46/45
    "few small images in colour": partial(looked_at, tinted, small(side=3, channels=3), 24, "linf:0.06"),  # 17/17 of 24
    "four classes in a big ball": which_quarter,  # 19/19
}
