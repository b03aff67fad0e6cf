"""What a grid file means, cell by cell: every name, setting and threat is resolved before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustbench_local.config import reading
from robustbench_local.config.plugins import find_attack, named
from robustbench_local.config.schema import GridConfig, ModelConfig
from robustbench_local.config.settings import construct
from robustbench_local.core.access import Access
from robustbench_local.core.attack import Attack
from robustbench_local.core.corruption import Corruption
from robustbench_local.core.errors import ConfigError, did_you_mean
from robustbench_local.core.threat import ThreatModel
from robustbench_local.data.catalogue import known
from robustbench_local.grids.cell import Cell
from robustbench_local.grids.certifying import NAME as CERTIFY
from robustbench_local.grids.certifying import Certifying
from robustbench_local.grids.suites import chosen
from robustbench_local.report.model_info import ModelInfo
from robustbench_local.training.builder import ModelBuilder


def read_config(name: str, overrides: Mapping[str, Any]) -> GridConfig:
    """The grid of that name, or in the YAML file of that path; an override replaces what it says.

    Where `data` is narrowed, what the file says for each data set is narrowed as well.
    """
    path = reading.find("grid", name)
    values = reading.read(path, overrides)
    if "data" in overrides:
        left = [str(data) for data in as_list(values["data"])]
        for key in {"models", "threats"} - overrides.keys():
            if isinstance(values.get(key), Mapping):
                values[key] = {data: said for data, said in values[key].items() if data in left}
    return config_of(values, f'grid "{path.stem}"')


def config_of(values: dict[str, Any], what: str) -> GridConfig:
    """The configuration that these keys of a grid mean; `what` names it in errors. ConfigError on any mistake."""
    if isinstance(values.get("ids"), int):
        raise ConfigError(f'ids is {values["ids"]}: YAML reads 10:50 as a number of base 60, so write it ids: "10:50"')
    if isinstance(values.get("weights"), str) and not isinstance(values.get("models"), Mapping):
        values["models"] = [_entry(model) for model in as_list(values.get("models"))]
        if len(values["models"]) == 1:
            values["models"][0]["weights"] = values["weights"]
        else:
            raise ConfigError(f"weights is for one model, and the grid has {len(values['models'])}")
    return construct(GridConfig, values, what)


def resolve(config: GridConfig, builder: ModelBuilder) -> list[Cell]:
    """The cells in the order in which they run; ConfigError, PluginError, ThreatError or ModelError on any mistake."""
    data_sets = [str(data) for data in as_list(config.data)]
    for data in data_sets:
        if ":" not in data:
            known(data)
    seeds = as_list(config.seeds)
    counts = as_list(config.count)
    knowing = as_list(config.adaptive)
    models = _per_data(config.models, data_sets, "models")
    threats = {
        data: [ThreatModel.parse(str(text), config.allow_large) for text in listed]
        for data, listed in _per_data(config.threats, data_sets, "threats").items()
    }
    cells = []
    for data in data_sets:
        common = threats[data]
        norms = {threat.norm for threat in common}
        for model in models[data]:
            for entry in as_list(config.defenses):
                defense, eot, draws = _defense(entry)
                plan = builder.spec(data, _model(model, config), defense)
                entries = chosen(as_list(config.attacks), builder.access(plan), data, norms)
                attacks = [each for entry in entries for each in _severities(entry, config)]
                own = [
                    Cell(
                        plan,
                        each.name,
                        each.attack,
                        threat,
                        seed,
                        count,
                        adaptive,
                        each.n,
                        each.eot or eot or config.eot,
                        each.draws or draws or config.draws,
                        each.random_models,
                    )
                    for each in attacks
                    for threat in each.threats or within(each.name, each.attack, common)
                    for seed in seeds
                    for count in counts
                    for adaptive in knowing
                    if adaptive or each.attack.access is Access.GRADIENTS  # one who only asks, asks what is deployed
                ]
                cells += [*own, *_certificates(config, own)]
    if not cells:
        raise ConfigError("the grid has no cell: data, models, defenses, attacks, threats and seeds must not be empty")
    for cell in cells:
        cell.judge(config)
    defenses = {cell.model.label for cell in cells}
    if config.baseline is not None and config.baseline not in defenses:
        raise ConfigError(
            f'baseline "{config.baseline}" is none of the grid\'s defenses{did_you_mean(config.baseline, defenses)}:'
            f" {', '.join(sorted(defenses))}"
        )
    model_infos(config, cells)
    return cells


def _certificates(config: GridConfig, cells: Sequence[Cell]) -> list[Cell]:
    """For one model's cells: a certificate for each threat model that it is attacked within, of the most images."""
    if config.certify is None:
        return []
    attack = Certifying(config.certify)
    counts: dict[ThreatModel, list[int | None]] = {}
    for cell in cells:
        if not isinstance(cell.attack, Corruption):
            counts.setdefault(cell.threat, []).append(cell.n)
    return [
        Cell(cells[0].model, CERTIFY, attack, threat, 0, "all", n=None if None in each else max(filter(None, each)))
        for threat, each in counts.items()
    ]


def model_infos(config: GridConfig, cells: Sequence[Cell]) -> dict[str, ModelInfo]:
    """Who the models of these cells are of; ConfigError for what is said of none of them."""
    known = {
        name for cell in cells for name in (cell.model.model.label, f"{cell.model.model.label} / {cell.model.label}")
    }
    for name in config.model_info:
        if name not in known:
            raise ConfigError(
                f'model_info says something of "{name}", which is none of the grid\'s models'
                f"{did_you_mean(name, known)}: {', '.join(sorted(known))}"
            )
    return {name: construct(ModelInfo, about, f'model_info of "{name}"') for name, about in config.model_info.items()}


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


@dataclass(frozen=True)
class _Entry:
    """An attack of the list, and what it says of its own."""

    name: str
    attack: Attack
    threats: list[ThreatModel]
    n: int | None
    eot: int | None
    draws: int | None
    random_models: bool


def _severities(entry: Any, config: GridConfig) -> list[_Entry]:
    """The attack of an entry; of a corruption that does not say how severe, one for each of the grid's severities."""
    found = _attack(entry, config)
    severities = as_list(config.severities)
    if not severities or not isinstance(found.attack, Corruption) or "severity" in named(entry, "attack")[1]:
        return [found]
    return [replace(found, attack=replace(found.attack, severity=severity)) for severity in severities]


def _attack(entry: Any, config: GridConfig) -> _Entry:
    """What `pgd` or `{pgd: {steps: 40, threat: "l2:0.5", n: 40}}` means."""
    name, settings = named(entry, "attack")
    n, eot, draws = (_count(settings, of, name) for of in ("n", "eot", "draws"))
    if n is not None and config.n is not None and n >= config.n:
        n = None  # all of the grid's
    random_models = settings.pop("random_models", True)
    if not isinstance(random_models, bool):
        raise ConfigError(f"random_models of {name} is {random_models!r}: it must be true or false")
    texts = as_list(settings.pop("threat", None)) + as_list(settings.pop("threats", None))
    attack = find_attack(name, settings)
    own = [ThreatModel.parse(str(text), config.allow_large) for text in texts]
    for threat in own:
        if threat.norm not in attack.norms:
            raise ConfigError(f"{name} does not know the norm of {threat}: it knows {', '.join(sorted(attack.norms))}")
    return _Entry(name, attack, own, n, eot, draws, random_models)


def _defense(entry: Any) -> tuple[Any, int | None, int | None]:
    """(defense, its own eot, its own draws) of `jpeg` or `{randomized_smoothing: {samples: 32, eot: 2, draws: 2}}`."""
    if not isinstance(entry, Mapping):
        return entry, None, None
    name, settings = named(entry, "defense")
    eot, draws = _count(settings, "eot", name), _count(settings, "draws", name)
    return {name: settings}, eot, draws


def _count(settings: dict[str, Any], of: str, name: str) -> int | None:
    """Take one of the grid's own settings out of those of a plug-in; None where it is not there."""
    count = settings.pop(of, None)
    if count is not None and (type(count) is not int or count < 1):
        raise ConfigError(f"{of} of {name} is {count!r}: it must be a whole number, at least 1")
    return count


def within(name: str, attack: Attack, threats: list[ThreatModel]) -> list[ThreatModel]:
    """Of the grid's threats those that the attack has a norm for; a missing one is a dash in the table.

    A corruption is bound by no norm and takes none of them.
    """
    if isinstance(attack, Corruption):
        return [ThreatModel.parse("none")]
    within = [threat for threat in threats if threat.norm in attack.norms]
    if not within:
        listed = ", ".join(str(threat) for threat in threats) or "none"
        raise ConfigError(
            f"{name} has no threat to attack within: it knows {', '.join(sorted(attack.norms))}, given are {listed}"
        )
    return within


def _per_data(value: Any, data_sets: list[str], what: str) -> dict[str, list[Any]]:
    """{data: list}, of a mapping that says it for every data set, or of one list for all."""
    if not isinstance(value, Mapping):
        return {data: as_list(value) for data in data_sets}
    for key in value:
        if key not in data_sets:
            raise ConfigError(
                f'{what} names the data set "{key}"{did_you_mean(key, data_sets)}: data is {", ".join(data_sets)}'
            )
    missing = [data for data in data_sets if data not in value]
    if missing:
        raise ConfigError(f"{what} says nothing for {', '.join(missing)}")
    return {data: as_list(value[data]) for data in data_sets}


def _entry(model: Any) -> dict[str, Any]:
    if isinstance(model, str):
        return {"name": model}
    if isinstance(model, Mapping):
        return dict(model)
    raise ConfigError(f"model {model!r}: write a name, or {{name: NAME, weights: PATH}}")


def _model(model: Any, config: GridConfig) -> ModelConfig:
    values = _entry(model)
    for key in ("allow_pickle", "trust", "normalise", "expects", "about"):
        values.setdefault(key, getattr(config, key))
    return construct(ModelConfig, values, f"model {values.get('name', model)}")
