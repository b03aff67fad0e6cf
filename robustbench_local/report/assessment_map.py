"""Which field of an assessment speaks to which requirement of laws, frameworks and standards, in our own words.

A map for whoever reads those texts beside the report. A field that is filled says that something was measured, never
that a requirement is met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from robustbench_local.report.assessment_parts import AttackResult, Condition, Figure, Shift
from robustbench_local.report.assessment_record import Assessment, Mapped
from robustbench_local.report.text import percent

ACT = "EU AI Act, Regulation (EU) 2024/1689"
RMF = "NIST AI RMF 1.0 (NIST AI 100-1)"
TAXONOMY = "NIST AI 100-2 E2025"
METHODS = "ISO/IEC TR 24029-1:2021"
FORMAL = "ISO/IEC 24029-2:2023"
REPORTS = "ISO/IEC 17025:2017"

_ROBUST = "robust accuracy, worst case"
_WHITE, _BLACK = ("gradients",), ("scores", "labels")


def requirements(whole: Assessment) -> Iterator[Mapped]:
    """Each requirement once; its value is None where nothing was measured, its anchor None where there is no field."""
    conditions = [each for subject in whole.subjects for each in subject.conditions]
    shifts = [each for subject in whole.subjects for each in subject.shifts]
    clean = _range([each.clean for each in conditions] + [each.clean for each in shifts])
    robust, corrupted = _robust(conditions), _range([each.mean for each in shifts])
    aimed = conditions[0].id if len(conditions) == 1 else "results"
    natural = shifts[0].id if len(shifts) == 1 else "results"
    verified = _range([each.verified for each in conditions])
    yield from (
        Mapped(
            ACT,
            "Article 15(1)",
            "accuracy, robustness and cybersecurity at a level that suits the purpose, all through the system's life",
            _ROBUST,
            aimed,
            robust,
        ),
        Mapped(
            ACT, "Article 15(3)", "how accurate the system is, and by which metrics", "clean accuracy", aimed, clean
        ),
        Mapped(ACT, "Article 15(3)", "the level that is declared", "declared level", aimed, _declared(whole)),
        Mapped(
            ACT,
            "Article 15(4)",
            "errors, faults and inconsistencies in the system or around it do not upset it",
            "mean accuracy under corruptions",
            natural,
            corrupted,
        ),
        Mapped(ACT, "Article 15(4)", "what goes on learning is not misled by its own output", "none", None, None),
        Mapped(
            ACT,
            "Article 15(5)",
            "inputs made to mislead the model (adversarial examples, evasion)",
            "attacks",
            aimed,
            _attacked(conditions, (*_WHITE, *_BLACK, "none")),
        ),
        Mapped(ACT, "Article 15(5)", "poisoned data or components, attacks on confidentiality", "none", None, None),
        Mapped(
            RMF, "MEASURE 2.1", "test sets, metrics and tools are documented", "method", "method", _documented(whole)
        ),
        Mapped(
            RMF,
            "MEASURE 2.3",
            "performance is measured under conditions like those of use; which come near, the reader judges",
            "conditions",
            "sampling",
            _conditions(conditions, shifts),
        ),
        Mapped(
            RMF,
            "MEASURE 2.5",
            "validity and reliability are shown, and how far results carry is documented",
            "statement of uncertainty",
            "uncertainty",
            "95 % intervals for the choice of images" if clean else None,
        ),
        Mapped(
            RMF,
            "MEASURE 2.6",
            "safety: reliability and robustness are measured",
            "robust accuracy, accuracy under corruptions",
            "results",
            "; ".join(filter(None, (robust and f"attacked {robust}", corrupted and f"corrupted {corrupted}"))) or None,
        ),
        Mapped(RMF, "MEASURE 2.7", "security and resilience are evaluated and documented", _ROBUST, aimed, robust),
        Mapped(
            RMF, "MEASURE 2.11", "fairness and bias are evaluated", "worst class and group", aimed, _parts(conditions)
        ),
        Mapped(
            RMF,
            "MEASURE 2.13",
            "whether the measurements themselves can be trusted",
            "findings of the audit",
            "deviations",
            _audited(conditions),
        ),
        Mapped(
            TAXONOMY,
            "evasion, white-box",
            "the attacker knows the model",
            "attacks that see gradients",
            aimed,
            _attacked(conditions, _WHITE),
        ),
        Mapped(
            TAXONOMY,
            "evasion, black-box",
            "the attacker asks the model and sees scores or labels",
            "attacks that see scores or labels",
            aimed,
            _attacked(conditions, _BLACK),
        ),
        Mapped(
            TAXONOMY,
            "evasion, no query",
            "the attacker cannot ask the model: transferred images, noise",
            "attacks that see nothing",
            aimed,
            _attacked(conditions, ("none",)),
        ),
        Mapped(TAXONOMY, "poisoning, privacy", "attacks on training or on what a model gives away", "none", None, None),
        Mapped(
            METHODS,
            "statistical methods",
            "performance over a set of images, as they are and perturbed",
            _ROBUST,
            aimed,
            robust or corrupted,
        ),
        Mapped(METHODS, "formal methods", "a property is proved", "verified lower bound", aimed, verified),
        Mapped(METHODS, "empirical methods", "trials, observation and the judgement of experts", "none", None, None),
        Mapped(
            FORMAL,
            "stability (5.3)",
            "a proof that the answer stays the same all over a region around an input",
            "verified lower bound",
            aimed,
            verified,
        ),
        Mapped(
            REPORTS,
            "7.8.2, 7.8.3",
            "what every test report holds",
            "the order of sections 1 to 10",
            "identification",
            "laboratory, customer, date of issue and signature are left empty",
        ),
    )


def _range(figures: Iterable[Figure | None]) -> str | None:
    """ "45.0 %", "2.0 to 45.0 % over 5 conditions"."""
    values = [each.value for each in figures if each]
    if not values:
        return None
    if len(values) == 1:
        return f"{percent(values[0])} %"
    return f"{percent(min(values))} to {percent(max(values))} % over {len(values)} conditions"


def _robust(conditions: Iterable[Condition]) -> str | None:
    known = [each for each in conditions if each.robust]
    broken = sum(each.broken for each in known)
    found = _range([each.robust for each in known])
    return f"{found}; of {broken} the audit says that it is not to be believed" if found and broken else found


def _declared(whole: Assessment) -> str | None:
    if whole.declared is None:
        return None
    said = Counter(each.declared.says for subject in whole.subjects for each in subject.conditions if each.declared)
    listed = "; ".join(f"{says} ({count})" for says, count in sorted(said.items()))
    return f"{percent(whole.declared)} %: {listed or 'no robust accuracy to hold it against'}"


def _attacked(conditions: Iterable[Condition], access: tuple[str, ...]) -> str | None:
    """Of the attacks that see so much: how many ran to their end, and the least robust accuracy that one left."""
    found: list[AttackResult] = [
        attack for each in conditions for attack in each.attacks if attack.robust and attack.access in access
    ]
    if not found:
        return None
    least = min(attack.robust.value for attack in found if attack.robust)
    names = sorted({attack.attack.partition(" (")[0] for attack in found})
    return f"{len(names)} ({', '.join(names)}); the least that one of them left: {percent(least)} %"


def _documented(whole: Assessment) -> str:
    versions = sorted({str(machine.environment.get("robustbench_local", "not recorded")) for machine in whole.machines})
    return f"{len(whole.rows):,} rows, robustbench_local {', '.join(versions)}"


def _conditions(conditions: list[Condition], shifts: list[Shift]) -> str:
    data = ", ".join(sorted({f"{each.data} {each.split}" for part in (conditions, shifts) for each in part}))
    return f"{data}: {len(conditions)} under attack, {len(shifts)} under corruptions"


def _parts(conditions: Iterable[Condition]) -> str | None:
    classes, groups = [], []
    for each in conditions:
        classes += [each.worst_class.figure] if each.worst_class else []
        groups += [each.worst_group.figure] if each.worst_group else []
    said = [
        f"worst {kind}: {found}" for kind, found in (("class", _range(classes)), ("group", _range(groups))) if found
    ]
    return "; ".join(said) or None


def _audited(conditions: Iterable[Condition]) -> str | None:
    counts = Counter(finding.status for each in conditions for finding in each.findings)
    named = [
        f"{counts[status]:,} {status}" for status in ("broken", "suspicious", "unchecked", "sound") if counts[status]
    ]
    return f"{counts.total():,} checks: {', '.join(named)}" if counts else None
