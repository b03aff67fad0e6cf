"""Rows of a grid that lie, and honest ones."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_local.attacks.fgsm import FGSM
from robustbench_local.attacks.noise import Noise
from robustbench_local.attacks.pgd import PGD
from robustbench_local.attacks.square import Square
from robustbench_local.core.attack import Attack
from robustbench_local.core.defense import Deployed
from robustbench_local.core.threat import ThreatModel
from robustbench_local.evaluation.evaluate import Tensors
from robustbench_local.evaluation.judge import Judge
from robustbench_local.metrics.summary import summarise
from robustbench_local.storage.row import Row
from tests.helpers.audit_cases.asking import NoisyLayer
from tests.helpers.audit_cases.attacks import Mistuned, TooFar, WrongUnit
from tests.helpers.audit_cases.case import zoo
from tests.helpers.audit_cases.honest import BitSqueeze
from tests.helpers.audit_cases.outputs import Loud, Softmax


def evaluated(model: nn.Module, x: Tensor, y: Tensor, attack: Attack, threat: str, **judging: Any) -> tuple[Any, Any]:
    """(row, arrays) as a grid would store them."""
    judge = Judge(**({"eot": 3, "draws": 5} | judging))
    ids = torch.arange(len(x))
    verdict = judge(model, Tensors(x, y, ids), attack, ThreatModel.parse(threat))
    settings = {name: getattr(judge, name) for name in ("seed", "count", "precision", "budget", "eot", "draws")}
    definition = settings | {
        "data": "mnist",
        "split": "test",
        "data_digest": "-",
        "ids": f"0:{len(x)}",
        "model": type(model).__name__,
        "weights_digest": "-",
        "defense": "none",
        "defense_settings": {},
        "defense_version": 1,
        "attack": type(attack).__name__.lower(),
        "attack_settings": asdict(attack),
        "attack_version": 1,
        "access": attack.access.name.lower(),
        "threat": threat,
        "eps": ThreatModel.parse(threat).eps,
        "targets": None,
        **({} if judge.adaptive else {"adaptive": False}),
    }
    row = Row(
        status="ok",
        key=secrets.token_hex(12),
        definition=definition,
        results=summarise(verdict, [str(k) for k in range(10)]),
        environment={"robustbench_local": "-", "torch": torch.__version__, "device": "cpu"},
    )
    arrays = {name: getattr(verdict, name).numpy() for name in ("robust", "clean", "distance", "ids")}
    return row, arrays


Rows = Callable[[Tensor, Tensor], list[tuple[Any, Any]]]


EPS = "linf:0.3"


def rows_of(model: Callable[[], nn.Module], *runs: tuple[Attack, dict[str, Any]], threat: str = EPS) -> Rows:
    return lambda x, y: [evaluated(model(), x, y, attack, threat, **judging) for attack, judging in runs]


def without_settings(x: Tensor, y: Tensor) -> list[tuple[Any, Any]]:
    ((row, arrays),) = rows_of(lambda: zoo("none"), (FGSM(), {}))(x, y)
    del row["definition"]["seed"], row["results"]["forwards_mean"]
    return [(row, arrays)]


def shrinking(x: Tensor, y: Tensor) -> list[tuple[Any, Any]]:
    """An attack that fails in the larger ball: its step is made for a smaller one."""
    net = zoo("none")
    return [evaluated(net, x, y, Mistuned(), threat) for threat in ("linf:0.15", EPS)]


LIARS: dict[str, tuple[Rows, str]] = {
    "rows: judged on the last iterate": (
        rows_of(lambda: zoo("adversarial_training"), (PGD(steps=10), {"count": "last"})),
        "nothing found is lost",
    ),
    "rows: one draw of a random model": (
        rows_of(lambda: zoo("noise_fusion"), (PGD(steps=3), {"draws": 1, "eot": 1})),
        "single draws are not counted",
    ),
    "rows: only a static attack": (
        rows_of(lambda: Deployed(zoo("none"), [BitSqueeze()]), (PGD(steps=5), {"adaptive": False})),
        "a defense met an adaptive attack",
    ),
    "rows: gradients weaker than scores": (
        rows_of(lambda: Loud(zoo("none")), (PGD(steps=10), {}), (Square(steps=100), {})),
        "gradients beat what sees less",
    ),
    "rows: probabilities": (rows_of(lambda: Softmax(zoo("none")), (PGD(steps=5), {})), "set-up"),
    "rows: undeclared randomness": (rows_of(lambda: NoisyLayer(zoo("none")), (FGSM(), {})), "set-up"),
    "rows: an eps in the wrong unit": (
        rows_of(lambda: zoo("adversarial_training"), (WrongUnit(), {})),
        "the budget is used",
    ),
    "rows: out of the ball": (rows_of(lambda: zoo("adversarial_training"), (TooFar(), {})), "set-up"),
    "rows: too few steps": (
        rows_of(
            lambda: zoo("none"),
            (PGD(steps=2, step_size=0.02, random_start=False), {}),
            (PGD(steps=20, step_size=0.02, random_start=False), {}),
        ),
        "steps and restarts suffice",
    ),
    "rows: iterating helps nothing": (
        rows_of(lambda: zoo("none"), (FGSM(), {}), (PGD(steps=3, step_size=0.001, random_start=False), {})),
        "iterating helps",
    ),
    "rows: fails in the larger ball": (shrinking, "success grows with eps"),
    "rows: settings left out": (without_settings, "settings are recorded"),
}


HONEST: dict[str, Rows] = {
    "rows: undefended": rows_of(
        lambda: zoo("none"), (Noise(), {}), (FGSM(), {}), (PGD(steps=10), {}), threat="linf:0.1"
    ),
    "rows: adversarially trained": rows_of(
        lambda: zoo("adversarial_training"),
        (Noise(), {}),
        (FGSM(), {}),
        (PGD(steps=10), {}),
        (PGD(steps=20), {}),
        (Square(steps=100), {}),
        (PGD(steps=20), {"count": "all"}),
    ),
    "rows: noise at run time": rows_of(lambda: zoo("noise_fusion"), (FGSM(), {}), (PGD(steps=5), {})),
    "rows: bit depth with BPDA": rows_of(
        lambda: Deployed(zoo("none"), [BitSqueeze()]), (PGD(steps=10), {}), (PGD(steps=10), {"adaptive": False})
    ),
}
