"""The number to believe: the worst case of all attacks of the audit, image by image. Asked last."""

from __future__ import annotations

from robustbench_local.audit.check import check
from robustbench_local.audit.finding import Result, sound, suspicious, unchecked
from robustbench_local.audit.subject import Subject
from robustbench_local.metrics.rates import wilson


@check(
    "the number to believe",
    source="Carlini et al. 2019, arXiv:1902.06705, section 5.4 (report the per-example attack success)",
    advice="report the worst case per image of several attacks, not the number of this one",
)
def believed(subject: Subject) -> Result:
    """The worst case beside the 95 % interval of the evaluation's own number, on the same images."""
    verdict = subject.run(subject.evaluation)
    if verdict is None:
        return unchecked("the attack cannot run on this model")
    n = len(verdict.robust)
    own, least = int(verdict.robust.sum()), int(subject.worst[:n].sum())
    low, high = wilson(own, n)
    text = (
        f"{100 * least / n:.1f} % are robust against all attacks of this audit, {100 * own / n:.1f} %"
        f" ({100 * low:.1f}-{100 * high:.1f} %) against the evaluation's: {100 * (own - least) / n:.1f} points less"
    )
    figures = {"evaluated": own / n, "robust": least / n, "low": low, "high": high}
    return suspicious(text, **figures) if least / n < low else sound(text, **figures)
