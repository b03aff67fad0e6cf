"""Reporting: is the set large enough to carry what is claimed, and does a row say all that defines it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustbench_local.audit.check import Check, check
from robustbench_local.audit.evidence import Rows
from robustbench_local.audit.finding import Result, sound, suspicious
from robustbench_local.audit.subject import Subject
from robustbench_local.metrics.rates import wilson
from robustbench_local.storage.row import Row

CARLINI = "Carlini et al. 2019, arXiv:1902.06705, section 6"
FEW = 10  # images of the audit that are rightly classified: fewer than a paired test needs

MUST_SAY = (
    ("definition", "data_digest"),
    ("definition", "ids"),
    ("definition", "weights_digest"),
    ("definition", "attack_settings"),
    ("definition", "threat"),
    ("definition", "eps"),
    ("definition", "seed"),
    ("definition", "attack_version"),
    ("definition", "precision"),
    ("definition", "count"),
    ("environment", "robustbench_local"),
    ("environment", "torch"),
    ("environment", "device"),
    ("results", "forwards_mean"),
    ("results", "backwards_mean"),
    ("results", "seconds"),
)


@check("enough images", source=CARLINI, advice="audit on more images, and on such as the model classifies rightly")
def enough(subject: Subject) -> Result:
    """Paired tests need images that can be broken."""
    right, n = int(subject.clean.sum()), subject.attacked
    low, high = wilson(right, len(subject.clean))
    text = f"{right} of {len(subject.clean)} right, {100 * low:.1f}-{100 * high:.1f} %; attacks on {n}"
    return suspicious(f"{text}: no test can tell", right=right) if right < FEW else sound(text, right=right)


def _recorded(rows: Rows) -> Iterator[Result]:
    for each in rows:
        lost = [".".join(path) for path in MUST_SAY if _lacks(each.row, path)]
        yield (
            suspicious(f"{each} does not say {', '.join(lost)}") if lost else sound("all settings, versions and costs")
        )


def _lacks(row: Row, path: tuple[str, ...]) -> bool:
    value: Any = row
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return True
        value = value[key]
    return value is None


recorded = Check(
    "settings are recorded", source=CARLINI, advice="run the cell again: its row is incomplete", of_rows=_recorded
)

CHECKS = (enough, recorded)
