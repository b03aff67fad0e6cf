"""Other packages' attacks, called as their own users would: unmetered, the whole batch in one call."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import evaluate

Craft = Callable[[Tensor, Tensor], Tensor]  # images and labels (or targets) -> images
PIP = {
    "art": "adversarial-robustness-toolbox",
    "adv_lib": "adv-lib",
}  # where the distribution has another name than the package
NAMES = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}


def release(package: str) -> str | None:
    """Its version, or None where it is not installed."""
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.metadata.version(PIP.get(package, package))


def peer(
    name: str, settings: Mapping[str, Any], model: nn.Module, threat: ThreatModel, *, targeted: bool, seed: int
) -> Craft:
    """The attack "package:Class" with the settings of its constructor; ball, norm and seed are given where it asks."""
    package, _, kind = name.partition(":")
    build = {
        "torchattacks": _torchattacks,
        "foolbox": _foolbox,
        "art": _art,
        "pyautoattack": _pyautoattack,
        "robustbench_local": _house,
    }[package]

    def craft(x: Tensor, y: Tensor) -> Tensor:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        return build(kind, settings, model, threat, targeted, seed)(x, y)

    return craft


def _made(kind: Callable[..., Any], *first: object, settings: Mapping[str, Any], **offered: object) -> Any:
    known = inspect.signature(kind).parameters
    return kind(*first, **{name: value for name, value in offered.items() if name in known} | dict(settings))


def _torchattacks(
    kind: str, settings: Mapping[str, Any], model: nn.Module, threat: ThreatModel, targeted: bool, seed: int
) -> Craft:
    attack = _made(
        getattr(importlib.import_module("torchattacks"), kind),
        model,
        settings=settings,
        eps=threat.eps,
        pixels=int(threat.eps),
        norm=NAMES.get(threat.norm),
        seed=seed,
    )
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack  # type: ignore[no-any-return]


def _foolbox(
    kind: str, settings: Mapping[str, Any], model: nn.Module, threat: ThreatModel, targeted: bool, seed: int
) -> Craft:
    package = importlib.import_module("foolbox")
    attack = _made(getattr(package.attacks, kind), settings=settings, constraint=str(threat.norm))
    smallest = isinstance(attack, importlib.import_module("foolbox.attacks.base").MinimizationAttack)
    wrapped = package.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)
    criterion = package.criteria.TargetedMisclassification if targeted else package.criteria.Misclassification

    def craft(x: Tensor, y: Tensor) -> Tensor:
        found = attack(wrapped, x, criterion(y), epsilons=None if smallest else threat.eps)[1]
        return torch.where(found.isfinite(), found, x)

    return craft


class _Single(nn.Module):
    """Some of ART's attacks compute in double precision and hand that to the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x.float())
        return answer


def _art(
    kind: str, settings: Mapping[str, Any], model: nn.Module, threat: ThreatModel, targeted: bool, seed: int
) -> Craft:
    attacks = importlib.import_module("art.attacks.evasion")
    wrapper = importlib.import_module("art.estimators.classification").PyTorchClassifier

    def craft(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        classifier = wrapper(
            _Single(model).eval(),
            nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.is_cuda else "cpu",
        )
        attack = _made(
            getattr(attacks, kind),
            classifier,
            settings=settings,
            eps=threat.eps,
            th=int(threat.eps),
            verbose=False,
            norm={Norm.LINF: np.inf, Norm.L2: 2}.get(threat.norm),
            targeted=targeted,
            batch_size=len(x),
        )
        return torch.from_numpy(attack.generate(x=x.cpu().numpy(), y=y.cpu().numpy())).to(x)

    return craft


def _pyautoattack(
    kind: str, settings: Mapping[str, Any], model: nn.Module, threat: ThreatModel, targeted: bool, seed: int
) -> Craft:
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    module = getattr(importlib.import_module("pyautoattack"), kind)
    device = next(model.parameters()).device
    attack = module(model, eps=threat.eps, norm=NAMES[threat.norm], seed=seed, device=device, **settings)
    return lambda x, y: attack.run_standard_evaluation(x, y)[0]


def _house(
    kind: str, settings: Mapping[str, Any], model: nn.Module, threat: ThreatModel, targeted: bool, seed: int
) -> Craft:
    """An attack of this package, where no other has anything of the kind."""
    if targeted:
        raise ValueError(f"{kind} is asked for targets: attacks of this package stand here without, in place of peers")
    return lambda x, y: evaluate(model, x, y, kind, threat, seed, **settings).x_adv
