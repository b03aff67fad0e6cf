"""What `list` shows: attacks, defenses, grids, models, data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from robustbench_local.config import reading
from robustbench_local.config.plugins import ATTACKS, DEFENSES, Group, Setting, listing, settings_of
from robustbench_local.core.errors import PluginError
from robustbench_local.data.load import describe
from robustbench_local.models.architectures import ARCHITECTURES
from robustbench_local.models.format import Format
from robustbench_local.models.load import formats
from robustbench_local.models.zoo import zoo_entry, zoo_names
from robustbench_local.storage.cache_folder import CACHE_VARIABLE, cache_folder


@dataclass(frozen=True)
class Item:
    """One thing there is: its name, one line about it, and more by key; empty values are not shown."""

    name: str
    about: str
    facts: Mapping[str, str] = field(default_factory=dict)


def attacks() -> list[Item]:
    """With access, norms, settings with their defaults, and paper."""
    return _plugins(ATTACKS)


def defenses() -> list[Item]:
    """With settings with their defaults, and paper."""
    return _plugins(DEFENSES)


def grids() -> list[Item]:
    """With the comment that a grid's file begins with."""
    lines = ((name, reading.find("grid", name).read_text(encoding="utf-8")) for name in reading.names("grid"))
    return [Item(name, text.partition("\n")[0].lstrip("# ")) for name, text in lines]


def models() -> list[Item]:
    """Formats; architectures; the zoo's checkpoints with their figures; recipes whose checkpoint is not bundled."""
    with torch.device("meta"):  # shapes without memory
        sizes = [(name, sum(part.numel() for part in make().parameters())) for name, make in ARCHITECTURES.items()]
    nets = [Item(name, f"architecture, {size:,} parameters") for name, size in sizes]
    bundled, recipes = zoo_names(), reading.names("zoo")
    read = [Item(_spelt(kind), kind.summary) for kind in formats()]
    return read + nets + [_zoo(name, bundled=name in bundled) for name in sorted({*bundled, *recipes})]


def _spelt(kind: Format) -> str:
    """How names of a format begin or end: "onnx: .onnx"."""
    return " ".join([*(f"{prefix}:" for prefix in kind.prefixes), *kind.suffixes]) or "NAME"


def data() -> list[Item]:
    """What each data set holds, where it is cached, where it comes from."""
    cache = Item("cache", str(cache_folder()), {"elsewhere": f"set the environment variable {CACHE_VARIABLE}"})
    return [*(Item(row.pop("name"), "data set", row) for row in describe()), cache]


def _zoo(name: str, *, bundled: bool) -> Item:
    if not bundled:
        recipe = reading.read(reading.find("zoo", name), {})
        state = "not bundled" if recipe.get("verified", True) else "unverified: nobody has run it yet"
        return Item(f"zoo:{name}", f"recipe, {state}", {"architecture": recipe["architecture"]})
    entry = zoo_entry(name)
    figures, facts = entry.figures, {"architecture": entry.architecture}
    if figures:
        facts["clean accuracy"] = f"{figures['clean_accuracy']:.2%}"
        facts["robust accuracy"] = "{robust_accuracy:.2%} within {threat}, {attack}, {n} test images".format(**figures)
    facts["trained on"] = f"{entry.metadata.get('hardware', '')}, {entry.metadata.get('minutes', '?')} minutes"
    return Item(f"zoo:{name}", "checkpoint, bundled", facts)


def _plugins(group: Group) -> list[Item]:
    return [
        Item(row.name, f"cannot be used: {row.error}")
        if row.error
        else Item(
            row.name,
            row.summary,
            {
                "access": row.access,
                "norms": ", ".join(row.norms),
                "family": row.family,
                "settings": ", ".join(f"{name}={_plain(value)}" for name, value in row.settings.items()),
                "paper": row.paper,
            },
        )
        for row in listing(group)
    ]


def _plain(value: Any) -> str:
    """As YAML would write it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_plain, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def settings(what: str, name: str) -> list[Setting]:
    """Of an attack or a defense, defaults as YAML would write them; of anything else there are none."""
    group = {"attacks": ATTACKS, "defenses": DEFENSES}.get(what)
    try:
        found = [] if group is None else settings_of(group, name)
    except PluginError:  # its line says so
        return []
    return [replace(setting, default=_plain(setting.default)) for setting in found]


LISTS: dict[str, Callable[[], list[Item]]] = {
    "attacks": attacks,
    "defenses": defenses,
    "grids": grids,
    "models": models,
    "data": data,
}
