"""What models answered before: verdicts that share it ask no question twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")


class AnswerCache:
    """Empty at first. A model is known by being the same object: whoever changes its weights begins anew."""

    def __init__(self) -> None:
        self._answers: dict[tuple[Any, ...], Any] = {}

    def once(self, ask: Callable[[], T], model: nn.Module, *about: Any) -> T:
        """What `ask` returned when it was first asked; model and `about` are all that the answer depends on."""
        if (model, *about) not in self._answers:
            self._answers[model, *about] = ask()
        answer: T = self._answers[model, *about]
        return answer

    def forget(self, *models: nn.Module) -> None:
        """What these answered, since they answer otherwise by now."""
        self._answers = {about: answer for about, answer in self._answers.items() if about[0] not in models}
