"""From figures to a verdict: what counts as worse, what as luck, and what nobody can judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from robustbench_local.audit.finding import Finding, Status
from robustbench_local.data.images import Images
from robustbench_local.metrics.paired import holm, mcnemar
from robustbench_local.metrics.rates import wilson
from robustbench_local.regression import lock
from robustbench_local.regression.figures import Figures
from robustbench_local.regression.judging import judged
from robustbench_local.regression.known_images import KnownImages
from robustbench_local.regression.lock import Entry
from robustbench_local.regression.measured import Measured
from robustbench_local.regression.multiplicity import expected, settled
from robustbench_local.regression.outcome import Outcome, Verdict
from robustbench_local.regression.settings import Check
from robustbench_local.regression.words import line, reasons, story
from robustbench_local.report.results import Results

N = 500
KNOWN = KnownImages(np.zeros(0, np.int64), np.zeros((0, 1, 2, 2), np.int16), np.zeros(0, np.float32))


class Replaying(Measured):
    """On which old images leave robust what `against` says."""

    against: Any = None

    def replayed(self, known: KnownImages) -> Any:
        return self.against


def bits(robust: int, n: int = N) -> Any:
    """The first `robust` images."""
    return (np.arange(n) < robust).astype(np.float64)


def measured(shares: Mapping[str, Any], levels: int = 1, against: Any = None, **about: Any) -> Replaying:
    n = len(next(iter(shares.values())))
    pixels = np.zeros((n, 1, 2, 2), np.uint8)
    labels = torch.arange(n) % 2
    data = Images("mnist", "test", pixels, labels, torch.arange(n), ("even", "odd"), "d" * 64, torch.device("cpu"))
    found = Figures(np.ones(n), shares, None, {"clean": levels, **dict.fromkeys(shares, levels)}, None, None)
    said: dict[str, Any] = {
        "model": "net",
        "weights": "w",
        "behaviour": None,
        "seed": 0,
        "versions": {},
        "device": "a CPU",
    }
    store = type("Stored", (), {"folder": "results"})()
    made: dict[str, Any] = {
        "check": Check("net", "mnist", "linf:0.1"),
        "model": nn.Identity(),
        "images": data,
        "threat": None,
        "results": Results([], {"": store}),
        "figures": found,
        "aimed": (),
        "known": KNOWN,
        "suite": ("pgd(steps=10) version 1, linf:0.1",),
        "left_out": (),
        "failed": (),
        "doubts": (),
        "identity": said,
    }
    each = Replaying(**{**made, **about})
    object.__setattr__(each, "against", against)
    return each


def entry(last: Measured, anchor: Measured | None = None, replays: bool = False) -> Entry:
    """What the lock holds once `last` was measured, and before it `anchor`."""
    before = None if anchor is None else lock.parsed(lock.entry_of(anchor, tests=["a test"], replays=replays))
    return lock.parsed(lock.entry_of(last, before, tests=["a test"], replays=replays))


def outcome(now: Measured, before: Entry | None, known: bool = False, alpha: float = 0.05, **settings: Any) -> Outcome:
    check = Check("net", "mnist", "linf:0.1", **settings)
    return settled([judged(now, check, before, KNOWN if known else None, alpha)], alpha)[0]


def test_worse_is_what_the_exact_test_calls_so_and_no_more() -> None:
    before = entry(measured({"attacks": bits(300)}))
    for lost in range(12):
        found = outcome(measured({"attacks": bits(300 - lost)}), before)
        p = mcnemar(lost, 0, "greater")
        assert found.comparisons[0].p == pytest.approx(p)
        assert (found.verdict is Verdict.WORSE) == (p < 0.05)
    assert outcome(measured({"attacks": bits(400)}), before).verdict is Verdict.HOLDS


def caught(exchanged: float, drop: float) -> float:
    """The share of 20,000 runs on N images in which the exact one-sided test has p < 0.05, drawn with numpy."""
    sides = [exchanged / 2 + drop, exchanged / 2, 1 - exchanged - drop]
    lost, gained, _ = np.random.default_rng(0).multinomial(N, sides, 20_000).T
    return float((binom.sf(lost - 1, lost + gained, 0.5) < 0.05).mean())


def test_the_message_says_what_fell_and_what_would_have_been_seen() -> None:
    now = bits(300)
    now[[3, 5, 7, 9, 11, 12, 13, 15, 17]] = 0
    now[400] = 1
    found = outcome(measured({"attacks": now}), entry(measured({"attacks": bits(300)})))
    (comparison,) = found.comparisons
    assert comparison.lost == (3, 5, 7, 9, 11, 12, 13, 15, 17) and comparison.gained == (400,)
    assert found.lost_classes == {"odd": 8, "even": 1}
    exchanged = 2 / N
    drop = comparison.noticeable
    assert drop is not None and caught(exchanged, drop) == pytest.approx(0.8, abs=0.015)
    assert caught(exchanged, 0.8 * drop) < 0.7  # a test of two sides would need a fifth more
    text = story(found)
    for part in (
        "9 of 500 images lost, 1 gained",
        "8 of odd, 1 of even",
        "would have been caught",
        "58.4 % now",
        "60.0 %",
    ):
        assert part in text, part
    assert "worse: net" in line(found)


def test_several_comparisons_share_the_risk() -> None:
    """Holm: exactly what metrics.paired.holm rejects, whatever the order; and none earlier than it may."""
    before = entry(
        measured({"attacks": bits(300), "corruptions": bits(450)}),
        measured({"attacks": bits(302), "corruptions": bits(450)}),
    )
    now = measured({"attacks": bits(294), "corruptions": bits(444)})
    found = outcome(now, before)
    ps = [each.p for each in found.comparisons]
    assert len(ps) == before.comparisons == 4
    assert [each.rejected for each in found.comparisons] == [p < 0.05 for p in holm(ps)]
    assert any(p < 0.05 for p in ps)
    few = settled([found], 0.05, expected=40)[0]
    assert [each.rejected for each in few.comparisons] == [p < 0.05 for p in holm([*ps, *[1.0] * 36])][:4]
    both = settled([found, found], 0.05)
    assert [each.limit for each in both[0].comparisons] == [each.limit for each in found.comparisons]


def test_how_many_comparisons_are_to_come_is_read_from_the_lock() -> None:
    one, two = entry(measured({"attacks": bits(300)}), replays=True), entry(measured({"corruptions": bits(30)}))
    object.__setattr__(two, "record", {**two.record, "tests": ["another"]})
    assert expected([one, two], {"a test"}) == 2 and expected([one, two], {"another"}) == 1
    floors = lock.parsed(lock.entry_of(measured({"attacks": bits(300)}), tests=["a floor"], compares=False))
    assert expected([one, floors], {"a test", "a floor"}) == 2
    assert expected([one, two], {"a test", "a new one"}) == 3 == expected([one, two], {"a test", "another"})


def test_not_worse_is_to_be_shown_where_a_margin_is_given() -> None:
    before = entry(measured({"attacks": bits(300)}))
    same, fewer = measured({"attacks": bits(300)}), measured({"attacks": bits(296)})
    assert outcome(same, before, margin=0.02).verdict is Verdict.HOLDS
    assert outcome(fewer, before).verdict is Verdict.HOLDS  # luck, as far as anybody can tell
    missed = outcome(fewer, before, margin=0.01)
    assert missed.verdict is Verdict.WORSE and "the margin is 1.0 points" in reasons(missed)[0]
    assert outcome(fewer, before, margin=0.03).verdict is Verdict.HOLDS
    old = bits(300)
    old[:30] = 0  # what old images break counts here: who claims must show
    replayed = measured({"attacks": bits(300)}, against=old)
    assert (
        outcome(replayed, entry(measured({"attacks": bits(300)}), replays=True), known=True, margin=0.03).claims[0].held
        is False
    )


@pytest.mark.parametrize(("side", "holds"), [("lower", False), ("measured", False), ("upper", True)])
def test_floors_are_judged_by_the_side_that_is_named(side: str, holds: bool) -> None:
    found = outcome(measured({"attacks": bits(220)}), None, at_least=0.45, side=side)
    (claim,) = found.claims
    low, high = wilson(220, N, 0.9)
    assert claim.bound == pytest.approx({"lower": low, "measured": 0.44, "upper": high}[side])
    assert claim.held is holds and (found.verdict is Verdict.HOLDS) is holds


def test_a_floor_that_is_measured_but_not_shown_fails_by_its_lower_side() -> None:
    near = measured({"attacks": bits(230)})
    assert outcome(near, None, at_least=0.45).verdict is Verdict.WORSE
    assert outcome(near, None, at_least=0.45, side="measured").verdict is Verdict.HOLDS
    assert outcome(measured({"attacks": bits(250)}), None, at_least=0.45).verdict is Verdict.HOLDS


def test_the_worst_class_is_held_against_its_own_floor() -> None:
    shares = bits(N)
    shares[1:200:2] = 0  # 100 of the 250 odd ones
    found = outcome(measured({"corruptions": shares}), None, worst_class_at_least=0.7)
    assert found.verdict is Verdict.WORSE and "class odd" in reasons(found)[0]
    assert found.worst_class is not None and found.worst_class[0] == "odd"
    assert outcome(measured({"corruptions": shares}), None, at_least=0.7).verdict is Verdict.HOLDS


def test_an_improvement_that_old_images_undo_is_refused() -> None:
    before = entry(measured({"attacks": bits(300)}), replays=True)
    masked = outcome(measured({"attacks": bits(480)}, against=bits(310)), before, known=True)
    assert masked.verdict is Verdict.CANNOT_JUDGE and "Gradients are masked" in reasons(masked)[0]
    real = outcome(measured({"attacks": bits(480)}, against=bits(490)), before, known=True)
    assert real.verdict is Verdict.HOLDS
    floor = outcome(measured({"attacks": bits(480)}, against=bits(310)), before, known=True, at_least=0.5)
    assert floor.verdict is Verdict.CANNOT_JUDGE
    unseen = outcome(measured({"attacks": bits(480)}, against=bits(310)), before)  # the twin: images were not kept
    assert unseen.verdict is Verdict.HOLDS


def test_luck_of_the_attack_is_no_masking() -> None:
    """Old images break some that the attack of now misses, and miss as many that it finds."""
    now, old = bits(300), bits(300)
    now[[1, 2, 3, 4, 5, 6]] = 0
    old[[11, 12, 13, 14, 15, 16]] = 0
    before = entry(measured({"attacks": old}), replays=True)
    assert outcome(measured({"attacks": now}, against=old), before, known=True).verdict is Verdict.HOLDS


@pytest.mark.parametrize("status", [Status.SUSPICIOUS, Status.BROKEN])
def test_what_an_audit_doubts_does_not_pass(status: Status) -> None:
    doubt = Finding("gradients are there", status, "the gradient is zero", advice="state a surrogate")
    found = outcome(measured({"attacks": bits(400)}, doubts=(doubt,)), entry(measured({"attacks": bits(300)})))
    assert found.verdict is Verdict.CANNOT_JUDGE and "state a surrogate" in story(found)
    floor = outcome(measured({"attacks": bits(400)}, doubts=(doubt,)), None, at_least=0.1)
    assert floor.verdict is Verdict.CANNOT_JUDGE


def test_what_cannot_be_compared_is_named() -> None:
    before = entry(measured({"attacks": bits(300)}))
    now = measured({"attacks": bits(300)})
    other = measured({"attacks": bits(300)}, images=replace(now.images, digest="e" * 64))
    assert "the images have changed" in reasons(outcome(other, before))[0]
    weaker = measured({"attacks": bits(300)}, suite=("pgd(steps=1) version 1, linf:0.1",))
    text = reasons(outcome(weaker, before))[0]
    assert "only then: pgd(steps=10)" in text and "only now: pgd(steps=1)" in text
    less = measured({"attacks": bits(300)}, left_out=("best: left out, needs gradients",))
    assert "access" in reasons(outcome(less, before))[0]
    missing = outcome(now, None)
    assert missing.verdict is Verdict.CANNOT_JUDGE and "no entry" in reasons(missing)[0]
    failed = outcome(measured({"attacks": bits(300)}, failed=("pgd: failed, ValueError: no",)), before)
    assert failed.verdict is Verdict.CANNOT_JUDGE and "ValueError" in reasons(failed)[0]


def test_random_models_are_compared_by_their_draws() -> None:
    generator = np.random.default_rng(0)
    old = generator.binomial(20, 0.7, N) / 20
    now = np.clip(old - generator.binomial(2, 0.5, N) / 20, 0, 1)
    before = entry(measured({"attacks": old}, levels=20))
    found = outcome(measured({"attacks": now}, levels=20), before)
    assert found.verdict is Verdict.WORSE and found.random
    assert found.comparisons[0].noticeable is not None and found.comparisons[0].noticeable < 0.02
    again = generator.permutation(old - now) * generator.choice([-1, 1], N)
    level = outcome(measured({"attacks": np.clip(old + again - again.mean(), 0, 1)}, levels=20), before)
    assert level.verdict is Verdict.HOLDS


def test_the_anchor_stays_where_it_is_and_is_held_against_too() -> None:
    first = measured({"attacks": bits(300)})
    entries = lock.parsed(lock.entry_of(first))
    assert entries.anchor is None
    for robust in (297, 294, 291):  # each within luck of the one before
        now = measured({"attacks": bits(robust)})
        found = outcome(now, entries)
        assert not any(each.rejected for each in found.comparisons if each.against == "last")
        entries = lock.parsed(lock.entry_of(now, entries))
        assert entries.anchor is not None and entries.anchor.shares["attacks"].sum() == 300
    assert found.verdict is Verdict.WORSE and "anchor" in reasons(found)[0]
    moved = lock.parsed(lock.entry_of(now, entries, re_anchor=True))
    assert moved.anchor is None
    other = measured({"attacks": bits(291)}, images=replace(now.images, digest="e" * 64))
    assert lock.parsed(lock.entry_of(other, entries)).anchor is None


def test_an_entry_of_500_images_is_small() -> None:
    generator = np.random.default_rng(0)
    shares = {"attacks": generator.integers(0, 21, N) / 20, "corruptions": generator.integers(0, 21, N) / 20}
    each = measured(shares, levels=20)
    each = replace(each, figures=replace(each.figures, margins=generator.normal(size=N)))  # type: ignore[type-var]
    last = lock.entry_of(each)
    other = replace(each, figures=replace(each.figures, shares={**shares, "attacks": bits(250)}))  # type: ignore[type-var]
    assert len(json.dumps(lock.entry_of(other, lock.parsed(last)), indent=1)) < 60_000


def test_a_margin_of_shares_needs_images_enough() -> None:
    for n, verdict in ((150, Verdict.CANNOT_JUDGE), (200, Verdict.HOLDS)):
        shares = np.tile([0.5, 1.0], n // 2)
        each = measured({"attacks": shares}, levels=20)
        assert outcome(each, entry(each), margin=0.1).verdict is verdict
    few = measured({"attacks": bits(100, 150)})
    assert outcome(few, entry(few), margin=0.1).verdict is Verdict.HOLDS  # bits have an exact interval


def test_with_a_margin_a_significant_smaller_drop_is_no_failure() -> None:
    n = 5000
    before = entry(measured({"attacks": bits(3000, n)}))
    now = measured({"attacks": bits(2920, n)})
    assert outcome(now, before).verdict is Verdict.WORSE
    within = outcome(now, before, margin=0.05)
    assert within.verdict is Verdict.HOLDS and not reasons(within) and "so it holds" in line(within)
    assert not within.hypotheses and within.comparisons[0].p < 1e-9  # told, and no part of Holm's count
