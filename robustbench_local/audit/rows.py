"""A grid's own rows under audit: a pure function of what was stored.

Rows are grouped by model, images and goal; within a group all attacks judged the same images, so that they are
compared image by image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import torch

from robustbench_local.audit.check import MATERIAL, Result, broken, by_share, sound, suspicious, weaker
from robustbench_local.audit.evidence import CHECKS, Arrays, Evidence, RowCheck, row_check
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import RowFinding
from robustbench_local.audit.row_flags import MISSING, SET_UP
from robustbench_local.core.oracle import Access
from robustbench_local.core.threat import Norm
from robustbench_local.metrics.rates import wilson
from robustbench_local.storage import identity
from robustbench_local.storage.row import Row

CARLINI = "Carlini et al. 2019, arXiv:1902.06705"
ATHALYE = "Athalye et al. 2018, arXiv:1802.00420"


def audit_rows(rows: Iterable[Row], arrays: Arrays) -> dict[str, list[RowFinding]]:
    """{group: findings} of good rows; arrays(row) gives "robust", "clean", "distance" (N,) and what else is stored,
    "won" (N,) of attacks that minimise.

    A group is a model on some images towards some goal, and its name a JSON list of what defines these. Of each check
    the worst result within each threat is kept.
    """
    groups: dict[str, list[Evidence]] = defaultdict(list)
    for row in rows:
        if row["status"] == "ok":
            groups[identity.group(row)].append(Evidence(row, arrays(row)))
    return {name: list(_audited(group)) for name, group in sorted(groups.items())}


def _audited(group: list[Evidence]) -> Iterator[RowFinding]:
    by_threat: dict[str, list[Evidence]] = defaultdict(list)
    for each in group:
        by_threat[each.about["threat"]].append(each)
    for threat, rows in by_threat.items():
        for check in CHECKS:
            results = list(check.run(rows))
            if results:
                worst = max(results, key=lambda result: result[0])
                yield RowFinding(_finding(check, worst), threat, check.attack)
    yield from _over_eps(group)


def _finding(check: RowCheck, result: Result) -> Finding:
    return Finding(check.name, *result, source=check.source, advice=check.advice)


@row_check("set-up", source=f"{CARLINI}; Croce and Hein 2020, arXiv:2003.01690", advice="audit the model by itself")
def set_up(rows: list[Evidence]) -> Iterator[Result]:
    """What was flagged when the model was first asked, and about the images that came back."""
    for each in rows:
        for flag in each.row["results"]["flags"]:
            name, _, count = flag.partition(":")
            if name in SET_UP:
                status, text = SET_UP[name]
                yield status, f"{each}: {text}", {}
            elif name == "no_gradient":
                continue  # that has a check of its own
            elif count.isdecimal():  # of images; few_classes:3/10 is about the sample, and the table says it
                faults = torch.arange(len(each.standing)) < int(count)
                yield by_share(faults, f"{each}: {name.replace('_', ' ')}")
        yield sound(f"{each}: no flag of the set-up")


@row_check(
    "gradients are there",
    source=f"{ATHALYE}, section 3; Pintor et al. 2022, arXiv:2106.09947, indicator 1",
    advice="run an attack that needs no gradient (square, best), state a surrogate (BPDA), raise the margin where the"
    " softmax saturates",
    attack=True,
)
def unled(rows: list[Evidence]) -> Iterator[Result]:
    """Images that stand since no gradient led anywhere. What other gradients led, or a long search without any, is
    another figure beside it, that may be believed.
    """
    graded = [each for each in rows if each.access is Access.GRADIENTS and each.adaptive]
    carried = any(each.searches or (each in graded and not each.unled.double().mean() > 0.5) for each in rows)
    for each in graded:
        if bool(each.unled.any()):
            text = f"{each}: of the images that stand, no gradient led the attack"
            status, text, figures = by_share(each.unled, text)
            few = int(each.unled.sum()) <= MATERIAL * len(each.standing)
            yield min(status, Status.SUSPICIOUS) if few or carried else status, text, figures


@row_check(
    "nothing found is lost",
    source="Pintor et al. 2022, arXiv:2106.09947, indicator 3 (silent success)",
    advice="count every iterate (count: all)",
    attack=True,
)
def last_iterate(rows: list[Evidence]) -> Iterator[Result]:
    for each in rows:
        if each.about.get("count", "all") == "all":
            continue
        twins = [other for other in rows if other.about.get("count") == "all" and each.same(other, "count")]
        if not twins:
            yield suspicious(f"{each} is judged by where its restarts end, and by nothing else")
        for twin in twins:
            status, text, figures = weaker(each.standing, twin.standing, f"{each}, last iterate against all of them")
            yield min(status, Status.SUSPICIOUS), text, figures


@row_check(
    "single draws are not counted",
    source=f"{ATHALYE}, section 4.2 (EOT); {CARLINI}",
    advice="judge a random model by 20 fresh draws, and search by the mean of several (draws, eot)",
)
def single_draws(rows: list[Evidence]) -> Iterator[Result]:
    for each in rows:
        if not each.row["results"]["stochastic"] or "corruption" in each.about:
            continue  # nobody chose what a corruption does: one draw is as fair as many
        draws, eot = int(each.about.get("draws", 1)), int(each.about.get("eot", 1))
        if draws == 1:
            yield broken(f"{each}: a random model, judged by one draw of each image", draws=1)
        elif eot == 1 and each.access > Access.NONE:
            yield suspicious(f"{each}: a random model, searched by single draws", eot=1)
        else:
            yield sound(f"{each}: {draws} fresh draws judge, {eot} guide each query")


@row_check(
    "the budget is used", source=f"{CARLINI} (units)", advice="look at units: eps counts pixels in [0, 1]", attack=True
)
def budget(rows: list[Evidence]) -> Iterator[Result]:
    for each in rows:
        short = each.unused
        if each.access is not Access.NONE and len(short):
            status, text, figures = by_share(short, f"{each}: of the images that stand, less than half of eps is used")
            few = int(short.sum()) <= MATERIAL * len(each.standing)
            yield min(status, Status.SUSPICIOUS) if few else status, text, figures


@row_check(
    "a defense met an adaptive attack",
    source="Tramèr et al. 2020, arXiv:2002.08347; Carlini and Wagner 2017, arXiv:1705.07263",
    advice="attack the deployed model through its surrogates and its detector (adaptive: true)",
)
def adaptive(rows: list[Evidence]) -> Iterator[Result]:
    naive = [each for each in rows if not each.adaptive]
    if naive and not any(each.adaptive and each.access > Access.NONE for each in rows):
        yield broken(f"only attacks that know of no defense were run: {naive[0]}")
    else:
        yield sound("attacked as it is deployed")


@row_check(
    "iterating helps", source=f"{ATHALYE}, section 3.1", advice="look for a bug, or for masked gradients", attack=True
)
def iterating(rows: list[Evidence]) -> Iterator[Result]:
    graded = [each for each in rows if each.access is Access.GRADIENTS and each.adaptive]
    for single in (each for each in graded if each.length == 1 and not each.unused.double().mean() > 0.5):
        for many in (each for each in graded if each.length > 1):
            yield weaker(many.standing, single.standing, f"{many} against a single step, {single}")


@row_check(
    "gradients beat what sees less",
    source=f"{ATHALYE}, section 3.1; {CARLINI}, section 5",
    advice="gradients mislead here: report the lower number, add attacks by scores, labels and transfer",
    attack=True,
)
def white_box(rows: list[Evidence]) -> Iterator[Result]:
    graded = [each for each in rows if each.access is Access.GRADIENTS and each.length > 1 and each.adaptive]
    if not graded:
        return
    best = torch.stack([each.standing for each in graded]).all(0)
    for less in (each for each in rows if each.access < Access.GRADIENTS and each.threat.norm is not Norm.NONE):
        yield weaker(best, less.standing, f"all gradient attacks against {less}")


@row_check(
    "steps and restarts suffice", source=f"{CARLINI}, section 5.3", advice="raise what moved the verdict", attack=True
)
def longer(rows: list[Evidence]) -> Iterator[Result]:
    for a, b in combinations(rows, 2):
        short, long = sorted((a, b), key=lambda each: each.length)
        if short.length < long.length and short.length > 1 and short.same(long, "steps", "restarts", "step_size"):
            status, text, figures = weaker(short.standing, long.standing, f"{short} against {long}")
            yield min(status, Status.SUSPICIOUS), text, figures


@row_check(
    "no catastrophic overfitting",
    source="Wong et al. 2020, arXiv:2001.03994",
    advice="train with several steps, a random start or gradient alignment; never report FGSM alone",
)
def catastrophic(rows: list[Evidence]) -> Iterator[Result]:
    """FGSM leaves most of the images that were right, and more steps fell nearly all of these.

    A single step that mostly was not taken met a flat loss: that the budget is not used says so.
    """
    graded = [each for each in rows if each.access is Access.GRADIENTS and each.adaptive]
    for single in (each for each in graded if each.length == 1 and not each.unused.double().mean() > 0.5):
        for many in (each for each in graded if each.length > 1):
            left, most, right = (int(bits.sum()) for bits in (single.standing, many.standing, single.clean))
            text = f"{single} leaves {left} of {right} right images, {many} leaves {most}"
            high = wilson(left, right)[0] > 0.5 if right else False
            yield broken(text) if high and wilson(most, right)[1] < 0.1 else sound(text)


@row_check("settings are recorded", source=f"{CARLINI}, section 6", advice="run the cell again: its row is incomplete")
def recorded(rows: list[Evidence]) -> Iterator[Result]:
    for each in rows:
        lost = [".".join(path) for path in MISSING if _lacks(each.row, path)]
        yield (
            suspicious(f"{each} does not say {', '.join(lost)}") if lost else sound("all settings, versions and costs")
        )


def _lacks(row: Row, path: tuple[str, ...]) -> bool:
    value: Any = row
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return True
        value = value[key]
    return value is None


def _over_eps(group: list[Evidence]) -> Iterator[RowFinding]:
    """The same attack in two balls of one norm: the larger holds the smaller."""
    check = RowCheck(
        "success grows with eps", f"{CARLINI}, section 5.5", "look for a bug, or for masked gradients", longer.run, True
    )
    worst: dict[str, Result] = {}
    for a, b in combinations(group, 2):
        if a.threat.norm is not b.threat.norm or a.threat.eps == b.threat.eps or not a.same(b, "threat", "eps"):
            continue
        small, large = sorted((a, b), key=lambda each: each.threat.eps)
        result = weaker(large.standing, small.standing, f"{large} within {large.threat} against {small.threat}")
        place = large.about["threat"]
        worst[place] = max(worst.get(place, result), result, key=lambda each: each[0])
    for threat, result in worst.items():
        yield RowFinding(_finding(check, result), threat, attack=True)
