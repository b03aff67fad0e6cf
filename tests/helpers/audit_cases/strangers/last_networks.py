"""Honest models of 20 unusual forms, most of them trained here in a few seconds.

Beside each, of 60 images: right when clean, robust under PGD of 20 steps, robust under `best` at effort 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local import load_data
from robustbench_local.core.model_state import evaluating, seeded
from tests.helpers.audit_cases.case import Case, Make, zoo
from tests.helpers.audit_cases.trained import trained

Data = tuple[Tensor, Tensor]
DIGITS = torch.zeros(4, 1, 28, 28)  # to trace with


def _train() -> Data:
    """The 2,000 bundled training images."""
    x, y = load_data("mnist", split="train", n=2000, source="bundled")
    return x, y


@dataclass(frozen=True)
class Fit:
    """What `build` makes, from first weights that are always the same, trained within eps, and then wrapped.

    change: what becomes of images and labels, of training and test alike.
    """

    build: Callable[[], nn.Module]
    eps: float
    threat: str
    wrap: Callable[[nn.Module], nn.Module] = evaluating
    change: Callable[[Tensor, Tensor], Data] | None = None
    classes: int | None = None
    epochs: int = 8
    lr: float = 2e-3

    def __call__(self, x: Tensor, y: Tensor) -> Case:
        data = _train()
        with seeded(17):
            own = self.change(*data) if self.change else data
            net = trained(self.build(), eps=self.eps, data=own, epochs=self.epochs, lr=self.lr)
        x, y = self.change(x, y) if self.change else (x, y)
        return Case(evaluating(self.wrap(net)), None, x, y, self.classes, self.threat)


def mlp(kind: type[nn.Module] = nn.ReLU, hidden: int = 128, classes: int = 10, drop: float = 0.0) -> nn.Module:
    """Two layers with an activation of this kind between them."""
    layers = [nn.Linear(784, hidden), kind(), nn.Dropout(drop), nn.Linear(hidden, classes)]
    return nn.Sequential(nn.Flatten(), *layers)


class Around(nn.Module):
    """A network with something around it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Cast(Around):
    """A network cast to another precision, in which its logits stay."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(net.to(dtype))
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x.to(self.dtype)))


class Bfloat16Trunk(nn.Module):
    """A first layer in bfloat16, as autocast would have it, and a head in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.norm, self.head = nn.Linear(784, 128), nn.LayerNorm(128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(x.flatten(1).bfloat16(), self.trunk.weight.bfloat16(), self.trunk.bias.bfloat16())
        return cast(Tensor, self.head(F.silu(self.norm(hidden.float()))))


class Residual(nn.Module):
    """A convolutional residual block with group norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.b(F.elu(self.a(self.norm(x)))))


class ChannelsLast(nn.Module):
    """Residual blocks on images in channels-last layout."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 16, 4, stride=4), Residual(16), Residual(16), nn.ELU(), nn.AvgPool2d(2, ceil_mode=True)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x.contiguous(memory_format=torch.channels_last)))


class SqueezeExcite(nn.Module):
    """Convolutions whose channels are weighed by a small network of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 24, 5, stride=3)
        self.mix = nn.Sequential(nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 24))
        self.head = nn.Linear(24 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = F.leaky_relu(self.conv(x), 0.1)
        weight = self.mix(maps.mean((2, 3))).sigmoid()[:, :, None, None]
        return cast(Tensor, self.head((maps * weight).flatten(1)))


class AsDict(Around):
    """A network that answers a dict, as those of transformers do: logits, and their mean beside them."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"bias": logits.mean(1), "logits": logits}


class PatchAttention(nn.Module):
    """A small vision transformer: 16 patches, one layer of two heads, mean pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.place = nn.Conv2d(1, 32, 7, stride=7), nn.Parameter(0.1 * torch.randn(16, 32))
        self.attend, self.norm = nn.MultiheadAttention(32, 2, batch_first=True), nn.LayerNorm(32)
        self.mlp, self.head = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)), nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        seen = self.norm(tokens)
        tokens = tokens + self.attend(seen, seen, seen, need_weights=False)[0]
        return cast(Tensor, self.head((tokens + self.mlp(self.norm(tokens))).flatten(1)))


class AsTuple(Around):
    """A network that answers a tuple: logits, and what it would say with certainty."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(x)
        return logits, logits.softmax(1).amax(1)


class RowReader(nn.Module):
    """A GRU that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(28, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.gru(x[:, 0])[0].mean(1))
        return out


class KernelRidge(nn.Module):
    """Kernel ridge regression with a Gaussian kernel on 600 training images, solved in closed form."""

    anchors: Tensor
    weight: Tensor

    def __init__(self, x: Tensor, y: Tensor, width: float = 7.0) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("anchors", x.flatten(1))
        kernel = self.kernel(x).double() + 0.05 * torch.eye(len(x))
        self.register_buffer("weight", torch.linalg.solve(kernel, F.one_hot(y, 10).double() - 0.1).float())

    def kernel(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        apart = flat.square().sum(1)[:, None] + self.anchors.square().sum(1) - 2 * flat @ self.anchors.T
        return (-apart / (2 * self.width**2)).exp()

    def forward(self, x: Tensor) -> Tensor:
        return 10 * self.kernel(x) @ self.weight


def kernel_ridge(x: Tensor, y: Tensor) -> Case:
    """Kernel ridge regression, attacked in L2."""
    images, labels = _train()
    return Case(evaluating(KernelRidge(images[:600], labels[:600])), threat="l2:1")


class Prototypes(nn.Module):
    """Five learnt images a class; a class's logit is the soft nearest one's negative distance."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        own = [x[y == k][:5].flatten(1) for k in range(10)]
        self.images = nn.Parameter(torch.cat(own).clone())

    def forward(self, x: Tensor) -> Tensor:
        apart = (x.flatten(1)[:, None] - self.images).square().sum(2) / 10
        return cast(Tensor, (-apart).unflatten(1, (10, 5)).logsumexp(2))


class Quadratic(nn.Module):
    """A quadratic form of low rank a class, and a linear part."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.factor = nn.Linear(784, 10), nn.Linear(784, 60, bias=False)
        self.sign = nn.Parameter(0.1 * torch.randn(60, 10))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return cast(Tensor, self.linear(flat) + self.factor(flat).square() @ self.sign)


class Mixture(nn.Module):
    """Four experts of 32 units and a softmax gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(784, 4), nn.ModuleList(mlp(hidden=32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        share = self.gate(x.flatten(1)).softmax(1)
        answers = torch.stack([expert(x) for expert in self.experts], 2)
        return cast(Tensor, (answers * share[:, None]).sum(2))


class Mixer(nn.Module):
    """An MLP mixer: rows and columns are mixed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns, self.norm = nn.Linear(28, 28), nn.Linear(28, 28), nn.LayerNorm([28, 28])
        self.head = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        mixed = x[:, 0] + F.mish(self.rows(x[:, 0]))
        mixed = mixed + F.mish(self.columns(mixed.transpose(1, 2))).transpose(1, 2)
        return cast(Tensor, self.head(self.norm(mixed).flatten(1)))


class Numbers(Around):
    """Numbers of several digits side by side: the logit of a number is the sum of its digits' log probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(len(x), 1)
        for part in x.split(28, dim=3):
            own = self.net(part.contiguous()).log_softmax(1)
            out = (out[:, :, None] + own[:, None]).flatten(1)
        return out


def three_digits(x: Tensor, y: Tensor) -> Case:
    """Numbers of three digits, 1,000 classes, on a robust network."""
    wide, number = torch.cat([x, x.roll(1, 0), x.roll(2, 0)], 3), 100 * y + 10 * y.roll(1) + y.roll(2)
    return Case(evaluating(Numbers(zoo("adversarial_training"))), x=wide, y=number, classes=1000, threat="linf:0.2")


class Retrieval(nn.Module):
    """Which of the anchors is it? Logits are cosines with each of them, times thirty."""

    anchors: Tensor

    def __init__(self, anchors: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors", self.features(anchors))

    def features(self, x: Tensor) -> Tensor:
        blurred = F.avg_pool2d(x, 3, stride=1, padding=1).flatten(1)
        return F.normalize(blurred - blurred.mean(1, keepdim=True), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return 30 * self.features(x) @ self.anchors.T


def retrieval(x: Tensor, y: Tensor) -> Case:
    """100 classes of one image each: the given images, noisy, are to be found among them and training images."""
    anchors = torch.cat([x, _train()[0]])[:100]
    noisy = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    return Case(evaluating(Retrieval(anchors)), x=noisy, y=torch.arange(len(x)), classes=100, threat="l2:1.5")


class Gaussians(nn.Module):
    """Quadratic discriminant analysis in 30 principal components: logits are log densities, fitted in closed form."""

    mean: Tensor
    basis: Tensor
    centres: Tensor
    roots: Tensor
    volumes: Tensor

    def __init__(self, x: Tensor, y: Tensor, classes: int) -> None:
        super().__init__()
        flat = x.flatten(1).double()
        mean = flat.mean(0)
        basis = torch.linalg.eigh((flat - mean).T @ (flat - mean))[1][:, -30:]
        own = [((flat - mean) @ basis)[y == k] for k in range(classes)]
        roots = torch.stack([torch.linalg.cholesky((part.T.cov() + 0.1 * torch.eye(30)).inverse()) for part in own])
        self.register_buffer("mean", mean.float())
        self.register_buffer("basis", basis.float())
        self.register_buffer("centres", torch.stack([part.mean(0) for part in own]).float())
        self.register_buffer("roots", roots.float())
        self.register_buffer("volumes", roots.diagonal(dim1=1, dim2=2).log().sum(1).float())

    def forward(self, x: Tensor) -> Tensor:
        apart = ((x.flatten(1) - self.mean) @ self.basis)[:, None] - self.centres
        return self.volumes - torch.einsum("nki,kij->nkj", apart, self.roots).square().sum(2) / 2


def gaussians(x: Tensor, y: Tensor) -> Case:
    """Five classes of two digits each, by Gaussian densities."""
    images, labels = _train()
    return Case(evaluating(Gaussians(images, labels // 2, 5)), x=x, y=y // 2, classes=5, threat="l2:0.7")


class OneLogit(Around):
    """One logit an image, (N, 1): that of class 1 less that of class 0."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x).diff(dim=1))


def prototypes(x: Tensor, y: Tensor) -> Case:
    """Learnt prototypes with a soft minimum of distances."""
    images, labels = _train()
    return Case(trained(Prototypes(images, labels)), threat="l2:1")


def linear() -> nn.Module:
    """One linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def batch_norm() -> nn.Module:
    """Convolution, batch norm and max pooling."""
    front = [nn.Conv2d(1, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(2)]
    return nn.Sequential(*front, nn.Flatten(), nn.Linear(576, 10))


def instance_norm() -> nn.Module:
    """Convolution of three colours, instance norm and mean pooling."""
    front = [nn.Conv2d(3, 16, 5, stride=3), nn.InstanceNorm2d(16, affine=True), nn.PReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*front, nn.Flatten(), nn.Linear(256, 10))


def spectral() -> nn.Module:
    """A first layer under spectral norm, for images of 14 x 14 pixels."""
    hidden = nn.utils.parametrizations.spectral_norm(nn.Linear(196, 128))
    return nn.Sequential(nn.Flatten(), hidden, nn.Softsign(), nn.Linear(128, 10))


def small(x: Tensor, y: Tensor) -> Data:
    """Images of 14 x 14 pixels."""
    return F.avg_pool2d(x, 2), y


def tinted(x: Tensor, y: Tensor) -> Data:
    """Digits in colours of their own, (N, 3, 28, 28)."""
    dice = torch.Generator().manual_seed(len(x))
    return x * (0.4 + 0.6 * torch.rand(len(x), 3, 1, 1, generator=dice)), y


def odd(x: Tensor, y: Tensor) -> Data:
    """Two classes: even, odd."""
    return x, y % 2


def frozen(net: nn.Module) -> nn.Module:
    """As TorchScript whose weights are constants."""
    return cast(nn.Module, torch.jit.freeze(torch.jit.script(net.eval())))


def exported(net: nn.Module) -> nn.Module:
    """As torch.export gives it back."""
    shapes = {"x": {0: torch.export.Dim("n", min=1, max=65536)}}
    return torch.export.export(net, (DIGITS,), dynamic_shapes=shapes).module()


def compiled(net: nn.Module) -> nn.Module:
    """As torch.compile has it, without a compiler of C++."""
    return cast(nn.Module, torch.compile(net, backend="eager", dynamic=True))


HONEST: dict[str, Make] = {
    "gelu in float16": Fit(partial(mlp, nn.GELU), 0.1, "linf:0.08", partial(Cast, dtype=torch.float16)),  # 58, 45, 45
    "bfloat16 trunk, float32 head": Fit(Bfloat16Trunk, 0.1, "linf:0.1"),  # 58, 32, 31
    "channels last with group norm, exported": Fit(ChannelsLast, 0.15, "linf:0.12", exported, epochs=6),  # 59, 34, 33
    "squeeze and excitation in a dict": Fit(SqueezeExcite, 0.1, "linf:0.1", AsDict),  # 56, 38, 36
    "attention over patches in a tuple": Fit(PatchAttention, 0.05, "linf:0.06", AsTuple, epochs=6),  # 57, 46, 44
    "gru over rows, scripted": Fit(RowReader, 0.0, "linf:0.03", torch.jit.script, epochs=10, lr=6e-3),  # 55, 34, 33
    "kernel ridge regression": kernel_ridge,  # 57, 38, 36
    "soft nearest prototypes": prototypes,  # 55, 39, 38
    # 55, 46, 46
    "one linear layer, traced": Fit(linear, 0.05, "linf:0.05", partial(torch.jit.trace, example_inputs=DIGITS)),
    "quadratic logits in float64": Fit(Quadratic, 0.08, "linf:0.08", partial(Cast, dtype=torch.float64)),  # 59, 44, 42
    "mixture of experts in dataparallel": Fit(Mixture, 0.1, "linf:0.1", nn.DataParallel),  # 59, 38, 36
    "batch norm, frozen": Fit(batch_norm, 0.15, "linf:0.12", frozen),  # 59, 45, 43
    "mixer, compiled": Fit(Mixer, 0.05, "linf:0.05", compiled),  # 56, 47, 47
    # 58, 44, 44
    "odd or even by one logit": Fit(partial(mlp, nn.Tanh, classes=2), 0.08, "linf:0.08", OneLogit, odd, 2),
    "three digits, 1,000 classes": three_digits,  # 60, 54, 54
    "one image of 100, by cosines": retrieval,  # 60, 54, 53
    "five classes by gaussian densities": gaussians,  # 58, 51, 51
    "letters that never come": Fit(partial(mlp, nn.SELU, classes=26, drop=0.2), 0.05, "linf:0.04"),  # 55, 48, 47
    "14 x 14 pixels, spectral norm": Fit(spectral, 0.05, "linf:0.05", change=small, epochs=16),  # 53, 46, 45
    "coloured digits, instance norm": Fit(instance_norm, 0.06, "linf:0.04", change=tinted),  # 58, 47, 47
}
