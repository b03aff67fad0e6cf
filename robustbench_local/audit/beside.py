"""Audits kept beside a grid's rows: FOLDER/audits/KEY.json, one for each model on each selection of images.

Where a check suspects the attack, a stronger one is tried on a sample of the images that stand, and tables take the
lower number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_local.audit.core import ALPHA, MATERIAL, Finding, Paired, Status, by_share
from robustbench_local.audit.rows import Arrays, RowFinding, audit_rows, group_of
from robustbench_local.defense import is_stochastic
from robustbench_local.evaluate import Tensors
from robustbench_local.files import whole_file
from robustbench_local.judge import Judge
from robustbench_local.oracle import Access
from robustbench_local.plugins import find_attack
from robustbench_local.preflight import Source
from robustbench_local.store import Row, Store
from robustbench_local.threat import ThreatModel

SCHEMA = 1
SAMPLE = 100  # images that stand, and are attacked again
RANDOM = 20  # of a random model, where every query is averaged
STRONGER = "best"  # margin climbs, then random search by scores: what weak or masked gradients miss
EFFORT = {False: 1.0, True: 0.2}  # of a fixed and of a random model


@dataclass(frozen=True)
class Retry:
    """A stronger attack on `asked` images that stood within `threat`; fell: ids of those that did not stand again.

    lowers: keys of the rows whose number is lowered by them.
    """

    threat: str
    attack: str
    asked: int
    fell: tuple[int, ...]
    lowers: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What an audit of one model's rows found. rows: their keys."""

    rows: tuple[str, ...]
    findings: tuple[RowFinding, ...]
    retries: tuple[Retry, ...]

    @property
    def of_rows(self) -> tuple[RowFinding, ...]:
        """What the rows alone showed: of each retry there is one finding after them."""
        return self.findings[: len(self.findings) - len(self.retries)]

    def faults(self, threat: str) -> list[Finding]:
        """What is not sound within a threat, the worst first."""
        bad = [each.finding for each in self.findings if each.threat == threat and each.finding.status > Status.SOUND]
        return sorted(bad, key=lambda finding: -finding.status)


def audit_and_keep(rows: Sequence[Row], store: Store, model: nn.Module, images: Source) -> list[Audit]:
    """Audit the rows of one model, on images that contain all of theirs, and keep what is found beside them.

    An audit of the same rows with the same findings is read where it is there already, for the attacks it tried again.
    """
    kept = []
    for group, findings in audit_rows(rows, arrays_of(store)).items():
        own = [row for row in rows if row["status"] == "ok" and group_of(row) == group]
        keys = tuple(sorted(row["key"] for row in own))
        path = _folder(store) / f"{hashlib.sha256(group.encode()).hexdigest()[:24]}.json"
        old = _read(path)
        if old is None or old.rows != keys or _outcomes(old.of_rows) != _outcomes(findings):
            old = _with_retries(keys, findings, own, store, model, images)
            with whole_file(path) as file:
                file.write(json.dumps(_plain(old), indent=1).encode() + b"\n")
        kept.append(old)
    return kept


def audits(store: Store) -> list[Audit]:
    """All that are kept; what cannot be read counts as missing."""
    found = (_read(path) for path in sorted(_folder(store).glob("[!.]*.json")))
    return [audit for audit in found if audit is not None]


def arrays_of(store: Store) -> Arrays:
    """What an audit of rows reads of their arrays."""
    return lambda row: store.arrays(row["key"], "robust", "clean", "distance")


def lowered(
    standing: npt.NDArray[np.float64], ids: npt.NDArray[Any], key: str, found: Iterable[Audit]
) -> npt.NDArray[np.float64]:
    """standing (N,) of the row of that key, 0 where a stronger attack felled the image of that id (N,)."""
    fell = [np.isin(ids, retry.fell) for audit in found for retry in audit.retries if key in retry.lowers]
    lower: npt.NDArray[np.float64] = np.where(np.logical_or.reduce(fell), 0.0, standing) if fell else standing
    return lower


def _outcomes(findings: Iterable[RowFinding]) -> set[tuple[str, str, Status]]:
    """What was found within which threat; how it is worded depends on the order of the rows."""
    return {(each.threat, each.finding.check, each.finding.status) for each in findings}


def _folder(store: Store) -> Path:
    return store.folder / "audits"


def _with_retries(
    keys: tuple[str, ...], findings: list[RowFinding], rows: list[Row], store: Store, model: nn.Module, images: Source
) -> Audit:  # fmt: skip
    retries: list[Retry] = []
    suspects = {each.threat for each in findings if each.attack and each.finding.status > Status.SOUND}
    for threat in sorted(suspects):
        own = [row for row in rows if row["definition"]["threat"] == threat]
        read = [store.arrays(row["key"], "robust", "ids") for row in own]
        stands = np.logical_and.reduce([arrays["robust"] for arrays in read])
        again = _again(own, read[0]["ids"][stands], model, images)
        if again is not None:
            retries.append(again)
            findings = [*findings, RowFinding(_finding(again, int(stands.sum()), len(stands)), threat)]
    return Audit(keys, tuple(findings), tuple(retries))


def _finding(retry: Retry, standing: int, total: int) -> Finding:
    """standing: how many of all `total` images stood, of which `retry.asked` were tried again.

    As `weaker` has it: broken takes most of what stood, more images than chance (exact McNemar) and two points.
    """
    fell = len(retry.fell)
    lower, cost = fell / total, fell / retry.asked * standing / total
    status, text, figures = by_share(torch.arange(retry.asked) < fell, f"of those that stood, {retry.attack} succeeds")
    if status is Status.BROKEN and (cost <= MATERIAL or Paired(fell, 0, total).p >= ALPHA):
        status = Status.SUSPICIOUS
    text = f"{text}: {100 * lower:.1f} points off the worst case"
    if retry.asked < standing:
        text += f"; on all {standing} it would be about {100 * cost:.0f}"
    return Finding(
        "a stronger attack", status, text, {**figures, "lower": lower, "cost": cost},
        source="Carlini et al. 2019, arXiv:1902.06705, section 5.1",
        advice="the table takes the lower number on these images: run the stronger attack on all",
    )  # fmt: skip


def _again(rows: list[Row], standing: npt.NDArray[Any], model: nn.Module, images: Source) -> Retry | None:
    """The stronger attack on the first of the images (by id) that all rows left standing; None where it knows no such
    norm."""
    definition = rows[0]["definition"]
    threat = ThreatModel.parse(definition["threat"], allow_large=True)
    random = is_stochastic(model)
    attack = find_attack(STRONGER, {"effort": EFFORT[random]})
    if threat.norm not in attack.norms or definition.get("targets") is not None:
        return None
    chosen = torch.as_tensor(standing[: RANDOM if random else SAMPLE])
    if not len(chosen):
        return None
    where = torch.isin(images.ids.cpu(), chosen).nonzero()[:, 0].to(images.ids.device)
    sample = Tensors(images[where], images.labels[where], images.ids[where])
    settings = {key: definition[key] for key in ("eot", "draws") if key in definition}
    verdict = Judge(seed=int(definition["seed"]), **settings)(model, sample, attack, threat)
    fell: Tensor = sample.ids[verdict.clean & ~verdict.robust]
    top = max(Access[row["definition"]["access"].upper()] for row in rows)
    lowers = tuple(row["key"] for row in rows if Access[row["definition"]["access"].upper()] is top)
    return Retry(str(threat), STRONGER, len(sample), tuple(int(i) for i in fell.tolist()), lowers)


def _plain(audit: Audit) -> dict[str, Any]:
    plain = {"schema": SCHEMA, **asdict(audit)}
    for each in plain["findings"]:
        each["finding"]["status"] = each["finding"]["status"].name.lower()
    return plain


def _read(path: Path) -> Audit | None:
    try:
        plain = json.loads(path.read_bytes())
        if plain["schema"] != SCHEMA:
            return None
        findings = tuple(
            RowFinding(
                Finding(**each["finding"] | {"status": Status[each["finding"]["status"].upper()]}), each["threat"],
                each["attack"],
            )
            for each in plain["findings"]
        )  # fmt: skip
        retries = tuple(
            Retry(**each | {"fell": tuple(each["fell"]), "lowers": tuple(each["lowers"])}) for each in plain["retries"]
        )
        return Audit(tuple(plain["rows"]), findings, retries)
    except (OSError, ValueError, KeyError, TypeError):
        return None
