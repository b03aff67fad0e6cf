"""Training runs of seconds, on digits: what they learn, say, and leave behind when they are killed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from robustbench_local.core.draws import Draws
from robustbench_local.core.progress import Progress
from robustbench_local.core.training import Recipe, Schedule
from robustbench_local.data.images import Images
from robustbench_local.data.load import open_data
from robustbench_local.training.trainer import TrainingLoop

TINY = Schedule(epochs=3, batch=32, optimizer="adam", lr=2e-3, weight_decay=0.0, validation=40, watched=16)


def digits(n: int, split: str = "train") -> Images:
    """Of the bundled MNIST images."""
    return open_data("mnist", split=split, source="bundled", n=n)


def tiny_net() -> nn.Sequential:
    """With batch statistics, so that they must be saved too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 4, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 10)
        )


def fit(
    recipe: Recipe,
    schedule: Schedule = TINY,
    *,
    images: Images | None = None,
    net: nn.Module | None = None,
    folder: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[nn.Module, TrainingLoop]:
    """(the trained network, its trainer)."""
    images = digits(200) if images is None else images
    net = tiny_net() if net is None else net
    trainer = TrainingLoop(images, schedule, seed=seed, folder=folder, progress=progress or Progress())
    return trainer.fit(net, recipe, Draws(seed, images.ids[:1]).stream("train")), trainer


def assert_equal_weights(one: nn.Module, other: nn.Module, equal: bool = True) -> None:
    same = [torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()]
    assert all(same) if equal else not all(same)


class Lines(Progress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


class Killed(Progress):
    """Ends the run in the middle of an epoch, as Ctrl-C would."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.calls = epoch, 0

    def advance(self, what: str, share: float) -> None:
        self.calls += what.startswith(f"epoch {self.epoch}/")
        if self.calls == 3:
            raise KeyboardInterrupt


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(1) == y).double().mean())
