"""Honest models and evaluations of a stranger: how a model is deployed or attacked, each in a form of its own.

Beside each case: robust accuracy under its own attack, and under a stronger one, in images of 60.
"""

from __future__ import annotations

import io
import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import robustbench_local as rbl
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.square import Square
from robustbench_local.core import losses
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.defenses._wrapper import Step
from robustbench_local.defenses.jpeg import JPEG
from tests.helpers.audit_cases.case import Case, Make, zoo
from tests.helpers.audit_cases.trained import trained

Form = Preprocess | Callable[[nn.Module], nn.Module] | None
Floats = npt.NDArray[np.float32]
LOG = logging.getLogger(__name__)


def _images() -> tuple[Tensor, Tensor]:
    """The bundled training images and their labels."""
    return rbl.load_data("mnist", split="train", n=2000, source="bundled")


def _conv_layers(width: int = 8, side: int = 28) -> nn.Sequential:
    """Two strided convolutions and a linear layer for square images."""
    across = math.ceil(math.ceil(side / 2) / 2)
    first, second = nn.Conv2d(1, width, 5, stride=2, padding=2), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(2 * width * across**2, 10))


CAREFUL = PGD(steps=40, restarts=3, loss="margin")
ROBUST = partial(zoo, "adversarial_training")
SMALL_FILE = Step(JPEG(quality=80, subsampling="4:4:4"))


def _fresh(form: Callable[[], nn.Module], seed: int, eps: float, epochs: int) -> nn.Module:
    """A network of this form, trained adversarially."""
    with seeded(seed):
        net = form()
    return trained(net, eps=eps, epochs=epochs)


def _conv(seed: int, eps: float = 0.15, epochs: int = 5) -> nn.Sequential:
    """Small convolutional layers, trained adversarially."""
    return cast(nn.Sequential, _fresh(_conv_layers, seed, eps, epochs))


def _dense(linear: Callable[[int, int], nn.Module] = nn.Linear, width: int = 64) -> nn.Sequential:
    """One hidden layer, of any kind of linear layers."""
    return nn.Sequential(nn.Flatten(), linear(784, width), nn.ReLU(), linear(width, 10))


def _mlp(seed: int, eps: float = 0.1, epochs: int = 7) -> nn.Sequential:
    """A small perceptron, trained adversarially."""
    return cast(nn.Sequential, _fresh(_dense, seed, eps, epochs))


def _case(form: Form, base: Callable[[], nn.Module], threat: str, attack: Attack | None, x: Tensor, y: Tensor) -> Case:
    """The model around its base network, as it is attacked."""
    net = base()
    model = net if form is None else Deployed(net, [form]) if isinstance(form, Preprocess) else form(net)
    return Case(model.eval(), attack, threat=threat)


def _of(form: Form, base: Callable[[], nn.Module], threat: str = "linf:0.1", attack: Attack | None = None) -> Make:
    """The case of a step before a base network, of a module around it, or of the network alone."""
    return partial(_case, form, base, threat, attack)


class DroppedFeatures(Defended):
    """Dropout stays on in deployment: a tenth of the last features is dropped by declared draws."""

    stochastic = True

    def __init__(self, net: nn.Module, rate: float = 0.1) -> None:
        super().__init__()
        layers = cast(nn.Sequential, net)
        self.body, self.head, self.rate = layers[:-1], layers[-1], rate

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        features = self.body(x)
        kept = draws_for(x, draws).uniform(*features.shape[1:]).to(features) >= self.rate
        return cast(Tensor, self.head(features * kept / (1 - self.rate)))


class Shifted(Preprocess):
    """The image moved by up to one pixel either way, by declared draws."""

    stochastic = True
    surrogate = None  # type: ignore[assignment]

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        place = draws_for(x, draws).integers(9)
        padded, (height, width) = F.pad(x, (1, 1, 1, 1)), x.shape[2:]
        moved = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return torch.stack(moved, 1)[torch.arange(len(x), device=x.device), place]


class RandomMember(Defended):
    """Each image is answered by one of several networks, drawn anew, as declared."""

    stochastic = True

    def __init__(self, nets: nn.Module) -> None:
        super().__init__()
        self.nets = cast(nn.ModuleList, nets)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        chosen = draws_for(x, draws).integers(len(self.nets))
        answers = torch.stack([net(x) for net in self.nets], 1)
        return answers[torch.arange(len(x), device=x.device), chosen]


def _three() -> nn.ModuleList:
    """Three perceptrons of other first weights."""
    return nn.ModuleList(_mlp(seed) for seed in (3, 4, 5))


class FiveLevels(Preprocess):
    """Pixels rounded to five grey levels; gradients see the identity."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (4 * x).round() / 4


class Binarised(Preprocess):
    """Black or white at one half; gradients see a steep sigmoid."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x > 0.5).to(x)

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return torch.sigmoid(8 * (x - 0.5))


class TrimmedMean(Preprocess):
    """The mean of the middle five of every 3x3 window's nine sorted pixels."""

    surrogate = None  # type: ignore[assignment]

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        windows = F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3)
        return windows.sort(1).values[:, 2:7].mean(1).view_as(x)


class TotalVariation(Preprocess):
    """Five unrolled steps down a smooth total variation."""

    surrogate = None  # type: ignore[assignment]

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        out = x
        for _ in range(5):
            across, down = out.diff(dim=3), out.diff(dim=2)
            across, down = across / (across.square() + 0.01).sqrt(), down / (down.square() + 0.01).sqrt()
            pulled = F.pad(across, (1, 0)) - F.pad(across, (0, 1))
            pulled = pulled + F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))
            out = out - 0.02 * (pulled + out - x)
        return out


class BlurDetector(Defended):
    """A last logit wins where an image and its blurred copy are answered too differently: a declared detector."""

    rejects = Rejection.DETECTION
    threshold: Tensor

    def __init__(self, net: nn.Module, share: float = 0.05) -> None:
        super().__init__()
        self.net = net
        with torch.no_grad():
            self.register_buffer("threshold", self._measure(_images()[0][:500])[1].quantile(1 - share))

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and how far, in their own size, the blurred image's are from them."""
        logits = self.net(x)
        blurred = self.net(F.avg_pool2d(x, 3, stride=1, padding=1))
        return logits, (logits - blurred).square().mean(1).add(1e-6).sqrt() / logits.std(1).add(1e-3)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits, score = self._measure(x)
        return torch.cat([logits, (logits.amax(1) + 4 * (score - self.threshold))[:, None]], 1)


class Abstaining(Defended):
    """It has no answer where the best logit leads the second by too little: a declared abstention."""

    rejects = Rejection.ABSTENTION

    def __init__(self, net: nn.Module, lead: float = 0.5) -> None:
        super().__init__()
        self.net, self.lead = net, lead

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        logits = self.net(x)
        second = logits.topk(2, dim=1).values[:, 1:]
        return torch.cat([logits, second + self.lead], 1)


def _numpy_scores(net: nn.Module, images: Floats) -> Floats:
    """A perceptron's scores, computed in NumPy from its weights."""
    inner, shift, outer, bias = (part.detach().numpy() for part in net.parameters())
    hidden = np.maximum(images.reshape(len(images), -1) @ inner.T + shift, 0)
    return cast(Floats, hidden @ outer.T + bias)


def _scores() -> nn.Module:
    """A perceptron that shows no more than scores."""
    return rbl.wrap(partial(_numpy_scores, _mlp(14)), classes=10)


def _onnx() -> nn.Module:
    """A graph of operators written by hand, read back from its file."""
    net = _conv(15)
    weights = [numpy_helper.from_array(value.numpy(), name) for name, value in net.state_dict().items()]
    nodes = [
        helper.make_node("Conv", ["x", "0.weight", "0.bias"], ["a"], strides=[2, 2], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "2.weight", "2.bias"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "5.weight", "5.bias"], ["logits"], transB=1),
    ]
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "digits", [images], [logits], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        onnx.save(model, str(path))
        return rbl.load_model(str(path))


def _script() -> nn.Module:
    """A traced and frozen program, as it comes back from its file."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.trace(_conv(16), torch.zeros(2, 1, 28, 28))), buffer)
    buffer.seek(0)
    return cast(nn.Module, torch.jit.load(buffer))


class MeanProbability(nn.Module):
    """The logarithm of the mean probability of several networks."""

    def __init__(self, nets: nn.Module) -> None:
        super().__init__()
        self.nets = cast(nn.ModuleList, nets)

    def forward(self, x: Tensor) -> Tensor:
        logs = torch.stack([net(x).log_softmax(1) for net in self.nets])
        return logs.logsumexp(0) - math.log(len(logs))


class ZoomedViews(nn.Module):
    """The mean of the logits over an image at three sizes, cut or padded to its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        larger = F.interpolate(x, size=(30, 30), mode="bilinear", align_corners=False)[:, :, 1:29, 1:29]
        smaller = F.pad(F.interpolate(x, size=(26, 26), mode="bilinear", align_corners=False), (1, 1, 1, 1))
        return cast(Tensor, (self.net(x) + self.net(larger) + self.net(smaller)) / 3)


class Framed(nn.Module):
    """The image within a frame of learnt pixels, before a network for larger images."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Parameter(torch.full((1, 1, 36, 36), 0.5))
        self.net = _conv_layers(side=36)

    def forward(self, x: Tensor) -> Tensor:
        hole = F.pad(torch.zeros_like(x[:1]), (4, 4, 4, 4), value=1.0)
        return cast(Tensor, self.net(F.pad(x, (4, 4, 4, 4)) + hole * self.frame))


class Resized(nn.Module):
    """Bicubic resizing to 20x20 and each image's own mean and deviation, inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _conv_layers(side=20)

    def forward(self, x: Tensor) -> Tensor:
        small = F.interpolate(x, size=(20, 20), mode="bicubic", align_corners=False, antialias=True)
        deviation = small.var((1, 2, 3), keepdim=True).add(0.01).sqrt()
        return cast(Tensor, self.net((small - small.mean((1, 2, 3), keepdim=True)) / deviation))


class Calibrated(nn.Module):
    """Log-probabilities after a scale and a bias per class, fitted to training images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        images, labels = _images()
        self.net, self.scale, self.bias = net, nn.Parameter(torch.ones(10)), nn.Parameter(torch.zeros(10))
        logits = net(images).detach()
        optimizer = torch.optim.Adam([self.scale, self.bias], lr=0.02)
        for _ in range(100):
            optimizer.zero_grad()
            F.cross_entropy(self.scale * logits + self.bias, labels).backward()
            optimizer.step()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, (self.scale * self.net(x) + self.bias).log_softmax(1))


class Mixture(nn.Module):
    """Experts weighted by a soft gate that sees a coarse copy of the image."""

    def __init__(self, experts: int = 3) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, experts), nn.Softmax(1))
        self.experts = nn.ModuleList(_dense(width=32) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.stack([expert(x) for expert in self.experts], 1)
        return cast(Tensor, (self.gate(x)[:, :, None] * answers).sum(1))


class SoftCascade(nn.Module):
    """A cheap network answers where it is sure, and a strong one the more the less it is, smoothly."""

    def __init__(self, strong: nn.Module) -> None:
        super().__init__()
        self.cheap, self.strong = _mlp(21), strong

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.cheap(x).softmax(1), self.strong(x).softmax(1)
        unsure = torch.sigmoid(10 * (0.8 - first.amax(1, keepdim=True)))
        return cast(Tensor, ((1 - unsure) * first + unsure * second).clamp_min(1e-12).log())


class Chunked(nn.Module):
    """It takes seven images at a time, with hooks on every layer that only log the shapes they see."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        for layer in net.children():
            layer.register_forward_hook(_logged)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(part) for part in x.split(7)])


def _logged(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
    """What a layer took and gave, for a log that nobody reads."""
    LOG.debug("%s: %s to %s", type(layer).__name__, tuple(given[0].shape), tuple(out.shape))


class FakeQuantised(nn.Linear):
    """A linear layer that trains with its weights rounded to 8 bits a row, straight through."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.detach().abs().amax(1, keepdim=True) / 127
        rounded = (self.weight / scale).round() * scale
        return F.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


EIGHT_BIT = partial(_dense, FakeQuantised)


def _pruned() -> nn.Module:
    """Nine tenths of the hidden weights are pruned away, and the rest is trained on."""
    net = _mlp(24)
    prune.l1_unstructured(net[1], "weight", 0.9)
    trained(net, eps=0.1, epochs=4)
    prune.remove(net[1], "weight")
    return net


def _student() -> nn.Module:
    """A student of a robust network's soft answers."""
    images, _ = _images()
    with torch.no_grad(), seeded(25):
        student, soft = _dense(), (zoo("adversarial_training")(images) / 2).softmax(1)
    return trained(student, eps=0.1, data=(images, soft))


@dataclass(frozen=True)
class EveryClass(Attack):
    """A climb towards every wrong class in turn, the most likely first."""

    access: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF, Norm.L2})

    steps: int = 12

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        order = oracle.logits(x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
        x_adv = x
        for rank in range(oracle.classes - 1):
            x_adv = threat.start(x, draws.stream(rank))
            loss = partial(losses.margin_to, target=order[:, rank])
            for i in range(self.steps):
                grad = oracle.grad(x_adv, y, loss)[1]
                size = threat.eps * (1 - i / self.steps)
                x_adv = threat.project(x_adv + size * threat.steepest(grad, x_adv, x), x)
            oracle.submit(x_adv)
        return oracle.best(x_adv)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return (classes - 1) * (self.steps + 1) + 1, (classes - 1) * self.steps


@dataclass(frozen=True)
class Patches(Attack):
    """Random search by scores: a patch goes to a face of the ball, and stays where the margin rises."""

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    steps: int = 1500

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        columns = 2 * draws.stream("start").integers(2, x.shape[1], 1, x.shape[3]).to(x) - 1
        best = threat.project(x + threat.eps * columns, x)
        height = losses.margin(oracle.logits(best), y)
        down, across = (torch.arange(side, device=x.device) for side in x.shape[2:])
        for i in range(self.steps):
            own = draws.stream(i)
            side = max(1, round(10 * (1 - i / self.steps) ** 2))
            top, left = (own.integers(length - side + 1)[:, None] for length in x.shape[2:])
            rows = (down >= top) & (down < top + side)
            inside = (rows[:, :, None] & ((across >= left) & (across < left + side))[:, None])[:, None]
            sign = 2 * own.integers(2).to(x).view(-1, 1, 1, 1) - 1
            tried = torch.where(inside, threat.project(x + threat.eps * sign, x), best)
            risen = losses.margin(oracle.logits(tried), y)
            best = torch.where((risen > height).view(-1, 1, 1, 1), tried, best)
            height = torch.maximum(risen, height)
        return oracle.best(best)

    def cost(self, classes: int, norm: Norm = Norm.LINF) -> tuple[int, int]:
        return self.steps + 1, 0


# beside each: of 60 images, how many stay robust under its attack, and under best (or a longer square)
HONEST: dict[str, Make] = {
    "dropout left on, declared": _of(DroppedFeatures, partial(_conv, 1)),  # 45.8, 44.4
    "a random shift of one pixel, declared": _of(Shifted(), partial(_conv, 2)),  # 41.1, 40.1
    "a random member of three, declared": _of(RandomMember, _three),  # 34.1, 32.8
    "pixels rounded to five levels": _of(FiveLevels(), partial(_conv, 6), "linf:0.12", CAREFUL),  # 47, 47
    "jpeg with a smooth surrogate": _of(SMALL_FILE, partial(_conv, 7), attack=CAREFUL),  # 48, 47
    "black and white by a threshold": _of(Binarised(), ROBUST, "linf:0.3"),  # 57, 56
    "a trimmed mean of sorted windows": _of(TrimmedMean(), partial(_conv, 9), "linf:0.08", CAREFUL),  # 49, 49
    "unrolled total variation": _of(TotalVariation(), partial(_conv, 10), attack=CAREFUL),  # 44, 44
    "a declared detector by blurring": _of(BlurDetector, partial(_conv, 12)),  # 45, 45
    "abstention by too small a lead": _of(Abstaining, partial(_conv, 13)),  # 36, 36
    "numpy scores through wrap": _of(None, _scores, "linf:0.06", Square(steps=2500)),  # 47, 46 (best inside: 45)
    "an onnx graph written by hand": _of(None, _onnx, "linf:0.08", CAREFUL),  # 51, 51
    "a frozen torchscript program": _of(None, _script, "linf:0.08", CAREFUL),  # 47, 47
    "the mean probability of three networks": _of(MeanProbability, _three),  # 34, 33
    "the mean over three zooms": _of(ZoomedViews, ROBUST, "linf:0.3"),  # 54, 53
    "a frame of learnt pixels": _of(None, partial(_fresh, Framed, 18, 0.15, 4), attack=CAREFUL),  # 41, 41
    "resized and standardised inside": _of(None, partial(_fresh, Resized, 19, 0.1, 6), "linf:0.06"),  # 53, 53
    "calibrated scale and bias per class": _of(Calibrated, partial(zoo, "trades"), "linf:0.3"),  # 58, 58
    "a soft mixture of experts": _of(None, partial(_fresh, Mixture, 20, 0.1, 8), "linf:0.08"),  # 42, 40
    "a differentiable cascade": _of(SoftCascade, partial(_conv, 21), "linf:0.08", CAREFUL),  # 51, 51
    "chunks of seven and hooks that log": _of(Chunked, partial(_mlp, 22)),  # 33, 33
    "trained with eight-bit weights": _of(None, partial(_fresh, EIGHT_BIT, 23, 0.1, 7), "linf:0.06"),  # 47, 46
    "nine tenths of weights pruned": _of(None, _pruned),  # 34, 32
    "a student of soft answers": _of(None, _student, "linf:0.08"),  # 47, 45
    "a climb towards every class": _of(None, partial(_conv, 26), "l2:1.5", EveryClass()),  # 33, 31
    "patches by random search": _of(None, partial(_mlp, 28), "linf:0.08", Patches()),  # 42, 41
}
