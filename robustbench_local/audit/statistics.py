"""The statistics of all checks: shares of images, and paired comparisons of which images are robust."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor

from robustbench_local.audit.finding import Result, at_most_suspicious, broken, sound, suspicious
from robustbench_local.metrics.paired import mcnemar

FAMILY = 0.05  # the chance that a sound model meets any false alarm among the paired tests of one audit
TESTS = 16  # paired tests in one audit
ALPHA = FAMILY / TESTS  # Bonferroni: 9 images against none
MOVE = 0.005  # half a point: what may be hidden or moved without a word
MATERIAL = 0.02  # two points: what a stronger attack takes off before the weaker is called broken, see `weaker`


def by_share(faults: Tensor, evidence: str, *, of: int = 0, **figures: float) -> Result:
    """Of faults (N,) bool: broken on more than half of the images, sound where the share may be half a point.

    evidence reads on after "on 3 of 60 images". Between the two, where the share is above half a point for sure (see
    `at_least`), it is suspicious. of: how many images there are in all, where faults are of some of them: never broken
    where those at fault are two points of all, or less.
    """
    k, n = int(faults.sum()), len(faults)
    text, figures = f"{evidence} on {k} of {n} images", {"share": k / max(n, 1), **figures}
    if 2 * k > n:
        return at_most_suspicious(broken(text, **figures)) if k <= MATERIAL * of else broken(text, **figures)
    return suspicious(text, **figures) if n and at_least(k, n) > MOVE else sound(text, **figures)


def at_least(k: int, n: int) -> float:
    """The lower end of the exact 95 % interval of a share of k in n (Clopper and Pearson 1934): one image of a few is
    no share yet.
    """
    return float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0


@dataclass(frozen=True)
class Discordance:
    """Two judgements of the same images: how many are robust by only the first, or only the second."""

    only_first: int
    only_second: int
    n: int

    @property
    def p(self) -> float:
        """One-sided exact McNemar (1947): how probable so many of only_first are, were neither the stronger."""
        return mcnemar(self.only_first, self.only_second, "greater")

    @property
    def points(self) -> float:
        """By how much the first's accuracy is above the second's, in points."""
        return 100 * (self.only_first - self.only_second) / max(self.n, 1)

    @property
    def above(self) -> bool:
        """The first has more robust images, by more than half a point and more than chance."""
        return self.p < ALPHA and self.points > 100 * MOVE


def paired(first: Tensor, second: Tensor) -> Discordance:
    """first, second (N,) bool: which images are robust."""
    return Discordance(int((first & ~second).sum()), int((second & ~first).sum()), len(first))


def weaker(first: Tensor, second: Tensor, what: str) -> Result:
    """Whether the first search, which left first (N,) robust, is weaker than the second.

    Suspicious where it is for sure. Broken where the second also broke most of what the first left, and that is more
    than two points of accuracy: of 300 images, of which few are robust, a 95 % interval reaches as far, so that less
    than that is no other picture of the model than its row gave already.
    """
    pair = paired(first, second)
    left = int(first.sum())
    text = f"{what}: {left} against {int(second.sum())} of {pair.n} images are robust, p = {pair.p:.2g}"
    figures = {"first": left / max(pair.n, 1), "second": float(second.cpu().double().mean()), "p": pair.p}
    if not pair.above:
        return sound(text, **figures)
    most = 2 * pair.only_first > left and pair.points > 100 * MATERIAL
    return broken(text, **figures) if most else suspicious(text, **figures)


def correlation(a: Tensor, b: Tensor) -> float:
    """Of two tensors of one shape; 0 where one of them does not vary."""
    a, b = a.cpu().double().flatten(), b.cpu().double().flatten()
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm() * b.norm())
    return float(torch.dot(a, b)) / size if size > 0 else 0.0
