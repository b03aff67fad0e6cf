"""What a check found: plain records, without a model, tensors or statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Status(IntEnum):
    """How bad a finding is; a card is as bad as its worst."""

    UNCHECKED = 0
    SOUND = 1
    SUSPICIOUS = 2
    BROKEN = 3


@dataclass(frozen=True)
class Finding:
    """What one check found: evidence in words with its numbers, and the figures by name.

    source and advice are the check's own: where the check comes from, and what to do where it is not sound.
    """

    check: str
    status: Status
    evidence: str
    figures: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Timed(Finding):
    """A finding of a model's audit, with the wall and processor time that its check took."""

    seconds: float = 0.0
    cpu: float = 0.0


Result = tuple[Status, str, Mapping[str, float]]


def sound(evidence: str, **figures: float) -> Result:
    return Status.SOUND, evidence, figures


def suspicious(evidence: str, **figures: float) -> Result:
    return Status.SUSPICIOUS, evidence, figures


def broken(evidence: str, **figures: float) -> Result:
    return Status.BROKEN, evidence, figures


def unchecked(why: str) -> Result:
    return Status.UNCHECKED, why, {}


def at_most_suspicious(result: Result) -> Result:
    """What speaks against one number only, while others may be believed."""
    return min(result[0], Status.SUSPICIOUS), *result[1:]


def worst(results: Iterable[Result]) -> Result | None:
    """The first of the worst; None of none."""
    return max(results, key=lambda result: result[0], default=None)
