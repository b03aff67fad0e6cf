"""What one check finds of one model: its figures, and what an audit has to say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from robustbench_local.audit.checklist import OF_STRENGTH, audit_model
from robustbench_local.audit.effort import Effort
from robustbench_local.audit.finding import Finding, Status
from robustbench_local.core.progress import Progress
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.images import Images
from robustbench_local.evaluation.judge import Judge
from robustbench_local.grids.environment import environment
from robustbench_local.regression.figures import Figures, broken_images, figures
from robustbench_local.regression.known_images import KnownImages
from robustbench_local.regression.settings import Check
from robustbench_local.regression.shares import Shares
from robustbench_local.regression.suite_grid import images_of, in_words, is_aimed, open_grid, run
from robustbench_local.report.results import Results
from robustbench_local.report.write import write_report
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.row import Row, done

# images that the audit attacks, and what it spends: nothing on a stronger attack, which the audit of the rows tries
QUICK = 60, Effort(queries=150, draws=150, probed=10, walked=8, look=1, whole=1, best=0.01)
THOROUGH = 100, Effort(look=1, whole=1, best=0.01)

Audits = dict[tuple[object, ...], tuple[Finding, ...]]


@dataclass(frozen=True, eq=False)
class Measured:
    """suite: all attacks of the suite in words; left_out: those that the model's access does not allow, and why;
    failed: those that died, and of what. doubts: what an audit found that is not sound. known: the images that broke
    the model. aimed: the rows of attacks within the threat. figures is None
    where nothing could run.
    """

    check: Check
    model: nn.Module
    images: Images
    threat: ThreatModel | None
    results: Results
    figures: Figures | None
    aimed: tuple[Row, ...]
    known: KnownImages | None
    suite: tuple[str, ...]
    left_out: tuple[str, ...]
    failed: tuple[str, ...]
    doubts: tuple[Finding, ...]
    identity: Mapping[str, Any]

    def replayed(self, known: KnownImages) -> Shares:
        """(N,) of images that broke another model; where there is none, of the clean image."""
        assert self.threat is not None
        check = self.check
        judge = Judge(seed=check.seed, draws=check.draws, batch_size=check.batch_size, allow_chance=True)
        verdict = judge(self.model, self.images, known.attack(), self.threat)
        bits = verdict.robust.double() if verdict.bits is None else verdict.bits.double().mean(1)
        return np.asarray(bits.cpu())


def measure(
    check: Check, folder: str, progress: Progress | None = None, audits: Audits | None = None, report: bool = False
) -> Measured:
    """Run the check's suite on its model; rows, and a report if asked for, go into `folder`, by the check's name.

    audits: what was found of models before, to which is added. Raises as run_grid does, before anything runs.
    """
    progress, audits = progress or Progress(), {} if audits is None else audits
    grid = open_grid(check, folder, progress)
    images, aimed = images_of(grid), [cell for cell in grid.cells if is_aimed(cell)]
    threat = aimed[0].threat if aimed else ThreatModel.parse(check.threat) if check.threat else None
    rows = run(grid)
    results = Results.of(rows, grid.store)
    if report:
        write_report(results, grid.store.folder)
    good = [row for row in rows if done(row)]
    own = tuple(row for row in good if not row.corrupts and row.adaptive and row.threat == str(threat))
    plan = grid.cells[0].model
    model = grid.builder.build(plan)
    identity = _identity(check, model, grid.builder.behaviour(plan), grid.builder.device)
    spent = QUICK if check.suite == "ci" else THOROUGH
    about = (identity["weights"], identity["behaviour"], images.digest, str(threat), spent)
    if threat is not None and about not in audits:
        progress.line(f"auditing {check.model} within {threat}")
        audits[about] = _audit(model, images, threat, *spent)
    return Measured(
        check=check,
        model=model,
        images=images,
        threat=threat,
        results=results,
        figures=figures(results, good) if good else None,
        aimed=own,
        known=broken_images(results, own, images),
        suite=tuple(sorted(in_words(cell, grid.config) for cell in grid.cells)),
        left_out=tuple(f"{row.attack}: {row.why}" for row in rows if row.left_out),
        failed=tuple(f"{row.attack}: {row.why}" for row in rows if not row.ok and not row.left_out),
        doubts=(*audits.get(about, ()), *_of_rows(results)),
        identity=identity,
    )


def _identity(check: Check, model: nn.Module, behaviour: str | None, device: torch.device) -> dict[str, Any]:
    """Which model it is, and what measured it."""
    made = environment(device)
    return {
        "model": check.model if check.variant is None else f"{check.model} {check.variant}",
        "weights": weights_digest(model)[:16],
        "behaviour": None if behaviour is None else behaviour[:16],
        "seed": check.seed,
        "versions": {name: made[name] for name in ("robustbench_local", "torch")},
        "device": made["device"],
    }


def _audit(model: nn.Module, images: Images, threat: ThreatModel, count: int, effort: Effort) -> tuple[Finding, ...]:
    """What the checklist has against the model, asked about images from all over the set.

    It audits a plain PGD, which is quick and shows what hides from gradients. How strong that one is matters to nobody:
    the suite's own attacks are doubted by the audit of their rows.
    """
    places = torch.linspace(0, len(images) - 1, min(count, len(images)), device=images.labels.device).long()
    card = audit_model(model, images[places], images.labels[places], threat, effort=effort, classes=len(images.classes))
    return tuple(fault for fault in card.faults if fault.check not in OF_STRENGTH)


def _of_rows(results: Results) -> tuple[Finding, ...]:
    """What audits of the rows have against the attacks."""
    found = [each.finding for audit in results.audits for each in audit.findings]
    return tuple(finding for finding in found if finding.status > Status.SOUND)
