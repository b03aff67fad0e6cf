"""Reporting: is the set large enough to carry what is claimed?"""

from __future__ import annotations

from robustbench_local.audit.check import Result, check, sound, suspicious
from robustbench_local.audit.subject import Subject
from robustbench_local.metrics.rates import wilson

CARLINI = "Carlini et al. 2019, arXiv:1902.06705, section 6"
FEW = 10  # images of the audit that are rightly classified: fewer than a paired test needs


@check("enough images", source=CARLINI, advice="audit on more images, and on such as the model classifies rightly")
def enough(subject: Subject) -> Result:
    """Paired tests need images that can fall."""
    right, n = int(subject.clean.sum()), subject.attacked
    low, high = wilson(right, len(subject.clean))
    text = f"{right} of {len(subject.clean)} right, {100 * low:.1f}-{100 * high:.1f} %; attacks on {n}"
    return suspicious(f"{text}: no test can tell", right=right) if right < FEW else sound(text, right=right)


CHECKS = (enough,)
