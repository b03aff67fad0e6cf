"""The attacks and threats of a call, however they are written -> each attack within each threat that it knows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from robustbench_local.config.plugins import find_attack, name_of, named
from robustbench_local.config.settings import check_fields, shown
from robustbench_local.core.access import beyond, granted
from robustbench_local.core.attack import Attack
from robustbench_local.core.errors import AccessError, ConfigError
from robustbench_local.core.threat import Norm, ThreatModel
from robustbench_local.evaluation.evaluate import JUDGE_SETTINGS
from robustbench_local.grids.cell import changed_settings
from robustbench_local.grids.plan import as_list, within
from robustbench_local.grids.suites import chosen


@dataclass(frozen=True)
class Planned:
    """An attack within a threat model, and what it is called among the others."""

    name: str
    attack: Attack
    threat: ThreatModel


def several(value: Any) -> list[Any]:
    """A list, of one or of several; a pair ("linf", 8/255) is one threat."""
    pair = isinstance(value, tuple) and len(value) == 2 and value[0] in list(Norm) and ":" not in str(value[1])
    if isinstance(value, str | Attack | Mapping | ThreatModel) or pair:
        return [value]
    if not isinstance(value, Iterable):
        raise ConfigError(f"{shown(value)}: give a list of attacks or threats, or one of them")
    return list(value)


def one_attack(entry: Any, settings: Mapping[str, Any]) -> tuple[str, Attack]:
    """(name, attack) of an entry: a name, {name: settings} or an Attack."""
    if isinstance(entry, Attack):
        if settings:
            raise ConfigError(f"{', '.join(settings)}: settings of an attack that is built already; give them to it")
        check_fields(entry)
        return name_of(entry), entry
    if isinstance(entry, type) and issubclass(entry, Attack):
        raise ConfigError(f"{entry.__name__} is a class: write {entry.__name__}(), with its settings within")
    name, own = named(entry, "attack")
    return name, find_attack(name, {**own, **settings}, JUDGE_SETTINGS)


def planned(entries: Sequence[Any], threats: Sequence[ThreatModel], model: nn.Module, data: str) -> list[Planned]:
    """Every attack within the threats that it knows, suites written out; what the model does not grant is left out.

    Of namesakes the name says which settings are not the usual ones. AccessError where nothing is left.
    """
    norms = {threat.norm for threat in threats}
    found: list[Planned] = []
    refused: list[str] = []
    for entry in entries:
        for each in [entry] if isinstance(entry, Attack | type) else chosen([entry], granted(model), data, norms):
            name, attack, own = _with_threats(each)
            if reason := beyond(attack.access, model):
                refused.append(f"{name} {reason}")
                continue
            found += [Planned(name, attack, threat) for threat in own or within(name, attack, list(threats))]
    if refused and not found:
        raise AccessError(f"{'; '.join(refused)}: choose an attack that needs less")
    for text in refused:
        warnings.warn(f"left out: {text}", stacklevel=4)
    if not found:
        raise ConfigError("no attack and no threat to evaluate within: attacks and threats must not be empty")
    often = Counter(name for name, _ in {(pair.name, repr(pair.attack)) for pair in found})
    return [replace(pair, name=_told_apart(pair)) if often[pair.name] > 1 else pair for pair in found]


def _with_threats(entry: Any) -> tuple[str, Attack, list[ThreatModel]]:
    """(name, attack, the threats that a suite's entry names itself)."""
    if isinstance(entry, Attack | type):
        return *one_attack(entry, {}), []
    name, settings = named(entry, "attack")
    own = as_list(settings.pop("threat", None)) + as_list(settings.pop("threats", None))
    return *one_attack(name, settings), [ThreatModel.parse(each) for each in own]


def _told_apart(pair: Planned) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in changed_settings(pair.attack).items())
    return f"{pair.name}({settings})" if settings else pair.name
