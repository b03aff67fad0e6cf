"""The evaluation checklist, executed: on one model, or on the rows of a grid.

Every check is declared in a file of this room with its source and its advice, and none knows a model or an attack by
name. Thresholds are of three kinds: exact tests at a family-wise level (statistics.ALPHA), half a point of accuracy
(statistics.MOVE), and limits of float32.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from robustbench_local.audit import (
    attacks,
    consistency,
    convergence,
    gradients,
    orderings,
    reporting,
    setup,
    sharing,
    state,
    training,
)
from robustbench_local.audit.believed import believed
from robustbench_local.audit.card import Card
from robustbench_local.audit.check import Check
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.evidence import Evidence, ReadArrays, Rows
from robustbench_local.audit.finding import Finding, Status, Timed
from robustbench_local.audit.records import RowFinding
from robustbench_local.audit.subject import Subject
from robustbench_local.config.arguments import Threat, checked
from robustbench_local.config.ranges import Count, Seed
from robustbench_local.core.access import Access, granted
from robustbench_local.core.attack import Attack
from robustbench_local.core.containment import guarded
from robustbench_local.core.device import out_of_memory
from robustbench_local.core.errors import AccessError, RobustBenchError
from robustbench_local.core.model_state import as_deployed, full_float32
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import home
from robustbench_local.evaluation.preflight import check_images
from robustbench_local.storage.row import Row

CHECKS: tuple[Check, ...] = (
    *setup.CHECKS,
    *consistency.CHECKS,
    *state.CHECKS,
    *gradients.CHECKS,
    *orderings.CHECKS,
    *convergence.CHECKS,
    *sharing.CHECKS,
    *attacks.CHECKS,
    *training.CHECKS,
    *reporting.CHECKS,
    state.afterwards,
    believed,
)


# what only says how strong the audited attack is: of no account where another attack made the figures
OF_STRENGTH = {
    check.name
    for check in (convergence.doubling, convergence.settled, convergence.strength, orderings.stronger, believed)
}
NEED_GRADIENTS = {check.name for check in (*gradients.CHECKS, *orderings.CHECKS)} - {orderings.stronger.name}


@guarded()
@checked()
def audit_model(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat = "linf:8/255",
    *,
    attack: Attack | None = None,
    seed: Seed = 0,
    effort: Effort | None = None,
    surrogates: Sequence[str] = (),
    classes: Count | None = None,
    train: tuple[Tensor, Tensor] | None = None,
) -> Card:
    """Run every check on model, with images x (N, C, H, W) in [0, 1] and labels y (N,) -> its report card.

    attack: whose evaluation of the model is audited; None: that of a plain PGD. surrogates: models to transfer from
    ("zoo:mnist/none"). classes: how many the data have; a model with one more logit may reject. train: images the
    model was trained on. Raises DataError, ModelError, ThreatError or ConfigError where nothing can be asked at all.
    """
    check_images(x, y)
    started = time.monotonic()
    device = home(model, x)
    x, y = x.detach().to(device, torch.float32), y.to(device)
    with as_deployed(model), full_float32(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a judge warns of is a finding here
        subject = Subject(
            model,
            x,
            y,
            ThreatModel.parse(threat),
            attack=attack,
            seed=seed,
            effort=effort,
            surrogates=surrogates,
            classes=classes,
            train=train,
        )
        findings = tuple(_timed(check, subject) for check in CHECKS if check.of_model)
        clean = subject.clean[: subject.attacked]
    return Card(
        findings,
        str(subject.threat),
        subject.attacked,
        float(clean.cpu().double().mean()),
        float(subject.worst.cpu().double().mean()),
        time.monotonic() - started,
        findings[-1].figures.get("evaluated"),
    )


def _timed(check: Check, subject: Subject) -> Timed:
    started, busy = time.monotonic(), time.process_time()
    finding = _ask(check, subject)
    seconds, cpu = time.monotonic() - started, time.process_time() - busy
    return Timed(**vars(finding), seconds=seconds, cpu=cpu)


def _ask(check: Check, subject: Subject) -> Finding:
    """A check that dies tells something about the model, and stops no other."""
    if check.name in NEED_GRADIENTS and granted(subject.model) < Access.GRADIENTS:
        text = f"the model grants {granted(subject.model).name.lower()}, and no gradients that could mislead"
        return Finding(check.name, Status.UNCHECKED, text, source=check.source, advice=check.advice)
    try:
        return check(subject)
    except AccessError as error:  # a server grants no gradients, say
        return Finding(check.name, Status.UNCHECKED, str(error), source=check.source, advice=check.advice)
    except RobustBenchError:
        raise
    except Exception as error:  # a stranger's model may die of anything
        if out_of_memory(error):
            raise
        text = f"died of {type(error).__name__}: {error}"
        return Finding(check.name, Status.SUSPICIOUS, text, source=check.source, advice=check.advice)


def audit_rows(rows: Iterable[Row], arrays: ReadArrays) -> dict[str, list[RowFinding]]:
    """{group: findings} of good rows, a pure function of what was stored.

    A group is a model on some images towards some goal, and its name a JSON list of what defines these: within it all
    attacks judged the same images, so that they are compared image by image. arrays(row) gives "robust", "clean",
    "distance" (N,) and what else is stored, "success" (N,) of attacks that minimise. Of each check the worst result
    within each threat is kept.
    """
    groups: dict[str, list[Evidence]] = defaultdict(list)
    for row in rows:
        if row.ok:
            groups[row.of_group()].append(Evidence(row, arrays(row)))
    return {name: list(_audited(group)) for name, group in sorted(groups.items())}


def _audited(group: Sequence[Evidence]) -> Iterator[RowFinding]:
    by_threat: dict[str, list[Evidence]] = defaultdict(list)
    for each in group:
        by_threat[each.about["threat"]].append(each)
    for threat, own in by_threat.items():
        for check in CHECKS:
            finding = check.on(Rows(own, group))
            if finding is not None:
                yield RowFinding(finding, threat, check.attack)
