"""The networks of the house. Each takes pixels in [0, 1] and returns logits; normalisation is inside.

preact_small       PreActResNet of at most 0.3 M parameters, for CIFAR-10 on two CPU cores
preact_resnet18    He et al. 2016 (identity mappings), widths 64-512
wide_resnet28_10   Zagoruyko and Komodakis 2016, without dropout
madry_cnn          Madry et al. 2018, MNIST: conv 32, 64 (5x5), FC 1024
trades_cnn         Zhang et al. 2019, MNIST: conv 32, 32, 64, 64 (3x3), FC 200, 200
fast_cnn           Wong et al. 2020, MNIST: conv 16, 32 (4x4, stride 2), FC 100
mnist_small        fast_cnn with twice the channels and FC 80, for MNIST on two CPU cores
cifar10_strided    conv 32, 48, 64 (4x4, stride 2) with batch norm, FC 48, for certified training on CIFAR-10
defense_gan_a .. d Samangouei et al. 2018, MNIST: the oracles of its black-box table, see defense_gan.py
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.config.arguments import checked
from robustbench_local.config.ranges import Finite, Positive
from robustbench_local.core.errors import ConfigError
from robustbench_local.models import defense_gan

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_STD = (0.24703223, 0.24348513, 0.26158784)


class Normalise(nn.Module):
    """(x - mean) / std per channel; the constants travel with the checkpoint."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@checked()
def normalised(net: nn.Module, mean: Sequence[Finite], std: Sequence[Positive]) -> nn.Sequential:
    """net behind a Normalise, so that it takes pixels in [0, 1]. mean and std: a value per channel, in these units."""
    if len(mean) != len(std) or not mean:
        raise ConfigError(f"mean has {len(mean)} values and std {len(std)}: give one of each per channel")
    if min(mean) > 1 and min(std) > 1:
        raise ConfigError(f"mean {mean} and std {std} look like grey levels of 0 .. 255: divide both by 255")
    return nn.Sequential(OrderedDict(normalise=Normalise(mean, std), net=net))


class PreActBlock(nn.Module):
    """BN-ReLU-conv, twice, beside a shortcut taken after the first activation where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = inputs == width and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return out + shortcut


class PreActResNet(nn.Module):
    """A 3x3 stem, stages of PreActBlocks, BN-ReLU, global average, linear."""

    def __init__(
        self, stem: int, widths: Sequence[int], blocks: Sequence[int], strides: Sequence[int], classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        stages: list[nn.Module] = []
        inputs = stem
        for width, count, stride in zip(widths, blocks, strides, strict=True):
            for place in range(count):
                stages.append(PreActBlock(inputs, width, stride if place == 0 else 1))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # on a CPU 3/4 of the time

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stages(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def preact_small() -> nn.Module:
    net = PreActResNet(24, (64, 112), (1, 1), (2, 2))
    return normalised(net, CIFAR10_MEAN, CIFAR10_STD)


def preact_resnet18() -> nn.Module:
    net = PreActResNet(64, (64, 128, 256, 512), (2, 2, 2, 2), (1, 2, 2, 2))
    return normalised(net, CIFAR10_MEAN, CIFAR10_STD)


def wide_resnet28_10() -> nn.Module:
    net = PreActResNet(16, (160, 320, 640), (4, 4, 4), (1, 2, 2))
    return normalised(net, CIFAR10_MEAN, CIFAR10_STD)


def madry_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    )


def trades_cnn() -> nn.Module:
    features = OrderedDict(
        conv1=nn.Conv2d(1, 32, 3),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(32, 32, 3),
        relu2=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 3),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(64, 64, 3),
        relu4=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
    )
    classifier = OrderedDict(
        fc1=nn.Linear(1024, 200), relu1=nn.ReLU(), fc2=nn.Linear(200, 200), relu2=nn.ReLU(), fc3=nn.Linear(200, 10)
    )
    return nn.Sequential(OrderedDict(feature_extractor=nn.Sequential(features), classifier=nn.Sequential(classifier)))


def lenet5() -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling for (3, 32, 32): 62,006 weights."""
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        pool,
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        pool,
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def _strided_cnn(first: int, second: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, first, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * 7 * 7, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def fast_cnn() -> nn.Module:
    return _strided_cnn(16, 32, 100)


def mnist_small() -> nn.Module:
    return _strided_cnn(32, 64, 80)


def cifar10_strided() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, width in ((3, 32), (32, 48), (48, 64)):
        layers += [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 48), nn.ReLU(), nn.Linear(48, 10))
    return normalised(net, CIFAR10_MEAN, CIFAR10_STD)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "preact_small": preact_small,
    "preact_resnet18": preact_resnet18,
    "wide_resnet28_10": wide_resnet28_10,
    "madry_cnn": madry_cnn,
    "trades_cnn": trades_cnn,
    "lenet5": lenet5,
    "fast_cnn": fast_cnn,
    "mnist_small": mnist_small,
    "cifar10_strided": cifar10_strided,
    "defense_gan_a": defense_gan.network_a,
    "defense_gan_b": defense_gan.network_b,
    "defense_gan_c": defense_gan.network_c,
    "defense_gan_d": defense_gan.network_d,
}
