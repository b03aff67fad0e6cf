"""Training as a defense sees it; training/trainer.py holds the loop itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError
from robustbench_local.core.progress import Progress
from robustbench_local.core.source import Source


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. The learning rate rises linearly for `warmup` of all steps and falls linearly to 0.

    restarts: epochs after which it does so anew, to half the peak before (warm restarts, Loshchilov and Hutter 2017).
    crop: pixels of reflect-padding before a random crop; flip: random mirror images. validation: how many of the last
    training images are held out; `watched` of them meet the recipe's validation attack after every epoch.
    average: the decay, per batch, of an exponential moving average of the weights, which is then what is validated and
    kept (Gowal et al. 2020, arXiv:2010.03593, with 0.995). 0: the weights themselves.
    """

    epochs: int = 15
    batch: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.2
    warmup: float = 0.2
    restarts: tuple[int, ...] = ()
    weight_decay: float = 5e-4
    crop: int = 0
    flip: bool = False
    validation: int = 2000
    watched: int = 500
    average: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adam"):
            raise ConfigError(f'unknown optimizer "{self.optimizer}": sgd or adam')
        for name in ("epochs", "batch", "lr"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be above 0")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup is {self.warmup}: it must be in [0, 1), a share of all steps")
        if not 0 <= self.average < 1:
            raise ConfigError(f"average is {self.average}: it must be in [0, 1), a decay per batch such as 0.995")
        if list(self.restarts) != sorted({epoch for epoch in self.restarts if 0 < epoch < self.epochs}):
            raise ConfigError(f"restarts are {list(self.restarts)}: rising epochs in 1 .. {self.epochs - 1}")

    def rate(self, progress: float) -> float:
        """Share of the peak learning rate at progress in [0, 1]."""
        epoch = progress * self.epochs
        bounds = [0, *self.restarts, self.epochs]
        turn = sum(epoch >= start for start in self.restarts)
        leg = (epoch - bounds[turn]) / (bounds[turn + 1] - bounds[turn])
        rising = leg / self.warmup if self.warmup else 1.0
        return 0.5**turn * max(0.0, min(rising, (1 - leg) / (1 - self.warmup)))


class Recipe:
    """How to train: one loss, or one step. `validate` may report a robust accuracy, and the best epoch is then kept."""

    def at(self, progress: float) -> Recipe:
        """The recipe as it is at this share, in [0, 1], of training: for what is ramped up."""
        return self

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """() mean training loss of a batch; net is in training mode."""
        raise NotImplementedError

    def step(self, net: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer, draws: Draws) -> Tensor:
        """Move the weights on one batch; () the loss to report. Overridden where one loss is not enough."""
        loss = self.loss(net, x, y, draws)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def validate(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> float | None:
        """Robust accuracy on held-out training images in [0, 1], net in evaluation mode; None: nothing to watch."""
        return None


class Trainer(Protocol):
    """What trains a network by a recipe.

    history: of the last fit, one dict per epoch. minutes: the wall time of all fits. blank: there are no images, and
    nothing is trained.
    """

    seed: int
    progress: Progress
    history: list[dict[str, float]]
    minutes: float

    @property
    def blank(self) -> bool: ...
    @property
    def images(self) -> Source: ...

    def beside(self, schedule: Schedule, n: int) -> Trainer:
        """For a network of its own, on the first n of the images."""
        ...

    def fit(self, net: nn.Module, recipe: Recipe, draws: Draws, *, seed: int | None = None) -> nn.Module:
        """net, trained in place and in evaluation mode. seed: of the images' order, by default the trainer's."""
        ...


class NoTraining:
    """Trains nothing: a defense's build then gives what it deploys, made ready for the weights of a checkpoint."""

    blank = True

    def __init__(self) -> None:
        self.seed, self.minutes, self.progress = 0, 0.0, Progress()
        self.history: list[dict[str, float]] = []

    @property
    def images(self) -> Source:
        raise NotImplementedError("there are no training images here")

    def beside(self, schedule: Schedule, n: int) -> NoTraining:
        """Trains nothing either."""
        return self

    def fit(self, net: nn.Module, recipe: Recipe, draws: Draws, *, seed: int | None = None) -> nn.Module:
        """net as it is, in evaluation mode."""
        return net.eval()
