"""Whether a model is at chance on clean images, and what it may have been made for instead: other pixels, or labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from robustbench_local.core.decision import correct
from robustbench_local.metrics.paired import mcnemar
from robustbench_local.metrics.rates import wilson

FEW = 16  # images: of fewer nothing is said, since good models may be unlucky on a handful
RISK = 0.05 / 16  # of taking luck for another range of pixels: 9 images better and none worse are enough
LEAST = 9
LEFT = 0.25  # of the skill: who has less of what other pixels would give is called at chance
STATISTICS: dict[int, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    1: {"MNIST": ((0.1307,), (0.3081,))},
    3: {
        "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    },
}

Pixels = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CleanScore:
    """How many of n clean images a model has right.

    chance: how often its answers, dealt out to the images at random, would be right, as in Cohen's kappa (1960): 1 / K
    of balanced answers, the share of its class of a model that always says the same.
    """

    right: int
    n: int
    chance: float

    @classmethod
    def of(cls, predicted: Tensor, right: Tensor, y: Tensor, classes: int) -> CleanScore:
        """predicted (n,): the classes it names; right (n,) bool; y (n,) labels in 0 .. classes-1."""
        size = max(classes, int(predicted.max()) + 1)
        shares = [torch.bincount(each, minlength=size).cpu().double() / len(y) for each in (predicted, y)]
        return cls(int(right.sum()), len(y), max(float(shares[0] @ shares[1]), 1 / classes))

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def at_chance(self) -> bool:
        """Its 95 % interval (Wilson) holds chance, and ends before a quarter of the way from there to 1."""
        low, high = wilson(self.right, self.n)
        return self.n >= FEW and low <= self.chance and high - self.chance < (1 - self.chance) / 4

    def skill(self, right: int) -> float:
        """Of so many right answers: 0 at chance, 1 where all are right."""
        return max(0.0, (right / self.n - self.chance) / max(1 - self.chance, 1e-9))

    def __str__(self) -> str:
        low, high = (100 * each for each in wilson(self.right, self.n))
        share = f"{100 * self.accuracy:.1f} % (95 %: {low:.1f}-{high:.1f})"
        return f"right on {self.right} of {self.n} clean images, {share}, where chance gives {100 * self.chance:.1f} %"


@dataclass(frozen=True)
class Other:
    """What would have suited the model better: how, what to do, and on how many of the images it is then right."""

    what: str
    advice: str
    right: int
    p: float


def ranges(x: Tensor) -> Iterator[tuple[str, str, Pixels]]:
    """(name, advice, pixels) of what a model may expect instead of images x (n, C, H, W) in [0, 1]."""
    wrap = "wrap it, robustbench_local.normalised(net, {}, {})"
    undo = "take that out"
    one = x.shape[1]
    yield "pixels in [0, 255]", wrap.format([0.0] * one, f"[1 / 255] * {one}"), lambda z: 255 * z
    yield "pixels divided by 255 once more", f"it multiplies what is not in [0, 255]: {undo}", lambda z: z / 255
    yield "pixels in [-1, 1]", wrap.format([0.5] * one, [0.5] * one), lambda z: 2 * z - 1
    yield "[-1, 1] made [0, 1] once more", f"it is normalised twice: {undo}", lambda z: (z + 1) / 2
    mean, std = x.mean(), x.std().clamp_min(1e-6)
    advice = wrap.format([round(float(mean), 4)] * one, [round(float(std), 4)] * one)
    yield "pixels of mean 0 and deviation 1", advice, lambda z: (z - mean) / std
    for name, about in STATISTICS.get(one, {}).items():
        m, s = (x.new_tensor(each).view(-1, 1, 1) for each in about)
        yield f"{name}'s mean and deviation", wrap.format(*map(list, about)), partial(_scaled, mean=m, std=s)
        twice = f"it is normalised twice: {undo}"
        yield f"one normalisation ({name}'s) undone", twice, partial(_scaled, mean=-m / s, std=1 / s)
    yield "black and white exchanged", "let the model compute 1 - x first", lambda z: 1 - z
    if one == 3:
        yield "channels in the order BGR", "let the model flip the channels, x.flip(1)", lambda z: z.flip(1)
    if x.shape[2] == x.shape[3]:
        yield "height and width exchanged", "let the model transpose, x.mT", lambda z: z.mT


def _scaled(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (x - mean) / std


def below(clean: Tensor, declared: float | None) -> bool:
    """Whether clean accuracy, of clean (N,) bool, is certainly less than was declared: beyond its 95 % interval."""
    return declared is not None and wilson(int(clean.sum()), len(clean))[1] < declared


def better_range(x: Tensor, right: Tensor, ask: Callable[[Tensor], Tensor], most: int | None = None) -> Other | None:
    """What suits the model best, where that is better than chance (exact McNemar); None where nothing is, or could be.

    right (n,) bool on the images x themselves; ask: the same of other pixels. most: how many are tried.
    """
    found = []
    if int((~right).sum()) >= LEAST:
        for name, advice, pixels in [*ranges(x)][:most]:
            try:
                found.append(_other(f"with {name}", advice, ask(pixels(x)), right))
            except (RuntimeError, ValueError, ArithmeticError, IndexError, AssertionError):
                continue  # a model may die of what is no image to it
    return _best(found)


def better_order(predicted: Tensor, y: Tensor, right: Tensor, classes: int) -> Other | None:
    """Whether other numbers of the classes would make the answers right: all rolled, or any assignment.

    An assignment is made on one half of the images and tried on the other, and rolling on all.
    """
    shift = int(((predicted - y) % classes).mode().values)
    back = classes - shift if 2 * shift > classes else -shift
    advice = f"its class k is the data's k {'+' if back > 0 else '-'} {abs(back)}"
    rolled = _other(f"with its classes rolled by {back:+}", advice, (predicted - shift) % classes == y, right)
    guess, halves = predicted.new_full(predicted.shape, -1), torch.arange(len(y), device=y.device) % 2 == 0
    for half in (halves, ~halves):
        for theirs, ours in _assigned(predicted[half].tolist(), y[half].tolist()):
            guess[~half & (predicted == theirs)] = ours
    some = _other("with its classes in another order", "compare its class names with the data's", guess == y, right)
    known = min(len(predicted.unique()), len(y.unique()))  # of one class any answer is an order
    return _best([*([rolled] if known > 1 else []), *([some] if known > 2 else [])])


def _assigned(predicted: Sequence[int], labels: Sequence[int]) -> list[tuple[int, int]]:
    """The best one-to-one assignment of predicted classes to labels."""
    from scipy.optimize import linear_sum_assignment  # here: `list` would wait for it, half as long as for torch

    theirs, rows = np.unique(predicted, return_inverse=True)
    ours, columns = np.unique(labels, return_inverse=True)
    together = np.zeros((len(theirs), len(ours)))
    np.add.at(together, (rows, columns), 1)
    return [(int(theirs[i]), int(ours[j])) for i, j in zip(*linear_sum_assignment(-together), strict=True)]


def _other(what: str, advice: str, then: Tensor, right: Tensor) -> Other:
    p = mcnemar(int((then & ~right).sum()), int((right & ~then).sum()), "greater")
    return Other(what, advice, int(then.sum()), p)


def _best(found: Sequence[Other]) -> Other | None:
    return max((each for each in found if each.p < RISK), key=lambda each: each.right, default=None)


@dataclass(frozen=True)
class Look:
    """What clean images say of a model. stop: no attack on it says anything; flag: of its numbers, if any; in words."""

    stop: bool = False
    flag: str | None = None
    text: str = ""


def look(
    x: Tensor, y: Tensor, logits: Tensor, ask: Callable[[Tensor], Tensor], classes: int, most: int | None = None
) -> Look:
    """At chance, or far below what other pixels or labels would give: by logits (n, K) of images x (n, C, H, W).

    ask: logits of other pixels. most: how many ranges of pixels are tried, and then only at chance; None: all.
    """
    if len(y) < FEW:
        return Look()
    predicted, right = logits.nan_to_num(-torch.inf).argmax(1), correct(logits, y)
    score = CleanScore.of(predicted, right, y, classes)
    order = better_order(predicted, y, right, classes)
    tried = most is None or score.at_chance
    pixels = better_range(x, right, lambda z: correct(ask(z), y), most) if tried else None
    better = max((each for each in (order, pixels) if each), key=lambda each: each.right, default=None)
    text = f"the model is {score}"
    if better is None:
        text += ", as fresh weights would be: no other range of pixels and no other order of classes helps"
        return Look(score.at_chance, "at_chance" if score.at_chance else None, text)
    advice = better.advice[0].upper() + better.advice[1:]
    text += f": {better.what} it would be {100 * better.right / score.n:.1f} %. {advice}"
    stop = score.at_chance or score.skill(score.right) < LEFT * score.skill(better.right)
    return Look(stop, "at_chance" if stop else "input_range" if better is pixels else "class_order", text)
