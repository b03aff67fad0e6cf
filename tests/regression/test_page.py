"""The page of a run of checks, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_local.gallery.views import Sample, View, change, picture
from robustbench_local.metrics.rates import Rate
from robustbench_local.regression.outcome import LESS_ROBUST, MASKED, Claim, Comparison, Doubt, Outcome
from robustbench_local.regression.page import page
from robustbench_local.regression.written import write_outcomes
from tests.helpers.browser import EVIL, Visit, launched


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


def outcomes() -> list[Outcome]:
    x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    drop = Rate(0.1, 0.05, 0.15)
    worse = Comparison(LESS_ROBUST, "attacks", "last", 100, 0.6, 0.5, (1, 2), (3,), drop, 1e-4, 0.01, None, 0.1)
    masked = replace(worse, kind=MASKED, noticeable=None)
    views = (View("clean", picture(x), (EVIL,)), View("attacked", picture(x), ("answered 3",)), change(x, 1 - x))
    first = Outcome(
        EVIL,
        {"model": "net.pt2"},
        100,
        {"clean": Rate(0.9, 0.8, 0.95), "attacks": Rate(0.5, 0.4, 0.6)},
        worst_class=(EVIL, Rate(0.1, 0.05, 0.2)),
        comparisons=(worse,),
        claims=(Claim("a floor", 0.45, 0.4, 0.5, False, f"{EVIL} is 50 %"),),
        replayed=Rate(0.4, 0.3, 0.5),
        suite=("pgd(steps=10)",),
        left_out=("best: left out",),
        identity={"model": EVIL},
        changed=(Sample(1, EVIL, "lost", views), Sample(3, "cat", "gained", views)),
    )
    doubt = Doubt("gradients are there", "broken", EVIL, "state a surrogate")
    return [first, replace(first, name="b", comparisons=(masked,), doubts=(doubt,), changed=()), Outcome("c", {}, 0)]


def test_it_says_what_each_check_came_to() -> None:
    text = page(outcomes())
    assert "3 checks: 1 worse, 1 cannot be judged" in text and text == page(outcomes())
    assert text.count("data:image/png") == 6 and "<script>document" not in text


def test_it_opens_offline_and_axe_finds_no_violation(browser: Any, tmp_path: Path) -> None:
    (path,) = write_outcomes(outcomes(), tmp_path)
    plain = Visit(browser, path)
    assert plain.page.title() == "Robustness checks" and plain.trouble == []
    assert [url for url in plain.requests if not url.startswith(("file:", "data:"))] == []
    plain.context.close()
    for scheme in ("light", "dark"):
        visit = Visit(browser, path, color_scheme=scheme, bypass_csp=True)
        for summary in visit.page.locator("summary").all():
            summary.click()
        assert visit.violations() == []
        visit.context.close()
