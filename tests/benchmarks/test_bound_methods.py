"""The table of methods: each is given what is left, and a broken certificate ends the benchmark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks import bound_methods
from benchmarks._comparisons import Subject
from robustbench_local.core.bound_methods import METHODS

MODEL = Subject("mnist/none", "mnist", 0.1, 1.5)


def _prepare(monkeypatch: pytest.MonkeyPatch, robust: Tensor) -> list[tuple[str, int]]:
    """Every method certifies the first of what it is given."""
    given: list[tuple[str, int]] = []

    def certify(model: object, x: Tensor, y: Tensor, threat: str, *, method: str, seconds: float) -> SimpleNamespace:
        given.append((method, len(x)))
        return SimpleNamespace(certified=torch.arange(len(x)) == 0)

    monkeypatch.setattr(bound_methods, "evaluate", lambda *_, **__: SimpleNamespace(robust=robust))
    monkeypatch.setattr(bound_methods, "certify", certify)
    return given


def test_a_method_is_given_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given = _prepare(monkeypatch, torch.ones(5).bool())
    cells = bound_methods.line(MODEL, "linf:0.1", 5, 1.0)
    assert given == [(method, 5 - place) for place, method in enumerate(METHODS)]
    assert cells[:7] == ["linf:0.1", "5", "20", "40", "60", "80", "100"] and len(cells) == len(bound_methods.HEADS)


def test_a_certified_image_that_fell_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _prepare(monkeypatch, torch.tensor([True, False, True, True, True]))
    with pytest.raises(AssertionError, match="an image that is certified was broken"):
        bound_methods.line(MODEL, "linf:0.1", 5, 1.0)
