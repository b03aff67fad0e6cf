"""State: does the model keep anything between questions, or look at more than the image: a clock, a file, a process?"""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_local.audit.check import check, comparing
from robustbench_local.audit.finding import Result, Status, suspicious, unchecked
from robustbench_local.audit.statistics import by_share
from robustbench_local.audit.subject import Subject
from robustbench_local.core.access import Access, granted
from robustbench_local.core.errors import ModelError
from robustbench_local.core.outputs import log_probabilities

CARLINI_BYPASS = "Carlini and Wagner 2017, arXiv:1705.07263"
TRAMER = "Tramèr et al. 2020, arXiv:2002.08347"
CROCE_TEST_TIME = "Croce et al. 2022, arXiv:2202.13711"

REPEATS = 20


@check(
    "memory",
    source=f"{CROCE_TEST_TIME}; {CARLINI_BYPASS}",
    advice="keep nothing between queries; a defense that counts or caches them is to be attacked with fresh accounts",
)
@comparing
def memory(subject: Subject) -> Result:
    seasoned, new = subject.fresh(), subject.fresh()
    if seasoned is None or new is None:
        return unchecked("the model cannot be copied; see whether its answers are the same after the audit")
    clean = subject.ask(subject.few, seasoned)
    for _ in range(REPEATS):
        subject.ask(subject.few, seasoned)
        last = subject.ask(subject.perturbed, seasoned)
    straight = subject.ask(subject.perturbed, new)
    changed = subject.differ(straight, last) | subject.differ(clean, subject.ask(subject.few, seasoned))
    return by_share(changed, f"after {2 * REPEATS} questions the answer differs from a fresh copy's")


@check(
    "a fresh process",
    source=TRAMER,
    advice="let no file, cache, clock or hash seed decide an answer: it must follow from the image alone",
)
@comparing
def fresh_process(subject: Subject) -> Result:
    """A process that never saw a clean image is asked about variants of them: copies of a model share what its module
    keeps, and a memory of images is of use only where these have been asked about.
    """
    if subject.untouched is None:
        return unchecked("not asked for")
    ids = subject.draws.ids[: len(subject.few)]
    try:
        there = subject.untouched.ask([*subject.variants.values()], ids, subject.seed)
    except ModelError as error:
        return unchecked(f"the model cannot be taken there: {error}")
    here = {name: subject.ask(x) for name, x in subject.variants.items()}
    faults = {
        f"in a fresh process the answer to {name} images differs": _differ(subject, here[name], answer)
        for name, answer in zip(here, there.logits, strict=True)
    }
    name = next(iter(here))
    late = torch.stack([_differ(subject, here[name], answer) for answer in there.later])
    faults[f"at another time of another day the answer to {name} images differs"] = late.any(0)
    text = max(faults, key=lambda text: int(faults[text].sum()))
    result = by_share(faults[text], text)
    kept = [*there.files, *(there.connections if granted(subject.model) >= Access.GRADIENTS else ())]
    if result[0] is Status.SOUND and kept:
        return suspicious(f"as it answers, it writes files, reads new ones or asks others: {', '.join(kept[:3])}")
    return result


def _differ(subject: Subject, here: Tensor, there: Tensor) -> Tensor:
    """(n,) bool. There the model answers as it does, here as it is deployed."""
    there = log_probabilities(there) if "probabilities" in subject.flags else there
    return subject.differ(here, there.to(here))


@check(
    "same after the audit",
    source=CROCE_TEST_TIME,
    advice="keep nothing between queries: the model changed as it was asked",
)
@comparing
def afterwards(subject: Subject) -> Result:
    changed = subject.differ(subject.first, subject.ask(subject.few))
    changed |= subject.differ(subject.first_perturbed, subject.ask(subject.perturbed))
    return by_share(changed, "after all attacks the answer differs from the first one")


CHECKS = (memory, fresh_process)
