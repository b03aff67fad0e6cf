"""Verdicts and what is certain beside them: the two bracket the truth, and must not contradict each other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from robustbench_local.core.bound_methods import Method
from robustbench_local.core.errors import BoundsError, ContradictionError
from robustbench_local.core.progress import Progress
from robustbench_local.core.source import Source
from robustbench_local.core.threat import ThreatModel
from robustbench_local.core.verdict import Verdict
from robustbench_local.grids.certificates import Certificate, certificate
from robustbench_local.report.certified import contradiction


def with_certificates(
    verdicts: Sequence[Verdict],
    threats: Sequence[ThreatModel],
    model: nn.Module,
    images: Source,
    method: Method,
    progress: Progress,
) -> list[Verdict]:
    """The verdicts with what is certain within their threats, each of which is asked about once.

    ContradictionError where an attack broke what is certified within its ball or a larger one.
    """
    known: dict[ThreatModel, Certificate | None] = {}
    for verdict, threat in zip(verdicts, threats, strict=True):
        if verdict.corrupted is None and threat not in known:
            try:
                known[threat] = certificate(model, images, threat, method, progress)
            except BoundsError as error:
                warnings.warn(f"not certified within {threat}: {error}", stacklevel=5)
                known[threat] = None
    for verdict, threat in zip(verdicts, threats, strict=True):
        for ball, found in known.items():
            if found is not None and verdict.corrupted is None and ball.holds(threat):
                _check(verdict, found, ball, method)
    return [
        verdict
        if verdict.corrupted is not None or (found := known[threat]) is None
        else replace(verdict, certified=found.certified, confidence=found.confidence)
        for verdict, threat in zip(verdicts, threats, strict=True)
    ]


def _check(verdict: Verdict, found: Certificate, ball: ThreatModel, method: str) -> None:
    """ContradictionError where the attack broke what is proved."""
    fell = found.certified & ~verdict.robust
    if found.margin is not None and bool(fell.any()):
        places, bounds = fell.nonzero()[:, 0].tolist(), found.margin[fell].tolist()
        raise ContradictionError(
            contradiction("the model", verdict.attack, verdict.threat, method, str(ball), places, bounds)
        )
