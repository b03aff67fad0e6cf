"""Convergence: has the attack done its work, within its budget, in the right direction, and is its claim the truth?

Of the attack that the user evaluates with; without one, of the audit's own plain PGD. Of rows, of their attacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from operator import itemgetter

from torch import Tensor

from robustbench_local.audit.check import Check, check
from robustbench_local.audit.evidence import HALF, Rows
from robustbench_local.audit.finding import (
    Result,
    Status,
    at_most_suspicious,
    broken,
    sound,
    suspicious,
    unchecked,
    worst,
)
from robustbench_local.audit.statistics import ALPHA, by_share, weaker
from robustbench_local.audit.subject import Subject
from robustbench_local.config.settings import defaults
from robustbench_local.core.access import Access
from robustbench_local.core.threat import Norm
from robustbench_local.core.verdict import Verdict
from robustbench_local.metrics.paired import mcnemar

CARLINI = "Carlini et al. 2019, arXiv:1902.06705, section 5"
PINTOR = "Pintor et al. 2022, arXiv:2106.09947"
LUCK = 0.8  # near the boundary half of the fresh draws fail a search that stops at its own success: far more is luck
CANNOT = "the attack cannot run on this model"


def _longer(rows: Rows) -> Iterator[Result]:
    """The same attack with more steps or restarts, whose own figure may be believed."""
    for a, b in combinations(rows, 2):
        short, long = sorted((a, b), key=lambda each: each.length)
        if short.length < long.length and short.length > 1 and short.same(long, "steps", "restarts", "step_size"):
            yield at_most_suspicious(weaker(short.robust, long.robust, f"{short} against {long}"))


@check(
    "steps and restarts suffice",
    source=CARLINI + ".3 (verify that attacks converge); Tramèr et al. 2020",
    advice="raise what moved the verdict until it moves no more, and report the lower number",
    of_rows=_longer,
    attack=True,
)
def doubling(subject: Subject) -> Result:
    """Twice the steps, restarts or queries, on what is left; of a random model, twice the draws too."""
    attack = subject.evaluation
    base = subject.run(attack)
    if base is None:
        return unchecked(CANNOT)
    if subject.gradients is None and subject.attack is None:
        return unchecked("no attack of yours is audited")
    rows = base.robust.nonzero()[:, 0]
    if not len(rows):
        return sound("no image is left to more of it")
    results = []

    def compare(other: Verdict | None, what: str) -> None:
        if other is not None:
            left = base.robust.clone()
            left[rows[subject.fell(other, rows)]] = False
            results.append(weaker(base.robust, left, what))

    for name in ("steps", "restarts", "queries"):
        if isinstance(value := defaults(type(attack)).get(name) and getattr(attack, name), int):
            longer = subject.run(replace(attack, **{name: 2 * value}), rows=rows)
            compare(longer, f"{name}={value} against twice as many")
    if subject.random:
        averaged = subject.run(attack, eot=2 * subject.effort.eot, rows=rows)
        compare(averaged, f"EOT with {subject.effort.eot} draws against twice as many")
    return worst(results) or unchecked("the attack has nothing to double")


def _by_last_iterate(rows: Rows) -> Iterator[Result]:
    for each in rows:
        if each.about.get("count", "all") == "all":
            continue
        twins = [other for other in rows if other.about.get("count") == "all" and each.same(other, "count")]
        if not twins:
            yield suspicious(f"{each} is judged by where its restarts end, and by nothing else")
        for twin in twins:
            what = f"{each}, last iterate against all of them"
            yield at_most_suspicious(weaker(each.robust, twin.robust, what))


@check(
    "nothing found is lost",
    source=f"{PINTOR}, indicator 3 (silent success); {CARLINI}",
    advice="return the best image met, not the last one; count every iterate (count: all)",
    of_rows=_by_last_iterate,
    attack=True,
)
def last_iterate(subject: Subject) -> Result:
    """In-ball images that succeeded when the attack asked about them, and that it did not hand back."""
    found = subject.recording
    verdict = subject.run(subject.evaluation)
    if found is None or verdict is None:
        return unchecked(CANNOT)
    if subject.random:
        return unchecked("of a random model the oracle keeps the best image")
    margins = subject.margin(found.x_adv)
    inside = subject.threat.contains(found.x_adv, subject.x[: len(margins)]) | subject.evaluation.minimises
    lost = found.succeeded & ~((margins >= 0) & inside) & verdict.clean
    return by_share(lost, "an image that succeeded was not handed back")


def _by_single_draws(rows: Rows) -> Iterator[Result]:
    for each in rows:
        if not each.row.results["stochastic"] or "corruption" in each.about:
            continue  # nobody chose what a corruption does: one draw is as fair as many
        draws, eot = int(each.about.get("draws", 1)), int(each.about.get("eot", 1))
        if draws == 1:
            yield broken(f"{each}: a random model, judged by one draw of each image", draws=1)
        elif eot == 1 and each.access > Access.NONE:
            yield suspicious(f"{each}: a random model, searched by single draws", eot=1)
        else:
            yield sound(f"{each}: {draws} fresh draws judge, {eot} guide each query")


@check(
    "single draws are not counted",
    source="Athalye et al. 2018, arXiv:1802.00420, section 4.2; Carlini et al. 2019",
    advice="judge a random model by 20 fresh draws, and search by the mean of several (draws, eot)",
    of_rows=_by_single_draws,
)
def lucky(subject: Subject) -> Result:
    """Whether most of what the attack found of a random model, by its own draws, holds for none of 20 fresh ones."""
    found = subject.recording
    if not subject.random:
        return unchecked("the model is not random")
    verdict = subject.run(subject.evaluation)
    if found is None or verdict is None or verdict.bits is None:
        return unchecked(CANNOT)
    claimed = found.succeeded & verdict.clean
    luck = claimed & (verdict.bits.cpu().double().mean(1) >= LUCK).to(claimed.device)
    text = f"the attack succeeds by its own draws, and fails on {100 * LUCK:.0f} % of fresh draws or more,"
    if 2 * int(luck.sum()) <= int(claimed.sum()):  # the best of many noisy looks is often luck, and judged as such
        return sound(f"{text} on {int(luck.sum())} of {int(claimed.sum())} images where it succeeds")
    return by_share(luck, text)


@check(
    "the attack climbs",
    source="Athalye et al. 2018, arXiv:1802.00420, section 4.2 (EOT); " + CARLINI,
    advice="look for the sign of the loss or of the gradient, also where draws are averaged",
)
def climbs(subject: Subject) -> Result:
    """Whether the images that it hands back lie nearer to the boundary than the clean ones."""
    attack, found = subject.evaluation, subject.recording
    if found is None:
        return unchecked(CANNOT)
    if attack.access < Access.SCORES or attack.minimises:
        return unchecked("the attack follows no loss within the ball")
    before, after = subject.margin(subject.x[: len(found.x_adv)]), subject.margin(found.x_adv.clamp(0, 1))
    moved = before != after
    worse = int((after < before)[moved].sum())
    total = int(moved.sum())
    text = f"the margin grew against the attacker on {worse} of {total} images that it moved"
    if total and mcnemar(worse, total - worse, "greater") < ALPHA:
        return broken(text, share=worse / total)
    return sound(text, share=worse / max(total, 1))


def _spent(used: Tensor, of: int, who: str = "") -> Result:
    """used (n,): the share of eps between each robust image and its clean one; of: how many images there are in all."""
    middle = float(used.median()) if len(used) else 1.0
    text = f"{who}robust images are {middle:.2g} of eps away at the median; less than half of it is used"
    return by_share(used < HALF, text, of=of, used=middle)


def _stored_distances(rows: Rows) -> Iterator[Result]:
    for each in rows:
        if each.access is not Access.NONE and len(each.used):
            yield _spent(each.used, len(each.robust), f"{each}: ")


@check(
    "the budget is used",
    source=CARLINI + " (units); Tramèr et al. 2020, arXiv:2002.08347",
    advice="look at units: eps counts pixels in [0, 1], and 8/255 is not 8, 8/128 or 8/255/255",
    of_rows=_stored_distances,
    attack=True,
)
def budget(subject: Subject) -> Result:
    """Of the robust images: how far from the clean ones the attack ended, in eps."""
    found = subject.recording
    verdict = subject.run(subject.evaluation)
    if found is None or verdict is None:
        return unchecked(CANNOT)
    if subject.threat.norm is Norm.NONE or subject.evaluation.minimises or not subject.threat.eps:
        return unchecked("the attack has no budget to use")
    used = subject.threat.distance(found.x_adv, subject.x[: len(found.x_adv)]) / subject.threat.eps
    outside = ~subject.threat.contains(found.x_adv, subject.x[: len(used)])
    if outside.any():
        return by_share(outside, "the attack left the ball, and is not counted there,", used=float(used.median()))
    return _spent(used[verdict.robust], len(used))


def _defense_known(rows: Rows) -> Iterator[Result]:
    naive = [each for each in rows if not each.adaptive]
    if naive and not any(each.adaptive and each.access > Access.NONE for each in rows):
        yield broken(f"only attacks that know of no defense were run: {naive[0]}")
    else:
        yield sound("attacked as it is deployed")


adaptive = Check(
    "a defense met an adaptive attack",
    source="Tramèr et al. 2020, arXiv:2002.08347; Carlini and Wagner 2017, arXiv:1705.07263",
    advice="attack the deployed model through its surrogates and its detector (adaptive: true)",
    of_rows=_defense_known,
)


@check(
    "the loss has settled",
    source=f"{PINTOR}, indicator 4 (non-converging attack); {CARLINI}.3",
    advice="raise the number of steps until the loss moves no more, and report the lower number",
)
def settled(subject: Subject) -> Result:
    """At the pace of its last tenth, how many of the robust images would as many steps again break?"""
    found, attack = subject.recording, subject.evaluation
    verdict = subject.run(attack)
    if found is None or verdict is None:
        return unchecked(CANNOT)
    steps = len(found.margins)
    rounds = int(getattr(attack, "restarts", 1))
    if steps < 20 * rounds:
        return unchecked("fewer than 20 gradient queries in a round: a tenth of them says nothing")
    tenth = steps // rounds // 10
    late, before = found.margins[-tenth:].mean(0), found.margins[-2 * tenth : -tenth].mean(0)
    known = verdict.robust & late.isfinite() & before.isfinite()
    reach = late + 10 * (late - before)
    hopeful = known & (reach > 0) & (late > before)
    result = by_share(hopeful, "at the pace of its last tenth as many steps again would break more,")
    if result[0] <= 1 or not hasattr(attack, "steps"):
        return result
    longer = doubling(subject)
    if longer.status is Status.UNCHECKED:
        return result
    return min(result, (longer.status, f"the loss still moves; {longer.evidence}", longer.figures), key=itemgetter(0))


@check(
    "as strong as another",
    source="Tramèr et al. 2020, arXiv:2002.08347; Croce and Hein 2020, arXiv:2003.01690",
    advice="take the lower number, and find out why this attack misses what a plain one finds",
)
def strength(subject: Subject) -> Result:
    base = subject.run(subject.evaluation)
    if base is None or subject.gradients is None:
        return unchecked(CANNOT)
    if subject.attack is not None:
        return weaker(base.robust, subject.gradients, "this attack against PGD by cross-entropy and by the margin")
    result = weaker(base.robust, subject.gradients, "PGD by cross-entropy against the lower of it and the margin's")
    return result if result[0] is Status.BROKEN else sound(result[1], **result[2])  # some points lie between losses


CHECKS = (doubling, last_iterate, lucky, climbs, budget, adaptive, settled, strength)
