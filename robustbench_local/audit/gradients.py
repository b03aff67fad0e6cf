"""Gradients: do they say where the loss rises?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor

from robustbench_local.audit.check import check
from robustbench_local.audit.evidence import Rows
from robustbench_local.audit.finding import Result, at_most_suspicious, broken, sound, suspicious, unchecked, worst
from robustbench_local.audit.statistics import by_share, correlation, weaker
from robustbench_local.audit.subject import Subject
from robustbench_local.config.plugins import find_attack
from robustbench_local.core import losses
from robustbench_local.core.defense import Rejection
from robustbench_local.core.draws import Draws

ATHALYE = "Athalye et al. 2018, arXiv:1802.00420"
PINTOR = "Pintor et al. 2022, arXiv:2106.09947"

STEP = 1 / 1024  # half the width of a finite difference: a quarter of a grey level, and exact in float32
DIRECTIONS = 16
STEADY = 0.97  # the correlation of differences over two widths, from which on the model is smooth enough to compare
EVEN = 1.5  # by which the slopes over two widths may differ there: across one jump the narrower is twice as steep
FACTOR = 2  # by which the size of a gradient may be wrong
AGREE = 0.9  # what autograd must then reach; the honest models that the audit is tried on reach 0.96 and more
COARSE = (2 / 255, 8 / 255, 24 / 255)  # where a model jumps at the scale of STEP: as rounding to grey levels does
POINTS = 4  # on each such segment, where gradients are taken and added up


def _absent(rows: Rows) -> Iterator[Result]:
    """Robust images where no gradient led anywhere. What other gradients led, or a long search without any, is another
    figure beside it, that may be believed.
    """
    carried = any(
        each.searches or (each in rows.graded and not each.unled.cpu().double().mean() > 0.5) for each in rows
    )
    for each in rows.graded:
        if bool(each.unled.any()):
            text = f"{each}: of the robust images, no gradient led the attack"
            result = by_share(each.unled, text, of=len(each.robust))
            yield at_most_suspicious(result) if carried else result


@check(
    "gradients are there",
    source=f"{ATHALYE}, section 3; {PINTOR}, indicator 1 (unavailable gradients)",
    advice="state a surrogate for what is not differentiable (BPDA), attack by the margin where the softmax saturates,"
    " by scores (square, best) and by transfer",
    of_rows=_absent,
    attack=True,
)
def usable(subject: Subject) -> Result:
    """Zero, NaN or infinite, of cross-entropy and of the margin, on clean, perturbed and attacked images."""
    faults: dict[str, Tensor] = {}
    for place, x in _places(subject):
        y = subject.y[: len(x)]
        for name, loss in (("cross-entropy", losses.ce), ("the margin", losses.margin)):
            found = subject.slope(x, y, loss)
            if found is None:
                return broken("no gradient reaches the input: a part is not differentiable and has no surrogate")
            grad = found[1].flatten(1)
            faults[f"the gradient of {name} is zero on {place} images:"] = (grad == 0).all(1)
            faults[f"the gradient of {name} is NaN or infinite on {place} images:"] = ~grad.isfinite().all(1)
        if subject.rejects is Rejection.DETECTION:
            back = subject.slope(x, y, _of_rejection, joint=False)
            rejected = subject.ask(x).argmax(1) >= subject.classes
            flat = rejected if back is None else rejected & (back[1] == 0).flatten(1).all(1)
            faults[f"no gradient leads back from the rejection of {place} images:"] = flat
    most = max(faults, key=lambda name: int(faults[name].sum()))
    if "cross-entropy" in most and bool(faults[most].any()) and subject.unharmed:
        faults = {name: found for name, found in faults.items() if "cross-entropy" not in name}
        most = max(faults, key=lambda name: int(faults[name].sum()))
    return by_share(faults[most], most)


def _of_rejection(logits: Tensor, y: Tensor) -> Tensor:
    return logits[:, -1]


@check(
    "gradients are true",
    source=f"{ATHALYE}, section 3.1 (finite differences); Carlini et al. 2019, section 5.4",
    advice="look for detached branches, backward hooks and custom backwards, and for parts that jump (rounding,"
    " sorting, noise seeded by the image): declare a surrogate for them, or let scores and transfer decide",
)
def finite_differences(subject: Subject) -> Result:
    """Central differences of the margin along random signs, over two widths. Where they agree with one another, the
    model is smooth at that scale, and autograd must agree with them. On clean, perturbed and attacked images, all away
    from the box's faces.
    """
    lowest, slope, steadiest = 1.0, 1.0, 0.0
    smooth, jumping, where = False, [], subject.few
    for name, image in _places(subject):
        toss = subject.draws[: len(image)].stream("audit:toss").uniform(*image.shape[1:]).to(image)
        x = (image + 8 * STEP * (2 * toss - 1)).clamp(4 * STEP, 1 - 4 * STEP)  # off the kinks that PGD ends on
        y = subject.y[: len(x)]
        loss = partial(losses.margin_to, target=_rival(subject, x, y))
        found = subject.slope(x, y, loss)
        if found is None:
            return unchecked("no gradient reaches the input")
        wide, narrow, autograd = _differences(subject, x, loss, found[1])
        steady = correlation(wide, narrow)
        if steady < STEADY or not 1 / EVEN < _slope(wide, narrow) < EVEN:
            jumping.append((name, image, steady))
            continue
        smooth = True
        steadiest = max(steadiest, steady)
        agreement = correlation(wide, autograd)
        if agreement <= lowest:
            lowest, slope, where = agreement, _slope(wide, autograd), image
    if not smooth or _agree(lowest, slope):
        jumps = worst(_jumping(subject, *each) for each in jumping)
        if jumps is not None:
            return jumps
    text = f"finite differences and autograd correlate by {lowest:.3f}, with slope {slope:.3g}"
    figures = {"correlation": lowest, "slope": slope, "steady": steadiest}
    if _agree(lowest, slope):
        return sound(text, **figures)
    if subject.declares_surrogate:
        return sound(f"{text}; they are a declared surrogate's, which orderings judge", **figures)
    total = _added_up(subject, where)  # where a model sorts, autograd has the slope of one side of many kinks
    if total.agrees:
        return sound(f"{text}, and {total} ({total.correlation:.3f})", **figures)
    return broken(text, **figures)


def _jumping(subject: Subject, name: str, image: Tensor, steady: float) -> Result:
    """Of a model that jumps over a quarter of a grey level: do its gradients, added up along longer segments, give the
    difference of their ends? So they do through a faithful surrogate of rounding, and where rounding is float16's. What
    jumps at every scale hides where the loss rises, unless a surrogate is declared: then orderings tell its worth.
    """
    text = f"the model jumps at {name} images (differences over two widths correlate by {steady:.2f})"
    total = _added_up(subject, image)
    figures = {"steady": steady, "correlation": total.correlation}
    if total.agrees:
        return sound(f"{text}, and {total} ({total.correlation:.3f})", **figures)
    text += f": added up along segments its gradients correlate with differences by {total.correlation:.2f} at most"
    text += f" (of {255 * total.width:.0f} grey levels)" if total.width else ""
    if subject.declares_surrogate:
        return sound(f"{text}; they are a declared surrogate's, which orderings judge", **figures)
    return suspicious(f"{text}, and no surrogate is declared", **figures)


@dataclass(frozen=True)
class AddedUp:
    """How well gradients, added up along segments of half this width, give the difference of their ends."""

    agrees: bool
    correlation: float
    width: float

    def __str__(self) -> str:
        return f"over {255 * self.width:.0f} grey levels its gradients add up to its differences"


def _added_up(subject: Subject, image: Tensor) -> AddedUp:
    """Over the first width where they agree, else over the one where they correlate most."""
    best = AddedUp(False, 0.0, 0.0)
    for size in COARSE:
        change, summed = _segments(subject, image, size)
        agreement = correlation(change, summed)
        if _agree(agreement, _slope(change, summed)):
            return AddedUp(True, agreement, size)
        best = max(best, AddedUp(False, agreement, size), key=attrgetter("correlation"))
    return best


def _agree(agreement: float, slope: float) -> bool:
    return agreement >= AGREE and 1 / FACTOR < slope < FACTOR


def _slope(wide: Tensor, autograd: Tensor) -> float:
    wide, autograd = wide.cpu().double(), autograd.cpu().double()
    return float((wide * autograd).sum() / autograd.square().sum().clamp_min(1e-300))


def _segments(subject: Subject, image: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """(DIRECTIONS // 2, n) each: the change of the margin along segments of random signs around these images, per unit
    of length, and what the gradients at POINTS of them add up to.
    """
    x, y = image.clamp(size, 1 - size), subject.y[: len(image)]
    rival = _rival(subject, x, y)
    loss = partial(losses.margin_to, target=rival)
    draws = subject.draws[: len(x)].stream("audit:segments")
    changes, sums = [], []
    for _ in range(DIRECTIONS // 2):
        sign = 2.0 * draws.integers(2, *x.shape[1:]).to(x) - 1
        up, down = (loss(subject.seen(subject.ask(x + side * size * sign), y), y) for side in (1, -1))
        changes.append((up - down) / (2 * size))
        total = torch.zeros_like(up)
        for k in range(POINTS):
            found = subject.slope(x + ((2 * k + 1) / POINTS - 1) * size * sign, y, loss)
            if found is not None:
                total += (found[1] * sign).flatten(1).sum(1)
        sums.append(total / POINTS)
    return torch.stack(changes).nan_to_num(0, 0, 0), torch.stack(sums).nan_to_num(0, 0, 0)


def _rival(subject: Subject, x: Tensor, y: Tensor) -> Tensor:
    """(n,): what comes next at x as an attacker sees it, kept along a line, or there would be a kink."""
    return subject.seen(subject.ask(x), y).scatter(1, y[:, None], -torch.inf).argmax(1)


def _places(subject: Subject) -> list[tuple[str, Tensor]]:
    """Where gradients are looked at: the clean images, random points of their balls, and where PGD took them."""
    attacked = subject.pgd()
    there = [] if attacked is None else [("attacked", attacked.x_adv[: len(subject.few)])]
    return [("clean", subject.few), ("perturbed", subject.perturbed), *there]


def _differences(subject: Subject, x: Tensor, loss: losses.Loss, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes (DIRECTIONS, n) of the loss along random signs: over STEP, over half of it, and as grad has them."""
    y = subject.y[: len(x)]
    parts: list[list[Tensor]] = [[], [], []]
    draws = subject.draws[: len(x)].stream("audit:directions")
    for _ in range(DIRECTIONS):
        sign = 2.0 * draws.integers(2, *x.shape[1:]).to(x) - 1
        for part, size in ((0, STEP), (1, STEP / 2)):
            answers = [subject.seen(subject.ask(x + side * size * sign), y) for side in (1, -1)]
            up, down = (loss(answer, y) for answer in answers)
            parts[part].append((up - down) / (2 * size))
        parts[2].append((grad * sign).flatten(1).sum(1))
    wide, narrow, autograd = (torch.stack(part).nan_to_num(0, 0, 0) for part in parts)
    return wide, narrow, autograd


@check(
    "surrogates help",
    source=f"{ATHALYE}, section 4.1 (BPDA)",
    advice="state a surrogate that is nearer to what it stands for; where none helps, rely on scores and transfer",
)
def surrogates(subject: Subject) -> Result:
    """The declared surrogates against none (the gradient as it is) and against the identity, by PGD alone: a judge
    would try the static attack as well.
    """
    if not subject.surrogate_steps:
        return unchecked("the model declares no surrogate")
    attack = find_attack("pgd", {"steps": subject.effort.steps, "loss": "margin"})
    if subject.threat.norm not in attack.norms:
        return unchecked("the gradient attack does not know this norm")
    declared = subject.record(attack)
    if declared is None:
        return broken("with its declared surrogates no gradient reaches the input")
    results = []
    for name, other in (("no surrogate", None), ("the identity", _identity)):
        with _surrogate(subject, other):
            found = subject.record(attack)
        if found is not None:
            what = f"with the declared surrogate against {name}"
            results.append(weaker(~declared.succeeded, ~found.succeeded, what))
    return worst(results) or sound("without its surrogates there is no gradient")


def _identity(x: Tensor, draws: Draws | None = None) -> Tensor:
    return x


@contextmanager
def _surrogate(subject: Subject, other: Callable[..., Tensor] | None) -> Iterator[None]:
    """Every step with another surrogate in place of its own."""
    steps = subject.surrogate_steps
    own = [vars(step).get("surrogate") for step in steps]  # None: its class's
    for step in steps:
        step.surrogate = other  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for step, surrogate in zip(steps, own, strict=True):
            del step.surrogate
            if surrogate is not None:
                step.surrogate = surrogate  # type: ignore[method-assign]


CHECKS = (usable, finite_differences, surrogates)
