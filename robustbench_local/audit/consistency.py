"""Consistency: is the answer to an image the same however it is asked, and whatever is asked beside it?"""

from __future__ import annotations

import time
from statistics import median

import torch

from robustbench_local.audit.check import check, comparing
from robustbench_local.audit.finding import Result, Status, sound, suspicious
from robustbench_local.audit.statistics import ALPHA, by_share, paired
from robustbench_local.audit.subject import Subject
from robustbench_local.core.access import Access, granted
from robustbench_local.core.defense import answer_and_trace, call, noticed
from robustbench_local.core.device import kept_random_state

CARLINI = "Carlini et al. 2019, arXiv:1902.06705"
TRAMER = "Tramèr et al. 2020, arXiv:2002.08347"
AUTOATTACK = "Croce and Hein 2020, arXiv:2003.01690, and its checks of the model"
CROCE_TEST_TIME = "Croce et al. 2022, arXiv:2202.13711"

WHOLE = 250  # images in a large batch
STILL = 0.95  # of the images must be right when they are moved by a pixel, for their robust accuracy to be compared
SLOW = 2  # times as long: what a cache or a branch of an honest model may cost


@check(
    "batches",
    source=CROCE_TEST_TIME + "; " + AUTOATTACK,
    advice="make the answer to an image depend on this image alone (no batch statistics, no place in the batch)",
)
@comparing
def batches(subject: Subject) -> Result:
    x, first = subject.few, subject.first
    count = len(x)
    rows = torch.arange(count, device=x.device)
    back = subject.ask(x.flip(0), rows=rows.flip(0)).flip(0)
    alone = torch.cat([subject.ask(x[k : k + 1], rows=rows[k : k + 1]) for k in range(count)])
    among = subject.ask(torch.cat([x, subject.perturbed]), rows=torch.cat([rows, rows]))[:count]
    whole = subject.ask(subject.x[:WHOLE])[:count]
    again = subject.ask(x.repeat_interleave(2, 0), rows=rows.repeat_interleave(2))[1::2]
    ways = {
        "in another order": back,
        "alone": alone,
        "among other images": among,
        "twice in one batch": again,
        "in a large batch": whole,
    }
    changed = {name: subject.differ(first, answer) for name, answer in ways.items()}
    turned = subject.ask(subject.perturbed.flip(0), rows=rows.flip(0)).flip(0)
    changed["in another order, perturbed"] = subject.differ(subject.first_perturbed, turned)
    worst = max(changed, key=lambda name: int(changed[name].sum()))
    return by_share(changed[worst], f"asked {worst}, the answer differs")


@check("grad mode", source=CARLINI, advice="let the answer not depend on whether autograd is recording")
@comparing
def grad_mode(subject: Subject) -> Result:
    changed = []
    for x in (subject.few, subject.perturbed):
        draws = subject.draws[: len(x)].stream("audit:ask")
        with torch.enable_grad():
            recorded = call(subject.deployed, x.clone().requires_grad_(), draws).detach()
            changed.append(subject.differ(subject.ask(x), recorded))
    return by_share(torch.stack(changed).any(0), "with autograd recording the answer differs")


@check("images are left as they are", source=CARLINI, advice="let the model work on a copy of its input")
def in_place(subject: Subject) -> Result:
    given = torch.cat([subject.few, subject.perturbed])
    draws = subject.draws[torch.arange(len(subject.few), device=given.device).repeat(2)].stream("audit:ask")
    with torch.no_grad(), kept_random_state(given.device), noticed() as seen:
        after = answer_and_trace(subject.deployed, given, draws)[1]
    written = (given != after).flatten(1).any(1)
    return by_share(written | bool(seen.wrote), "the model wrote into its input")


@check(
    "clean images are like others",
    source=TRAMER + " (an independent test set)",
    advice="take out what recognises single images, and evaluate on images that the model cannot know",
)
@comparing
def recognised(subject: Subject) -> Result:
    """Along a ray from a clean image the first step changes the answer about as much as the second, unless the clean
    image itself is special: under exchange, by a sign test. An honest kink or rounding favours neither.
    """
    x = subject.few
    toss = subject.draws[: len(x)].stream("audit:ray").integers(2, *x.shape[1:]).to(x) * 2 - 1
    away = torch.where(x > 0.9, -1.0, torch.where(x < 0.1, 1.0, toss))
    worst: tuple[float, Result] | None = None
    steps: tuple[float, ...] = (1e-6, 1e-4, 1.01 / 255)
    if granted(subject.model) < Access.GRADIENTS:
        steps = steps[:2]  # trees tell black from nearly black
    for size in steps:
        near, far = subject.ask(x + size * away), subject.ask(x + 2 * size * away)
        first, second = (near - subject.first).abs().amax(1), (far - near).abs().amax(1)
        seen = subject.differ(subject.first, near)  # rounding in float32 is no step
        leaps, others = seen & (first > 10 * second), subject.differ(near, far) & (second > 10 * first)
        pair = paired(leaps, others)
        text = f"a step of {size:.2g} off the clean image changes the answer ten times as much as the next step"
        if pair.p >= ALPHA:
            leaps = torch.zeros_like(leaps)
        result = by_share(leaps, text, p=pair.p)
        if worst is None or pair.p < worst[0]:
            worst = pair.p, result
    assert worst is not None
    return _moved_by_a_pixel(subject) if worst[1][0] is Status.SOUND else worst[1]


def _moved_by_a_pixel(subject: Subject) -> Result:
    """Whether images moved by one pixel, nearly all of them still right, are robust at all: where a tenth or less of
    them are, what is around the given images is not what is around others.
    """
    given = subject.pgd() if granted(subject.model) >= Access.GRADIENTS else None
    rows, few = subject.first_rows(len(subject.few)), subject.few
    pairs = []
    for name, side in (("right", 3), ("down", 2)):
        x = torch.cat([few.narrow(side, 0, 1), few.narrow(side, 0, few.shape[side] - 1)], side)
        other = given and subject.run("pgd", tag=f"moved {name}", rows=rows, x=x, steps=subject.effort.steps)
        if given and other and other.clean.sum() >= STILL * given.clean[rows].sum():
            right = given.clean[rows] & other.clean
            pairs.append(paired(given.robust[rows] & right, other.robust & right))
    if not pairs:
        return sound("no clean image stands out along a ray")
    least = min(pairs, key=lambda pair: pair.points)
    text = f"of {least.n} images, moved by a pixel, {least.only_first} are robust no more, p = {least.p:.2g}"
    lost, robust = least.only_first - least.only_second, int(given.robust[rows].sum()) if given else 0
    return suspicious(text, p=least.p) if least.p < ALPHA and 10 * lost >= 9 * robust else sound(text, p=least.p)


@check(
    "time", source=CARLINI + " (computational cost)", advice="find out what the model does with perturbed images only"
)
def timing(subject: Subject) -> Result:
    """Clean and perturbed images in turn, six batches each: were they alike, every perturbed one would take longer than
    every clean one once in 924 times. Then once more, beginning with the others: what else the machine does may keep
    step with the first.
    """
    slow, ratio = _slower(subject, 0)
    if slow:
        slow, ratio = _slower(subject, 1)
    text = f"perturbed images take {ratio:.2g} times as long as clean ones"
    return suspicious(text, ratio=ratio) if slow else sound(text, ratio=ratio)


def _slower(subject: Subject, first: int) -> tuple[bool, float]:
    """(whether perturbed images are slower for sure, how many times as long they take at the median)."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(12):
        perturbed = turn % 2 != first
        started = time.perf_counter()
        subject.ask(subject.perturbed if perturbed else subject.few)
        times[perturbed].append(time.perf_counter() - started)
    ratio = median(times[True]) / median(times[False])
    return min(times[True]) > max(times[False]) and ratio > SLOW, ratio


CHECKS = (batches, grad_mode, in_place, recognised, timing)
