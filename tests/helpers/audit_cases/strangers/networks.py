"""Models of unusual form whose numbers are right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from robustbench_local import load_data, load_model, wrap
from robustbench_local.attacks.fmn import FMN
from robustbench_local.attacks.square import Square
from robustbench_local.core.defense import Defended, Deployed, Preprocess, Rejection, draws_for
from robustbench_local.core.draws import Draws
from robustbench_local.core.model_state import seeded
from tests.helpers.audit_cases.case import Case, Make, zoo
from tests.helpers.audit_cases.trained import trained

Step = Callable[[Tensor], Any]
Build = Callable[[], nn.Module]
Data = tuple[Tensor, Tensor]
Array = npt.NDArray[np.float32]


def _digits() -> Data:
    """The bundled training images."""
    return load_data("mnist", split="train", n=2000, source="bundled")


def _learnt(build: Build, eps: float = 0.1, *, lr: float = 2e-3, data: Data | None = None) -> nn.Module:
    """What `build` makes from seed 0, trained adversarially at eps."""
    with seeded(0):
        return trained(build(), eps=eps, lr=lr, data=data)


class Around(nn.Module):
    """What holds a net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def _built(build: Build, threat: str, eps: float = 0.1, lr: float = 2e-3) -> Make:
    """The case of a network that is `build` and nothing else."""

    def make(x: Tensor, y: Tensor) -> Case:
        return Case(_learnt(build, eps, lr=lr), threat=threat)

    return make


def _small() -> nn.Module:
    """Two strided convolutions and a linear layer: what most wrappers here are around."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 5, 2, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(24 * 49, 10),
    )  # fmt: skip


class Between(Around):
    """A net, with a function before it and another behind."""

    def __init__(self, net: nn.Module, before: Step = torch.clone, after: Step = Tensor.float) -> None:
        super().__init__(net)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.net(self.before(x)))


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.body(x))


def _sigmoid() -> nn.Module:
    """A convolution and a dense layer, each with a sigmoid."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(768, 100), nn.Sigmoid(), nn.Linear(100, 10)
    )


def _convnext() -> nn.Module:
    """Patches, then depthwise convolutions and GELU in residual blocks, as in ConvNeXt."""
    blocks = [
        Residual(
            nn.Conv2d(24, 24, 5, 1, 2, groups=24), nn.GroupNorm(1, 24), nn.Conv2d(24, 48, 1), nn.GELU(),
            nn.Conv2d(48, 24, 1),
        )
        for _ in range(2)
    ]  # fmt: skip
    return nn.Sequential(nn.Conv2d(1, 24, 4, 4), *blocks, nn.Flatten(), nn.Linear(24 * 49, 10))


def _softplus() -> nn.Module:
    """A dense net of softplus, smooth everywhere."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.Softplus(beta=4), nn.Linear(128, 64), nn.Softplus(beta=4),
        nn.Linear(64, 10),
    )  # fmt: skip


def _lenet() -> nn.Module:
    """LeNet-5 as of 1998: tanh and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def _max_pool() -> nn.Module:
    """Overlapping max-pools and leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.LeakyReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 16, 3, padding=1),
        nn.LeakyReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(784, 10),
    )  # fmt: skip


def _batch_norm() -> nn.Module:
    """Batch norm after each convolution, dropout before the last layer, global average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1, bias=False),
        nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(192, 10),
    )  # fmt: skip


def _group_norm() -> nn.Module:
    """Group norm and SiLU, with dilated convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, 1, 2, dilation=2),
        nn.GroupNorm(4, 16), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(784, 10),
    )  # fmt: skip


def _channels_last() -> nn.Module:
    """The image and its negative as two channels, in memory with channels last."""
    net = nn.Sequential(
        nn.Conv2d(2, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10)
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Between(net, _with_negative)


def _with_negative(x: Tensor) -> Tensor:
    """x and 1 - x as channels."""
    return torch.cat([x, 1 - x], 1).contiguous(memory_format=torch.channels_last)


def _residual() -> nn.Module:
    """A residual net without any norm."""
    blocks = [Residual(nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)) for _ in range(2)]
    return nn.Sequential(nn.Conv2d(1, 16, 4, 4), *blocks, nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))


class ViT(nn.Module):
    """A vision transformer: 16 patches and a class token, two layers of attention."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.1 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places
        return cast(Tensor, self.head(self.encoder(tokens)[:, 0]))


def _mlp(classes: int = 10) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, classes))


def _linear() -> nn.Module:
    """Logistic regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class RBF(nn.Module):
    """Gaussian bumps around 300 training images, and a linear layer on them."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(_digits()[0][:300].flatten(1))
        self.head = nn.Linear(300, 10)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        square = flat.square().sum(1, keepdim=True) - 2 * flat @ self.centres.T + self.centres.square().sum(1)
        return cast(Tensor, self.head((-square / 40).exp() * 10))


class Neighbours(nn.Module):
    """The five nearest training images of each class, by their mean squared distance."""

    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        x, y = _digits()
        each = min(int((y == label).sum()) for label in range(10))
        self.register_buffer("images", torch.stack([x[y == label][:each].flatten(1) for label in range(10)]))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        products = torch.einsum("nd,kmd->nkm", flat, self.images)
        square = flat.square().sum(1)[:, None, None] - 2 * products + self.images.square().sum(2)
        return -square.topk(5, dim=2, largest=False).values.mean(2) / 5


class Equilibrium(nn.Module):
    """The fixed point of a contraction, by thirty steps that autograd follows (a deep equilibrium net)."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.inject, self.inner, self.head = nn.Linear(784, width), nn.Linear(width, width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        inner = 0.9 * self.inner.weight / self.inner.weight.norm().clamp_min(1)
        given = self.inject(x.flatten(1))
        z = torch.zeros_like(given)
        for _ in range(30):
            z = torch.tanh(F.linear(z, inner) + given)
        return cast(Tensor, self.head(z))


class SquaredReLU(torch.autograd.Function):
    """max(0, x) squared, with the derivative by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp_min(0).square()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return cast(Tensor, grads[0] * 2 * x.clamp_min(0))


def _by_hand() -> nn.Module:
    """A dense net whose activation is an autograd function of its own."""
    return nn.Sequential(
        nn.Flatten(), Between(nn.Linear(784, 100), after=cast(Step, SquaredReLU.apply)), nn.Linear(100, 10)
    )


class EightBit(nn.Module):
    """A linear layer whose weights are int8, with a scale for each unit; no parameters at all."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("bias", layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def _eight_bit(net: nn.Module) -> nn.Module:
    """Each linear layer in int8."""
    return nn.Sequential(*(EightBit(layer) if isinstance(layer, nn.Linear) else layer for layer in net.children()))


class OneByOne(Around):
    """torch.func.vmap over a net of a single image."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.func.vmap(lambda image: self.net(image[None])[0])(x))


def _pruned(net: nn.Module) -> nn.Module:
    """Three quarters of all weights are masked, by torch's hooks."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            prune.l1_unstructured(layer, "weight", 0.75)
    return net


def _frozen(net: nn.Module) -> nn.Module:
    """Traced, and its weights made constants."""
    return cast(nn.Module, torch.jit.freeze(cast(Any, torch.jit.trace(net, torch.rand(2, 1, 28, 28)))))


def _exported(x: Tensor, y: Tensor) -> Case:
    """The module of a torch.export program, which has no eval()."""
    batch = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(_learnt(_maxout), (x[:2],), dynamic_shapes=batch)
    return Case(program.module(), threat="linf:0.09")


def _as_dict(logits: Tensor) -> dict[str, Tensor]:
    """What a net of several tasks answers."""
    return {"confidence": logits.softmax(1).amax(1), "logits": logits}


def _log_odds(logits: Tensor) -> Tensor:
    """(N, 2) -> (N, 1)."""
    return logits[:, 1:] - logits[:, :1]


class Noised(Around, Defended):
    """The mean logits of two copies with Gaussian noise, from declared draws."""

    stochastic = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        noise = draws_for(x, draws).normal(2, *x.shape[1:])
        return cast(Tensor, self.net((x[:, None] + 0.1 * noise).flatten(0, 1)).unflatten(0, (-1, 2)).mean(1))


class Binarised(Preprocess):
    """Black or white; gradients are those of a steep sigmoid."""

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return (x > 0.5).to(x.dtype)

    def surrogate(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return torch.sigmoid(8 * (x - 0.5))


class Vote(Around, Defended):
    """Five shifted views vote; ties are broken by their mean probability, whose gradient stands in for the votes'."""

    surrogate_gradients = True

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        views = [x, x.roll(1, 2), x.roll(-1, 2), x.roll(1, 3), x.roll(-1, 3)]
        each = torch.stack([self.net(view).softmax(1) for view in views])
        soft = each.mean(0)
        votes = F.one_hot(each.argmax(2), each.shape[2]).sum(0).to(x.dtype) + soft.detach() / 2
        log = soft.log()
        return votes + (log - log.detach())


class Doubtful(Around, Defended):
    """A declared detector: an image is rejected where no logit exceeds 1."""

    rejects = Rejection.DETECTION

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        return F.pad(self.net(x), (0, 1), value=1.0)


class Pair(Around):
    """Two digits side by side, 100 classes: the sum of what a net says of either."""

    def forward(self, x: Tensor) -> Tensor:
        tens, ones = self.net(x[..., :28]), self.net(x[..., 28:])
        return cast(Tensor, (tens[:, :, None] + ones[:, None]).flatten(1))


class ArrayNet:
    """A dense net in NumPy, of which only scores are to be had."""

    def __init__(self, net: nn.Module) -> None:
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        self.layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]

    def __call__(self, images: Array) -> Array:
        (first, shift), (last, bias) = self.layers
        return cast(Array, np.maximum(images.reshape(len(images), -1) @ first.T + shift, 0) @ last.T + bias)


def _around(wrapper: Callable[[nn.Module], nn.Module], threat: str = "linf:0.07", build: Build = _mlp) -> Make:
    """The case of a wrapper around a small trained net."""

    def make(x: Tensor, y: Tensor) -> Case:
        return Case(wrapper(_learnt(build)).eval(), threat=threat)

    return make


def _halves(of: Step, wrapper: Callable[[nn.Module], nn.Module]) -> Make:
    """The case of two classes, `of` the digits, and of what is around the net of two logits."""

    def make(x: Tensor, y: Tensor) -> Case:
        images, labels = _digits()
        net = wrapper(_learnt(partial(_mlp, 2), data=(images, of(labels)))).eval()
        return Case(net, y=of(y), classes=2, threat="linf:0.08")

    return make


def _pairs(x: Tensor, y: Tensor) -> Case:
    """Each image beside the next one: numbers of 0 to 99."""
    pairs, numbers = torch.cat([x, x.roll(1, 0)], 3), 10 * y + y.roll(1, 0)
    return Case(Pair(_learnt(_mlp)).eval(), x=pairs, y=numbers, classes=100, threat="linf:0.05")


def _junk(x: Tensor, y: Tensor) -> Case:
    """Twelve logits: ten digits, noise, and halves of two digits, which an attacked digit may become."""
    images, labels = _digits()
    noise = torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    halves = torch.cat([images[:300, :, :14], images[300:600, :, 14:]], 2)
    more = torch.cat([torch.full((200,), 10), torch.full((300,), 11)])
    net = _learnt(partial(_mlp, 12), data=(torch.cat([images, noise, halves]), torch.cat([labels, more])))
    return Case(net, threat="linf:0.06", classes=10)


def _photographs(x: Tensor, y: Tensor) -> Case:
    """Colour photographs, an undefended PreActResNet, and a ball of a third of a grey level."""
    photographs, classes = load_data("cifar10", n=60, source="bundled")
    return Case(load_model("zoo:cifar10/none"), x=photographs, y=classes, threat="linf:1/765")


def _numpy(x: Tensor, y: Tensor) -> Case:
    """A function on arrays, attacked by scores."""
    return Case(wrap(ArrayNet(_learnt(_mlp)), classes=10), attack=Square(steps=3000), threat="linf:0.07")


def _maxout() -> nn.Module:
    """Linear pieces, of which each unit is the largest of four (Goodfellow et al. 2013)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.MaxPool1d(4), nn.Linear(64, 10))


def _spectral() -> nn.Module:
    """Two spectrally normalised layers, by torch's parametrizations, before a free one."""
    one, two = (parametrizations.spectral_norm(nn.Linear(*size)) for size in ((784, 128), (128, 64)))
    return nn.Sequential(nn.Flatten(), one, nn.ReLU(), two, nn.ReLU(), nn.Linear(64, 10))


def _thousand() -> nn.Module:
    """A head of 1,000 logits, of which ten were ever right."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 1000))


# Beside each: how many of the 60 images are left by PGD of 20 steps (or the case's attack), and by `best` (of the
# function on arrays: by `best` on the same net in torch; of the noise: means over draws).
HONEST: dict[str, Make] = {
    "sigmoids after a convolution": _built(_sigmoid, "linf:0.05", 0.05, lr=5e-3),  # 47, 47
    "depthwise convolutions with gelu": _built(_convnext, "linf:0.1"),  # 41, 40
    "softplus dense net": _built(_softplus, "linf:0.08"),  # 44, 44
    "lenet of tanh and average pools": _built(_lenet, "linf:0.08"),  # 50, 49
    "overlapping max pools": _built(_max_pool, "linf:0.1"),  # 46, 46
    "batch norm and dropout": _built(_batch_norm, "linf:0.1"),  # 50, 49
    "group norm and dilation": _built(_group_norm, "linf:0.1"),  # 54, 54
    "residual net without norms": _built(_residual, "linf:0.1"),  # 55, 55
    "small vision transformer": _built(ViT, "linf:0.01", 0),  # 39, 39
    "one hidden layer": _built(_mlp, "linf:0.07"),  # 49, 49
    "logistic regression": _built(_linear, "linf:0.05", 0.05),  # 46, 46
    "maxout units": _built(_maxout, "linf:0.09"),  # 47, 46
    "spectral norm": _built(_spectral, "linf:0.08"),  # 38, 37
    "radial basis functions": _built(RBF, "linf:0.04"),  # 50, 49
    "five nearest neighbours of each class": lambda x, y: Case(Neighbours().eval(), threat="linf:0.05"),  # 50, 50
    "equilibrium of a contraction": _built(Equilibrium, "linf:0.06"),  # 46, 46
    "float64 inside": _around(lambda net: Between(net.double(), Tensor.double)),  # 49, 49
    "float16 logits": _around(partial(Between, after=Tensor.half), "linf:0.09", _maxout),  # 47, 46
    "bfloat16 inside": _around(lambda net: Between(net.bfloat16(), Tensor.bfloat16), "linf:0.08", _small),  # 55, 55
    "channels last": _built(_channels_last, "linf:0.08", 0.05),  # 49, 48
    "data parallel": _around(nn.DataParallel, "linf:0.04", RBF),  # 50, 49
    "scripted": _around(torch.jit.script, "linf:0.09", _maxout),  # 47, 46
    "traced and frozen": _around(_frozen, "linf:0.08", _softplus),  # 44, 44
    "compiled": _around(lambda net: cast(nn.Module, torch.compile(net, backend="eager"))),  # 49, 49
    "exported program": _exported,  # 47, 46
    "vmap over single images": _around(OneByOne),  # 49, 49
    "autograd function of its own": _built(_by_hand, "linf:0.05", 0.05),  # 55, 55
    "int8 weights": _around(_eight_bit, "linf:0.06"),  # 50, 50
    "pruned by hooks": _around(_pruned, "linf:0.05"),  # 50, 49
    "dict of several outputs": _around(partial(Between, after=_as_dict), "linf:0.08", _softplus),  # 44, 44
    "declared noise": _around(Noised, "linf:0.06"),  # 51.0, 50.6
    "black and white with a surrogate": lambda x, y: Case(
        Deployed(zoo("adversarial_training"), [Binarised()]).eval(), threat="linf:0.3"
    ),  # 57, 56
    "vote of five views with a surrogate": _around(Vote, "linf:0.05"),  # 54, 54
    "declared detector of doubt": _around(Doubtful, "linf:0.05"),  # 55, 54
    "even or odd": _halves(lambda y: y % 2, nn.Sequential),  # 52, 52
    "above four, in one logit": _halves(lambda y: (y > 4).long(), partial(Between, after=_log_odds)),  # 51, 51
    "pairs of digits, 100 classes": _pairs,  # 48, 48
    "1,000 logits for ten classes": _built(_thousand, "linf:0.04", 0.05),  # 48, 48
    "two logits more than classes": _junk,  # 48, 48
    "colour photographs": _photographs,  # 46, 45
    "a function on arrays": _numpy,  # 49, 49
    "dense net in the l2 norm": lambda x, y: Case(_learnt(_mlp), attack=FMN(), threat="l2:1"),  # 46, 45
}
