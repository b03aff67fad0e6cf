"""An outcome in words: one line for a list of checks, and the whole story for a test that fails."""

from __future__ import annotations

import math
from collections.abc import Iterator

from robustbench_local.core.escaping import shown
from robustbench_local.metrics.rates import Rate
from robustbench_local.regression.outcome import ANCHOR, FIRST, LAST, LESS_ROBUST, MASKED, Comparison, Outcome, Verdict
from robustbench_local.report.markdown import markdown_table
from robustbench_local.report.text import interval, percent

_NAMED = 5  # classes or problems in a message
ASK = "with --robustness-report=DIR (robustbench-local check --report DIR)"
AGAINST = {LAST: "last model", ANCHOR: "anchor", FIRST: "first model"}
UNDER = {"attacks": "robust", "corruptions": "right under corruptions"}


def line(outcome: Outcome) -> str:
    """ "holds: net.pt2 | mnist | linf:0.1 | ci: 61.2 % robust (57.0-65.2, n = 500); ..."."""
    figures = ", ".join(f"{_rate(rate)} {UNDER[of]}" for of, rate in outcome.rates.items() if of in UNDER)
    rest = [f"{figures}, n = {outcome.n}"] if figures else []
    if outcome.verdict is Verdict.CANNOT_JUDGE:
        rest += reasons(outcome)[:1]
    else:
        rest += [claim.text + (", so it holds" if claim.held else ", so it does not hold") for claim in outcome.claims]
        rest += [_briefly(each) for each in outcome.comparisons if each.kind == LESS_ROBUST]
    if outcome.updating:
        rest.append("first entry of the lock" if outcome.new else "the lock's new entry")
    return f"{outcome.verdict}: {outcome.name}: {'; '.join(rest)}"


def story(outcome: Outcome) -> str:
    """What a failing test prints: what was asked, what was found, why that is a failure, and where to look."""
    return "\n".join(_story(outcome))


def reasons(outcome: Outcome) -> list[str]:
    """Why it does not hold; empty where it does."""
    masked = [
        "the attacks find less than is known to be there: the images that broke the"
        f" {AGAINST[each.against]} leave"
        f" {percent(each.after)} % robust, the attacks of now {percent(each.before)} % (p = {probability(each.p)},"
        f" needed < {probability(each.limit)}). Gradients are masked, or the attacks became weaker: no improvement is"
        " to be believed"
        for each in outcome.of_kind(MASKED)
    ]
    problems = [*outcome.problems, *masked]
    if problems:
        return problems
    worse = [] if outcome.updating else [_worse(each) for each in outcome.of_kind(LESS_ROBUST)]
    return [*worse, *(claim.text for claim in outcome.claims if not claim.held)]


def _story(outcome: Outcome) -> Iterator[str]:
    yield {
        Verdict.HOLDS: f"{outcome.name} holds",
        Verdict.WORSE: f"{outcome.name} is less robust than it has to be",
        Verdict.CANNOT_JUDGE: f"{outcome.name} cannot be judged, and so does not pass",
    }[outcome.verdict]
    found = reasons(outcome)
    yield from (f"  {each}" for each in found[:_NAMED])
    if len(found) > _NAMED:
        yield f"  and {len(found) - _NAMED} more"
    for of, rate in outcome.rates.items():
        yield f"  {'without an attack' if of == 'clean' else UNDER[of]}: {_rate(rate)}, n = {outcome.n}"
    if outcome.worst_class is not None:
        name, rate = outcome.worst_class
        yield f"  worst class: {name}, {_rate(rate)}"
    for each in outcome.comparisons:
        if each.kind == LESS_ROBUST:
            yield f"  {_briefly(each)}"
    if outcome.lost_classes:
        listed = [f"{name} {count}" for name, count in list(outcome.lost_classes.items())[:_NAMED]]
        more = len(outcome.lost_classes) - _NAMED
        yield f"  classes of the images lost: {', '.join(listed)}{f' and {more} more' if more > 0 else ''}"
    if outcome.smallest:
        yield f"  smallest perturbations among them: {', '.join(f'{each:.4g}' for each in outcome.smallest)}"
    if outcome.margins is not None:
        yield f"  median margin under the attacks: {outcome.margins:+.2f} nats"
    if outcome.replayed is not None:
        broke = AGAINST[FIRST if outcome.costs else LAST]
        yield f"  against the images that broke the {broke}: {_rate(outcome.replayed)} robust"
    for name, cost in outcome.costs.items():
        spread = f"{1e3 * cost.fastest:.3g} to {1e3 * cost.slowest:.3g}"
        yield f"  {name}: {1e3 * cost.seconds:.3g} ms an image ({spread}), {cost.bytes / 1e3:,.0f} kB"
    if outcome.left_out:
        yield f"  not run: {'; '.join(outcome.left_out)}"
    for check, advice in {doubt.check: doubt.advice for doubt in outcome.doubts if doubt.advice}.items():
        yield f"  advice on {check}: {advice}"
    if outcome.folder:
        yield f"  rows, page and pictures: {outcome.folder}"
    elif outcome.rates:
        yield f"  rows, page and pictures: {ASK}"


def _worse(each: Comparison) -> str:
    points = 100 * each.difference.value
    low, high = (100 * bound for bound in (each.difference.low, each.difference.high))
    return (
        f"significantly less {'robust' if each.of == 'attacks' else 'accurate under corruptions'} than the"
        f" {AGAINST[each.against]} on the same images: {percent(each.before)} % before, {percent(each.after)} % now, a"
        f" drop of {points:.1f} points (95 % interval {low:.1f} to {high:.1f}); {len(each.lost)} of {each.n} images"
        f" lost, {len(each.gained)} gained; p = {probability(each.p)}, needed < {probability(each.limit)}"
    )


def _briefly(each: Comparison) -> str:
    drop = "no drop, however large," if each.noticeable is None else f"a drop of {_up(each.noticeable)} points"
    of = "" if each.of == "attacks" else f" {UNDER[each.of]}"
    return (
        f"{AGAINST[each.against]}{of} {percent(each.before)} %, {len(each.lost)} lost, {len(each.gained)} gained,"
        f" p = {probability(each.p)}; {drop} would have been caught (80 % power)"
    )


def _rate(rate: Rate) -> str:
    return f"{percent(rate.value)} % ({interval(rate.low, rate.high)})"


def _up(share: float) -> str:
    return f"{math.ceil(1000 * share - 1e-9) / 10:.1f}"


def probability(p: float) -> str:
    """Two digits, as 0.013 or 2e-28."""
    return f"{p:.2g}"


def table(outcome: Outcome) -> str:
    """Two models side by side, or a model beside the last one, as a Markdown table: accuracies in %, then costs."""
    names = list(outcome.costs) or ["before", "now"]
    rows = [
        [
            UNDER[each.of],
            percent(each.before),
            percent(each.after),
            f"{100 * each.difference.value:+.1f} ({interval(each.difference.low, each.difference.high, ' to ')})",
            f"{len(each.lost)} / {len(each.gained)}",
            probability(each.p),
        ]
        for each in outcome.comparisons
        if each.kind == LESS_ROBUST
    ]
    costs = list(outcome.costs.values())
    if costs:
        rows.append(["ms an image", *(f"{1e3 * cost.seconds:.3g}" for cost in costs), "", "", ""])
        rows.append(["kB", *(f"{cost.bytes / 1e3:,.0f}" for cost in costs), "", "", ""])
    heads = ["", *names, "drop (95 % interval)", "lost / gained", "p"]
    return markdown_table([shown(head, "markdown") for head in heads], rows, [place > 0 for place in range(len(heads))])
