"""Convergence: has the attack done its work, within its budget, in the right direction, and is its claim the truth?

Of the attack that the user evaluates with; without one, of the audit's own plain PGD.
"""

from __future__ import annotations

from dataclasses import replace

from scipy.stats import binomtest

from robustbench_local.audit.check import ALPHA, Result, broken, by_share, check, sound, unchecked, weaker
from robustbench_local.audit.subject import Subject
from robustbench_local.audit.watched import Search, search
from robustbench_local.config.settings import defaults
from robustbench_local.core.oracle import Access
from robustbench_local.core.threat import Norm

CARLINI = "Carlini et al. 2019, arXiv:1902.06705, section 5"
PINTOR = "Pintor et al. 2022, arXiv:2106.09947"
CANNOT = "the attack cannot run on this model"
HALF = 0.51  # of eps: pixels taken to span [-1, 1], the smallest of the mistakes of unit, use half of it


def _own(subject: Subject) -> Search | None:
    """The one search of the audited attack, kept."""
    if subject.threat.norm not in subject.evaluation.norms:
        return None
    if not hasattr(subject, "_search"):
        subject._search = search(subject, subject.evaluation)  # type: ignore[attr-defined]
    found: Search | None = subject._search  # type: ignore[attr-defined]
    return found


@check(
    "steps, restarts and draws suffice",
    source=CARLINI + ".3 (verify that attacks converge); Tramèr et al. 2020",
    advice="raise what moved the verdict until it moves no more, and report the lower number",
)
def doubling(subject: Subject) -> Result:
    attack = subject.evaluation
    base = subject.run(attack)
    if base is None:
        return unchecked(CANNOT)
    results = []
    for name in ("steps", "restarts", "queries"):
        if isinstance(value := defaults(type(attack)).get(name) and getattr(attack, name), int):
            more = subject.run(replace(attack, **{name: 2 * value}))
            if more is not None:
                results.append(weaker(base.robust, more.robust, f"{name}={value} against twice as many"))
    if subject.random:
        more = subject.run(attack, eot=2 * subject.effort.eot)
        if more is not None:
            what = f"EOT with {subject.effort.eot} draws against twice as many"
            results.append(weaker(base.robust, more.robust, what))
    return max(results, key=lambda result: result[0]) if results else unchecked("the attack has nothing to double")


@check(
    "nothing found is lost",
    source=f"{PINTOR}, indicator 3 (silent success); {CARLINI}",
    advice="return the best image met, not the last one",
)
def last_iterate(subject: Subject) -> Result:
    """In-ball images that had won when the attack asked about them, and that it did not hand back."""
    found = _own(subject)
    verdict = subject.run(subject.evaluation)
    if found is None or verdict is None:
        return unchecked(CANNOT)
    if subject.random:
        return unchecked("of a random model the oracle keeps the best image")
    margins = subject.margin(found.x_adv)
    inside = subject.threat.contains(found.x_adv, subject.x[: len(margins)]) | subject.evaluation.minimises
    lost = found.seen & ~((margins >= 0) & inside) & verdict.clean
    return by_share(lost, "an image that had won was not handed back")


@check(
    "single draws are not counted",
    source="Athalye et al. 2018, arXiv:1802.00420, section 4.2; Carlini et al. 2019",
    advice="judge a random model by fresh draws, and search by the mean of several (EOT)",
)
def lucky(subject: Subject) -> Result:
    """What the attack returned for a random model, by the first draw alone against the share of 20 fresh draws."""
    found = _own(subject)
    if not subject.random:
        return unchecked("the model is not random")
    verdict = subject.run(subject.evaluation)
    if found is None or verdict is None or verdict.bits is None:
        return unchecked(CANNOT)
    claimed = found.seen & verdict.clean
    return by_share(claimed & verdict.robust, "the attack had won by its own draws, and loses on most fresh draws,")


@check(
    "the attack climbs",
    source="Athalye et al. 2018, arXiv:1802.00420, section 4.2 (EOT); " + CARLINI,
    advice="look for the sign of the loss or of the gradient, also where draws are averaged",
)
def climbs(subject: Subject) -> Result:
    """Whether the images that it hands back for those that stand lie nearer to the boundary than the clean ones."""
    attack, found = subject.evaluation, _own(subject)
    if found is None:
        return unchecked(CANNOT)
    if attack.access < Access.SCORES or attack.minimises:
        return unchecked("the attack follows no loss within the ball")
    before, after = subject.margin(subject.x[: len(found.x_adv)]), subject.margin(found.x_adv.clamp(0, 1))
    moved = before != after
    fell = int((after < before)[moved].sum())
    total = int(moved.sum())
    text = f"the margin grew against the attacker on {fell} of {total} images that it moved"
    if total and binomtest(fell, total, alternative="greater").pvalue < ALPHA:
        return broken(text, share=fell / total)
    return sound(text, share=fell / max(total, 1))


@check(
    "the budget is used",
    source=CARLINI + " (units); Tramèr et al. 2020, arXiv:2002.08347",
    advice="look at units: eps counts pixels in [0, 1], and 8/255 is not 8, 8/128 or 8/255/255",
)
def budget(subject: Subject) -> Result:
    """Of the images that stand: how far from the clean ones the attack ended, in eps."""
    found = _own(subject)
    verdict = subject.run(subject.evaluation)
    if found is None or verdict is None:
        return unchecked(CANNOT)
    if subject.threat.norm is Norm.NONE or subject.evaluation.minimises or not subject.threat.eps:
        return unchecked("the attack has no budget to use")
    used = subject.threat.distance(found.x_adv, subject.x[: len(found.x_adv)]) / subject.threat.eps
    outside = ~subject.threat.contains(found.x_adv, subject.x[: len(used)])
    if outside.any():
        return by_share(outside, "the attack left the ball, and is not counted there,", used=float(used.median()))
    short = (used < HALF)[verdict.robust]
    middle = float(used[verdict.robust].median()) if len(short) else 1.0
    return by_share(short, f"at the median {middle:.2g} of eps are used; less than half", used=middle)


@check(
    "the loss has settled",
    source=f"{PINTOR}, indicator 4 (non-converging attack); {CARLINI}.3",
    advice="raise the number of steps until the loss moves no more, and report the lower number",
)
def settled(subject: Subject) -> Result:
    """At the pace of its last tenth, how many of the standing images would as many steps again fell?"""
    found, attack = _own(subject), subject.evaluation
    verdict = subject.run(attack)
    if found is None or verdict is None:
        return unchecked(CANNOT)
    steps = len(found.margins)
    rounds = int(getattr(attack, "restarts", 1))
    if steps < 20 * rounds:
        return unchecked("fewer than 20 gradient queries in a round: a tenth of them says nothing")
    tenth = steps // rounds // 10
    late, before = found.margins[-tenth:].mean(0), found.margins[-2 * tenth : -tenth].mean(0)
    stands = verdict.robust & late.isfinite() & before.isfinite()
    reach = late + 10 * (late - before)
    hopeful = stands & (reach > 0) & (late > before)
    result = by_share(hopeful, "at the pace of its last tenth as many steps again would fell more,")
    if result[0] <= 1 or not hasattr(attack, "steps"):
        return result
    more = subject.run(replace(attack, **{"steps": 2 * attack.steps}))
    return result if more is None else weaker(verdict.robust, more.robust, "the loss still moves; twice the steps")


@check(
    "as strong as another",
    source="Tramèr et al. 2020, arXiv:2002.08347; Croce and Hein 2020, arXiv:2003.01690",
    advice="take the lower number, and find out why this attack misses what a plain one finds",
)
def strength(subject: Subject) -> Result:
    if subject.attack is None:
        return unchecked("no attack of yours is audited")
    base = subject.run(subject.attack)
    if base is None or subject.gradients is None:
        return unchecked(CANNOT)
    return weaker(base.robust, subject.gradients, "this attack against the audit's own gradients")


CHECKS = (doubling, last_iterate, lucky, climbs, budget, settled, strength)
