"""An unchanged model, checked again and again with other seeds of the attacks: how often the check fails all the same.

Each run is held against a lock that the two runs before it wrote, its last model and its anchor, with the adversarial
images of the last. So three hypotheses are tested: less robust than the last, than the anchor, and masked.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._kept import Row
from robustbench_local.config.plugins import find_attack
from robustbench_local.metrics.paired import compare
from robustbench_local.models.load import load_model
from robustbench_local.regression import known_images, lock
from robustbench_local.regression.figures import ATTACKS
from robustbench_local.regression.judging import judged
from robustbench_local.regression.known_images import KnownImages
from robustbench_local.regression.lock import Entry
from robustbench_local.regression.measured import Audits, Measured, measure
from robustbench_local.regression.multiplicity import settled
from robustbench_local.regression.session import ALPHA, images_beside, write
from robustbench_local.regression.settings import Check, check_of
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.sealing import digest

MODELS = Path(__file__).with_name("_regression_models.py")
BEFORE = 2  # runs that the lock of the next one is made of


@dataclass(frozen=True)
class Case:
    """A model of _regression_models.py, and how it is attacked: by a random search so short that luck decides."""

    name: str
    model: str
    n: int
    threat: str = "l0:6"
    attack: str = "sparse_rs"
    steps: int = 30
    settings: dict[str, int] = field(default_factory=dict)

    @property
    def what(self) -> dict[str, Any]:
        """All that its re-runs depend on."""
        weights = weights_digest(load_model(f"{MODELS}:{self.model}"))[:16]
        return {**asdict(self), "version": find_attack(self.attack).version, "weights": weights, "alpha": ALPHA}

    @property
    def key(self) -> str:
        return digest(self.what, 16)

    def check(self, seed: int, place: Path) -> Check:
        suite = place / "suite.yaml"
        suite.write_text(json.dumps({"attacks": [{self.attack: {"steps": self.steps}}]}), encoding="utf-8")
        asked = {"model": f"{MODELS}:{self.model}", "data": "mnist", "source": "bundled", "device": "cpu"}
        given = {"threat": self.threat, "suite": str(suite), "name": self.name, "n": self.n, "seed": seed}
        return check_of(asked | given | self.settings)


CASES = (Case("fixed", "fixed", 200), Case("random", "Noisy", 100, steps=20, settings={"eot": 2, "draws": 10}))


def reruns(case: Case, start: int, end: int, audits: Audits | None = None) -> Iterator[Row]:
    """A row of each of the seeds from start, at least 2, to end, without it. The model is audited once."""
    audits = {} if audits is None else audits
    before: list[Measured] = []
    key = case.key
    for seed in range(start - BEFORE, end):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            measured = measure(case.check(seed, place), str(place / "rows"), audits=audits)
            if len(before) == BEFORE:
                yield {"case": key, "seed": seed} | rerun(measured, *locked(before, place / lock.NAME))
        before = [*before, measured][-BEFORE:]


def locked(before: list[Measured], file: Path) -> tuple[Entry, KnownImages]:
    """What a lock holds that was written and updated by these, the anchor first, as a later run reads it."""
    for measured in before:
        name, entry = measured.check.key, lock.read(file).get(measured.check.key)
        assert measured.known is not None
        write(file, {name: lock.entry_of(measured, entry, replays=True)}, {name: measured.known})
    known = known_images.read(images_beside(file), name)
    assert known is not None
    return lock.read(file)[name], known


def rerun(measured: Measured, entry: Entry, known: KnownImages) -> Row:
    """What the check says. replays_counted: p of a broken twin, for which old images break the new model as well."""
    (outcome,) = settled([judged(measured, measured.check, entry, known, ALPHA, False)], ALPHA)
    now, then = measured.figures, entry.last.shares[ATTACKS]
    assert now is not None
    unfair = np.minimum(now.shares[ATTACKS], measured.replayed(known))
    return {
        "verdict": str(outcome.verdict),
        "rejected": [f"{each.kind}, {each.against}" for each in outcome.comparisons if each.rejected],
        "doubts": [each.check for each in outcome.doubts],
        "p": {f"{each.kind}, {each.against}": round(each.p, 6) for each in outcome.comparisons},
        "changed": len(outcome.comparisons[0].lost) + len(outcome.comparisons[0].gained),
        "replays_counted": round(compare(then, unfair, "greater").p, 6),
    }
