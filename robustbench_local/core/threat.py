"""Threat models: a norm ball around the clean image, intersected with the pixel box [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from numbers import Real

import torch
from torch import Tensor

from robustbench_local.core.blocks import in_blocks
from robustbench_local.core.draws import Draws
from robustbench_local.core.errors import ThreatError, did_you_mean

LARGEST = 1e6  # an eps beyond which no ball is smaller than the box, in any norm, for images of a million pixels
_SQUARABLE = 1e9
TOLERANCE = 1e-6  # how far outside the ball a float32 image may lie, times max(1, eps)


class Norm(StrEnum):
    """How the size of a perturbation is measured. L0 counts pixel positions, whatever their channels."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"
    L0 = "l0"
    NONE = "none"


_NARROWER = {  # norms whose ball of the same radius lies inside
    Norm.LINF: (Norm.LINF, Norm.L2, Norm.L1),
    Norm.L2: (Norm.L2, Norm.L1),
}


def parse_number(text: str | float) -> float:
    """'8/255', '0.3' or 0.3 as a float; ThreatError where it is no number, or as text none that is finite."""
    try:
        # of "1e999999999" a Fraction would write out every digit
        number = float(Fraction(text)) if isinstance(text, str) and "/" in text else float(text)
        if isinstance(text, str) and not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise ThreatError(f'"{_brief(text)}" is no number: write it as 0.3 or 8/255') from error
    return number


def _brief(value: object) -> str:
    """What was written, cut short where it is long; Python refuses to write out an int of 5,000 digits."""
    try:
        text = str(value)
    except ValueError:
        return "a whole number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:40]}..."


@dataclass(frozen=True)
class ThreatModel:
    """{x' : ||x' - x|| <= eps} ∩ [0, 1]^d, for images (N, C, H, W) in [0, 1].

    eps is in units of pixels in [0, 1]; for L0 it counts pixel positions; for norm none it is 0 and only the box binds.
    """

    norm: Norm
    eps: float
    allow_large: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.norm, Norm):
            raise ThreatError(f'norm is {_brief(self.norm)!r}: give one of Norm, or ThreatModel.parse("linf:8/255")')
        if not isinstance(self.eps, Real) or isinstance(self.eps, bool) or not 0 <= self.eps <= LARGEST:
            raise ThreatError(
                f"eps is {_brief(self.eps)}: give a finite number >= 0, in units of pixels in [0, 1], and not above"
                f" {LARGEST:g}: no image has room for more"
            )
        if self.norm is Norm.LINF and self.eps >= 0.5 and not self.allow_large:
            raise ThreatError(
                f"an linf eps of {self.eps} turns any image into plain grey; allowed is [0, 0.5). Was it meant in grey"
                f" levels ({self.eps:g}/255)? allow_large takes it all the same"
            )
        if self.norm is Norm.L0 and self.eps != int(self.eps):
            raise ThreatError(f"an l0 eps counts pixel positions: {self.eps} is no whole number")
        if self.norm is Norm.NONE and self.eps != 0:
            raise ThreatError(f'norm "none" has no ball: eps must be 0, not {self.eps}')

    @classmethod
    def parse(cls, text: str | tuple[str, str | float] | ThreatModel, allow_large: bool = False) -> ThreatModel:
        """'linf:8/255', 'l2:0.5', 'l1:12', 'l0:1' or 'none'; a pair ('linf', 8/255) means the same."""
        if isinstance(text, ThreatModel):
            return text
        if isinstance(text, tuple) and len(text) == 2 and isinstance(text[0], str):
            name, size = text
            return cls(cls.parse(f"{name}:0").norm, parse_number(size), allow_large)
        if not isinstance(text, str):
            raise ThreatError(f'threat is {_brief(text)!r}: write a norm and its radius, "linf:8/255"')
        name, _, eps = text.strip().lower().partition(":")
        if name not in list(Norm):
            known = ", ".join(Norm)
            near = did_you_mean(name, list(Norm))
            if name[:1].isdigit():
                near = f" (did you mean linf:{_brief(name)}?)"
            raise ThreatError(f'unknown norm "{_brief(name)}" in "{_brief(text)}"{near}: one of {known}')
        if name == Norm.NONE:
            return cls(Norm.NONE, parse_number(eps or 0))
        if not eps:
            raise ThreatError(f'threat "{text}" has no eps: write it as {name}:8/255')
        return cls(Norm(name), parse_number(eps), allow_large)

    def __str__(self) -> str:
        if self.norm is Norm.NONE:
            return "none"
        levels = round(self.eps * 255)
        for eps in (f"{self.eps:g}", f"{levels}/255"):
            if parse_number(eps) == self.eps:
                return f"{self.norm}:{eps}"
        return f"{self.norm}:{self.eps!r}"

    def holds(self, other: ThreatModel) -> bool:
        """Whether every image that the other one allows is allowed here too, whatever the images are."""
        if self.norm is Norm.NONE:
            return True
        inside = _NARROWER.get(self.norm, (self.norm,))
        return other.norm in inside and other.eps <= self.eps

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,): size of the perturbation in this norm (norm none: in L2, for information)."""
        delta = (x_adv - x).abs()
        match self.norm:
            case Norm.LINF:
                return delta.flatten(1).amax(1)
            case Norm.L1:
                return delta.flatten(1).sum(1)
            case Norm.L0:
                return (delta.amax(1) > 0).flatten(1).sum(1).to(x.dtype)
            case _:
                return length(delta.flatten(1))

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,) bool: inside ball and box, up to TOLERANCE. NaN pixels are outside."""
        flat = x_adv.flatten(1)
        boxed = (flat.amin(1) >= -TOLERANCE) & (flat.amax(1) <= 1 + TOLERANCE)
        if self.norm is Norm.NONE:
            return boxed
        return boxed & (self.distance(x_adv, x) <= self.eps + TOLERANCE * max(1.0, self.eps))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest point (in L2; L∞: in every coordinate) of ball ∩ box. (N, C, H, W) -> same."""
        return in_blocks(self._project, x_adv, x)

    def _project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        match self.norm:
            case Norm.LINF:
                return torch.clamp(x_adv, (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1))
            case Norm.L2:
                return _shortened(x_adv, x, self.eps, length, _cut_l2)
            case Norm.L1:
                return _shortened(x_adv, x, self.eps, lambda flat: flat.abs().sum(1), _cut_l1)
            case Norm.L0:
                return _project_l0(x_adv, x, int(self.eps))
            case Norm.NONE:
                return x_adv.clamp(0, 1)

    def climb(self, x_adv: Tensor, grad: Tensor, x: Tensor, size: float, sparsity: float = 0.01) -> Tensor:
        """A step of this length in the steepest direction, and back into ball ∩ box. (N, C, H, W) -> same."""

        def climbed(x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
            return self.project(x_adv + size * self.steepest(grad, x_adv, x, sparsity), x)

        return in_blocks(climbed, x_adv, grad, x)

    def steepest(self, grad: Tensor, x_adv: Tensor, x: Tensor, sparsity: float = 0.01) -> Tensor:
        """The direction of unit norm that raises the loss fastest, among pixels the box lets move.

        L∞: the sign. L2: the normalised gradient. L1: the sign on the top `sparsity` share of coordinates (Tramèr and
        Boneh 2019, Sparse L1 Descent; at least one). L0: the sign on the eps pixel positions of largest gradient.
        """
        if self.norm is Norm.LINF:
            return grad.sign()  # the projection holds saturated pixels; they cost nobody else's share
        rises = grad > 0
        free = (rises & (x_adv < 1)) | (~rises & (x_adv > 0))
        grad = (grad * free).nan_to_num()  # an infinite slope is the steepest, what is NaN is unknown
        flat = grad.flatten(1)
        match self.norm:
            case Norm.L1:
                k = max(1, round(sparsity * flat.shape[1]))
                top = flat.abs().topk(k, dim=1).indices
                return torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign() / k).view_as(grad)
            case Norm.L0:
                return grad.sign() * _top_positions(grad.abs().sum(1), int(self.eps))
            case _:
                tiny = torch.finfo(grad.dtype).tiny
                grad = grad / flat.abs().amax(1).clamp_min(tiny).view(-1, 1, 1, 1)  # in float32 1e-25 squared is 0
                return grad / length(grad.flatten(1)).clamp_min(tiny).view(-1, 1, 1, 1)

    def start(self, x: Tensor, draws: Draws) -> Tensor:
        """A point drawn uniformly in the ball (L0: eps random positions of random colour), then projected."""
        shape = x.shape[1:]
        size = math.prod(shape)
        match self.norm:
            case Norm.LINF:
                delta = (2 * draws.uniform(*shape) - 1) * self.eps
            case Norm.L2:
                delta = draws.normal(*shape)
                radius = self.eps * draws.uniform() ** (1 / size)
                delta *= (radius / length(delta.flatten(1))).view(-1, 1, 1, 1)
            case Norm.L1:  # exponential magnitudes divided by their sum and one more are uniform on the simplex
                magnitude = -torch.log1p(-draws.uniform(size + 1))
                share = magnitude[:, :size] / magnitude.sum(1, keepdim=True)
                sign = torch.where(draws.uniform(size) < 0.5, -1.0, 1.0)
                delta = (self.eps * share * sign).view(-1, *shape)
            case Norm.L0:
                chosen = _top_positions(draws.uniform(*shape[1:]), int(self.eps))
                delta = torch.where(chosen, draws.uniform(*shape).to(x) - x, 0)
            case Norm.NONE:
                return x.clone()
        return self.project(x + delta.to(x), x)


def _top_positions(score: Tensor, k: int) -> Tensor:
    """(N, H, W) scores -> (N, 1, H, W) bool, the k largest per sample (all, where there are fewer)."""
    flat = score.flatten(1)
    top = flat.topk(min(k, flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, top, True).view_as(score).unsqueeze(1)


def length(flat: Tensor) -> Tensor:
    """(N, D) -> (N,) L2 norms. torch's own adds one by one, and in float32 errs by 2e-6 where all numbers are equal."""
    return flat.square().sum(1).sqrt()


def _shortened(
    x_adv: Tensor,
    x: Tensor,
    eps: float,
    size: Callable[[Tensor], Tensor],
    cut: Callable[[Tensor, Tensor, float], Tensor],
) -> Tensor:
    """x_adv in the box; what is then further than eps from x is x itself, moved towards x_adv as far as `cut` says.

    size: of changes (N, D), (N,). cut: of how far each coordinate would go and how far the box lets it, both (n, D) and
    finite, and of eps: how far it goes.
    """
    boxed = x_adv.clamp(0, 1)
    outside = (size((boxed - x).flatten(1)) > eps).nonzero()[:, 0]
    if not len(outside):
        return boxed
    rows = slice(None) if len(outside) == len(x) else outside
    clean, change = x[rows].flatten(1), (x_adv[rows] - x[rows]).flatten(1)
    wish = change.abs().clamp_(max=torch.finfo(x.dtype).max / 4)  # what can still be added up
    length = cut(wish, ((change > 0).to(clean) - clean).abs(), eps)
    moved = (clean + length * change.sign()).clamp_(0, 1)
    # thousands of float32 roundings away from x would add up to more than TOLERANCE: round towards x
    beyond = ((moved - clean).abs() > length).to(moved)
    moved = moved.lerp(
        moved.nextafter(clean), beyond
    )  # all the way or not at all; torch.where takes four times as long
    boxed[rows] = moved.view(-1, *x.shape[1:])
    return boxed


def _cut_l2(wish: Tensor, limit: Tensor, eps: float) -> Tensor:
    """By the KKT conditions the answer is clip(x + t (x_adv - x)) for one t per sample.

    t rises monotonically to its root: solve as if no further coordinate met the box, note which do, repeat.
    """
    tiny = torch.finfo(wish.dtype).tiny
    largest = wish.amax(1)
    scale = torch.where(largest > _SQUARABLE, largest, 1)  # only its direction matters, and 1e30 squared is infinite
    wish = wish / scale[:, None]
    t = eps / length(wish)
    wish_squared, limit_squared = wish.square(), limit.square()
    for _ in range(wish.shape[1]):
        held = t[:, None] * wish >= limit
        rest = eps**2 - (limit_squared * held).sum(1)
        raised = (rest.clamp_min(0) / (wish_squared * ~held).sum(1).clamp_min(tiny)).sqrt()
        raised = torch.maximum(t, torch.minimum(raised, scale))
        if torch.equal(raised, t):
            break
        t = raised
    return torch.minimum(t[:, None] * wish, limit)


def _cut_l1(wish: Tensor, limit: Tensor, eps: float) -> Tensor:
    """By the KKT conditions |delta| = clip(|d| - shift, 0, c) for one shift >= 0 per sample.

    The sum falls piecewise linearly in the shift: bisect onto one piece, then solve that piece.
    """
    low, high = torch.zeros_like(wish[:, :1]), wish.amax(1, keepdim=True)
    for _ in range(40):
        middle = (low + high) / 2
        over = torch.minimum((wish - middle).clamp_(min=0), limit).sum(1, keepdim=True) > eps
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    size = torch.minimum((wish - high).clamp_(min=0), limit)
    sloped = (wish > high) & (wish - high < limit)  # the coordinates that still answer to the shift
    spare = (eps - size.sum(1, keepdim=True)) / sloped.sum(1, keepdim=True).clamp_min(1)
    return torch.minimum((size + spare * sloped).clamp_(min=0), limit)


def _project_l0(x_adv: Tensor, x: Tensor, eps: int) -> Tensor:
    """Keep the eps pixel positions whose change counts most: what going back to x would cost in squared distance."""
    boxed = x_adv.clamp(0, 1)
    cost = ((x_adv - x).square() - (x_adv - boxed).square()).sum(1)
    return torch.where(_top_positions(cost, eps), boxed, x)
