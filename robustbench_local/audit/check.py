"""What a check is: one question about an evaluation, put to a model, to a grid's rows, or to both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_local.audit.finding import Finding, Result, unchecked, worst

if TYPE_CHECKING:
    from robustbench_local.audit.evidence import Rows
    from robustbench_local.audit.subject import Subject

OfModel = Callable[["Subject"], Result]
OfRows = Callable[["Rows"], Iterable[Result]]


@dataclass(frozen=True)
class Check:
    """One question about an evaluation: where it comes from, what to do where the answer is not sound, who is asked.

    of_model measures a model under audit; of_rows measures what was stored, with a result for each row or pair of rows
    that it is about, of which the worst counts. attack: what is not sound speaks against the attack, so that a
    stronger one should be tried.
    """

    name: str
    source: str
    advice: str
    of_model: OfModel | None = None
    of_rows: OfRows | None = None
    attack: bool = False

    def finding(self, result: Result) -> Finding:
        return Finding(self.name, *result, source=self.source, advice=self.advice)

    def __call__(self, subject: Subject) -> Finding:
        """Of a model. TypeError where models are not asked this."""
        if self.of_model is None:
            raise TypeError(f"the check {self.name!r} is of rows")
        return self.finding(self.of_model(subject))

    def on(self, rows: Rows) -> Finding | None:
        """Of rows; None where they have nothing to say."""
        result = worst(self.of_rows(rows)) if self.of_rows else None
        return None if result is None else self.finding(result)


def check(
    name: str, *, source: str, advice: str, of_rows: OfRows | None = None, attack: bool = False
) -> Callable[[OfModel], Check]:
    """Make a Check of a function that asks a model, and of one that asks rows the same."""
    return lambda of_model: Check(name, source, advice, of_model, of_rows, attack)


def comparing(question: OfModel) -> OfModel:
    """Not asked of a model that is random and does not say so: of that nothing can be compared."""

    @functools.wraps(question)
    def asked(subject: Subject) -> Result:
        if "undeclared_randomness" in subject.flags:
            return unchecked("the model is random and does not say so: nothing can be compared")
        return question(subject)

    return asked
