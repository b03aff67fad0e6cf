"""Randomized smoothing: the class that most noisy copies of an image get, certified within an L2 radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_local.config.arguments import checked
from robustbench_local.config.ranges import Count, Positive, Range, Share
from robustbench_local.core.defense import Defended, Defense, Rejection, Sampled, call, draws_for
from robustbench_local.core.device import kept_random_state, out_of_memory
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ConfigError, DataError, ModelError, RobustBenchError
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.training import Recipe, Trainer
from robustbench_local.data.fingerprint import fingerprint
from robustbench_local.defenses._passes import log_probabilities, mean_probability
from robustbench_local.evaluation.batch_size import first_guess, queried_at_once
from robustbench_local.evaluation.evaluate import home
from robustbench_local.evaluation.preflight import Tally, check_images
from robustbench_local.ops.noise import LOUDEST, gaussian

CERTIFIED = 10_000  # noisy copies that bound a probability; a change raises the defense's version


class Smoothed(Defended):
    """PREDICT of Cohen et al. 2019: (N, K+1) logits, the last of which is the largest where it abstains.

    Their order is that of the votes among `samples` noisy copies; the last stands half a vote under what the first
    class needs for a two-sided binomial test against the second at level alpha. Gradients are those of the log mean
    probability over the same copies (Salman et al. 2019, arXiv:1906.04584, equation 6).
    """

    stochastic = True
    surrogate_gradients = True
    rejects = Rejection.ABSTENTION
    needed: Tensor

    def __init__(self, net: nn.Module, sigma: float, samples: int, alpha: float) -> None:
        super().__init__()
        self.net, self.sigma, self.samples, self.alpha = net, sigma, samples, alpha
        # needed[m]: the votes to win with, of m that go to the first two classes
        from scipy import stats  # here and below: `list` would wait for it, half as long as for torch

        needed = stats.binom.isf(alpha / 2, range(samples + 1), 0.5) + 1
        self.register_buffer("needed", torch.tensor(needed, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        draws = draws_for(x, draws)
        logs = log_probabilities(x, [partial(self._once, draws=draws.stream(k)) for k in range(self.samples)])
        votes = F.one_hot(logs.detach().argmax(2), logs.shape[2]).sum(0)
        needed = self.needed.to(x)[votes.topk(2, dim=1).values.sum(1)]
        hard = (torch.cat([votes + 0.5, needed[:, None]], 1) / (self.samples + 1)).log()
        soft = F.pad(mean_probability(logs), (0, 1))
        return hard + (soft - soft.detach())

    def undefended(self) -> nn.Module:
        return self.net

    def certified_by_sampling(self, x: Tensor, y: Tensor, ids: Tensor) -> Sampled:
        """`certify` by CERTIFIED draws: of the vote of infinitely many copies, which `samples` of them estimate."""
        draws = Draws(0, ids).stream("certificate")
        radii = certify(self, x, y, self.sigma, n=CERTIFIED, alpha=self.alpha, draws=draws)
        return Sampled(radii, 1 - self.alpha, CERTIFIED)

    def _once(self, x: Tensor, draws: Draws) -> Tensor:
        noise = draws.stream("noise")
        return call(self.net, gaussian(x, self.sigma, noise), draws.stream("net"))


@dataclass(frozen=True)
class RandomizedSmoothing(Defense, Recipe):
    """Cohen et al. 2019: training on Gaussian noise of standard deviation sigma (not clipped), deployed as the vote of
    `samples` noisy copies, which abstains unless it is significant at alpha. More samples need no other training.

    Each query costs `samples` passes. `certify` gives the radii.

    sigma: the noise's standard deviation, above 0, where white is 1. samples: noisy copies that vote. alpha: the chance
    of a wrong vote, in (0, 1).
    """

    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "the vote of noisy copies, with abstention and a certified L2 radius"
    paper: ClassVar[str] = "Cohen et al. 2019, arXiv:1902.02918"
    family: ClassVar[str] = "noise"

    sigma: float = 0.25
    samples: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= LOUDEST:
            raise ConfigError(
                f"sigma is {self.sigma}: it must be above 0, up to {LOUDEST:g}, where white is 1; theirs are 0.12 to 1"
            )
        if not 0 < self.alpha < 1:
            raise ConfigError(f"alpha is {self.alpha}: it must be in (0, 1), the chance of a wrong vote")
        if 2 * 0.5**self.samples > self.alpha:
            raise ConfigError(
                f"samples is {self.samples}: even a vote of all would not be significant at alpha {self.alpha},"
                " and every image would be rejected"
            )

    def as_trained(self) -> RandomizedSmoothing:
        return replace(self, samples=RandomizedSmoothing.samples, alpha=RandomizedSmoothing.alpha)

    def build(self, base: nn.Module, trainer: Trainer, draws: Draws) -> nn.Module:
        net = trainer.fit(base, self.as_trained(), draws)
        return Smoothed(net, self.sigma, self.samples, self.alpha).eval()

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return F.cross_entropy(net(gaussian(x, self.sigma, draws)), y)


Copies = Annotated[int, Range(1, 10**9)]  # of one image
AT_ONCE = 1000  # noisy images


@checked()
def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    sigma: Positive,
    n0: Copies = 100,
    n: Copies = 100_000,
    alpha: Share = 0.001,
    *,
    draws: Draws | None = None,
    batch: Count | None = None,
) -> Tensor:
    """CERTIFY of Cohen et al. 2019: (N,) L2 radii within which the smoothed model's answer y holds, each with
    probability 1 - alpha over the draws. NaN where it abstains or the answer is not y.

    model: the base classifier, or a Smoothed around it, asked in evaluation mode and given back as it was. n0 draws
    choose the class, n others bound its probability from below (Clopper and Pearson, one-sided); a copy with NaN
    logits, or a tie for the first class, votes for none. batch: noisy images at a time; by default 1,000, or as many
    large ones as memory holds. draws: by default those of seed 0 and of each image's pixels. Raises DataError,
    ModelError or ConfigError, naming the value and its cause.
    """
    check_images(x, y)
    if n <= math.log(alpha, 0.5):
        raise ConfigError(
            f"n is {n}: even where all agree, the probability is only known to be above {alpha ** (1 / n):.2g} at alpha"
            f" {alpha}, and nothing above 1/2 could be certified; give {math.floor(math.log(alpha, 0.5)) + 1} or more"
        )
    device = home(model, x)
    x, y = x.detach().to(device), y.to(device)
    x = x if x.dtype == torch.float64 else x.float()
    draws = Draws(0, fingerprint(x), dtype=x.dtype) if draws is None else draws
    if len(draws) != len(x):
        raise ConfigError(f"draws are for {len(draws)} images, and there are {len(x)}")
    net = model.net if isinstance(model, Smoothed) else model
    with as_deployed(model), full_float32(), kept_random_state(device):
        batch = batch or min(AT_ONCE, queried_at_once(first_guess(net, x[:1], draws[:1], Tally()), x))
        first = _votes(net, x, sigma, n0, draws.stream("choose"), batch)
        if int(y.min()) < 0 or int(y.max()) >= first.shape[1]:
            raise DataError(f"labels span {int(y.min())} .. {int(y.max())}, the model knows 0 .. {first.shape[1] - 1}")
        chosen = first.argmax(1)
        votes = _votes(net, x, sigma, n, draws.stream("certify"), batch)
    top = votes.gather(1, chosen[:, None])[:, 0].cpu().double()
    from scipy import stats

    lower = torch.from_numpy(stats.beta.ppf(alpha, top.clamp_min(1), n - top + 1)) * (top > 0)
    radius = sigma * torch.special.ndtri(lower.to(device))
    return torch.where((chosen == y) & (first.amax(1) > 0) & (radius > 0), radius, torch.nan)


@checked()
def certified_accuracy(radii: Tensor, at: Sequence[Annotated[float, Range(0)]]) -> list[float]:
    """The share of all images (N,) that are certified to be right within each L2 radius; NaN is not certified."""
    if radii.ndim != 1 or not len(radii):
        raise DataError(f"radii are of shape {tuple(radii.shape)}: give those of certify, (N,), of at least one image")
    return [float((radii >= radius).double().mean()) for radius in at]


@torch.no_grad()
def _votes(net: nn.Module, x: Tensor, sigma: float, count: int, draws: Draws, batch: int) -> Tensor:
    """(N, K) int64: how many of `count` noisy copies of each image get each class."""
    if len(x) > batch:
        parts = torch.arange(len(x), device=x.device).split(batch)
        return torch.cat([_votes(net, x[rows], sigma, count, draws[rows], batch) for rows in parts])
    each = max(1, batch // len(x))
    total = torch.zeros((), dtype=torch.int64, device=x.device)
    for numbers in torch.arange(count, device=x.device).split(each):
        size = len(numbers)
        mine = draws.with_ids(draws.ids.repeat_interleave(size)).with_counter(numbers.repeat(len(x)))
        logits = _answer(net, gaussian(x.repeat_interleave(size, 0), sigma, mine), mine.stream("net"))
        best = logits.topk(2, dim=1)
        told = best.values[:, 0] > best.values[:, 1]  # neither NaN, which topk puts first, nor a tie
        votes = F.one_hot(best.indices[:, 0], logits.shape[1]) * told[:, None]
        total = total + votes.view(len(x), size, -1).sum(1)
    return total


def _answer(net: nn.Module, x: Tensor, draws: Draws) -> Tensor:
    """Logits (N, K), K at least 2. ModelError where a stranger's model gives none."""
    try:
        logits = call(net, x, draws)
    except RobustBenchError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        shape = tuple(x.shape[1:])
        raise ModelError(f"the model cannot read images of shape {shape}: {type(error).__name__}: {error}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"the model returned {what} for {len(x)} images: it must return logits (N, 2 classes or more)")
    return logits
