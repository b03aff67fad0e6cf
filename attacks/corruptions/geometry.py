"""Moved, turned, stretched, bent. What comes in from outside is black, but for the elastic one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_local.attacks.corruptions._papers import CIFAR_10_C, MNIST_C, MU_GILMER
from robustbench_local.attacks.corruptions._sampling import about_the_middle, pixels, sample
from robustbench_local.attacks.corruptions._two_sets import OfTwoSets
from robustbench_local.attacks.corruptions.blur import blurred
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.draws import Draws


@dataclass(frozen=True)
class ElasticTransform(OfTwoSets):
    """Three points moved at random and the image with them (mirrored outside); then every pixel by a smooth field.

    levels: (how far the field moves, sigma it is blurred by, how far the points move), for a side of 32; in proportion
    for others.
    """

    benchmark: ClassVar[str] = CIFAR_10_C
    summary: ClassVar[str] = "bent like rubber"
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (
        (0, 0, 2.56),
        (1.6, 6.4, 2.24),
        (2.56, 1.92, 1.92),
        (3.2, 1.28, 1.6),
        (3.2, 0.96, 0.96),
    )
    imagenet: ClassVar[tuple[Any, ...]] = tuple(
        tuple(share * 244 * 32 / 224 for share in shares)  # the published slip: 244 pixels for a side of 224
        for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    )

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        reach, sigma, corner = (value * min(x.shape[2:]) / 32 for value in self.level)
        rows, columns = self._affine(x, corner, draws)
        x = sample(x, rows, columns, "mirror")
        if not reach:
            return x
        field = (2 * draws.uniform(2, *x.shape[2:]) - 1).to(x)
        down, right = (reach * blurred(field, sigma, "reflect", truncate=3)).unbind(1)
        rows, columns = pixels(x)
        return sample(x, rows + down, columns + right, "reflect")

    def _affine(self, x: Tensor, reach: float, draws: Draws) -> tuple[Tensor, Tensor]:
        """(rows, columns), each (N, H, W): what the map of the moved points to the points makes of the pixels."""
        height, width = x.shape[2:]
        side = max(1, min(height, width) // 3)
        middle = (height // 2, width // 2)
        corners = [(side, side), (-side, side), (-side, -side)]
        points = x.new_tensor([[middle[0] + down, middle[1] + right] for down, right in corners])
        moved = points + (2 * draws.uniform(3, 2).to(x) - 1) * reach
        ones = moved.new_ones(len(x), 3, 1)
        back = torch.linalg.solve(torch.cat([moved, ones], 2), points.expand(len(x), -1, -1))  # (N, 3, 2)
        rows, columns = pixels(x)
        first, second = (
            back[:, 0, i, None, None] * rows + back[:, 1, i, None, None] * columns + back[:, 2, i, None, None]
            for i in range(2)
        )
        return first, second


@dataclass(frozen=True)
class Shear(Corruption):
    """Sheared about its middle, to the left or to the right. levels: radians; MNIST-C is severity 2."""

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "sheared"
    paper: ClassVar[str] = MU_GILMER
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.2, 0.4, 0.6, 0.8, 1.0)

    severity: int = 2

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        angle = self.level * _sign(x, draws)
        matrix = _matrix(torch.ones_like(angle), -angle.sin(), torch.zeros_like(angle), angle.cos())
        return sample(x, *about_the_middle(x, matrix))


@dataclass(frozen=True)
class Rotate(Corruption):
    """Turned about its middle, either way. levels: radians; MNIST-C is severity 2."""

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "turned"
    paper: ClassVar[str] = MU_GILMER
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.2, 0.4, 0.6, 0.8, 1.0)

    severity: int = 2

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        angle = self.level * _sign(x, draws)
        return sample(x, *about_the_middle(x, _matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos())))


@dataclass(frozen=True)
class Scale(Corruption):
    """Shrunk about its middle. levels: the new size over the old; MNIST-C is severity 3."""

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "shrunk"
    paper: ClassVar[str] = MU_GILMER
    version: ClassVar[int] = 2
    levels: ClassVar[tuple[Any, ...]] = (0.9, 0.8, 0.7, 0.6, 0.5)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        matrix = torch.eye(2, dtype=x.dtype, device=x.device) / self.level
        return sample(x, *about_the_middle(x, matrix.expand(len(x), 2, 2)))


@dataclass(frozen=True)
class Translate(Corruption):
    """Shifted as far sideways as up or down, either way. levels: pixels of 28; MNIST-C is severity 3.

    Larger images move in proportion, by whole pixels.
    """

    benchmark: ClassVar[str] = MNIST_C
    summary: ClassVar[str] = "shifted"
    paper: ClassVar[str] = MU_GILMER
    levels: ClassVar[tuple[Any, ...]] = (1, 2, 3, 4, 5)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        reach = [round(self.level * length / 28) for length in x.shape[2:]]
        ways = 2 * draws.integers(2, 2) - 1
        rows, columns = pixels(x)
        down, right = (way[:, None, None] * length for way, length in zip(ways.unbind(1), reach, strict=True))
        return sample(x, rows + down, columns + right)


@dataclass(frozen=True)
class Perspective(Corruption):
    """Seen at a slant: each corner moved inwards or outwards. levels: how far at most, as a share of the side."""

    summary: ClassVar[str] = "seen at a slant"
    levels: ClassVar[tuple[Any, ...]] = (0.05, 0.1, 0.15, 0.2, 0.25)

    def corrupt(self, x: Tensor, draws: Draws) -> Tensor:
        corner = x.new_tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]])
        moved = corner * (1 + 2 * self.level * (2 * draws.uniform(4, 2).to(x) - 1))
        (u, v), (p, q) = moved.unbind(2), corner.unbind(1)  # the corners' places, and what is to be seen there
        zero, one = torch.zeros_like(u), torch.ones_like(u)
        p, q = p.expand_as(u), q.expand_as(u)
        system = torch.cat(
            [
                torch.stack([u, v, one, zero, zero, zero, -u * p, -v * p], 2),
                torch.stack([zero, zero, zero, u, v, one, -u * q, -v * q], 2),
            ],
            1,
        )
        h = torch.linalg.solve(system, torch.cat([p, q], 1))[..., None, None]
        rows, columns = pixels(x)
        half = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
        down, right = rows / half[0] - 1 if half[0] else rows, columns / half[1] - 1 if half[1] else columns
        depth = h[:, 6] * down + h[:, 7] * right + 1
        seen = ((h[:, k] * down + h[:, k + 1] * right + h[:, k + 2]) / depth for k in (0, 3))
        return sample(x, *((place + 1) * length for place, length in zip(seen, half, strict=True)))


def _sign(x: Tensor, draws: Draws) -> Tensor:
    """(N,): -1 or 1 with equal chance."""
    return (2 * draws.integers(2) - 1).to(x)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """(N, 2, 2)."""
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)
