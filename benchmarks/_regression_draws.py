"""A worse model, checked on images drawn again and again: how often the check notices, and how often it is shown what
is not so.

Two real models are attacked once, on all test images. Their robust accuracies there count as the true ones, and each
check is of n images drawn from them with replacement, as the formulas have it.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._kept import Row
from benchmarks._regression_reruns import MODELS
from robustbench_local.config.plugins import find_attack
from robustbench_local.data.images import Images
from robustbench_local.metrics.paired import power
from robustbench_local.models.load import load_model
from robustbench_local.regression import lock
from robustbench_local.regression.figures import ATTACKS, Figures
from robustbench_local.regression.judging import POWER, judged
from robustbench_local.regression.measured import Measured, measure
from robustbench_local.regression.multiplicity import settled
from robustbench_local.regression.outcome import Outcome, Verdict
from robustbench_local.regression.session import ALPHA
from robustbench_local.regression.settings import check_of
from robustbench_local.regression.shares import Shares, read, written
from robustbench_local.report.results import Results
from robustbench_local.storage.checkpoints import weights_digest
from robustbench_local.storage.sealing import digest
from robustbench_local.storage.store import Store


@dataclass(frozen=True)
class Pair:
    """A model and one that is less robust: a zoo name, or a function of _regression_models.py."""

    name: str
    first: str
    second: str
    threat: str
    steps: int = 10
    images: int = 10_000
    draws: int = 1  # a random model's fresh draws on each image
    settings: dict[str, int] = field(default_factory=dict)

    @property
    def what(self) -> dict[str, Any]:
        """All that its figures depend on."""
        weights = [weights_digest(load_model(_place(model)))[:16] for model in (self.first, self.second)]
        return {**asdict(self), "attack": "pgd", "version": find_attack("pgd").version, "weights": weights}

    @property
    def key(self) -> str:
        return digest(self.what, 16)


PAIRS = (
    Pair("fixed", "zoo:mnist/adversarial_training", "pruned", "linf:0.3"),
    Pair("random", "Noisy", "noisier", "linf:0.01", images=2000, draws=10, settings={"eot": 3, "draws": 10}),
)


def attacked(pair: Pair) -> Row:
    """Which images are robust in both, as a lock writes it."""
    found = {}
    for which, model in (("first", pair.first), ("second", pair.second)):
        with tempfile.TemporaryDirectory() as folder:
            suite = Path(folder, "suite.yaml")
            suite.write_text(json.dumps({"attacks": [{"pgd": {"steps": pair.steps}}]}), encoding="utf-8")
            asked = {"model": _place(model), "data": "mnist", "threat": pair.threat, "suite": str(suite)}
            check = check_of(asked | {"name": pair.name, "n": pair.images, "device": "cpu"} | pair.settings)
            figures = measure(check, str(Path(folder, "rows"))).figures
            assert figures is not None
            found[which] = written(figures.shares[ATTACKS], pair.draws)
    return found


def shares_of(pair: Pair, row: Row) -> tuple[Shares, Shares]:
    """What `attacked` found: (N,) of both."""
    first, second = (read(row[which], pair.draws, pair.images) for which in ("first", "second"))
    return first, second


def power_of(first: Shares, second: Shares, n: int, limit: float = ALPHA) -> float:
    """What the check says of its power: the formula of McNemar's exact test, of shares the normal limit."""
    apart = first - second
    drop = float(apart.mean())
    if np.isin(apart, (-1, 0, 1)).all():
        return power(n, 2 * limit, drop, float((apart != 0).mean()))  # p is one-sided
    return NormalDist().cdf(drop * math.sqrt(n) / float(apart.std()) - NormalDist().inv_cdf(1 - limit))


def enough(first: Shares, second: Shares) -> int:
    """The fewest images on which the check says that it notices this drop with the power that its words speak of."""
    return next(n for n in count(10) if power_of(first, second, n) >= POWER)


def simulated(pair: Pair, first: Shares, second: Shares, n: int, times: int) -> Row:
    """Checks of `times` draws of n images: how many notice, and how many pass with a margin that is the true drop.

    measured_passed: of a broken twin that holds the measured drop against the margin, and no interval.
    """
    drop = float((first - second).mean())
    generator = np.random.default_rng(0)
    caught, passed, measured_passed = 0, 0, 0
    noticeable: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times):
            rows = generator.integers(0, len(first), n)
            one, other = first[rows], second[rows]
            (comparison,) = checked(pair, one, other, Path(folder)).comparisons
            caught += comparison.rejected
            noticeable += [] if comparison.noticeable is None else [comparison.noticeable]
            passed += checked(pair, one, other, Path(folder), margin=drop).verdict is Verdict.HOLDS
            measured_passed += float((one - other).mean()) <= drop
    return {
        "n": n,
        "times": times,
        "drop": round(drop, 6),
        "exchanged": round(float((np.minimum(1, np.abs(first - second))).mean()) - drop, 6),
        "caught": caught,
        "predicted": round(power_of(first, second, n), 6),
        "two_sided": round(power_of(first, second, n, ALPHA / 2), 6),
        "noticeable": round(mean(noticeable), 6),
        "passed": passed,
        "measured_passed": measured_passed,
    }


def checked(pair: Pair, first: Shares, second: Shares, folder: Path, margin: float | None = None) -> Outcome:
    """The check of the second model against a lock that the first one wrote."""
    last, now = (_measured(pair, shares, folder, margin) for shares in (first, second))
    file = folder / lock.NAME
    lock.write(file, {pair.name: lock.entry_of(last)})
    (outcome,) = settled([judged(now, now.check, lock.read(file)[pair.name], None, ALPHA)], ALPHA)
    return outcome


def _measured(pair: Pair, shares: Shares, folder: Path, margin: float | None) -> Measured:
    """As `measure` would find it on images of which nothing is known but who is robust there."""
    n, device = len(shares), torch.device("cpu")
    pixels, labels = torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64)
    images = Images("mnist", "test", pixels, labels, torch.arange(n), ("any",), "0" * 16, device)
    levels = {"clean": pair.draws, ATTACKS: pair.draws}
    asked = {"model": pair.second, "data": "mnist", "threat": pair.threat, "name": pair.name, "margin": margin}
    return Measured(
        check=check_of(asked),
        model=nn.Identity(),
        images=images,
        threat=None,
        results=Results([], {"": Store(folder)}),
        figures=Figures(np.ones(n), {ATTACKS: shares}, None, levels, None, None),
        aimed=(),
        known=None,
        suite=("pgd",),
        left_out=(),
        failed=(),
        doubts=(),
        identity={"model": "", "weights": "", "behaviour": None, "seed": 0, "versions": {}, "device": "cpu"},
    )


def _place(model: str) -> str:
    return model if model.startswith("zoo:") else f"{MODELS}:{model}"
