"""Running stronger attacks where a grid's own may have been too weak, and keeping what audits found beside the rows.

A stronger attack tries the robust images that the rows came nearest to breaking, and takes a look at a few others, the
first, which say what share it would break. Where that is large, or a check suspects the attacks, it goes on to more of
them, and tables take the lower number. It searches by scores as well; where a row says that no gradient led its attack,
with three times the queries. All of it costs at most a share of what the rows did, or a few images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustbench_local.audit.checklist import audit_rows
from robustbench_local.audit.evidence import Evidence, ReadArrays
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.audit.records import RETRIED, Audit, Retry, RowFinding, keep, read
from robustbench_local.audit.retrying import Retrying, passes
from robustbench_local.audit.statistics import ALPHA, MATERIAL, Discordance, by_share
from robustbench_local.audit.stronger import (
    BLIND,
    EFFORT,
    LABELS,
    LOOK,
    MANY,
    SHARE,
    SHORTEST,
    STRONGER,
    WHOLE,
    in_words,
)
from robustbench_local.config.plugins import find_attack
from robustbench_local.core.access import beyond
from robustbench_local.core.attack import Attack
from robustbench_local.core.errors import StoreError
from robustbench_local.core.source import Source
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.answer_cache import AnswerCache
from robustbench_local.models.priced import priced
from robustbench_local.storage.row import Row
from robustbench_local.storage.store import Store


def audit_and_keep(
    rows: Sequence[Row], store: Store, model: nn.Module, images: Source, known: AnswerCache | None = None
) -> list[Audit]:
    """Audit the rows of one model, on images that contain all of theirs, and keep what is found beside them.

    An audit of the same rows with the same findings is read where it is there already, for the attacks it tried again.
    known: what the model answered when the rows were made.
    """
    kept = []
    for group, findings in audit_rows(rows, arrays_of(store)).items():
        own = [row for row in rows if row.ok and row.of_group() == group]
        keys = tuple(sorted(row.key for row in own))
        name = f"{hashlib.sha256(group.encode()).hexdigest()[:24]}.json"
        record = store.audit(name)
        old = None if record is None else read(record)
        if old is None or not _still_holds(old, keys, findings, own, store):
            old = _with_retries(keys, findings, own, store, model, images, known or AnswerCache())
            keep(store, name, old)
        kept.append(old)
    return kept


READ = ("robust", "bits", "clean", "distance", "success", "forwards", "backwards")


def arrays_of(store: Store) -> ReadArrays:
    """What an audit of rows reads of their arrays."""
    return lambda row: store.arrays(row.key, *READ)


def _outcomes(findings: Iterable[RowFinding]) -> set[tuple[str, str, Status]]:
    """What was found within which threat; how it is worded depends on the order of the rows."""
    return {(each.threat, each.finding.check, each.finding.status) for each in findings}


def _still_holds(
    old: Audit, keys: tuple[str, ...], findings: Iterable[RowFinding], rows: list[Row], store: Store
) -> bool:
    """Whether it is of these rows and findings, and the stronger attack looked at all that it had to."""
    tried = {retry.threat for retry in old.retries if retry.asked}
    looked = all(threat in tried for threat, own in _untried(rows).items() if _robust(own, store).any())
    return looked and old.rows == keys and _outcomes(old.of_rows) == _outcomes(findings)


def _untried(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """{threat: rows} within which the stronger attack is not among the attacks, and could be."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.threat, []).append(row)
    return {threat: own for threat, own in sorted(groups.items()) if _could(own[0]) and not any(map(_is_stronger, own))}


def _could(row: Row) -> bool:
    """Whether the stronger attack is tried in the norm of that row, and for its goal: it cannot aim."""
    norm = ThreatModel.parse(row.threat, allow_large=True).norm
    return norm in SHORTEST and row.said("targets") is None


def _is_stronger(row: Row) -> bool:
    """Whether it is the stronger attack itself, with as much effort, no budget, and knowing of the defense."""
    about, own = row.definition, asdict(_stronger())
    given = {**own, **about["attack_settings"]}
    whole = about["attack"] == STRONGER and given["effort"] >= EFFORT and {**given, "effort": EFFORT} == own
    return bool(whole and about.get("budget") is None and about.get("adaptive", True))


def _stronger(effort: float = EFFORT) -> Attack:
    return find_attack(STRONGER, {"effort": effort})


def _effort(rows: Iterable[Row], store: Store) -> float:
    """More where gradients were absent: there it has nothing but its search by scores."""
    return 1.0 if any(bool(Evidence(row, arrays_of(store)(row)).unled.any()) for row in rows) else EFFORT


def _robust(rows: Sequence[Row], store: Store) -> npt.NDArray[np.bool_]:
    """(N,) which images are robust in all of these rows."""
    each = [store.arrays(row.key, "robust")["robust"] for row in rows]
    everywhere: npt.NDArray[np.bool_] = np.logical_and.reduce(each)
    return everywhere


def _tell_nearest(rows: Sequence[Row]) -> bool:
    """Whether any of the rows says which images are near: those of before 0.3 do not."""
    return any("margin" in row.array_names for row in rows)


def _nearest_first(rows: Sequence[Row], store: Store) -> npt.NDArray[np.intp]:
    """(N,), the places of the images: first of those that the rows' attacks came nearest to breaking, if they tell."""
    found = [arrays["margin"] for row in rows if "margin" in (arrays := store.arrays(row.key, "margin"))]
    if not found:
        return np.arange(rows[0].results["n"])
    return np.argsort(-np.nan_to_num(np.maximum.reduce(found), nan=-np.inf).astype(np.float32), kind="stable")


def _with_retries(
    keys: tuple[str, ...],
    findings: list[RowFinding],
    rows: list[Row],
    store: Store,
    model: nn.Module,
    images: Source,
    known: AnswerCache,
) -> Audit:
    retries: list[Retry] = []
    suspects = {each.threat for each in findings if each.attack and each.finding.status > Status.SOUND}
    left = {threat: (own, robust) for threat, own in _untried(rows).items() if (robust := _robust(own, store)).any()}
    budget = SHARE * sum(map(passes, rows)) / max(1, len(left))
    for threat, (own, robust) in left.items():
        ids = store.arrays(own[0].key, "ids")["ids"]
        nearest = _nearest_first(own, store)
        images_left = _Left(ids[robust], ids[nearest][robust[nearest]], len(robust))
        retrying = partial(
            Retrying, row=own[0], model=model, images=images, budget=budget, known=known, ordered=_tell_nearest(own)
        )
        effort, suspect = _effort(own, store), threat in suspects
        retry, finding = _retried(own, images_left, model, retrying, effort=effort, suspect=suspect)
        retries.append(retry)
        findings = [*findings, RowFinding(finding, threat)]
    return Audit(keys, tuple(findings), tuple(retries))


@dataclass(frozen=True)
class _Left:
    """Ids of the robust images, of `total` in all: in their order, and by how near the rows came to breaking them."""

    ids: npt.NDArray[Any]
    nearest: npt.NDArray[Any]
    total: int


def _retried(
    rows: list[Row],
    left: _Left,
    model: nn.Module,
    retrying: Callable[[Attack], Retrying],
    *,
    effort: float,
    suspect: bool,
) -> tuple[Retry, Finding]:
    """A stronger attack on some of the robust images; without gradients where none can be had."""
    threat, random = rows[0].threat, rows[0].stochastic
    look = left.ids[: LOOK[random]]
    by_nearness = left.nearest[np.isin(left.nearest, look)]
    paid = priced(model) is not None
    faults = ["no stronger attack was tried unasked, since the model is paid for by the question"] if paid else []
    for name, settings in () if paid else ((STRONGER, {"effort": effort}), BLIND, LABELS):
        try:
            attack = find_attack(name, settings)
            if beyond(attack.access, model):
                continue
            trial = retrying(attack)
            trial.nearest(left.nearest)
            trial(by_nearness, least=len(look) if suspect else 0, whole=True)
            rest = left.nearest[~np.isin(left.nearest, look)][: WHOLE[random] - len(look)]
            if suspect or (_share(trial, look) > MANY and trial.affords_some()):
                trial(rest)
        except StoreError:
            raise
        except Exception as error:  # a stranger's model may die of anything
            faults.append(f"{name} failed, {type(error).__name__}: {error}")
            continue
        top = max(row.access for row in rows)
        lowers = tuple(row.key for row in rows if row.access is top)
        also = tuple(each for each in trial.tried if each not in look)
        retry = Retry(threat, name, len(look), trial.broken, lowers, also)
        limits = trial.limits(len(left.ids))
        return retry, _finding(retry, look, left, in_words(name, settings), faults, limits, trial.passes)
    return Retry(threat, STRONGER, 0, (), ()), Finding(
        RETRIED,
        Status.UNCHECKED,
        "; ".join(faults),
        source="Carlini et al. 2019, arXiv:1902.06705, section 5.1",
        advice="run the grid again, or audit the model by itself",
    )


def _share(trial: Retrying, look: npt.NDArray[Any]) -> float:
    """Of the images looked at, how many it broke."""
    return float(np.isin(look, trial.broken).mean())


def _finding(
    retry: Retry,
    look: npt.NDArray[Any],
    left: _Left,
    attack: str,
    faults: Sequence[str],
    limits: Sequence[str],
    passes: float,
) -> Finding:
    """look: ids of the images that stand for all; attack: as it is said; faults: why with no stronger one; limits: what
    it was not allowed; passes: forward and backward, that it took.

    By the share of the images looked at, or of all robust ones, whichever says more: of all of them those count as
    robust that were never tried. As `weaker` has it: broken takes most of what was robust, more images than chance
    (exact McNemar) and two points.
    """
    broken, robust = len(retry.broken), len(left.ids)
    seen = np.isin(look, retry.broken)
    share = max(float(seen.mean()), broken / robust)
    lower, cost = broken / left.total, share * robust / left.total
    status = max(by_share(torch.as_tensor(seen), "")[0], by_share(torch.arange(robust) < broken, "")[0])
    if status is Status.BROKEN and (cost <= MATERIAL or Discordance(broken, 0, left.total).p >= ALPHA):
        status = Status.SUSPICIOUS
    how = "".join(f", {limit}" for limit in limits)
    text = (
        f"{attack} succeeds on {broken} of the {robust} robust images{how}: {100 * lower:.1f} points off the worst case"
    )
    if retry.tried < robust:
        text += f"; on all it would be about {100 * cost:.0f}{' or more' if limits else ''}"
    return Finding(
        RETRIED,
        status,
        "; ".join([text, *faults]),
        {"share": share, "lower": lower, "cost": cost, "passes": passes},
        source="Carlini et al. 2019, arXiv:1902.06705, section 5.1",
        advice="the table takes the lower number on these images: run the stronger attack on all",
    )
