"""Of random models no verdict rises with more steps: what is found on the way is kept by its mean over search draws."""

from __future__ import annotations

from typing import Any

import pytest

from robustbench_local import evaluate, load_data, load_model
from robustbench_local.config.plugins import find_attack

ROOM = 0.03  # of 60 images' means over 20 fresh draws


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noise_fusion", "noise_layers"])
@pytest.mark.parametrize("attack", ["pgd", "best"])
def test_no_verdict_of_a_random_model_rises_with_more_steps(name: str, attack: str) -> None:
    x, y = load_data("mnist", n=60, source="bundled")
    model = load_model(f"zoo:mnist/{name}")

    def left(steps: int, **judging: Any) -> float:
        found = evaluate(model, x, y, find_attack(attack, {"steps": steps}), "linf:0.12", eot=5, **judging)
        return found.robust_accuracy

    few, more, most = (left(steps) for steps in (10, 40, 100))
    assert few + ROOM > more and more + ROOM > most and most < few + ROOM / 2
