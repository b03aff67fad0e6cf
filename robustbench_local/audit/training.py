"""Training: what a training method or a detector does that a single attack would not show."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binomtest, fisher_exact

from robustbench_local.audit.check import ALPHA, MOVE, Result, broken, check, paired, sound, suspicious, unchecked
from robustbench_local.audit.subject import Subject
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.defense import Rejection
from robustbench_local.core.errors import ModelError
from robustbench_local.core.threat import Norm
from robustbench_local.evaluation.evaluate import named_by_content
from robustbench_local.evaluation.judge import Judge

NO_GRADIENT = "no gradient attack runs on this model"
FRACTIONS = 8


@check(
    "no catastrophic overfitting",
    source="Wong et al. 2020, arXiv:2001.03994; Kim, Lee and Lee 2021, arXiv:2010.01799 (the distorted boundary)",
    advice="train with several steps, a random start or gradient alignment; report PGD, never FGSM alone",
)
def catastrophic(subject: Subject) -> Result:
    """FGSM's full step fells fewer than a part of the same step, and PGD fells most of what FGSM left."""
    single, many = subject.run("fgsm"), subject.pgd()
    if single is None or many is None or subject.threat.norm is Norm.NONE:
        return unchecked(NO_GRADIENT)
    n = len(single.robust)
    step = single.x_adv - subject.x[:n]
    parts = torch.stack([subject.margin(subject.x[:n] + k / FRACTIONS * step) < 0 for k in range(1, FRACTIONS + 1)])
    best = int(parts.sum(1).argmin())
    bent, helped = paired(parts[-1], parts[best]), paired(single.robust, many.robust)
    left, most = int(single.robust.sum()), int(many.robust.sum())
    text = f"FGSM leaves {left}, {best + 1}/{FRACTIONS} of its step {int(parts[best].sum())}, PGD {most} of {n} images"
    figures = {"fgsm": left / n, "pgd": most / n, "p": bent.p}
    if bent.p < ALPHA / FRACTIONS and helped.above and 2 * most < left:
        return broken(text, **figures)
    return sound(text, **figures)


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
    won, lost, pixels = kept
    text = f"with {pixels} pixels put on an image of another class, {won} of {won + lost} take the label of the pixels"
    if binomtest(won, won + lost, alternative="greater").pvalue < ALPHA:
        return broken(text, pixels=pixels, won=won)
    return sound(text, pixels=pixels, won=won)


def _named(subject: Subject, x: torch.Tensor) -> torch.Tensor:
    """(n,) bool: whether the right class wins, rejected or not, of the first n images with x in their place."""
    return subject.ask(x)[:, : subject.classes].argmax(1) == subject.y[: len(x)]


def _by_few_pixels(subject: Subject) -> tuple[int, int, int] | None:
    """(images that follow, images that do not, pixels): one in fifty positions, those that tell the classes apart,
    taken from an image and put on one of another class. Who follows them knows classes by a mark.
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
    pixels = max(subject.classes, x[0, 0].numel() // 50)
    # of a mark, pixels of one class are alike and those of different classes are not: Fisher's criterion, by position
    groups = [x[rows][y[rows] == label] for label in y[rows].unique()]
    between = torch.stack([group.mean(0) for group in groups]).var(0, correction=0).sum(0)
    within = torch.cat([group - group.mean(0) for group in groups]).square().mean(0).sum(0)
    score = between / (within + 1e-6)
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
    n = subject.attacked
    clean = _rejection_score(subject.ask(subject.x[:n]))
    false = float((clean > 0).double().mean())
    text, figures = f"rejects {100 * false:.1f} % of clean images", {"false_positives": false}
    if attacked is not None:
        caught = _rejection_score(subject.ask(attacked.x_adv))
        wins = (caught[:, None] > clean).double() + (caught[:, None] == clean).double() / 2
        figures["roc_auc"] = float(wins.mean())
        text += f", {100 * float((caught > 0).double().mean()):.1f} % of PGD's (ROC AUC {figures['roc_auc']:.2f})"
    if subject.rejects is Rejection.NONE:
        return broken(f"{text}, and does not declare it: no attack has tried to pass the detector", **figures)
    return sound(f"{text}; declared, and attacks have to pass it", **figures)


def _rejection_score(logits: torch.Tensor) -> torch.Tensor:
    """(n,): above 0 where the last class wins."""
    return logits[:, -1] - logits[:, :-1].amax(1)


CHECKS = (rejection, catastrophic, leaking, robust_overfitting)
