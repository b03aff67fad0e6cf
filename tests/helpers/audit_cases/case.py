"""What a case is, and what most of them are built on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from robustbench_local import load_model
from robustbench_local.core.attack import Attack


@dataclass(frozen=True)
class Case:
    """What is audited: a model, the attack that evaluates it (None: the audit's own), and what it is shown.

    x (N, C, H, W), y (N,): images and labels in place of those that `make` was given. classes: how many the data have.
    """

    model: nn.Module
    attack: Attack | None = None
    x: Tensor | None = None
    y: Tensor | None = None
    classes: int | None = None
    threat: str = "linf:0.3"


Make = Callable[[Tensor, Tensor], Case]


@dataclass(frozen=True)
class Liar:
    """make(x, y): the case. causes: checks that name its fault, of which any one will do."""

    make: Make
    causes: tuple[str, ...]


def zoo(name: str) -> nn.Module:
    """A network of the zoo, of the bundled MNIST weights."""
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


def around(kind: Callable[[nn.Module], nn.Module], *causes: str, base: str = "none") -> Liar:
    return Liar(lambda x, y: Case(kind(zoo(base))), causes)
