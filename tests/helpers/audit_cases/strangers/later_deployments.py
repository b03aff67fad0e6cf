"""Honest models and evaluations of unusual forms, most about how a model is deployed or attacked.

The two numbers beside each case: how many of the 60 images are robust under its own evaluation, and under `best`
(effort 0.4; 0.1 of random ones). Of what shows scores alone it is Square of 2,500 steps, or `best` on the net behind.
"""

from __future__ import annotations

import io
import json
import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import BernoulliNB
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from robustbench_local import load_data, load_model, wrap
from robustbench_local.attacks.hopskipjump import HopSkipJump
from robustbench_local.attacks.square import Square
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack, IterativeAttack, State
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import evaluating, seeded
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from tests.helpers.audit_cases.case import Case, Make, zoo
from tests.helpers.audit_cases.trained import trained

Images = npt.NDArray[np.float32]
SEARCH = Square(steps=800)


def _images() -> tuple[Tensor, Tensor]:
    """The bundled training images of MNIST."""
    return load_data("mnist", split="train", n=2000, source="bundled")


def _fitted(form: Callable[[], nn.Module], seed: int = 0, **settings: Any) -> nn.Module:
    """A network of that form, trained from weights of that seed."""
    with seeded(seed):
        net = form()
    return trained(net, seed=seed, **settings)


def _cnn(width: int = 12) -> nn.Sequential:
    """A small convolutional network."""
    layers = (nn.Conv2d(1, width, 5, 2, 2), nn.ReLU(), nn.Conv2d(width, width, 5, 2, 2), nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(width, width, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 10))


def _small(seed: int = 0, width: int = 12) -> nn.Sequential:
    """The small network, trained."""
    return cast(nn.Sequential, _fitted(partial(_cnn, width), seed, epochs=6))


def _of(form: Callable[[], nn.Module], threat: str = "linf:0.08", attack: Attack | None = None) -> Make:
    """The case of a model that `form` makes from nothing."""

    def make(x: Tensor, y: Tensor) -> Case:
        return Case(evaluating(form()), attack, threat=threat)

    return make


def _mean_log(logits: Sequence[Tensor]) -> Tensor:
    """The log of the mean probability of some logits (N, K)."""
    return torch.logsumexp(torch.stack([each.log_softmax(1) for each in logits]), 0) - math.log(len(logits))


class Around(Defended):
    """Something around networks, the first of which is `net`."""

    def __init__(self, *nets: nn.Module) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    @property
    def net(self) -> nn.Module:
        return self.nets[0]


class FeatureDropout(Around):
    """Dropout on the last features at run time, the mean probability of eight masks: Monte Carlo dropout."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        body, head = cast(nn.Sequential, self.net)[:-1], cast(nn.Sequential, self.net)[-1]
        features = body(x)
        kept = (draws_for(x, draws).uniform(8, features.shape[1]) > 0.2).to(x) / 0.8
        return _mean_log([head(features * kept[:, k]) for k in range(8)])


class Shifted(Around):
    """The image is rolled by up to two pixels either way, differently each time, before the network sees it."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        by = draws_for(x, draws).integers(5, 2) - 2
        height, width = ((torch.arange(side) + by[:, k : k + 1]) % side for k, side in enumerate(x.shape[2:]))
        rows = torch.arange(len(x))[:, None, None]
        return cast(Tensor, self.net(x[rows, 0, height[:, :, None], width[:, None]][:, None]))


class RandomMember(Around):
    """One of three networks answers, drawn anew for every image and query."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        chosen = draws_for(x, draws).integers(len(self.nets))
        return torch.stack([net(x) for net in self.nets], 1)[torch.arange(len(x)), chosen]


class Dither(Preprocess):
    """Stochastic rounding to nine grey levels: up or down with the chance that keeps the mean."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 8 + draws_for(x, draws).uniform(*x.shape[1:]).to(x)).floor() / 8


class GreyLevels(Preprocess):
    """Bit depth of four bits; gradients as if there were no rounding."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x * 15).round() / 15


class MedianOfNine(Around):
    """A median of 3x3 pixels by sorting, with the gradient of the pixel that was picked."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        around = F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3)
        return cast(Tensor, self.net(around.median(1).values.view_as(x)))


class BlurDetector(Around):
    """Rejects an image on which the network disagrees too much with itself on a blurred copy, and declares it."""

    rejects = Rejection.DETECTION

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__(net)
        with torch.no_grad():
            self.limit = float(self._score(x).quantile(0.98))

    def _score(self, x: Tensor) -> Tensor:
        blurred = F.avg_pool2d(x, 3, 1, 1)
        return cast(Tensor, (self.net(x).log_softmax(1) - self.net(blurred).log_softmax(1)).abs().mean(1))

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = self.net(x)
        excess = self._score(x) / self.limit - 1
        return torch.cat([logits, (logits.amax(1) + excess)[:, None]], 1)


class Unsure(Around):
    """Abstains where no class has a probability of 0.6, which counts as an error everywhere."""

    rejects = Rejection.ABSTENTION

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return F.pad(self.net(x).log_softmax(1), (0, 1), value=math.log(0.6))


class Scikit:
    """A scikit-learn classifier, fitted to the training images as rows, asked by one of its methods."""

    def __init__(self, model: Any, method: str = "decision_function", rows: int = 2000) -> None:
        x, y = _images()
        self.ask = getattr(model.fit(x[:rows].flatten(1).numpy(), y[:rows].numpy()), method)

    def __call__(self, x: Images) -> Any:
        return self.ask(x.reshape(len(x), -1))


class Nearest:
    """Minus the squared distance to the nearest training image of each class, in NumPy."""

    def __init__(self) -> None:
        x, y = _images()
        self.classes = [x[y == k].flatten(1).numpy() for k in range(10)]

    def __call__(self, x: Images) -> Images:
        rows = x.reshape(len(x), -1)
        near = [(2 * rows @ own.T - (own**2).sum(1)).max(1) for own in self.classes]
        scores: Images = np.stack(near, 1) - (rows**2).sum(1, keepdims=True)
        return scores


class Endpoint:
    """As a web service does it: pixels of eight bits go out as bytes, scores come back as JSON."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Images) -> Images:
        body = bytearray(np.rint(255 * x).astype(np.uint8).tobytes())
        with torch.no_grad():
            scores = self.net(torch.frombuffer(body, dtype=torch.uint8).view(x.shape) / 255)
        return np.array(json.loads(json.dumps({"scores": scores.tolist()}))["scores"], dtype=np.float32)


class OnnxScores:
    """A network as an ONNX graph in memory that onnxruntime runs."""

    def __init__(self, graph: bytes) -> None:
        self.graph = graph
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def __reduce__(self) -> tuple[type[OnnxScores], tuple[bytes]]:
        return OnnxScores, (self.graph,)

    def __call__(self, x: Images) -> Any:
        return self.session.run(None, {"x": x})[0]


def _onnx() -> nn.Module:
    """The small network by onnxruntime."""
    file, axes = io.BytesIO(), {"x": {0: "n"}}
    example = (torch.zeros(2, 1, 28, 28),)
    torch.onnx.export(_small(), example, cast(str, file), input_names=["x"], dynamic_axes=axes, dynamo=False)
    return wrap(OnnxScores(file.getvalue()))


def _from_file(suffix: str) -> nn.Module:
    """The network traced (.ts) or exported (.pt2), saved and loaded again."""
    path, example = Path(tempfile.mkdtemp(prefix="strangers_h_")) / f"net{suffix}", torch.zeros(2, 1, 28, 28)
    if suffix == ".ts":
        torch.jit.save(torch.jit.trace(zoo("none"), example), path)
    else:
        shapes = ({0: torch.export.Dim("n", min=1, max=100_000)},)
        torch.export.save(torch.export.export(zoo("none"), (example,), dynamic_shapes=shapes), path)
    return load_model(str(path))


class Mean(Around):
    """The mean probability of networks of different widths."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return _mean_log([net(x) for net in self.nets])


class Calibrated(Around):
    """Vector scaling, biases, clipping far beyond every logit, a temperature, and log-probabilities at the end."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = self.net(x).clamp(-1000, 1000) * torch.linspace(0.8, 1.2, 10) + torch.linspace(0.3, -0.3, 10)
        return cast(Tensor, (logits / 1.7).log_softmax(1))


class Experts(nn.Module):
    """A mixture of experts: a small gate weighs three networks image by image."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(_cnn(6) for _ in range(3))
        self.gate = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 3), nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = (self.gate(x)[:, :, None] * torch.stack([expert(x) for expert in self.experts], 1)).sum(1)
        return cast(Tensor, mixed)


class Cascade(Around):
    """A cheap network answers where it is sure, a second one elsewhere; the passage between them is smooth."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        cheap, costly = (net(x) for net in self.nets)
        sure = torch.sigmoid(10 * (cheap.softmax(1).amax(1, keepdim=True) - 0.8))
        return cast(Tensor, sure * cheap + (1 - sure) * costly)


class Chunks(Around):
    """Seven images at a time, as where memory is short, their pixels clamped to the range first."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return torch.cat([self.net(part) for part in x.clamp(0, 1).split(7)])


class TwoHeads(nn.Module):
    """Layers that are built at the first call, and a second head that only training used."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LazyConv2d(16, 5, 2), nn.ELU(), nn.Flatten(), nn.LazyLinear(64), nn.Tanh())
        self.head, self.rotations = nn.LazyLinear(10), nn.Linear(64, 4)
        self(torch.zeros(1, 1, 28, 28))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.body(2 * x - 1)))


def _log_shape(module: nn.Module, inputs: tuple[Tensor], answer: Tensor) -> None:
    """A hook that logs and changes nothing."""
    logging.getLogger(__name__).debug("%s answers %s", type(module).__name__, tuple(answer.shape))


def _pruned() -> nn.Module:
    """A network without the smaller half of its convolutions' weights, whose layers log what they answer."""
    net = _small(5)
    for layer in net:
        layer.register_forward_hook(_log_shape)
        if isinstance(layer, nn.Conv2d):
            prune.l1_unstructured(layer, "weight", 0.5)
    return net


def _student() -> nn.Module:
    """A perceptron with a bottleneck of rank 12, trained on what a network says of noisy training images."""
    x = _images()[0]
    x = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    with torch.no_grad():
        y = zoo("none")(x).argmax(1)
    return _fitted(_perceptron, data=(x, y))


def _perceptron() -> nn.Module:
    """784 pixels, 24 directions, 100 features, 10 classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 24), nn.Linear(24, 100), nn.GELU(), nn.Linear(100, 10))


@dataclass(frozen=True)
class Own(IterativeAttack):
    """What the attacks below share."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2})
    starts: ClassVar[int] = 1

    def rounds(self, oracle: Oracle) -> int:
        return self.starts

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": threat.start(x, draws.stream("start")), "sum": torch.zeros_like(x)}

    def step(
        self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, i: int
    ) -> State:
        return self.move(state, oracle, x, y, threat, i)

    def move(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, i: int) -> State:
        """One step."""
        raise NotImplementedError

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.starts * (self.steps + 1) - 1, self.starts * self.steps if self.access is Access.GRADIENTS else 0


@dataclass(frozen=True)
class HeavyBall(Own):
    """Momentum on normalised gradients of the margin, steps that shrink along a cosine, three random starts."""

    starts: ClassVar[int] = 3
    steps: int = 40

    def move(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, i: int) -> State:
        grad = oracle.grad(state["x_adv"], y, losses.named("margin", targeted=oracle.targeted))[1]
        total = 0.75 * state["sum"] + grad / grad.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
        size = 0.5 * threat.eps * (1 + math.cos(math.pi * i / self.steps))
        moved = state["x_adv"] + size * threat.steepest(total, state["x_adv"], x)
        return {"x_adv": threat.project(moved, x), "sum": total}


@dataclass(frozen=True)
class EveryTarget(Own):
    """From the clean image towards each of the nine other classes in turn, by the sign of the gradient."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    starts: ClassVar[int] = 9
    steps: int = 20

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x, "target": (y + 1 + restart) % 10}

    def move(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, i: int) -> State:
        grad = oracle.grad(state["x_adv"], y, partial(losses.margin_to, target=state["target"]))[1]
        return state | {"x_adv": threat.project(state["x_adv"] + threat.eps / 6 * grad.sign(), x)}


@dataclass(frozen=True)
class SignFlips(Own):
    """By scores alone: all pixels at a face of the ball, whose signs are flipped in runs of half the length each."""

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    steps: int = 2047

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        up, low = torch.ones_like(x), x.new_full((len(x),), -torch.inf)
        return {"x_adv": threat.project(x + threat.eps, x), "sign": up, "tried": up, "best_loss": low}

    def move(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, i: int) -> State:
        value = losses.named("margin", targeted=oracle.targeted)(oracle.logits(state["x_adv"]), y)
        sign = torch.where((value > state["best_loss"]).view(-1, 1, 1, 1), state["tried"], state["sign"])
        runs = 2 ** ((i + 1).bit_length() - 1)
        width = math.ceil(x[0].numel() / runs)
        tried = sign.clone()
        tried.flatten(1)[:, (i + 1 - runs) * width : (i + 2 - runs) * width] *= -1
        best = torch.maximum(value, state["best_loss"])
        return {"x_adv": threat.project(x + threat.eps * tried, x), "sign": sign, "tried": tried, "best_loss": best}


@dataclass(frozen=True)
class OwnRadius(Own):
    """A minimiser: each image has a ball of its own, which shrinks where it is misclassified and grows elsewhere."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    minimises: ClassVar[bool] = True
    steps: int = 200

    def init(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws, restart: int) -> State:
        return {"x_adv": x, "radius": x.new_full((len(x), 1, 1, 1), 0.2)}

    def move(self, state: State, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, i: int) -> State:
        value, grad, _ = oracle.grad(state["x_adv"], y, losses.named("margin", targeted=oracle.targeted))
        left = 0.5 * (1 + math.cos(math.pi * i / self.steps))
        radius = state["radius"] * torch.where((value > 0).view(-1, 1, 1, 1), 1 - 0.1 * left, 1 + 0.1 * left)
        delta = state["x_adv"] - x + (0.3 * left + 0.02) * radius * grad.sign()
        return {"x_adv": (x + torch.minimum(torch.maximum(delta, -radius), radius)).clamp(0, 1), "radius": radius}


HONEST: dict[str, Make] = {
    "dropout at run time, eight masks averaged": _of(lambda: FeatureDropout(zoo("none"))),  # 29, 28
    "image rolled by a random offset": _of(lambda: Shifted(zoo("none"))),  # 41, 40
    "one of three nets per query": _of(lambda: RandomMember(*(_small(k, 8) for k in range(3))), "linf:0.05"),  # 44, 45
    "stochastic rounding of the pixels": _of(lambda: Deployed(zoo("none"), [Dither()])),  # 28, 29
    "sixteen grey levels before the net": _of(lambda: Deployed(zoo("none"), [GreyLevels()])),  # 42, 42
    "median of nine pixels by sorting": _of(lambda: MedianOfNine(zoo("none")), "linf:0.05"),  # 55, 54
    "detector by a blurred copy": _of(lambda: BlurDetector(zoo("none"), _images()[0][:500])),  # 25, 25
    "abstains below a confidence": _of(lambda: Unsure(zoo("none"))),  # 26, 25
    "random forest by its scores": _of(
        lambda: wrap(Scikit(RandomForestClassifier(20, random_state=0), "predict_proba"), outputs="probabilities"),
        "linf:0.02",
        SEARCH,
    ),  # 9, 11
    "gradient boosting by its scores": _of(
        lambda: wrap(Scikit(HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=8))), "linf:0.01", SEARCH
    ),  # 5, 3
    "support vectors by their scores": _of(lambda: wrap(Scikit(SVC(C=5), rows=400)), "linf:0.04", SEARCH),  # 51, 50
    "naive bayes of black and white pixels": _of(
        lambda: wrap(Scikit(BernoulliNB(binarize=0.5), "predict_joint_log_proba")), "linf:0.3", SEARCH
    ),  # 32, 32
    "nearest neighbours by distance": _of(lambda: wrap(Nearest()), "linf:0.1", Square(steps=1000)),  # 39, 39
    "ridge regression by labels": _of(
        lambda: wrap(Scikit(RidgeClassifier(30), "predict"), access="labels", classes=10), "l2:0.15", HopSkipJump(20)
    ),  # 49, 49
    "service of bytes and json": _of(lambda: wrap(Endpoint(_small(3))), "linf:0.05", Square(steps=1500)),  # 45, 45
    "onnx graph run by onnxruntime": _of(_onnx, "linf:0.05", Square(steps=1500)),  # 43, 42
    "torchscript loaded from its file": _of(lambda: _from_file(".ts")),  # 27, 27
    "torch.export loaded from its file": _of(lambda: _from_file(".pt2")),  # 27, 27
    "three widths, mean probability": _of(lambda: Mean(*(_small(w, w) for w in (4, 8, 12))), "linf:0.05"),  # 47, 46
    "calibrated log-probabilities": _of(lambda: Calibrated(zoo("none"))),  # 28, 26
    "mixture of three experts": _of(lambda: _fitted(Experts), "linf:0.05"),  # 48, 48
    "smooth cascade of two nets": _of(lambda: Cascade(_small(1, 4), zoo("none")), "linf:0.05"),  # 54, 52
    "seven images at a time": _of(lambda: Chunks(zoo("none"))),  # 27, 27
    "lazy layers and an unused head": _of(lambda: _fitted(TwoHeads), "linf:0.05"),  # 39, 38
    "pruned, with hooks that log": _of(_pruned, "linf:0.05"),  # 46, 46
    "student with a narrow first layer": _of(_student, "linf:0.03"),  # 36, 35
    "momentum on the margin, three starts": _of(lambda: zoo("adversarial_training"), "linf:0.3", HeavyBall()),  # 56, 56
    "momentum in the euclidean ball": _of(lambda: zoo("none"), "l2:1", HeavyBall()),  # 36, 34
    "towards every class in turn": _of(lambda: zoo("label_smoothing"), "linf:0.06", EveryTarget()),  # 52, 51
    "sign flips by scores alone": _of(lambda: zoo("none"), attack=SignFlips()),  # 28, 27
    "a radius of its own for each image": _of(lambda: zoo("none"), attack=OwnRadius()),  # 27, 27
}
