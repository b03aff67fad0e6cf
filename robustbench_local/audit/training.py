"""Training: what a training method or a detector does that a single attack would not show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from robustbench_local.audit.check import check
from robustbench_local.audit.evidence import Rows
from robustbench_local.audit.finding import Result, broken, sound, suspicious, unchecked
from robustbench_local.audit.statistics import ALPHA, MOVE, paired
from robustbench_local.audit.subject import Subject
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.defense import Rejection
from robustbench_local.core.errors import ModelError
from robustbench_local.core.threat import Norm
from robustbench_local.evaluation.evaluate import named_by_content
from robustbench_local.evaluation.judge import Judge
from robustbench_local.metrics.paired import mcnemar
from robustbench_local.metrics.rates import wilson

NO_GRADIENT = "no gradient attack runs on this model"
FRACTIONS = 8
DETECTS = 0.9  # ROC AUC of spare logits, from which on they tell attacked images from clean ones
MARK = 10  # times as far apart as images of one class are: a pixel of no photograph


def _overfitted(single: Tensor, many: Tensor, clean: Tensor, names: tuple[str, str], parts: Tensor | None) -> Result:
    """Whether a single step leaves robust (n,) what an attack of many steps breaks, of images that are right (n,).

    parts (P, n): what is robust against 1/P, 2/P .. of the step, where it was measured. The boundary is bent where the
    whole step breaks fewer than a part of it. Without them the two attacks must lie far apart: nearly all images that
    are right robust against the one, nearly none against the other.
    """
    left, most, right, n = int(single.sum()), int(many.sum()), int(clean.sum()), len(single)
    text = f"{names[0]} leaves {left} of {right} right images, {names[1]} leaves {most}"
    figures = {"fgsm": left / max(n, 1), "pgd": most / max(n, 1)}
    if parts is None:
        apart = bool(right) and wilson(left, right)[0] > 0.5 and wilson(most, right)[1] < 0.1
        return broken(text, **figures) if apart else sound(text, **figures)
    best = int(parts.sum(1).argmin())
    text += f", {best + 1}/{len(parts)} of the single step {int(parts[best].sum())}"
    bent = paired(parts[-1], parts[best])
    figures["p"] = bent.p
    if bent.p < ALPHA / len(parts) and paired(single, many).above and 2 * most < left:
        return broken(text, **figures)
    return sound(text, **figures)


def _stored_steps(rows: Rows) -> Iterator[Result]:
    for single, many in rows.single_and_iterated:
        yield _overfitted(single.robust, many.robust, single.clean, (str(single), str(many)), None)


@check(
    "no catastrophic overfitting",
    source="Wong et al. 2020, arXiv:2001.03994; Kim, Lee and Lee 2021, arXiv:2010.01799 (the distorted boundary)",
    advice="train with several steps, a random start or gradient alignment; report PGD, never FGSM alone",
    of_rows=_stored_steps,
)
def catastrophic(subject: Subject) -> Result:
    single, many = subject.run("fgsm"), subject.pgd()
    if single is None or many is None or subject.threat.norm is Norm.NONE:
        return unchecked(NO_GRADIENT)
    x = subject.x[: len(single.robust)]
    step = single.x_adv - x
    parts = torch.stack([subject.margin(x + k / FRACTIONS * step) < 0 for k in range(1, FRACTIONS + 1)])
    return _overfitted(single.robust, many.robust, single.clean, ("FGSM", "PGD"), parts)


@check(
    "no label leaking",
    source="Kurakin et al. 2017, arXiv:1611.01236, section 4.3",
    advice="an attacked image must not be easier than a clean one: look where the label gets into the image",
)
def leaking(subject: Subject) -> Result:
    """More right under a single step than without, or right by a handful of pixels alone."""
    single = subject.run("fgsm")
    if single is not None:
        n = len(single.robust)
        easier = paired(_named(subject, single.x_adv), _named(subject, subject.x[:n]))
        if easier.above:
            return broken(f"under FGSM the accuracy is {easier.points:.1f} points above the clean one", p=easier.p)
    kept = _by_few_pixels(subject)
    if kept is None:
        return unchecked("there are no two classes to compare")
    follow, stay, pixels = kept
    text = f"with {pixels} pixels put on an image of another class, {follow} of {follow + stay} take their label"
    if mcnemar(follow, stay, "greater") < ALPHA:
        return broken(text, pixels=pixels, follow=follow)
    return sound(text, pixels=pixels, follow=follow)


def _named(subject: Subject, x: Tensor) -> Tensor:
    """(n,) bool: whether the right class comes first, rejected or not, of the first n images with x in their place."""
    return subject.ask(x)[:, : subject.classes].argmax(1) == subject.y[: len(x)]


def _by_few_pixels(subject: Subject) -> tuple[int, int, int] | None:
    """(images that follow, images that do not, pixels): one in fifty positions, those that tell the classes apart, and
    more where they tell them too well, taken from an image and put on one of another class. Who follows them knows
    classes by a mark.
    """
    x, y = subject.few, subject.few_labels
    right = _named(subject, x)
    rows = right.nonzero()[:, 0]
    partner = {int(i): next((int(j) for j in rows.tolist() if y[j] != y[i]), None) for i in rows.tolist()}
    chosen = [i for i, j in partner.items() if j is not None]
    if not chosen:
        return None
    mine = torch.tensor(chosen, device=x.device)
    other = torch.tensor([partner[i] for i in chosen], device=x.device)
    # of a mark, pixels of one class are alike and those of different classes are not: Fisher's criterion, by position
    groups = [x[rows][y[rows] == label] for label in y[rows].unique()]
    between = torch.stack([group.mean(0) for group in groups]).var(0, correction=0).sum(0)
    within = torch.cat([group - group.mean(0) for group in groups]).square().mean(0).sum(0)
    score = between / (within + 1e-6)
    marked = min(int((score > MARK).sum()), score.numel() // 10)
    pixels = min(max(len(groups), score.numel() // 50, marked), score.numel())
    top = score.flatten().topk(pixels).indices
    mask = torch.zeros_like(score).flatten().index_fill_(0, top, 1).view_as(score).bool()
    mixed = torch.where(mask, x[mine], x[other])
    said = subject.ask(mixed, rows=mine)[:, : subject.classes].argmax(1)
    return int((said == y[mine]).sum()), int((said != y[mine]).sum()), pixels


@check(
    "no robust overfitting",
    source="Rice et al. 2020, arXiv:2002.11569",
    advice="stop early by robust accuracy on held-out images; report the test set only",
)
def robust_overfitting(subject: Subject) -> Result:
    """Robust accuracy on training images above that on test images, beyond what is so without an attack."""
    from scipy.stats import fisher_exact  # here: it takes a second to load

    if subject.train is None:
        return unchecked("give images the model was trained on: train=(x, y)")
    tested = subject.pgd()
    if tested is None:
        return unchecked(NO_GRADIENT)
    x, y = (part[: subject.attacked] for part in subject.train)
    images = named_by_content(x, y)
    attack = find_attack("pgd", {"steps": subject.effort.steps})
    try:
        trained = Judge(seed=subject.seed, eot=subject.effort.eot)(subject.model, images, attack, subject.threat)
    except ModelError:
        return unchecked(NO_GRADIENT)
    counts = [[int(run.robust.sum()), int((run.clean & ~run.robust).sum())] for run in (trained, tested)]
    p = float(fisher_exact(np.array(counts), alternative="greater").pvalue)
    here, there = trained.robust_accuracy, tested.robust_accuracy
    text = f"{100 * here:.1f} % robust on training images, {100 * there:.1f} % on these, p = {p:.2g}"
    figures = {"train": here, "test": there, "p": p}
    return suspicious(text, **figures) if p < ALPHA and here - there > MOVE else sound(text, **figures)


@check(
    "rejection is attacked",
    source="Carlini and Wagner 2017, arXiv:1705.07263; Tramèr et al. 2020, arXiv:2002.08347",
    advice="declare what the last class means (Defended.rejects), so that attacks go around the detector as well",
)
def rejection(subject: Subject) -> Result:
    """A logit more than the data have classes: how well it tells PGD's images from clean ones, and at what price."""
    if subject.outputs <= subject.classes:
        return unchecked("the model rejects nothing")
    attacked = subject.pgd()
    n, more = subject.attacked, subject.outputs - subject.classes
    asked = [subject.x[:n]] if attacked is None else [subject.x[:n], attacked.x_adv]
    named = torch.cat([subject.ask(x).argmax(1) for x in asked])
    last = named[-n:]
    won, wrong = int((last >= subject.classes).sum()), int((last != subject.y[:n]).sum())
    clean = _rejection_score(subject, subject.x[:n])
    false = float((clean > 0).cpu().double().mean())
    text, figures = f"rejects {100 * false:.1f} % of clean images", {"false_positives": false}
    if attacked is not None:
        caught = _rejection_score(subject, attacked.x_adv)
        wins = (caught[:, None] > clean).cpu().double() + (caught[:, None] == clean).cpu().double() / 2
        figures["roc_auc"] = float(wins.mean())
        text += f", {100 * float((caught > 0).cpu().double().mean()):.1f} % of PGD's (ROC AUC {figures['roc_auc']:.2f})"
    if subject.rejects is not Rejection.NONE:
        return sound(f"{text}; declared, and attacks have to pass it", **figures)
    if not won or (2 * won <= wrong and figures.get("roc_auc", 0) < DETECTS):
        return sound(f"{more} logits more than classes, which win {won} of {wrong} images that are wrong", **figures)
    return broken(f"{text}, and does not declare it: no attack has tried to pass the detector", **figures)


def _rejection_score(subject: Subject, x: Tensor) -> Tensor:
    """(n,): above 0 where a logit that the data have no class for comes first."""
    logits = subject.ask(x)
    return logits[:, subject.classes :].amax(1) - logits[:, : subject.classes].amax(1)


CHECKS = (rejection, catastrophic, leaking, robust_overfitting)
