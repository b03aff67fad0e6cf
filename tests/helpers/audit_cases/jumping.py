"""Models that jump between neighbouring images: some hide where the loss rises, some only round their input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.core.defense import Defended, call, draws_for
from robustbench_local.core.draws import Draws
from tests.helpers.audit_cases.case import Case, Liar, Make, zoo

JUMPS = "gradients are true"


class KWinners(nn.Module):
    """Only the largest activations pass (k-winners-take-all, Xiao et al. 2020, arXiv:1905.10510)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), 1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


def of_winners(share: float) -> nn.Module:
    net = zoo("none")
    for name, part in list(net.named_children()):
        if isinstance(part, nn.ReLU):
            setattr(net, name, KWinners(share))
    return net


def seeded(image: Tensor) -> torch.Generator:
    """A generator that any change of the image seeds anew."""
    weighed = float((image.detach().double() * torch.arange(image.numel()).view_as(image)).sum())
    return torch.Generator().manual_seed(int(1e4 * weighed))


class SelfSeededNoise(nn.Module):
    """Noise that a hash of the image seeds: the same image has the same answer, its neighbour another."""

    def __init__(self, net: nn.Module, size: float) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.stack([torch.randn(image.shape, generator=seeded(image)) for image in x])
        out: Tensor = self.net(x + self.size * noise)
        return out


class PixelDeflection(nn.Module):
    """A hundred pixels take the place of others, and a hash of the image says which."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(torch.stack([self.deflected(image) for image in x]))
        return out

    def deflected(self, image: Tensor) -> Tensor:
        dice = seeded(image)
        there, here = (torch.randint(image.numel(), (100,), generator=dice) for _ in range(2))
        return image.flatten().index_copy(0, there, image.flatten()[here]).view_as(image)


class StraightThrough(torch.autograd.Function):
    """Rounding, and the gradient of none (Bengio et al. 2013, arXiv:1308.3432)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        return (x * levels).round() / levels

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Rounding(nn.Module):
    """Pixels of so many levels."""

    def __init__(self, net: nn.Module, levels: int) -> None:
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(StraightThrough.apply(x, self.levels))  # type: ignore[no-untyped-call]
        return out


class HalfLogits(nn.Module):
    """Logits of float16, as from a server."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x).half().float()
        return out


class RandomCrop(Defended):
    """Moved by up to two pixels, and declared."""

    stochastic = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        dice = draws_for(x, draws)
        down, across = (dice.integers(5, 1)[:, 0].tolist() for _ in range(2))
        wide = nn.functional.pad(x, (2, 2, 2, 2))
        height, width = x.shape[2:]
        moved = [wide[k, :, a : a + height, b : b + width] for k, (a, b) in enumerate(zip(down, across, strict=True))]
        return call(self.net, torch.stack(moved), None)


class MoreLogits(nn.Module):
    """A thousand logits, of which ten may win."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return torch.cat([logits, logits[:, :1].expand(-1, 990) - 50], 1)


LIARS: dict[str, Liar] = {
    "k winners take all": Liar(lambda x, y: Case(of_winners(0.1)), (JUMPS,)),
    "noise seeded by the image": Liar(lambda x, y: Case(SelfSeededNoise(zoo("none"), 0.1)), (JUMPS,)),
    "noise seeded by the image, trained": Liar(
        lambda x, y: Case(SelfSeededNoise(zoo("adversarial_training"), 0.2)), (JUMPS,)
    ),
    "pixel deflection": Liar(lambda x, y: Case(PixelDeflection(zoo("none"))), (JUMPS,)),
}

HONEST: dict[str, Make] = {
    "8-bit input, straight through": lambda x, y: Case(Rounding(zoo("adversarial_training"), 255)),
    "16 levels, straight through": lambda x, y: Case(Rounding(zoo("none"), 15)),
    "logits of float16": lambda x, y: Case(HalfLogits(zoo("none"))),
    "random crop, declared": lambda x, y: Case(RandomCrop(zoo("adversarial_training"))),
    "a thousand logits": lambda x, y: Case(MoreLogits(zoo("none"))),
    "a thousand logits for ten classes": lambda x, y: Case(MoreLogits(zoo("none")), classes=10),
}
