"""Is models/current.pt2 as robust as the version before it? robustness.lock.json knows what that one did."""

from __future__ import annotations

from typing import Any

from robustbench_local.regression.plugin import Robustness

MODEL = "models/current.pt2"
IMAGES: dict[str, Any] = {"data": "mnist", "source": "bundled", "n": 200, "sample": "stratified"}


def test_the_model_is_no_less_robust_than_the_last_one(robustness: Robustness) -> None:
    robustness.check(MODEL, threat="linf:0.15", **IMAGES)


def test_the_model_is_robust_enough(robustness: Robustness) -> None:
    robustness.check(MODEL, threat="linf:0.15", at_least=0.5, **IMAGES)


def test_no_digit_suffers_from_noise(robustness: Robustness) -> None:
    robustness.check(MODEL, suite="noise", worst_class_at_least=0.6, **IMAGES)
