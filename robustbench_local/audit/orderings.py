"""Orderings: what knows more, may do more, or works longer, breaks more. Where it does not, the attack is weak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import ClassVar

import torch
from torch import Tensor

from robustbench_local.audit.check import check
from robustbench_local.audit.evidence import Rows
from robustbench_local.audit.finding import Result, broken, sound, suspicious, unchecked
from robustbench_local.audit.statistics import ALPHA, MATERIAL, Discordance, at_least, by_share, weaker
from robustbench_local.audit.stronger import BLIND, LABELS, MANY, in_words
from robustbench_local.audit.stronger import STRONGER as STRONGEST
from robustbench_local.audit.subject import Subject
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.decision import correct
from robustbench_local.core.draws import Draws
from robustbench_local.core.oracle import Oracle
from robustbench_local.core.threat import Norm, ThreatModel

ATHALYE = "Athalye et al. 2018, arXiv:1802.00420, section 3.1"
CARLINI = "Carlini et al. 2019, arXiv:1902.06705, section 5"
STRONGER = "gradients mislead here: take the lower number, add attacks by scores, labels and transfer, or a surrogate"
NO_GRADIENT = "no gradient attack runs on this model"


@dataclass(frozen=True)
class RandomPoints(Attack):
    """Many random points of the ball, and the worst of them."""

    access: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm) - {Norm.NONE}

    tries: int = 1000
    at_once: int = 20

    def __call__(self, oracle: Oracle, x: Tensor, y: Tensor, threat: ThreatModel, draws: Draws) -> Tensor:
        for first in range(0, self.tries, self.at_once):
            left = (~oracle.done).nonzero()[:, 0]
            if not len(left):
                break
            mine, x_left = draws[left], x[left]
            points = [threat.start(x_left, mine.stream(first + k)) for k in range(self.at_once)]
            oracle[left].logits(torch.stack(points, 1))
        return oracle.best(x)


def _iterated(rows: Rows) -> Iterator[Result]:
    for single, many in rows.single_and_iterated:
        yield weaker(many.robust, single.robust, f"{many} against a single step, {single}")


@check(
    "iterating helps",
    source=ATHALYE,
    advice="look for a bug in the iterative attack, or for masked gradients",
    of_rows=_iterated,
    attack=True,
)
def iterating(subject: Subject) -> Result:
    single, many = subject.run("fgsm"), subject.pgd()
    if single is None or many is None:
        return unchecked(NO_GRADIENT)
    return weaker(many.robust, single.robust, "PGD against a single step (FGSM)")


def _with_less(rows: Rows) -> Iterator[Result]:
    graded = [each for each in rows.graded if each.length > 1]
    if not graded:
        return
    left = torch.stack([each.robust for each in graded]).all(0)
    for less in (each for each in rows if each.access < Access.GRADIENTS and each.threat.norm is not Norm.NONE):
        yield weaker(left, less.robust, f"all gradient attacks against {less}")


@check(
    "gradients beat what sees less",
    source=f"{ATHALYE}; {CARLINI}; Brendel et al. 2018, arXiv:1712.04248; Croce and Hein 2020, arXiv:2003.01690",
    advice=STRONGER,
    of_rows=_with_less,
    attack=True,
)
def beats_less(subject: Subject) -> Result:
    """Transfer, scores, labels and random points, each on the images that all before it left, in one test."""
    if subject.gradients is None:
        return unchecked(NO_GRADIENT)
    left, told = subject.left, []
    broken_by_less = torch.zeros(subject.attacked, dtype=torch.bool, device=left.device)
    for name, attack, most in _seeing_less(subject):
        rows = left[:most]
        verdict = subject.run(attack, rows=rows)
        if verdict is None:
            continue
        fell = subject.fell(verdict, rows)
        told.append(f"{name} {int(fell.sum())} of {len(rows)}")
        broken_by_less[rows[fell]] = True
        left = left[~broken_by_less[left]]
    if not told:
        return sound("gradients leave no image to others")
    robust = subject.gradients
    what = f"of the images that gradients leave, others break: {', '.join(told)}; gradients against all of them"
    return weaker(robust, robust & ~broken_by_less, what)


def _seeing_less(subject: Subject) -> Iterator[tuple[str, Attack, int]]:
    """(name, attack, images it is run on at most)."""
    effort, everything = subject.effort, subject.attacked
    if subject.surrogates:
        settings = {"surrogates": subject.surrogates, "steps": effort.steps}
        yield f"transfer from {', '.join(subject.surrogates)}", find_attack("transfer", settings), everything
    queries = effort.queries // (3 if subject.random else 1)
    yield f"Square with {queries} queries", find_attack("square", {"steps": queries}), everything
    tries = effort.draws // (20 if subject.random else 1)
    yield f"{tries} random points", RandomPoints(tries=tries), effort.probed
    if not subject.random:  # the boundary of a random model lies nowhere: labels lead no attack along it
        yield "HopSkipJump", find_attack("hopskipjump", {"steps": 5, "evaluations": 50}), effort.walked


@check(
    "a stronger attack",
    source="Carlini et al. 2019, arXiv:1902.06705, section 5.1; Croce and Hein 2020, arXiv:2003.01690",
    advice="report what the stronger attack leaves: run it on all images (attack: best)",
)
def stronger(subject: Subject) -> Result:
    """On some of the images that are robust so far; where it breaks many, on more. As grids audit their rows."""
    if subject.gradients is None and subject.attack is None:
        subject.run(LABELS[0], rows=subject.left[: subject.effort.walked], **LABELS[1])
        return unchecked("what is found by scores and by labels is the number: no attack of yours is audited")
    subject.run(subject.evaluation)  # what it breaks is not held against it
    robust = subject.worst.nonzero()[:, 0]
    if not len(robust):
        return sound("no image is left to it")
    look, whole = ((each // 2 if subject.random else each) for each in (subject.effort.look, subject.effort.whole))
    for name, settings in ((STRONGEST, {"effort": subject.effort.best}), BLIND, LABELS):
        asked = robust[:look]
        verdict = subject.run(name, rows=asked, **settings)
        if verdict is None:
            continue
        fell = subject.fell(verdict, asked)
        if fell.sum() > MANY * len(asked) and len(robust) > look:
            more = robust[look:whole]
            further = subject.run(name, rows=more, **settings)
            if further is not None:
                fell = torch.cat([fell, subject.fell(further, more)])
        return _cost(fell, len(robust), subject.attacked, in_words(name, settings))
    return unchecked("no stronger attack runs on this model")


def _cost(fell: Tensor, robust: int, total: int, name: str) -> Result:
    """fell (n,) bool: which of those asked about, of the robust images of the total."""
    k, n = int(fell.sum()), len(fell)
    share = robust / total
    cost, least = k / n * share, at_least(k, n) * share
    text = f"{name} breaks {k} of {n} images that were robust so far: about {100 * cost:.1f} points of accuracy"
    figures = {"share": k / n, "cost": cost, "least": least}
    if least <= MATERIAL:
        return sound(text, **figures)
    return broken(text, **figures) if 2 * k > n and Discordance(k, 0, total).p < ALPHA else suspicious(text, **figures)


def _in_larger_balls(rows: Rows) -> Iterator[Result]:
    """The same attack in two balls of one norm: the larger holds the smaller."""
    for large, small in product(rows, rows.group):
        alike = small.threat.norm is large.threat.norm and small.same(large, "threat", "eps")
        if alike and small.threat.eps < large.threat.eps:
            yield weaker(large.robust, small.robust, f"{large} within {large.threat} against {small.threat}")


@check(
    "success grows with eps",
    source=CARLINI + ".5 (accuracy against the budget)",
    advice="a larger ball holds the smaller one: look for a bug in the attack, or for masked gradients",
    of_rows=_in_larger_balls,
    attack=True,
)
def grows(subject: Subject) -> Result:
    if subject.threat.norm is Norm.NONE:
        return unchecked("this threat model has no eps")
    curve = []
    for factor in (0.5, 1.0, 2.0):
        verdict = subject.pgd(subject.scaled(factor), loss="margin")
        if verdict is None:
            return unchecked(NO_GRADIENT)
        curve.append(verdict.robust)
    text = "robust at half, once and twice eps: " + ", ".join(f"{int(bits.sum())}" for bits in curve)
    half, once = (weaker(larger, smaller, text) for smaller, larger in pairwise(curve))
    return max(half, once, key=lambda result: result[0])


@check(
    "without a bound no image is robust",
    source=ATHALYE
    + "; Carlini et al. 2019, section 4.8; "
    + "Brendel et al. 2018, arXiv:1712.04248 (a start in another class)",
    advice="if even this fails the attack, not the model, is what stops it",
)
def unbounded(subject: Subject) -> Result:
    """PGD without a bound; then, from an image that the model accepts as another class, the way back to the image."""
    if subject.threat.norm is Norm.NONE:
        return unchecked("this threat model has no eps")
    if not bool((subject.y != subject.y[0]).any()) or not bool(subject.clean.any()):
        return unchecked("there are no two classes to start from")
    stuck = _stuck(subject)
    if 2 * int(stuck.sum()) > len(stuck):
        return by_share(stuck, "from an accepted image of another class as start the label stays,")
    verdict = subject.pgd(subject.unbounded, loss="margin", step_size=subject.unbounded.eps / 10)
    if verdict is None:
        return unchecked(NO_GRADIENT)
    n, left = len(verdict.robust), int(verdict.robust.sum())
    text = f"PGD without a bound leaves {left} of {n} images"
    if 2 * left > int(verdict.clean.sum()):
        return broken(text, left=left / n)
    return sound(text, left=left / n)


def _stuck(subject: Subject) -> Tensor:
    """(n,) bool: which right images keep their label when replaced by an image accepted as another class."""
    count = subject.attacked
    accepted = subject.clean.nonzero()[:, 0]
    start = torch.stack(
        [
            accepted[(subject.y[accepted] != label).nonzero()[:1, 0]]
            if bool((subject.y[accepted] != label).any())
            else torch.tensor([0], device=accepted.device)
            for label in subject.y[:count]
        ]
    )[:, 0]
    seen = subject.ask(subject.x[start], rows=torch.arange(count, device=start.device))
    return correct(seen, subject.y[:count]) & subject.clean[:count]


CHECKS = (iterating, beats_less, stronger, grows, unbounded)
